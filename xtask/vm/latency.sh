# A function that is called now and then, and one that is called all the time; hits are dear here. The program lives on.
. /checks/library.sh
start calls busy
probe latency -p "$pid" -d 8 --json --max-overhead 30 sends tiny >/tmp/out.json
kill -0 "$pid"
result /tmp/out.json

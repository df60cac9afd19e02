# Every thread, now.
. /checks/library.sh
start waits sleeps naps competes
probe dump -p "$pid" --json >/tmp/out.json
result /tmp/out.json

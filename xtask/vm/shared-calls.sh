# A function that many threads of one CPU call, while others preempt them in the middle of its probes. The program lives on.
. /checks/library.sh
start preempted calls 4
probe latency -p "$pid" -d 9 --json --max-overhead 100 step >/tmp/out.json
until grep -q called /tmp/ready; do sleep 0.1; done
kill -0 "$pid"
grep called /tmp/ready >>/tmp/out.json
result /tmp/out.json

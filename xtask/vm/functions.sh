# The calls of a function break a rule; its probes are set in a running process.
. /checks/library.sh
start calls
cat >/tmp/probe.toml <<END
[store]
path = "/tmp/functions"
[sampling]
# Probes cost a multiple under emulation.
max_overhead = "50%"
[[target]]
name = "app"
match = { pid = $pid }
[[function]]
name = "push"
target = "app"
symbol = "sends"
threshold = "10ms"
errors = "<0"
[[rule]]
name = "slow"
target = "app"
metric = "function.p99"
function = "push"
above = "10ms"
for = "3s"
snapshot = { before = "1s", after = "1s" }
END
probe daemon -v --config /tmp/probe.toml &
daemon=$!
id=
while [ -z "$id" ]; do
    sleep 1
    # A daemon that has ended writes no snapshot.
    kill -0 "$daemon"
    id=$(probe snapshots ls --json --config /tmp/probe.toml | sed -n 's/.*"id": *"\([^"]*\)".*/\1/p' | head -n 1)
done
kill -TERM "$daemon"
wait "$daemon"
# The target has survived its probes.
kill -0 "$pid"
probe snapshots get "$id" --json --config /tmp/probe.toml >/tmp/out.json
result /tmp/out.json

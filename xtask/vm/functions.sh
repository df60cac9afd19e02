# A rule on a function, where the kernel lets only CAP_SYS_ADMIN set probes: the daemon says so, and goes on.
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
probe daemon --config /tmp/probe.toml 2>/tmp/said &
daemon=$!
until grep -q 'functions cannot be timed' /tmp/said; do
    sleep 1
    # It goes on.
    kill -0 "$daemon"
done
sleep 2
kill -TERM "$daemon"
wait "$daemon"
kill -0 "$pid"
result /tmp/said

# A service keeps what it opens and the threads that it starts; the daemon tells who did both.
. /checks/library.sh
start hoards /tmp
cat >/tmp/holdings.toml <<CONFIG
[store]
path = "/tmp/holdings"
[[target]]
name = "hoards"
match = { pid = $pid }
[[rule]]
name = "fds"
target = "hoards"
metric = "fds"
above = 60
for = "2s"
snapshot = { before = "2s", after = "1s" }
[[rule]]
name = "threads"
target = "hoards"
metric = "threads"
above = 20
for = "2s"
snapshot = { before = "2s", after = "1s" }
CONFIG
probe daemon -v --config /tmp/holdings.toml 2>/tmp/said &
daemon=$!
until grep -q 'watching pid' /tmp/said; do
    sleep 1
    kill -0 "$daemon"
done
sleep 5
kill -USR1 "$pid"
while [ "$(probe snapshots ls --json --config /tmp/holdings.toml | grep -c '"id"')" -lt 2 ]; do
    sleep 1
    kill -0 "$daemon"
done
kill -TERM "$daemon"
wait "$daemon"
# Not at the end of system calls, which is for kernels that let no functions be traced.
grep -q 'descriptors are seen where they are installed' /tmp/said || { cat /tmp/said; exit 1; }
probe snapshots ls --json --config /tmp/holdings.toml >/tmp/out.json
result /tmp/out.json

# A service turns hot; the daemon keeps the scene.
. /checks/library.sh
start hotcold 6
cat >/tmp/probe.toml <<END
[store]
path = "/tmp/store"
[[target]]
name = "checkout"
match = { pid = $pid }
[[rule]]
name = "checkout-cpu"
target = "checkout"
metric = "cpu"
above = 50.0
for = "2s"
snapshot = { before = "4s", after = "2s" }
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
probe snapshots get "$id" --json --config /tmp/probe.toml >/tmp/out.json
result /tmp/out.json

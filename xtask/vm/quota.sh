# A service in a container whose group, of version 2, allows it a part of a core; it uses all of that.
. /checks/library.sh
mount -t cgroup2 none /sys/fs/cgroup
echo +cpu >/sys/fs/cgroup/cgroup.subtree_control
group=/sys/fs/cgroup/docker-0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef.scope
mkdir "$group"
echo "30000 100000" >"$group/cpu.max"
start hotcold 3
echo "$pid" >"$group/cgroup.procs"
cat >/tmp/quota.toml <<END
[store]
path = "/tmp/quota"
[[target]]
name = "small"
match = { pid = $pid }
[[rule]]
name = "throttled"
target = "small"
metric = "cpu.quota"
above = 60.0
for = "2s"
snapshot = { before = "2s", after = "1s" }
END
probe daemon -v --config /tmp/quota.toml &
daemon=$!
id=
while [ -z "$id" ]; do
    sleep 1
    # A daemon that has ended writes no snapshot.
    kill -0 "$daemon"
    id=$(probe snapshots ls --json --config /tmp/quota.toml | sed -n 's/.*"id": *"\([^"]*\)".*/\1/p' | head -n 1)
done
kill -TERM "$daemon"
wait "$daemon"
probe snapshots get "$id" --json --config /tmp/quota.toml >/tmp/out.json
result /tmp/out.json

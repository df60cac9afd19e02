# Threads that wait for known times.
. /checks/library.sh
start waits naps sleeps
probe record -p "$pid" -e off-cpu -d 4 -o /tmp/out.folded
result /tmp/out.folded

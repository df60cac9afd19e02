# All of the time of threads that wake each other, and of two that share a CPU.
. /checks/library.sh
start waits hands-over competes
probe record -p "$pid" -e cpu,off-cpu --wakers --threads --states -d 4 -o /tmp/out.folded
result /tmp/out.folded

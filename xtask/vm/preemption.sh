# What the kernel says of itself: the way of preemption that it uses is in parentheses.
. /checks/library.sh
mount -t debugfs none /sys/kernel/debug
cat /sys/kernel/debug/sched/preempt >/tmp/out
result /tmp/out

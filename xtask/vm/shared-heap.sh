# An allocator that they share in the same way, with some memory that nobody frees.
. /checks/library.sh
start preempted malloc 4
probe record -p "$pid" -e malloc --live -d 9 --max-overhead 100 --sample-bytes 16KiB -o /tmp/out.folded
until grep -q kept /tmp/ready; do sleep 0.1; done
kill -0 "$pid"
grep kept /tmp/ready >>/tmp/out.folded
result /tmp/out.folded

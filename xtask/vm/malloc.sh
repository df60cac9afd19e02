# Memory that nobody frees, among more that somebody does.
. /checks/library.sh
start heap leak
probe record -p "$pid" -e malloc --live -d 6 --max-overhead 100 --sample-bytes 4KiB -o /tmp/out.folded
result /tmp/out.folded

# Memory that grows at a known rate, beside some that is given back.
. /checks/library.sh
export RATE_MIB=4
start grows leaks takes-and-gives takes-huge
probe record --all -e cpu,page-fault -d 1 -o /tmp/all.json
probe record -p "$pid" -e page-fault --threads -d 4 -o /tmp/out.folded
result /tmp/out.folded

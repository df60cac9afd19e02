# Memory that grows at a known rate, beside some that is given back.
. /checks/library.sh
export RATE_MIB=4
probe record --all -e cpu,page-fault -d 1 -o /tmp/all.json
# After that: a slow machine takes its time, in which all memory would be taken.
start grows leaks takes-and-gives takes-huge
probe record -v -p "$pid" -e page-fault --threads -d 4 -o /tmp/out.folded 2>/tmp/said || { cat /tmp/said; exit 1; }
tail -n 3 /tmp/said
# Functions can be traced here: no other system call is to be slowed down.
if grep 'at the end of all system calls' /tmp/said; then exit 1; fi
result /tmp/out.folded

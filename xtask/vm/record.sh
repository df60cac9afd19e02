# A thousand calls without frame pointers.
. /checks/library.sh
start deep
probe record -p "$pid" -d 4 --user-only -o /tmp/out.folded
result /tmp/out.folded

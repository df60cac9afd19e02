# A command from its first instruction to its end.
. /checks/library.sh
probe record --user-only -o /tmp/out.folded -- deep 3000
result /tmp/out.folded

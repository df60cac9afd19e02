# What the host allows.
. /checks/library.sh
probe check >/tmp/out
result /tmp/out

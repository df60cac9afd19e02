# What the checks share.

# Starts a workload and waits until it says that it is ready; its process id is in $pid, and it ends with the check.
start() {
    "$@" >/tmp/ready &
    pid=$!
    trap 'kill $pid' EXIT
    until grep -q ready /tmp/ready; do sleep 0.1; done
}

# Hands a file to whoever judges the check; what was said before is for people.
result() {
    printf '\n=== result\n'
    cat "$1"
}

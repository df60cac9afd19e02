# What is asked for becomes constants of the programs, so that the verifier sees others each time.
. /checks/library.sh
start waits naps
# Under emulation a sample of an unknown process takes as long as the time to the next one at 99 Hz, and nothing else gets on.
record() {
    probe record -F 19 -e cpu,off-cpu --wakers --threads -d 1 -o /tmp/out.folded "$@" 2>/tmp/said || { cat /tmp/said; exit 1; }
    grep -q napper /tmp/out.folded || { cat /tmp/said /tmp/out.folded; exit 1; }
    echo "$@" >>/tmp/settings
}
record --all
record --all --user-only
record -p "$pid" --kernel-only
record -p "$pid" --user-only --min-wait 1ms
record -vv -- waits naps
grep -q "exec in process" /tmp/said || { cat /tmp/said; exit 1; }
result /tmp/settings

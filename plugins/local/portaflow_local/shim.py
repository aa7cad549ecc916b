"""The process that stands between portaflow and a command: a few lines of sh.

It outlives portaflow, so what must happen come what may is here: the exit code is kept, a
stop that is ignored turns into a kill after the grace, and the time-to-live ends everything.
A supervisor in Python would cost more than most small tasks.
"""

from __future__ import annotations

SCRIPT = r"""
# $1 the thing's folder, $2 its time-to-live and $3 the grace in seconds; the command follows.
# Descriptor 9 is its lock, held until the shim ends and by nothing else.
cd "$1" || exit
echo $$ >pid
# A stop marks first and looks for the pid second: whoever comes second sees the other.
if [ -e stopping ]; then exit; fi
ttl=$2 grace=$3
shift 3
end() {
    trap '' TERM
    kill -TERM 0
    ( sleep "$grace"; kill -KILL 0 ) 9>&- >/dev/null 2>&1 &
}
trap end TERM
( sleep "$ttl" && : >expired && kill -TERM $$ ) 9>&- >/dev/null 2>&1 &
# exec, so that a command named like a builtin of sh is the program of that name.
( cd work && unset PWD OLDPWD && exec 9>&- "$@" ) >>log 2>&1 &
child=$!
while :; do
    wait $child
    code=$?
    kill -0 $child 2>/dev/null || break
done
echo $code >exit
# As with a container: when the main process has ended, what it left behind ends too.
trap '' TERM
kill -KILL 0
"""

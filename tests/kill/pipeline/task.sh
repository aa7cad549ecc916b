# $1 the task, $2 the ledger, $3 the URI of the output, $4 the URI of the input
set -e
echo "$1 begins" >>"$2"
[ -z "$4" ] || cat "${4#file://}"/part >/dev/null
sleep 0.05
mkdir -p "${3#file://}"
echo "$1" >"${3#file://}/part"
echo "$1 ends" >>"$2"

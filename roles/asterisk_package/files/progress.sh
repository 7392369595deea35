#!/bin/sh
# progress.sh UNIT PACKAGE SECONDS: waits until the build has ended or enters another step, SECONDS at the most.
# Prints how far it is; exit code 0: built, 1: failed (prints why), 3: running.
cd "$(dirname "$0")" || exit 1
step() {
    sed -n 's/^== //p' build.log 2>/dev/null | tail -n 1
}
first=$(step)
left=$3
while systemctl is-active --quiet "$1" && [ "$left" -gt 0 ] && [ "$(step)" = "$first" ]; do
    sleep 1
    left=$((left - 1))
done
if systemctl is-active --quiet "$1"; then
    case $(step) in
    *compile*) echo "$(step), $(grep -c '^ *\[C[CXP]' build.log) done" ;;
    *) step ;;
    esac
    exit 3
fi
[ ! -e "$2" ] || exit 0
# The first error is the reason, those after it are its consequences.
grep -m 1 -E -e '^E: ' -e ': (fatal )?error: ' -e 'No space left on device' -e ' \*\*\* ' build.log ||
    echo "it was ended from outside in $(step)"
exit 1

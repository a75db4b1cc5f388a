#!/usr/bin/env bash
# leftovers.sh note|check: what the tests of this checkout could leave on this machine; `check` fails when there is more
# than at `note`. Namespaces and files bear the checkout's mark, processes have it in their environment; of the host's
# interfaces, routes and rules only those count that an agent makes. Another checkout's tests are not seen.
set -euo pipefail
if [ -z "${MARK:-}" ]; then
    : "${DMVPN_TEST_MARK:?the Makefile sets it}"
    # Without the mark in the environment, so that this script and what it starts are not among the processes found.
    exec env -u DMVPN_TEST_MARK MARK="$DMVPN_TEST_MARK" "$0" "$@"
fi
note=target/leftovers.txt

# Every process with our mark that does not wait for this script.
processes() {
    local waiting=" " pid=$PPID path
    while [ "$pid" -gt 1 ]; do
        waiting+="$pid "
        pid=$(awk '/^PPid:/ { print $2 }' "/proc/$pid/status")
    done
    for path in /proc/[0-9]*; do
        [[ $waiting == *" ${path#/proc/} "* ]] && continue
        if grep -zqx "DMVPN_TEST_MARK=$MARK" "$path/environ" 2>/dev/null; then
            echo "process $(tr '\0' ' ' < "$path/cmdline")"
        fi
    done
}

things() {
    processes
    ip netns list | awk -v mark="kdlab-$MARK-" 'index($1, mark) == 1 { print "namespace " $1 }'
    ip -o link show | awk -F': ' '$2 ~ /^dmvpn/ { print "interface " $2 }'
    { ip route show table all; ip -6 route show table all; } | grep -E 'dev dmvpn|proto nhrp' | sed 's/^/route /' || true
    { ip rule; ip -6 rule; } | grep -E 'dmvpn|proto nhrp' | sed 's/^/rule /' || true
    find /tmp /dev/shm -maxdepth 1 -name "kdlab-$MARK-*" -printf 'file %p\n'
    find /sys/fs/cgroup -maxdepth 2 -name "kdlab-$MARK-*" -printf 'cgroup %p\n'
}

case ${1:-} in
    note) mkdir -p target; things | sort -u > "$note" ;;
    check)
        touch -a "$note"
        # Namespaces are dismantled in the background: look again before complaining.
        for _ in 1 2 3 4 5; do
            left=$(things | sort -u | comm -13 "$note" -)
            [ -z "$left" ] && { echo "nothing was left behind"; exit 0; }
            sleep 1
        done
        echo "the tests left something behind:"$'\n'"$left" >&2
        exit 1 ;;
    *) sed -n 2p "$0"; exit 2 ;;
esac

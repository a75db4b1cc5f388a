#!/usr/bin/env bash
# leftovers.sh note|check: what tests could leave on this machine; `check` fails when there is more than at `note`.
set -euo pipefail
note=target/leftovers.txt

# A zombie is no process any more: it waits for its parent, which may be an init that takes its time.
processes() { ps -eo stat=,comm=,args= | awk '$1 !~ /^Z/ && $2 ~ /^(dmvpn-|dmvpnctl|linux\.uml)/ { $1 = ""; print "process" $0 }'; }

things() {
    ip netns list | awk '{ print "namespace " $1 }'
    ip -o link show | awk -F': ' '{ print "interface " $2 }'
    ip route show table all | sed -E 's/ (expires|linkdown|error) ?[^ ]*//g; s/^/route /'
    ip -6 route show table all | sed -E 's/ expires [^ ]*//g; s/^/route /'
    { ip rule; ip -6 rule; } | sed 's/^/rule /'
    processes
    find /tmp /run /var/lib /dev/shm -maxdepth 1 \( -name 'kdlab-*' -o -name '*dmvpn*' -o -name 'vm_file-*' \) -printf 'file %p\n'
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

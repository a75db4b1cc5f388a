#!/usr/bin/env bash
# Fails when the tests left a namespace, process or file of theirs behind.
set -uo pipefail
left=""
ns=$(ip netns list 2>/dev/null | grep -E '^(kd|dm)[a-z]*-' || true); [ -n "$ns" ] && left+=$'\nnamespaces:\n'"$ns"
procs=$(pgrep -a 'dmvpn-(agent|datapath)' || true); [ -n "$procs" ] && left+=$'\nprocesses:\n'"$procs"
files=$(ls -d /tmp/dmvpn-* 2>/dev/null | grep -v interop || true); [ -n "$files" ] && left+=$'\nfiles:\n'"$files"
[ -z "$left" ] || { echo "the tests left something behind:$left" >&2; exit 1; }
echo "nothing was left behind"

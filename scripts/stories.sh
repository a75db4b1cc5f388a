#!/usr/bin/env bash
# stories.sh lab|overlay|interop|kubernetes [NAME]: runs the stories of one kind, or those whose name contains NAME. `overlay` are those
# of `lab` that are told of any network, protected or not (DMVPN_SECURITY, DMVPN_ESP).
set -euo pipefail
kind=$1 only=${2:-}
[ "$(id -u)" = 0 ] || { echo "stories make network namespaces: run as root" >&2; exit 1; }
targets=()
for f in e2e/tests/*.rs; do
    name=$(basename "$f" .rs)
    case $kind/$name in
        interop/interop_*) targets+=(--test "$name");;
        kubernetes/kubernetes_*) targets+=(--test "$name");;
        interop/*|kubernetes/*) ;;
        */interop_*|*/kubernetes_*) ;;
        lab/*) targets+=(--test "$name");;
        overlay/the_lab|overlay/*encrypt*|overlay/certificates|overlay/fail_closed|overlay/flood) ;;
        overlay/*) targets+=(--test "$name");;
    esac
done
exec "${CARGO:-cargo}" test -p dmvpn-e2e "${targets[@]}" -- --test-threads="${STORY_THREADS:-2}" $only

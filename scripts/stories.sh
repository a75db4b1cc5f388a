#!/usr/bin/env bash
# stories.sh lab|interop [NAME]: runs the stories of one kind, or those whose name contains NAME.
set -euo pipefail
kind=$1 only=${2:-}
[ "$(id -u)" = 0 ] || { echo "stories make network namespaces: run as root" >&2; exit 1; }
targets=()
for f in e2e/tests/*.rs; do
    name=$(basename "$f" .rs)
    case $kind/$name in
        interop/interop_*) targets+=(--test "$name");;
        interop/*) ;;
        lab/interop_*) ;;
        lab/*) targets+=(--test "$name");;
    esac
done
exec cargo test -p dmvpn-e2e "${targets[@]}" -- --test-threads="${STORY_THREADS:-2}" $only

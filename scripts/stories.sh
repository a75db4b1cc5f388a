#!/usr/bin/env bash
# stories.sh lab|clear|overlay|interop|kubernetes [NAME]: runs the stories of one kind, or those whose name contains NAME.
#   lab       all of our own, protected as falls to each by its name, or as DMVPN_SECURITY and DMVPN_ESP say
#   clear     a choice of them again, without encryption
#   overlay   those of `lab` that are told of any network, whatever protects it
#   interop   those with foreign routers and routing daemons
#   kubernetes  those on real clusters
set -euo pipefail
kind=$1 names=(${2:+"$2"})
[ "$(id -u)" = 0 ] || { echo "stories make network namespaces: run as root" >&2; exit 1; }
if [ "$kind" = clear ]; then
    export DMVPN_SECURITY=none
    [ ${#names[@]} -gt 0 ] || names=(phase_1_ phase_2_ phase_3_ two_hubs chained garbage narrow_link ipv6 two_port_preserving one_nat in_phase_3)
fi
targets=()
for f in e2e/tests/*.rs; do
    name=$(basename "$f" .rs)
    case $kind/$name in
        interop/interop_*) targets+=(--test "$name");;
        kubernetes/kubernetes_*) targets+=(--test "$name");;
        interop/*|kubernetes/*) ;;
        */interop_*|*/kubernetes_*) ;;
        */many_spokes) ;; # measures: make scale
        lab/*) targets+=(--test "$name");;
        */the_lab|*/*encrypt*|*/certificates|*/fail_closed|*/flood) ;;
        overlay/*|clear/*) targets+=(--test "$name");;
    esac
done
# One that fails does not hide what the others find.
# By name out of the whole workspace, and not `-p dmvpn-e2e`: else cargo would choose the dependencies' features for that
# package alone, and compile them again.
exec "${CARGO:-cargo}" test --workspace --no-fail-fast "${targets[@]}" -- --test-threads="${STORY_THREADS:-2}" "${names[@]}"

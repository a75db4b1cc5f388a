#!/usr/bin/env bash
# build.sh debug|release: builds all binaries with cargo's progress, and says how long it took.
set -euo pipefail
profile=${1:-debug}
flags=(); [ "$profile" = release ] && flags=(--release)
start=$(date +%s)
echo "building ($profile) ..."
"${CARGO:-cargo}" build --workspace --bins "${flags[@]}"
echo "built in $(( $(date +%s) - start )) s"

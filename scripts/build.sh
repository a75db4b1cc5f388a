#!/usr/bin/env bash
# build.sh debug|release: builds all binaries with cargo's progress, and says how long it took.
set -euo pipefail
profile=${1:-debug}
# The examples make cargo choose the features that the tests' dependencies need as well, so that these are not compiled
# once for the programs and once for the tests.
flags=(--examples); [ "$profile" = release ] && flags=(--release)
start=$(date +%s)
echo "building ($profile) ..."
"${CARGO:-cargo}" build --workspace --bins "${flags[@]}"
echo "built in $(( $(date +%s) - start )) s"

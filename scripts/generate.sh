#!/usr/bin/env bash
# Writes every generated file again. The tests of crds and rpc fail when a committed one differs.
set -euo pipefail
UPDATE=1 cargo test --quiet -p dmvpn-crds -p dmvpn-rpc generated
git status --short -- crds rpc docs charts

#!/usr/bin/env bash
# Writes every generated file again. The tests of crds and rpc fail when a committed one differs.
set -euo pipefail
cargo run --quiet -p dmvpn-crds --bin crdgen -- --write .
UPDATE=1 cargo test --quiet -p dmvpn-rpc generated
git status --short -- crds rpc docs charts

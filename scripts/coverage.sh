#!/usr/bin/env bash
# Line coverage of protocols/ by the tests that need no root; fails below MINIMUM percent.
set -euo pipefail
minimum=${MINIMUM:-90}
command -v cargo-tarpaulin >/dev/null || cargo install --locked cargo-tarpaulin
crates=(packet nhrp esp ikev2 identity claims bgp engine netsim)
cargo tarpaulin --profile coverage --engine ptrace --skip-clean --timeout 600 --out Stdout --fail-under "$minimum" \
    "${crates[@]/#/--packages=dmvpn-}" --include-files 'protocols/*/src/*' --exclude-files 'protocols/netsim/*'

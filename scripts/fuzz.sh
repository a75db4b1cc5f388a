#!/usr/bin/env bash
# fuzz.sh MINUTES [TARGET...]: runs each fuzz target so long; stops at the first finding and says how to replay it.
set -euo pipefail
minutes=$1; shift || true
command -v cargo-fuzz >/dev/null || cargo install --locked cargo-fuzz
rustup toolchain list | grep -q nightly || rustup toolchain install nightly --profile minimal
cd fuzz
targets=("$@"); [ ${#targets[@]} -gt 0 ] || mapfile -t targets < <(cargo +nightly fuzz list)
for t in "${targets[@]}"; do
    echo "fuzzing $t for $minutes min"
    cargo +nightly fuzz run "$t" -- -max_total_time=$((minutes * 60)) -rss_limit_mb=2048 -print_final_stats=1 2>&1 | tail -n 12
done

#!/usr/bin/env bash
# Installs what the build and the tests need on Debian or Ubuntu. Safe to run again; quiet when nothing is missing.
set -euo pipefail

declare -A package=( [cc]=gcc [ip]=iproute2 [nft]=nftables [ping]=iputils-ping [curl]=curl [git]=git [pkill]=procps [iperf3]=iperf3 )
missing=()
for tool in "${!package[@]}"; do
    PATH=$PATH:/usr/sbin:/sbin command -v "$tool" >/dev/null || missing+=("${package[$tool]}")
done
if [ ${#missing[@]} -gt 0 ]; then
    [ "$(id -u)" = 0 ] || { echo "setup: run as root, or install: ${missing[*]}" >&2; exit 1; }
    echo "setup: installing ${missing[*]}"
    export DEBIAN_FRONTEND=noninteractive
    # Another checkout may be at it.
    wait=(-o DPkg::Lock::Timeout=300)
    apt-get update -qq "${wait[@]}"
    apt-get install "${wait[@]}" -qq -y --no-install-recommends "${missing[@]}" >/dev/null
fi

if ! command -v cargo >/dev/null; then
    echo "setup: there is no Rust here. Install rustup (Debian 13, Ubuntu 24.04: 'apt-get install rustup && rustup default stable';" >&2
    echo "       elsewhere: https://rustup.rs), then run this again. Rust 1.95 or newer is needed." >&2
    exit 1
fi

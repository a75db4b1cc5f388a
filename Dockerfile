# syntax=docker/dockerfile:1
# One build stage, small targets. By default one image for everything, as the chart expects:
#   docker build -t ghcr.io/kube-dmvpn/kube-dmvpn:0.1.0 .
# or two (chart: operator.image, agent.image):
#   docker build --target operator -t .../operator . && docker build --target agent -t .../agent .
ARG RUST=1.95
ARG DEBIAN=trixie

FROM rust:${RUST}-slim-${DEBIAN} AS build
RUN apt-get update && apt-get install -y --no-install-recommends gcc libc6-dev make perl && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
# The CNI plugin runs on the node, with whatever C library that has, or none: it is linked statically.
RUN --mount=type=cache,target=/usr/local/cargo/registry --mount=type=cache,target=/src/target \
    set -eu; host=$(rustc -vV | sed -n 's/^host: //p'); \
    cargo build --release --locked -p dmvpn-operator -p dmvpn-agent -p dmvpn-dataplane -p dmvpnctl; \
    RUSTFLAGS='-C target-feature=+crt-static' cargo build --release --locked --target "$host" -p dmvpn-cni; \
    mkdir /out; \
    cp target/release/dmvpn-operator target/release/dmvpn-agent target/release/dmvpn-datapath target/release/dmvpnctl \
       "target/$host/release/dmvpn-cni" /out/; \
    strip /out/*

# glibc, libgcc; no shell, no package manager.
FROM gcr.io/distroless/cc-debian13 AS operator
LABEL org.opencontainers.image.source=https://github.com/kube-dmvpn/kube-dmvpn org.opencontainers.image.licenses=Apache-2.0
COPY --from=build /src/LICENSE /usr/share/doc/kube-dmvpn/LICENSE
COPY --from=build /out/dmvpn-operator /usr/bin/
USER 65532:65532
ENTRYPOINT ["/usr/bin/dmvpn-operator"]

# nft is for `dmvpnctl diagnose`, which reads the node's rules; everything else is done without programs of others.
FROM debian:${DEBIAN}-slim AS agent
RUN apt-get update && apt-get install -y --no-install-recommends nftables && rm -rf /var/lib/apt/lists/*
LABEL org.opencontainers.image.source=https://github.com/kube-dmvpn/kube-dmvpn org.opencontainers.image.licenses=Apache-2.0
COPY --from=build /src/LICENSE /usr/share/doc/kube-dmvpn/LICENSE
COPY --from=build /out/dmvpn-agent /out/dmvpn-datapath /out/dmvpn-cni /out/dmvpnctl /usr/bin/
ENTRYPOINT ["/usr/bin/dmvpn-agent"]

# No entry point of its own is needed: the chart names the command of each container.
FROM agent AS kube-dmvpn
COPY --from=build /out/dmvpn-operator /usr/bin/

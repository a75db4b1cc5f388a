#!/usr/bin/env bash
# setup.sh: builds what clusters are made of, from source through the Go module proxy, into the folder of binaries. Does
# nothing when all of it is there and go/ has not changed since; about a quarter of an hour and 4 GB when nothing is.
set -euo pipefail
here=$(cd "$(dirname "$(readlink -f "$0")")" && pwd)
bin=${DMVPN_KUBERNETES_BIN:-/var/cache/kube-dmvpn/kubernetes/bin}
toolchain=1.26.8
programs=(etcd kube-apiserver kube-controller-manager kube-scheduler kube-proxy kubelet kubectl helm
    containerd containerd-shim-runc-v2 ctr runc bridge ptp host-device host-local loopback portmap cnitool)

say() { echo "kubernetes-setup: $*"; }

packages() { # what is used as it is in Debian or Ubuntu, and what cgo needs
    local missing=() p
    for p in iptables busybox-static libseccomp-dev gcc libc6-dev pkg-config binutils util-linux; do
        dpkg-query -W -f '${Status}' "$p" 2>/dev/null | grep -q 'ok installed' || missing+=("$p")
    done
    [ ${#missing[@]} -gt 0 ] && install_packages "${missing[@]}"
    return 0
}
install_packages() {
    [ "$(id -u)" = 0 ] || { echo "kubernetes-setup: run as root, or install: $*" >&2; exit 1; }
    say "installing $*"
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq -o DPkg::Lock::Timeout=300
    apt-get install -o DPkg::Lock::Timeout=300 -qq -y --no-install-recommends "$@" >/dev/null
}

new_enough() { # GO : is it at least the minor version we need?
    local v; v=$("$1" env GOVERSION 2>/dev/null) || return 1
    [ "$(printf '%s\n' "go${toolchain%.*}" "$v" | sort -V | head -n 1)" = "go${toolchain%.*}" ]
}

find_go() { # a Go of the right age: here, or any Go as a means to fetch it as a module, checked by the checksum database
    local own=$bin/../go$toolchain/bin/go any= candidate
    for candidate in "$(command -v go || true)" /usr/local/go/bin/go "$own"; do
        [ -x "$candidate" ] || continue
        if new_enough "$candidate"; then go=$candidate; return; fi
        any=$candidate
    done
    if [ -z "$any" ]; then install_packages golang-go; any=$(command -v go); fi
    local arch module; arch=$("$any" env GOARCH)
    module=golang.org/toolchain@v0.0.1-go$toolchain.linux-$arch
    say "fetching Go $toolchain (this one is $("$any" env GOVERSION))"
    (cd "$(mktemp -d)" && "$any" mod init fetch >/dev/null 2>&1 && "$any" mod download "$module"; rm -rf "$PWD")
    mkdir -p "$bin/../go$toolchain"
    cp -r "$("$any" env GOMODCACHE)/$module/." "$bin/../go$toolchain/"
    # A module's files are read-only and not executable; older Go does not make an exception for toolchains.
    chmod -R u+w "$bin/../go$toolchain"
    chmod +x "$bin/../go$toolchain"/bin/* "$bin/../go$toolchain"/pkg/tool/*/*
    go=$own
}

stamp() { # MODULE : what its binaries were built from
    cat "$here/go/$1/go.mod" "$here/go/$1/go.sum" | sha256sum | cut -d' ' -f1
}

complete() {
    local p; for p in "${programs[@]}"; do [ -x "$bin/$p" ] || return 1; done
}

build() { # MODULE
    local m=$1 flags="-s -w" cgo=0 v start=$SECONDS
    say "building $m ..."
    [ "$m" = runtime ] && cgo=1
    if [ "$m" = kubernetes ]; then
        v=$(cd "$here/go/$m" && "$go" list -m -f '{{.Version}}' k8s.io/kubernetes)
        flags+=" -X k8s.io/component-base/version.gitVersion=$v -X k8s.io/component-base/version.gitMajor=1"
        flags+=" -X k8s.io/component-base/version.gitMinor=$(cut -d. -f2 <<<"$v")"
    fi
    local draft=$bin/.draft-$m
    mkdir -p "$draft"
    # runc refuses pods without seccomp.
    (cd "$here/go/$m" && CGO_ENABLED=$cgo "$go" build -mod=readonly -tags seccomp -trimpath -ldflags "$flags" -o "$draft/" tool)
    [ -e "$draft/server" ] && mv "$draft/server" "$draft/etcd"
    mv "$draft"/* "$bin/"
    rmdir "$draft"
    stamp "$m" > "$bin/.stamp-$m"
    say "built $m in $((SECONDS - start)) s"
}

packages
mkdir -p "$bin"
# Another checkout may be at it.
exec 9>"$bin/.lock"
flock 9
todo=()
for m in etcd runtime helm kubernetes; do
    # Binaries from before there were stamps are taken as they are.
    if [ ! -e "$bin/.stamp-$m" ] && complete; then stamp "$m" > "$bin/.stamp-$m"; fi
    [ "$(cat "$bin/.stamp-$m" 2>/dev/null)" = "$(stamp "$m")" ] || todo+=("$m")
done
if [ ${#todo[@]} -eq 0 ] && complete; then exit 0; fi
[ ${#todo[@]} -gt 0 ] || todo=(etcd runtime helm kubernetes)
find_go
export GOTOOLCHAIN=local
for m in "${todo[@]}"; do build "$m"; done
complete || { echo "kubernetes-setup: built, and yet not all of these are in $bin: ${programs[*]}" >&2; exit 1; }

#!/usr/bin/env bash
# rig.sh: the image of the foreign routers that the interop stories boot: user-mode Linux with kernel mGRE, FRR
# (nhrpd, bgpd), strongSwan and tools, from Debian's packages.
#
#   rig.sh build     make it once (root and apt needed; about 3 minutes, 500 MB); quick when it is there
#   rig.sh where     print its folder
#   rig.sh clean     remove all images
#
# The folder is outside the repository: $DMVPN_INTEROP_CACHE, or /var/cache/kube-dmvpn/interop.
#
# Why user-mode Linux: most kernels that containers and small machines run lack ip_gre, dummy and xt_NFLOG, which a
# Linux DMVPN router is made of. A guest brings its own kernel and boots in a few seconds without virtualisation.
#
# CPUs with AMX (Sapphire Rapids and newer): Debian's guest kernel asks ptrace to set a floating-point state of the
# size it was built for; the host refuses one that is shorter than the CPU's, and the guest aborts at its first
# process. guest/xstate.c is preloaded into it and lays the guest's part over the whole state.
set -euo pipefail
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
SUITE=trixie
PACKAGES=frr,iproute2,iputils-ping,tcpdump,nftables,iptables,kmod,procps,bash,python3-minimal,ethtool,conntrack
PACKAGES+=,strongswan-charon,strongswan-swanctl,libstrongswan-standard-plugins,libstrongswan-extra-plugins
PACKAGES+=,libcharon-extra-plugins
BASE=${DMVPN_INTEROP_CACHE:-/var/cache/kube-dmvpn/interop}
# An image is named by what goes into it, and never changes once it is there: two checkouts that want different ones
# have both, two that want the same share it.
CACHE=$BASE/image-$( { echo "$SUITE $PACKAGES"; cat "$HERE/guest/init" "$HERE/guest/xstate.c"; } | sha256sum | cut -c1-12)

die() { echo "rig: $*" >&2; exit 1; }

build() {
    [ ! -f "$CACHE/complete" ] || return 0
    [ "$(id -u)" = 0 ] || die "building the image needs root"
    mkdir -p "$BASE"
    # Whoever comes second waits, and finds it made.
    exec 9< "$BASE"; flock 9
    [ ! -f "$CACHE/complete" ] || return 0
    echo "rig: building the image of the foreign routers in $CACHE (about 3 minutes, once)"
    local start; start=$(date +%s)
    image
    install -m755 "$HERE/guest/init" "$CACHE/rootfs/usr/local/sbin/rig-init"
    gcc -O2 -shared -fPIC -o "$CACHE/xstate.so" "$HERE/guest/xstate.c" -ldl
    touch "$CACHE/complete"
    echo "rig: built in $(( $(date +%s) - start )) s"
}

image() {
    local work=$CACHE/work mirror
    rm -rf "$CACHE"; mkdir -p "$work"/{lists/partial,archives/partial,deb}
    apt-get update -qq
    ( cd "$work/deb" && apt-get download -qq user-mode-linux mmdebstrap ) || die "apt-get download failed"
    dpkg -x "$work"/deb/user-mode-linux_*.deb "$CACHE/uml"
    dpkg -x "$work"/deb/mmdebstrap_*.deb "$work/mmdebstrap"
    mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' | grep -v security | head -1)
    [ -n "$mirror" ] || die "no Debian mirror in apt's sources"
    # A configuration of its own, so that the host's sources and pins have no say.
    echo "deb $mirror $SUITE main" > "$work/sources.list"
    cat > "$work/apt.conf" <<CONF
Dir::Etc::sourcelist "$work/sources.list";
Dir::Etc::sourceparts "-";
Dir::State::lists "$work/lists";
Dir::Cache "$work";
APT::Sandbox::User "root";
CONF
    APT_CONFIG=$work/apt.conf PATH=$work/mmdebstrap/usr/bin:$PATH mmdebstrap --mode=root --variant=apt \
        --include="$PACKAGES" --aptopt='APT::Install-Recommends "false"' --dpkgopt='path-exclude=/usr/share/man/*' \
        --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
        "$SUITE" "$CACHE/rootfs" "deb $mirror $SUITE main" || die "mmdebstrap failed"
    mkdir -p "$CACHE/rootfs"/{lib/modules,etc/frr,mnt}
    cp -r "$CACHE"/uml/usr/lib/uml/modules/* "$CACHE/rootfs/lib/modules/"
    rm -rf "$work"
}

case ${1:-} in
    build) build ;;
    where) echo "$CACHE" ;;
    clean) rm -rf "$BASE" ;;
    *) sed -n '2,8p' "$0"; exit 2 ;;
esac

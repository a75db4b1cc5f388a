#!/usr/bin/env bash
# Becomes a Kubernetes node. Started by the lab as process 1 of its own PID, mount and UTS namespaces, within the node's
# network namespace. What a node writes below /etc, /opt and /var/lib goes to its own folder; /run is empty at each boot.
#
# ROOT     the node's folder: containerd.toml, kubelet.yaml, kubeconfig, upper/ (what the node wrote)
# NAME     the Node's name and the host name            ADDRESSES  its addresses within the cluster
# BIN      kubelet, containerd, runc, kube-proxy        IMAGES   archives to import
# PROXY    iptables, nftables or none: how kube-proxy works     CLUSTER  the prefix of all pods
set -euo pipefail
mount --make-rprivate /
mount --make-rshared /

# sysfs shows this network namespace only when mounted again, and that hides the cgroups.
mkdir -p "$ROOT/cgroup"
mount --rbind /sys/fs/cgroup "$ROOT/cgroup"
mount -t sysfs none /sys
mount --rbind "$ROOT/cgroup" /sys/fs/cgroup

for path in etc opt var/lib; do
    mkdir -p "$ROOT/upper/$path" "$ROOT/work/$path"
    mount -t overlay node -o "lowerdir=/$path,upperdir=$ROOT/upper/$path,workdir=$ROOT/work/$path" "/$path"
done
mount -t tmpfs -o mode=755 none /run
mkdir -p /run/netns /run/lock
# Containers' file systems are overlays themselves, or hold mounts: these folders may not be part of an overlay.
for path in /var/lib/kubelet /var/lib/containerd /var/log; do
    mkdir -p "$path" "$ROOT/disk$path"
    mount --bind "$ROOT/disk$path" "$path"
done
mkdir -p /opt/cni/bin /etc/cni/net.d /var/log/pods /var/log/containers
for plugin in bridge host-local loopback portmap ptp host-device; do
    [ -e /opt/cni/bin/$plugin ] || cp "$BIN/$plugin" /opt/cni/bin/
done
[ -e "$ROOT/conflist" ] && mv "$ROOT/conflist" /etc/cni/net.d/10-pods.conflist

hostname "$NAME"
export PATH=$BIN:$PATH
containerd --config "$ROOT/containerd.toml" >> /var/log/containerd.log 2>&1 &
for _ in {1..200}; do [ -S /run/containerd/containerd.sock ] && break; sleep .05; done
for archive in "$IMAGES"/*.tar; do
    [ -e "$ROOT/imported-$(basename "$archive")" ] && continue
    ctr -n k8s.io images import --local "$archive" >> /var/log/import.log 2>&1
    touch "$ROOT/imported-$(basename "$archive")"
done
kubelet --config "$ROOT/kubelet.yaml" --kubeconfig "$ROOT/kubelet.kubeconfig" --hostname-override "$NAME" \
    --node-ip "$ADDRESSES" >> /var/log/kubelet.log 2>&1 &
[ "$PROXY" = none ] || kube-proxy --proxy-mode "$PROXY" --kubeconfig "$ROOT/proxy.kubeconfig" --hostname-override "$NAME" \
    --cluster-cidr "$CLUSTER" --conntrack-max-per-core 0 --conntrack-tcp-timeout-established 0 --conntrack-tcp-timeout-close-wait 0 \
    --metrics-bind-address 127.0.0.1:10249 >> /var/log/kube-proxy.log 2>&1 &
# Process 1 reaps what others leave, until it is killed and the whole node with it.
touch "$ROOT/booted"
while :; do wait -n || sleep 1; done

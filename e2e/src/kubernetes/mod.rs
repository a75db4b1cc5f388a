//! Real Kubernetes clusters in the lab: API servers, kubelets, containerd, kube-proxy and Helm, built from source by
//! `make kubernetes-setup`.
//!
//! ```text
//!   control ─┐                        (etcd, kube-apiserver, controllers, scheduler)
//!   node 1 ──┤ lan ─ router ─ wan ─ internet      the router of a private cluster is a NAT
//!   node 2 ──┘
//! ```
//!
//! A cluster's node is a network namespace of the lab as any other, and a PID, mount and UTS namespace: killing its
//! first process kills all its pods. So nothing of a cluster outlives the lab.
//!
//! | cluster `i` | public | behind a NAT |
//! |---|---|---|
//! | node `k` | 203.0.113.`16i+k` | 192.168.`i`.`k`, seen as 203.0.113.`16i+14` |
//! | its pods | 10.`i`.`k`.0/24 | the same |
//! | services | 10.`100+i`.0.0/16 | the same |
//! | dual stack: node `k` | fd00:192:`i`::`k`, on the LAN only | the same |
//! | and its pods | fd00:10:`i`:`k`::/64 | the same |

mod agent;
pub mod cgroup;
mod cluster;
mod control_plane;
pub mod image;
mod kubectl;
mod machine;
mod operator;
pub mod overlay;
mod pki;
mod pod;
mod stage;
mod writes;

pub use agent::LoneAgent;
pub use cluster::{Cluster, Plan};
pub use control_plane::ControlPlane;
pub use image::Image;
pub use machine::{Machine, Proxy};
pub use operator::Operator;
pub use overlay::{Overlay, Resource};
pub use pki::Pki;
pub use pod::{Pod, PodPlan};
pub use stage::{Chapters, Stage, connect, lost_at_most, two_clusters};

use crate::error::{Error, Result};
use std::path::PathBuf;

/// Where `make kubernetes-setup` puts what it builds.
const BINARIES: &str = "/var/cache/kube-dmvpn/kubernetes/bin";

/// The folder of kubectl, kubelet, containerd and so on: `DMVPN_KUBERNETES_BIN`, or where the setup puts it.
#[must_use]
pub fn binaries() -> PathBuf {
    std::env::var_os("DMVPN_KUBERNETES_BIN").map_or_else(|| BINARIES.into(), PathBuf::from)
}

/// One of them.
pub fn tool(name: &str) -> Result<PathBuf> {
    let path = binaries().join(name);
    if path.is_file() {
        Ok(path)
    } else {
        Err(Error::other(format!("there is no {}: run make kubernetes-setup", path.display())))
    }
}

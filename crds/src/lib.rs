//! The API group `kube-dmvpn.io`: what a user asks for ([`DmvpnHub`], [`DmvpnSpoke`]) and what a node is told
//! ([`DmvpnNode`]).
//!
//! The types are the single source: the CRDs' OpenAPI schemas, their CEL rules and the field reference are generated
//! from them ([`schema`], [`reference`](mod@reference), the `crdgen` program), and [`manifest`] holds the same YAML to the same rules on
//! a machine without Kubernetes.
#![forbid(unsafe_code)]

pub mod conditions;
pub mod hub;
pub mod kubernetes;
pub mod manifest;
pub mod node;
pub mod reference;
pub mod schema;
pub mod spec;
pub mod spoke;
pub mod status;
pub mod text;

pub use hub::{DmvpnHub, DmvpnHubSpec};
pub use node::{DmvpnNode, DmvpnNodeSpec};
pub use spoke::{DmvpnSpoke, DmvpnSpokeSpec};

/// The API group of all kinds.
pub const GROUP: &str = "kube-dmvpn.io";
/// The only version so far.
pub const VERSION: &str = "v1alpha1";
/// `apiVersion` as it stands in a manifest.
pub const API_VERSION: &str = "kube-dmvpn.io/v1alpha1";

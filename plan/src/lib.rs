//! Pure functions from what users wrote ([`crds::DmvpnHub`], [`crds::DmvpnSpoke`]) and what is known of the nodes to
//! what each node does ([`crds::DmvpnNodeSpec`]). The operator and the agent without Kubernetes call the same ones.
//!
//! ```text
//! standalone    manifests of a folder + this node  -> its DmvpnNode
//! node          resources that select a node       -> its DmvpnNode, with the addresses it was given; one resource
//!               after the other for the operator, where a mistake in one must not touch the others
//! gateways      a node without a tunnel            -> the nodes it goes by
//! allocate      nodes + pins + who has what        -> tunnel addresses, stable, never twice
//! ```
//!
//! Nothing here reads a clock, a file or the network. Errors are typed and say what a person must change.
#![forbid(unsafe_code)]

mod allocate;
mod error;
mod facts;
mod gateways;
mod node;
mod select;
mod standalone;
mod tunnel;

pub use allocate::{AllocateError, Shares, allocate, share, usable};
pub use error::{PlanError, PlanErrors, ResourceName};
pub use facts::{AddressKind, HubNode, NodeFacts};
pub use gateways::{Gateway, MAX_GATEWAYS, by_gateways};
pub use node::{HubRefs, Member, NodePlan, node};
pub use select::selects;
pub use standalone::standalone;
pub use tunnel::{CLEAR_PORT, ENCRYPTED_PORT, Network, ResourceKind, identity};

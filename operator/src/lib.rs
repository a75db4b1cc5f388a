//! The operator: turns `DmvpnHub` and `DmvpnSpoke` into one `DmvpnNode` per node, and signs nodes' certificates.
//!
//! ```text
//! watch      what the API server says  -> store: what is kept of it, with our own writes
//! world      a snapshot of the stores, pure
//! decide     world -> DmvpnNodes as they are to be (addresses, plan), and what to say of each resource
//! gateways   who has a tunnel, and who goes by whom
//! apply      writes what differs
//! finalize   lets go of deleted resources
//! status     decision + what nodes report -> status of each resource; events say what changed
//! reconcile  the loop that does all this
//! sign       judges one request for a certificate; approve carries it out
//! authority  the CAs that sign: what is wrong with them, before a node asks
//! run        one replica: lease (leader election), then all of the above
//! uninstall  for the chart's pre-delete hook; cleanup of the nodes
//! check      for helm test
//! ```
#![forbid(unsafe_code)]

pub mod addresses;
pub mod apply;
pub mod approve;
pub mod authority;
pub mod check;
pub mod cleanup;
pub mod context;
pub mod decide;
pub mod events;
pub mod finalize;
pub mod gateways;
pub mod lease;
pub mod metrics;
pub mod reconcile;
pub mod retry;
pub mod run;
pub mod sign;
pub mod status;
pub mod store;
pub mod uninstall;
pub mod watch;
pub mod world;

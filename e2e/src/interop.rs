//! Foreign routers: Linux with its own kernel mGRE and FRR, booted as user-mode-linux guests into the lab's Internet.
//!
//! The image is made by `e2e/interop/rig.sh build` (`make interop`), which also says why guests, and what CPUs with
//! AMX need.

mod daemons;
mod guest;
mod router;
mod strongswan;

pub use daemons::Daemons;
pub use guest::{Configuration, Guest};
pub use router::{Frr, KEY, plain_gre};
pub use strongswan::{PSK, Proof, Start, StrongSwan};

//! Parts that hubs and spokes have in common, one file each.

mod admission;
mod announce;
mod hubs;
mod nhrp;
mod routing;
mod security;
mod static_peer;
mod tunnel;
mod underlay;

pub use admission::AdmissionClass;
pub use announce::{Announce, AnnounceMode, PodCidrSource, PodCidrs};
pub use hubs::{HubEncapsulation, HubEntry};
pub use nhrp::{Nhrp, NhrpQuirks};
pub use routing::{Bgp, Routing, StaticRoute};
pub use security::{
    Authentication, Certificates, EspEncapsulation, IssuedBy, IssuerRef, PreSharedKey, Rekey, Revocation,
    Security, SecurityMode, default_esp, default_ike,
};
pub use static_peer::{PeerEncapsulation, StaticPeer};
pub use tunnel::{Mtu, Phase, Tunnel};
pub use underlay::{AddressFrom, Underlay};

/// Is this the value that leaving the field out means? Such fields are not written.
pub(crate) fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

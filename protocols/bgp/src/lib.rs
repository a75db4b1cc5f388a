//! A BGP-4 speaker without I/O, for one tunnel: sessions, RIB, policy.
//!
//! [`Speaker`] holds many neighbours. The driver gives it what happened (a connection was accepted, bytes arrived, a
//! timer is due) and afterwards drains three queues, in this order:
//!
//! 1. [`Speaker::poll_command`]: connect, send, close;
//! 2. [`Speaker::poll_route`]: what the kernel's routing table shall hold;
//! 3. [`Speaker::poll_event`]: what people want to know;
//!
//! and sleeps until [`Speaker::poll_timeout`].
//!
//! How a DMVPN shapes it:
//!
//! - a **hub** accepts neighbours from the tunnel network that nobody configured ([`Config::listen_ranges`]), with the
//!   same ASN (then it reflects, RFC 4456) or another one, also when spokes share theirs;
//! - a **spoke** announces its own prefixes only, so it never becomes a way between others;
//! - in **phase 2** a hub passes a spoke's next hop on unchanged (RFC 4271 §5.1.3, third party), in phases 1 and 3 it
//!   puts its own, and may send a summary instead;
//! - what is believed from whom is asked of [`ImportFilter`], which stands for the peer's claims.
//!
//! The values inside messages (capabilities, path attributes, prefixes) are read and written by `netgauze-bgp-pkt`;
//! the framing around them is ours, so that every value is parsed from a slice of its own and RFC 7606 can be
//! followed exactly. ADR 0002 says why.
//!
//! ```
//! use bgp::{Command, Config, Phase, Role, Speaker};
//! use packet::Instant;
//!
//! let mut config = Config::new(65_010, "10.200.16.1".parse().unwrap(), Role::Spoke, Phase::Three);
//! config.networks = vec!["10.200.0.0/16".parse().unwrap()];
//! config.local_addresses = vec!["10.200.16.1".parse().unwrap()];
//! config.announce = vec!["10.1.0.0/24".parse().unwrap()];
//! let now = Instant::ZERO;
//! let mut speaker = Speaker::new(now, config, 1).unwrap();
//! speaker.add_neighbour(now, "10.200.0.1".parse().unwrap());
//! while let Some(command) = speaker.poll_command() {
//!     assert!(matches!(command, Command::Connect { .. }));
//! }
//! assert!(speaker.poll_route().is_none());
//! ```
#![forbid(unsafe_code)]

mod attributes;
mod bits;
mod config;
mod error;
mod event;
mod family;
mod graceful;
mod message;
mod neighbour;
mod open;
mod policy;
mod rib;
mod session;
mod speaker;
mod timer;
mod update;

pub use attributes::{AsPath, Attributes, Origin, Segment};
pub use config::{Config, ConfigError, Graceful, ImportRules, Limits, Phase, RemoteAs, Restart, Role};
pub use error::{Code, Notification, Subcode};
pub use event::{Command, ConnectionId, DownReason, Event, RouteChange};
pub use family::{Families, Family};
pub use policy::{ImportFilter, Refusal};
pub use speaker::{AcceptError, NeighbourStatus, Speaker, State};
pub use timer::Timer;

/// The well-known port (RFC 4271 §8.2.1).
pub const PORT: u16 = 179;

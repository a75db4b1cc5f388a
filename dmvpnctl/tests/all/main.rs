//! dmvpnctl from the outside.

mod fake;
mod render;
mod replies;
mod socket;

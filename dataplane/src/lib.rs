//! Moves packets between the TAP and the underlay.
#![forbid(unsafe_code)]

pub mod messages;

//! The offloads that make a super-frame the unit of work, one per file: each is probed once at start, and what a
//! kernel or a device lacks is done per packet instead.

pub mod tap_segmentation;
pub mod udp_gro;
pub mod udp_segment;

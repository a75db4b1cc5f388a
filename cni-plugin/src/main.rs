//! `dmvpn-cni`: the CNI plugin.
#![forbid(unsafe_code)]

fn main() {}

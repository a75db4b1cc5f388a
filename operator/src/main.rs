//! `dmvpn-operator`: the command line of the operator.
#![forbid(unsafe_code)]

fn main() {}

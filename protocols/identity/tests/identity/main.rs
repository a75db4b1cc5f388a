//! Certificates as a peer and as an administrator meet them.

use dmvpn_identity as identity;

mod common;

mod foreign;
mod judgement;
mod rules;

//! Any octets as what a peer sends to prove who it is: nothing panics, and whoever is believed is confined as its CA.
#![no_main]

// As the crate of certificates calls it.
extern crate dmvpn_ikev2 as ikev2;

#[path = "../../protocols/identity/tests/corpus/certificate.rs"]
mod certificate;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    certificate::check(bytes);
});

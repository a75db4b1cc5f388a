//! Nothing is allocated per packet.
#![allow(missing_docs)]

use dmvpn_esp::{Keys, Lifetime, Limits, OpenError, Opener, Sealer, Suite};

#[global_allocator]
static ALLOCATOR: assert_no_alloc::AllocDisabler = assert_no_alloc::AllocDisabler;

#[test]
fn sealing_opening_and_refusing_do_not_allocate() {
    for suite in Suite::ALL {
        let keys = Keys { spi: 4711, suite, esn: true, material: vec![7; suite.key_len()].into() };
        let (mut sealer, mut opener) = (Sealer::new(&keys).unwrap(), Opener::new(&keys).unwrap());
        let mut lifetime = Lifetime::new(Limits::NONE.within(suite, true));
        let (mut buffer, mut copy) = ([0; 2000], [0; 2000]);
        assert_no_alloc::reset_violation_count();
        assert_no_alloc::assert_no_alloc(|| {
            for length in 0..1500 {
                let sealed = sealer.seal(&mut buffer, length, 47).unwrap();
                copy[..sealed].copy_from_slice(&buffer[..sealed]);
                assert!(!lifetime.count(length));
                copy[30] ^= 1;
                assert_eq!(opener.open(&mut copy[..sealed]), Err(OpenError::Forged));
                copy[..sealed].copy_from_slice(&buffer[..sealed]);
                assert!(opener.open(&mut buffer[..sealed]).is_ok());
                assert_eq!(opener.open(&mut copy[..sealed]), Err(OpenError::Replayed));
            }
        });
        assert_eq!(assert_no_alloc::violation_count(), 0, "{suite}");
    }
}

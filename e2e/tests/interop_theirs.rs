//! The foreign network alone: Linux mGRE and FRR among themselves, so that a failure beside ours is told from a
//! failure of the rig.

use lab::interop::{Frr, Guest, StrongSwan};
use lab::wait::{self, PATIENCE};
use lab::{Capture, Error, Packet, story};

#[test]
fn frr_spokes_build_a_shortcut_through_an_frr_hub() {
    story("theirs", |lab| {
        let hub = ("198.51.100.1", "10.200.0.1");
        let guests = Guest::boot_all(
            lab,
            &[
                ("fhub", Frr::hub(hub.0, hub.1, "10.1.0.1/24").configuration()),
                ("fa", Frr::spoke("198.51.100.11", "10.200.0.11", "10.11.0.1/24", hub).configuration()),
                ("fb", Frr::spoke("198.51.100.12", "10.200.0.12", "10.12.0.1/24", hub).configuration()),
            ],
        )?;
        let [_, a, b] = &guests[..] else { unreachable!("three guests") };
        a.wait_ping("10.11.0.1", "10.1.0.1")?;
        b.wait_ping("10.12.0.1", "10.1.0.1")?;
        let wire = Capture::start(lab.internet(), &[a.port()])?;
        a.wait_ping("10.11.0.1", "10.12.0.1")?;
        wire.wait_for("a packet on the direct path", PATIENCE, |p| {
            let _ = a.ping("10.11.0.1", "10.12.0.1", 1);
            p.ip.goes("198.51.100.12", "198.51.100.11") && p.ip.carries("10.12.0.1", "10.11.0.1")
        })?;
        assert!(a.show("ip nhrp shortcut")?.contains("10.12.0.0/24"));
        Ok(())
    });
}

#[test]
fn strongswan_encrypts_a_shortcut_between_frr_spokes() {
    story("theirs_encrypted", |lab| {
        let hub = ("198.51.100.1", "10.200.0.1");
        let encrypted = |frr: Frr| frr.encrypted(StrongSwan::default()).configuration();
        let spoke = |n: u8| {
            let (address, tunnel) = (format!("198.51.100.{n}"), format!("10.200.0.{n}"));
            encrypted(Frr::spoke(&address, &tunnel, &format!("10.{n}.0.1/24"), hub))
        };
        let guests = Guest::boot_all(
            lab,
            &[
                ("fhub", encrypted(Frr::hub(hub.0, hub.1, "10.1.0.1/24"))),
                ("fa", spoke(11)),
                ("fb", spoke(12)),
            ],
        )?;
        let [_, a, b] = &guests[..] else { unreachable!("three guests") };
        let wire = Capture::start(lab.internet(), &[a.port()])?;
        a.wait_ping("10.11.0.1", "10.1.0.1")?;
        b.wait_ping("10.12.0.1", "10.1.0.1")?;
        a.wait_ping("10.11.0.1", "10.12.0.1")?;
        // What is in it is known by the keys of their kernels.
        wait::until("an encrypted packet on the direct path", 2 * PATIENCE, || {
            a.ping("10.11.0.1", "10.12.0.1", 1)?;
            let direct = |p: &Packet| p.ip.goes("198.51.100.12", "198.51.100.11") && p.ip.esp().is_some();
            let count = wire.count(|p| direct(p) && p.ip.carries("10.12.0.1", "10.11.0.1"));
            if count > 0 { Ok(()) } else { Err(Error::other("none")) }
        })?;
        assert_eq!(wire.count(|p| p.ip.is_clear()), 0);
        Ok(())
    });
}

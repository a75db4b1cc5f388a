use crate::common::*;
use dmvpn::Phase;

/// Control of a spoke is killed twenty times under load, at any moment, and comes back from its checkpoint: not a packet
/// is lost, and the direct path stays.
#[test]
fn a_spokes_control_is_killed_twenty_times() {
    for phase in BOTH {
        let mut triangle = Triangle::new(31, phase);
        triangle.form_shortcut();
        let Triangle { mut net, hub, a, b } = triangle;
        let there = net.flow(a, b, 500);
        let back = net.flow(b, a, 500);
        net.run_for(secs(1));
        for i in 0..20 {
            net.kill_control(a);
            net.run_for(ms(37 + 61 * i));
            net.restart_control(a);
            net.run_for(ms(211 + 47 * i));
        }
        net.run_for(secs(5));
        for flow in [there, back] {
            let report = net.finish(flow);
            whole(&report);
            assert_eq!(report.way_by_way(), [Vec::new()], "{phase:?}");
        }
        sane(&mut net, &[hub, a, b]);
    }
}

/// It is killed while a shortcut forms.
#[test]
fn control_is_killed_while_a_shortcut_forms() {
    for phase in BOTH {
        for moment in (0..30).step_by(2) {
            let Triangle { mut net, hub, a, b } = Triangle::new(32, phase);
            let there = net.flow(a, b, 100);
            let back = net.flow(b, a, 100);
            net.run_for(ms(10 * moment));
            let victim = if moment % 4 == 0 { a } else { b };
            net.kill_control(victim);
            net.run_for(ms(300));
            net.restart_control(victim);
            net.run_for(secs(40));
            for flow in [there, back] {
                let report = net.finish(flow);
                whole(&report);
                assert_eq!(report.last_way(), Some(&[][..]), "{phase:?}, after {} ms", 10 * moment);
            }
            sane(&mut net, &[hub, a, b]);
        }
    }
}

/// The hub's control is killed: who goes by the hub notices nothing.
#[test]
fn a_hubs_control_is_killed() {
    let Triangle { mut net, hub, a, b } = Triangle::new(33, Phase::One);
    let flow = net.flow(a, b, 500);
    net.run_for(secs(1));
    for i in 0..10 {
        net.kill_control(hub);
        net.run_for(ms(400 + 50 * i));
        net.restart_control(hub);
        net.run_for(ms(300));
    }
    net.run_for(secs(20));
    let report = net.finish(flow);
    whole(&report);
    assert_eq!(report.way_by_way(), [vec![hub]]);
    sane(&mut net, &[hub, a, b]);
}

/// Control stays away for longer than anything lasts: what carries goes on carrying.
#[test]
fn control_stays_away() {
    for phase in BOTH {
        let mut triangle = Triangle::new(34, phase);
        triangle.form_shortcut();
        let Triangle { mut net, a, b, .. } = triangle;
        let there = net.flow(a, b, 100);
        net.run_for(secs(1));
        net.kill_control(a);
        net.run_for(secs(30));
        net.restart_control(a);
        net.run_for(secs(5));
        let report = net.finish(there);
        whole(&report);
        assert_eq!(report.way_by_way(), [Vec::new()], "{phase:?}");
    }
}

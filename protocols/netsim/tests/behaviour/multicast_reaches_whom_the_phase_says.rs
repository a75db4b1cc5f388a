use crate::common::*;

/// A routing protocol's hello from a spoke goes to the hub only; the hub's goes to every spoke. A shortcut changes
/// nothing.
#[test]
fn multicast_reaches_whom_the_phase_says() {
    for phase in BOTH {
        let mut triangle = Triangle::new(121, phase);
        for _ in 0..2 {
            let Triangle { net, hub, a, b } = &mut triangle;
            let before = [*hub, *a, *b].map(|id| net.multicast_received(id));
            net.send_multicast(*a);
            net.run_for(secs(1));
            net.send_multicast(*hub);
            net.run_for(secs(1));
            let after = [*hub, *a, *b].map(|id| net.multicast_received(id));
            let heard: Vec<_> = before.iter().zip(after).map(|(b, a)| a - b).collect();
            assert_eq!(heard, [1, 1, 1], "{phase:?}");
            triangle.form_shortcut();
        }
    }
}

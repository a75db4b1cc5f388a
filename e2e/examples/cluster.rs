//! Clusters to play with: `cluster [--ours] NAME[:NODES][:nat]...` starts them and waits until it is interrupted.
//!
//! Then, as it prints: `ip netns exec NAMESPACE kubectl --kubeconfig FILE ...`.

use lab::kubernetes::{Cluster, Image, Plan, binaries, image};
use lab::{Error, Lab, Nat, NatRouter, Result};
use std::time::{Duration, Instant};

fn main() -> Result {
    let start = Instant::now();
    let lab = Lab::new("clusters")?;
    let mut plans = Vec::new();
    for word in std::env::args().skip(1) {
        if word == "--ours" {
            Image::ours()?.write(&image::folder(&lab)?)?;
            continue;
        }
        let mut parts = word.split(':');
        let index = u8::try_from(plans.len() + 1).map_err(Error::other)?;
        let mut plan = Plan::new(parts.next().unwrap_or_default(), index);
        for part in parts {
            plan = match part {
                "nat" => plan.behind(NatRouter::new(Nat::PortPreserving)),
                nodes => plan.nodes(nodes.parse().map_err(Error::other)?),
            };
        }
        plans.push(plan);
    }
    let clusters = Cluster::start_each(&lab, &plans)?;
    println!("started in {:.1?}", start.elapsed());
    for cluster in &clusters {
        println!(
            "{}: ip netns exec {} {}/kubectl --kubeconfig {}",
            cluster.plan().name,
            cluster.node().namespace().name(),
            binaries().display(),
            cluster.kubeconfig().display()
        );
    }
    // Ctrl-C and SIGTERM clean up.
    loop {
        std::thread::sleep(Duration::from_secs(3600));
    }
}

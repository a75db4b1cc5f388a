//! What resources say of their network: soon when something turns, and seldom when nothing does.

use lab::kubernetes::{Chapters, Cluster, Overlay, Plan, Resource, two_clusters};
use lab::narration::ensure;
use lab::{Error, Lab, Result, heavy_story, wait};
use rpc::agent::{TunnelState, Verdict};
use std::collections::BTreeMap;
use std::thread::sleep;
use std::time::{Duration, Instant};

/// From the moment the last agent is up until its resource says so.
const SOON: Duration = Duration::from_secs(5);
/// From the moment a hub and a spoke are applied at once until both are ready, on a machine that does other things too.
const TOGETHER: Duration = Duration::from_secs(30);
/// How long a network may take for anything.
const PATIENCE: Duration = Duration::from_secs(90);

/// A cluster with a hub, one with a spoke, and how many nodes they are together.
struct Clusters {
    hub: Cluster,
    spoke: Cluster,
}

const NODES: u64 = 3;

#[test]
fn resources_say_soon_what_turned_and_agents_write_once_a_minute_at_most() {
    heavy_story("kubernetes_status", |lab| {
        let clusters = Clusters::new(lab)?;
        let mut chapters = Chapters::default();
        chapters.tell("a_network_that_is_applied_is_ready_soon", || ready_soon(&clusters));
        chapters.tell("what_turns_is_said_soon", || turns(&clusters));
        chapters.tell("diagnose_fails_nothing_in_pods_without_privileges", || diagnosed(&clusters));
        chapters.tell("nothing_is_written_while_nothing_changes", || idle(&clusters));
        chapters.end()
    });
}

impl Clusters {
    fn new(lab: &Lab) -> Result<Self> {
        let [hub, spoke] = two_clusters(lab, Plan::new("a", 2))?;
        Overlay::new(lab)?.install_all(lab, &[&hub, &spoke], &[])?;
        Ok(Self { hub, spoke })
    }

    fn apply(&self) -> Result {
        self.hub.apply(&Resource::hub(self.hub.plan()).text())?;
        self.spoke.apply(&Resource::spoke(self.spoke.plan(), &self.hub.addresses()).text()).map(drop)
    }

    fn all(&self) -> [(&Cluster, &'static str); 2] {
        [(&self.hub, "dmvpnhub"), (&self.spoke, "dmvpnspoke")]
    }
}

/// Waits until the resource's condition `Ready` is this, and returns when that was seen.
fn says(cluster: &Cluster, kind: &str, ready: &str) -> Result<Instant> {
    let what = format!("Ready of {kind} to be {ready}");
    cluster.wait_for(&what, PATIENCE, &[kind, &cluster.plan().name], |object| {
        let conditions = object["status"]["conditions"].as_array().into_iter().flatten();
        let said = conditions.filter(|c| c["type"] == "Ready").find_map(|c| c["status"].as_str());
        if said == Some(ready) { Ok(Instant::now()) } else { Err(object["status"].to_string()) }
    })
}

/// When the resource of a cluster came to be as it is: up with its last node, and down with its first.
fn turned(cluster: &Cluster, up: bool) -> Result<Instant> {
    let mut moments = Vec::new();
    for machine in cluster.machines() {
        let tunnel = machine.ask()?.tunnel()?;
        if (tunnel.state() == TunnelState::Up) == up {
            moments.extend(Instant::now().checked_sub(Duration::from_millis(tunnel.since_ms)));
        } else if up {
            return Err(Error::other(format!("{} is not up: {}", machine.name(), tunnel.reason)));
        }
    }
    let turned = if up { moments.into_iter().max() } else { moments.into_iter().min() };
    turned.ok_or_else(|| Error::other(format!("no node of {} is up: {up}", cluster.plan().name)))
}

fn within(what: &str, took: Duration, most: Duration) -> Result {
    println!("  {what}: {took:.1?}");
    ensure(took <= most, &format!("{what} took {took:.1?}, more than {most:.0?}"))
}

fn ready_soon(clusters: &Clusters) -> Result {
    for round in ["first", "again"] {
        let applied = Instant::now();
        clusters.apply()?;
        for (cluster, kind) in clusters.all() {
            let said = says(cluster, kind, "True")?;
            let up = turned(cluster, true)?;
            println!("  {round}: agents of {kind} are up {:.1?} after it was applied", up - applied);
            within(&format!("{kind} says so"), said.saturating_duration_since(up), SOON)?;
            within(&format!("{kind} is ready"), said - applied, TOGETHER)?;
        }
        if round == "first" {
            for (cluster, kind) in clusters.all() {
                cluster.kubectl(&["delete", kind, &cluster.plan().name, "--timeout=60s"])?;
            }
        }
    }
    Ok(())
}

fn turns(clusters: &Clusters) -> Result {
    let Clusters { hub, spoke } = clusters;
    for (change, ready) in [("add", false), ("del", true)] {
        let route = format!("{}/32", hub.machine(1)?.address());
        spoke.router().run("ip", &["route", change, "blackhole", &route])?;
        let said = says(spoke, "dmvpnspoke", if ready { "True" } else { "False" })?;
        let took = said.saturating_duration_since(turned(spoke, ready)?);
        within(&format!("the spoke says that it is ready: {ready}"), took, SOON)?;
    }
    Ok(())
}

fn diagnosed(clusters: &Clusters) -> Result {
    for machine in clusters.all().into_iter().flat_map(|(cluster, _)| cluster.machines()) {
        for check in machine.ask()?.diagnose()? {
            if check.verdict() != Verdict::Ok {
                println!("  {}: {:?}: {}: {}", machine.name(), check.verdict(), check.name, check.found);
            }
            let what = format!("{}: {}: {}", machine.name(), check.name, check.found);
            ensure(check.verdict() != Verdict::Fail, &what)?;
        }
    }
    Ok(())
}

fn idle(clusters: &Clusters) -> Result {
    let seconds = std::env::var("DMVPN_IDLE_SECONDS").ok().and_then(|s| s.parse().ok()).unwrap_or(120);
    // Counts that changed last are written within the minute.
    sleep(Duration::from_secs(70));
    let count = || -> Result<BTreeMap<String, u64>> {
        let mut all = BTreeMap::new();
        for (cluster, _) in clusters.all() {
            for (what, writes) in cluster.writes()? {
                *all.entry(what).or_default() += writes;
            }
        }
        Ok(all)
    };
    let before = count()?;
    ensure(before.contains_key("dmvpnnodes/status"), &format!("nothing was ever written: {before:?}"))?;
    sleep(Duration::from_secs(seconds));
    let mut by_agents = 0;
    for (what, writes) in count()? {
        let writes = writes - before.get(&what).copied().unwrap_or_default();
        match what.as_str() {
            "dmvpnnodes/status" => by_agents = writes,
            _ => ensure(writes == 0, &format!("{writes} writes of {what} while nothing changed"))?,
        }
    }
    println!("  {NODES} nodes, {seconds} s: {by_agents} writes by agents, none by operators");
    let most = NODES * seconds.div_ceil(60);
    ensure(by_agents <= most, &format!("{by_agents} writes of statuses, more than {most}"))?;
    wait::until("agents to be up", PATIENCE, || turned(&clusters.spoke, true)).map(drop)
}

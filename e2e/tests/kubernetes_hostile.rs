//! Nodes as hard as users' nodes: the masquerade rules of flannel and kindnet, a FORWARD chain that drops, and the rules
//! that a policy engine makes of NetworkPolicies. The rules are those programs', the programs are not here.

use lab::kubernetes::{
    Chapters, Cluster, Machine, Overlay, Plan, Pod, PodPlan, Proxy, connect, two_clusters,
};
use lab::narration::ensure;
use lab::traffic::Ping;
use lab::wait::{self, PATIENCE};
use lab::{Error, Lab, Result, story};
use std::time::Duration;

#[test]
fn rules_of_others_rewrite_no_source_and_what_they_drop_is_dropped_or_explained() {
    story("kubernetes_hostile", |lab| {
        let scene = Scene::new(lab)?;
        let mut chapters = Chapters::default();
        chapters.tell("flannels_rules_rewrite_no_source", || scene.with(flannel, Scene::sources_are_kept));
        chapters.tell("kindnets_rules_rewrite_no_source", || scene.with(kindnet, Scene::sources_are_kept));
        chapters.tell("kindnets_older_rules_rewrite_no_source", || {
            scene.with(masquerade_agent, Scene::sources_are_kept)
        });
        chapters.tell("what_a_forward_policy_drops_passes_as_diagnose_says", || {
            scene.with(forward_drop, Scene::diagnose_helps)
        });
        chapters.tell("a_network_policy_holds_remote_pods_and_an_ip_block_lets_them_in", || policies(&scene));
        chapters.end()
    });
}

/// A hub's and a spoke's cluster of a node each, and a server on each.
struct Scene {
    clusters: [Cluster; 2],
    pods: Vec<Pod>,
}

/// What is done to a node, and how it is undone: shell.
type Rules = fn(&Machine) -> (String, String);

impl Scene {
    fn new(lab: &Lab) -> Result<Self> {
        let clusters = two_clusters(lab, Plan::new("a", 2).nodes(1).proxy(Proxy::Nftables))?;
        let [hub, a] = &clusters;
        Overlay::new(lab)?.install_all(lab, &[hub, a], &[])?;
        let pods =
            vec![hub.run_pod(&PodPlan::web("far", "hello"))?, a.run_pod(&PodPlan::web("near", "hello"))?];
        connect(hub, a)?;
        let this = Self { clusters, pods };
        this.wait_reachable()?;
        Ok(this)
    }

    /// On every node these rules, and then none of them again.
    fn with(&self, rules: Rules, told: fn(&Self) -> Result) -> Result {
        let machines: Vec<Machine> = self.clusters.iter().flat_map(|cluster| cluster.machines()).collect();
        for machine in &machines {
            shell(machine, &rules(machine).0)?;
        }
        let outcome = told(self);
        for machine in &machines {
            shell(machine, &rules(machine).1)?;
        }
        outcome?;
        self.wait_reachable()
    }

    fn wait_reachable(&self) -> Result {
        wait::until("the pods to reach each other", 2 * PATIENCE, || {
            Ping::times(3).expect(self.pods[0].host(), &self.pods[1].address)?;
            Ping::times(3).expect(self.pods[1].host(), &self.pods[0].address)
        })?;
        Ok(())
    }

    /// Connections that begin now: each server sees the other pod's own address.
    fn sources_are_kept(&self) -> Result {
        for (from, to) in [(0, 1), (1, 0)] {
            let before = self.clusters[to].pod_log(&self.pods[to].name)?.lines().count();
            for _ in 0..3 {
                self.fetch(from, to)?;
            }
            let log = self.clusters[to].pod_log(&self.pods[to].name)?;
            let new: Vec<&str> = log.lines().skip(before).collect();
            let address = format!("{}]:", self.pods[from].address);
            let known = !new.is_empty() && new.iter().all(|line| line.contains(&address));
            ensure(known, &format!("asked by {address} {new:?}"))?;
        }
        Ok(())
    }

    fn diagnose_helps(&self) -> Result {
        ensure(self.fetch(1, 0).is_err(), "a FORWARD chain that drops lets connections begin")?;
        for cluster in &self.clusters {
            let machine = cluster.machine(1)?;
            let checks = machine.ask()?.diagnose()?;
            let check = checks.iter().find(|check| check.name == "forward policy");
            let check = check.ok_or_else(|| Error::other(format!("it is not said: {checks:?}")))?;
            let commands = check.advice.split_once("on the node: ").map(|(_, commands)| commands);
            let commands = commands.ok_or_else(|| Error::other(format!("no advice: {check:?}")))?;
            ensure(commands.contains("dmvpn0"), commands)?;
            shell(&machine, commands)?;
        }
        self.sources_are_kept()
    }

    fn fetch(&self, from: usize, to: usize) -> Result<String> {
        self.clusters[from].fetch(&self.pods[from].name, &self.pods[to].address)
    }
}

/// The prefix of a node's pods, and that of all pods of its cluster.
fn pods(machine: &Machine) -> (&str, String) {
    let own = machine.pods()[0].as_str();
    let octets: Vec<&str> = own.split('.').take(2).collect();
    (own, format!("{}.0.0/16", octets.join(".")))
}

/// As flannel makes them (`--ip-masq`, and those that accept what is forwarded).
fn flannel(machine: &Machine) -> (String, String) {
    let (own, all) = pods(machine);
    let make = format!(
        "set -e
        iptables -t nat -N FLANNEL-POSTRTG
        iptables -t nat -I POSTROUTING -j FLANNEL-POSTRTG
        iptables -t nat -A FLANNEL-POSTRTG -m mark --mark 0x4000/0x4000 -j RETURN
        iptables -t nat -A FLANNEL-POSTRTG -s {own} -d {all} -j RETURN
        iptables -t nat -A FLANNEL-POSTRTG -s {all} -d {own} -j RETURN
        iptables -t nat -A FLANNEL-POSTRTG ! -s {all} -d {own} -j RETURN
        iptables -t nat -A FLANNEL-POSTRTG -s {all} ! -d 224.0.0.0/4 -j MASQUERADE --random-fully
        iptables -t nat -A FLANNEL-POSTRTG ! -s {all} -d {all} -j MASQUERADE --random-fully
        iptables -N FLANNEL-FWD
        iptables -I FORWARD -j FLANNEL-FWD
        iptables -A FLANNEL-FWD -s {all} -j ACCEPT
        iptables -A FLANNEL-FWD -d {all} -j ACCEPT
        iptables -P FORWARD DROP"
    );
    let undo = "iptables -P FORWARD ACCEPT
        iptables -D FORWARD -j FLANNEL-FWD; iptables -F FLANNEL-FWD; iptables -X FLANNEL-FWD
        iptables -t nat -D POSTROUTING -j FLANNEL-POSTRTG
        iptables -t nat -F FLANNEL-POSTRTG; iptables -t nat -X FLANNEL-POSTRTG";
    (make, undo.to_owned())
}

/// As kindnet makes them, again whenever a Node changes: so its chain is younger than the agent's.
fn kindnet(machine: &Machine) -> (String, String) {
    let (_, all) = pods(machine);
    let make = format!(
        "nft 'table inet kindnet-ipmasq {{
            set noMasqV4 {{ type ipv4_addr; flags interval; auto-merge; elements = {{ {all} }}; }}
            chain postrouting {{
                type nat hook postrouting priority srcnat - 10; policy accept;
                ct state established,related accept
                fib daddr type local accept
                ip daddr @noMasqV4 accept
                masquerade
            }}
        }}'"
    );
    (make, "nft delete table inet kindnet-ipmasq".to_owned())
}

/// As kind's nodes had them before.
fn masquerade_agent(machine: &Machine) -> (String, String) {
    let (_, all) = pods(machine);
    let make = format!(
        "set -e
        iptables -t nat -N KIND-MASQ-AGENT
        iptables -t nat -I POSTROUTING -m addrtype ! --dst-type LOCAL -j KIND-MASQ-AGENT
        iptables -t nat -A KIND-MASQ-AGENT -d {all} -j RETURN
        iptables -t nat -A KIND-MASQ-AGENT -j MASQUERADE"
    );
    let undo = "iptables -t nat -D POSTROUTING -m addrtype ! --dst-type LOCAL -j KIND-MASQ-AGENT
        iptables -t nat -F KIND-MASQ-AGENT; iptables -t nat -X KIND-MASQ-AGENT";
    (make, undo.to_owned())
}

/// As Docker leaves it, without a network plugin that accepts pods. Undoing takes away what `diagnose` advised, too.
fn forward_drop(_: &Machine) -> (String, String) {
    let undo = "iptables -P FORWARD ACCEPT
        iptables -D FORWARD -i dmvpn0 -j ACCEPT; iptables -D FORWARD -o dmvpn0 -j ACCEPT; true";
    ("iptables -P FORWARD DROP".to_owned(), undo.to_owned())
}

/// As kube-router makes them of policies for one pod: what none of these blocks covers is rejected.
fn policy(pod: &str, blocks: &[&str]) -> String {
    let accept: Vec<String> =
        blocks.iter().map(|block| format!("iptables -A KUBE-POD-FW -s {block} -j ACCEPT")).collect();
    format!(
        "set -e
        iptables -N KUBE-POD-FW
        iptables -A KUBE-POD-FW -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
        {}
        iptables -A KUBE-POD-FW -j REJECT
        iptables -I FORWARD -d {pod} -j KUBE-POD-FW",
        accept.join("\n")
    )
}

fn no_policy(pod: &str) -> String {
    format!("iptables -D FORWARD -d {pod} -j KUBE-POD-FW; iptables -F KUBE-POD-FW; iptables -X KUBE-POD-FW")
}

fn policies(scene: &Scene) -> Result {
    let [far, near] = &scene.pods[..] else { unreachable!("two pods") };
    let machine = scene.clusters[1].machine(1)?;
    let blocks = scene.clusters[0].plan().pods(1);
    let block = blocks[0].as_str();
    let patience = Duration::from_secs(1);
    // Another cluster's block, none, and the right one.
    for (blocks, allowed) in [(&["10.9.0.0/16"][..], false), (&[], false), (&[block], true)] {
        shell(&machine, &policy(&near.address, blocks))?;
        let fetched = scene.fetch(0, 1).is_ok();
        let pinged = Ping { patience, ..Ping::times(2) }.run(far.host(), &near.address)?.complete();
        // What the pod begins itself is answered: policies are about ingress.
        let out = scene.fetch(1, 0);
        shell(&machine, &no_policy(&near.address))?;
        out?;
        ensure(
            (fetched, pinged) == (allowed, allowed),
            &format!("blocks {blocks:?}: fetched {fetched}, pinged {pinged}"),
        )?;
    }
    scene.wait_reachable()
}

fn shell(machine: &Machine, script: &str) -> Result {
    machine.run("sh", &["-c", script]).map(drop)
}

//! Pods that come and go by the hundred, each told to the agent by the CNI plugin: others lose nothing by it, and nothing
//! of them stays on the nodes.

use lab::kubernetes::{Cluster, Machine, Stage, lost_at_most};
use lab::narration::ensure;
use lab::traffic::Flow;
use lab::wait;
use lab::{Error, Result, heavy_story};
use serde_json::json;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Packets a second of the flows.
const RATE: u32 = 1000;
/// Pods of a round, made together and deleted together.
const AT_ONCE: usize = 20;
const ROUNDS: usize = 10;
/// How many KiB of memory more may be held afterwards by an agent, or by a datapath: ten for each pod would show.
const GROWTH: u64 = 2048;
/// How long kubelet may take to clean up behind pods that the API server has forgotten.
const SETTLE: Duration = Duration::from_secs(60);

#[test]
fn two_hundred_pods_come_and_go_and_leave_nothing() {
    heavy_story("kubernetes_churn", |lab| {
        let stage = Stage::with(lab, 3, &["agent.cni.enabled=true"])?;
        stage.wait_direct()?;
        stage.a.apply(&churning().to_string())?;
        // What is kept once and for all is there after a first round.
        let interfaces = interfaces(&stage.a)?;
        round(&stage)?;
        wait::until("the first round's interfaces to go", SETTLE, || {
            let now = self::interfaces(&stage.a)?;
            ensure(now == interfaces, &format!("{interfaces:?}, now {now:?}"))
        })?;
        let before = kept(&stage.a)?;
        let memory = memory(&stage.a)?;

        let (flows, start) = (stage.flows(RATE)?, Instant::now());
        let rounds: Result = (0..ROUNDS).try_for_each(|_| round(&stage));
        let took = start.elapsed();
        let reports = flows.map(Flow::stop);
        rounds?;
        println!("  {} pods came and went in {took:.0?}", AT_ONCE * ROUNDS);
        lost_at_most(&reports, 0)?;

        wait::until("the nodes to be as they were before", SETTLE, || {
            let after = kept(&stage.a)?;
            ensure(after == before, &format!("{before:#?}, now {after:#?}"))
        })?;
        for (who, now) in self::memory(&stage.a)? {
            let before = memory.get(&who).copied().unwrap_or_default();
            println!("  {who}: {before} KiB before, {now} KiB after");
            ensure(now <= before + GROWTH, &format!("{who} held {before} KiB and holds {now}"))?;
        }
        stage.wait_direct()
    });
}

/// Makes a round's pods, sees that they run, and deletes them.
fn round(stage: &Stage) -> Result {
    let scale = |pods: usize| {
        let replicas = format!("--replicas={pods}");
        stage.a.kubectl(&["scale", "deployment/churning", &replicas]).map(drop)
    };
    scale(AT_ONCE)?;
    stage.a.kubectl(&["rollout", "status", "deployment/churning", "--timeout=120s"])?;
    scale(0)?;
    stage.a.wait_for(
        "the round's pods to go",
        Duration::from_secs(60),
        &["pods", "-l", "app=churning"],
        |l| {
            let left = l["items"].as_array().map_or(0, Vec::len);
            if left == 0 { Ok(()) } else { Err(format!("{left} are left")) }
        },
    )
}

/// The smallest pods there are: what holds their namespaces, twice.
fn churning() -> serde_json::Value {
    let container = json!({"name": "main", "image": "localhost/pause:dev", "imagePullPolicy": "Never"});
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "churning"},
        "spec": {
            "replicas": 0, "selector": {"matchLabels": {"app": "churning"}},
            "template": {"metadata": {"labels": {"app": "churning"}}, "spec": {
                "containers": [container], "terminationGracePeriodSeconds": 0,
                "automountServiceAccountToken": false, "enableServiceLinks": false,
            }},
        },
    })
}

/// The bridge comes with a node's first pod and stays.
const INTERFACES: &str = "ip -o link | grep -vc ': cni0:'";

/// How many interfaces each node has.
fn interfaces(cluster: &Cluster) -> Result<Vec<String>> {
    cluster.machines().iter().map(|machine| machine.run("sh", &["-c", INTERFACES])).collect()
}

/// What pods could leave behind: requests for certificates, routes, rules, interfaces, files.
fn kept(cluster: &Cluster) -> Result<BTreeMap<String, String>> {
    let mut kept = BTreeMap::new();
    kept.insert("requests".to_owned(), cluster.kubectl(&["get", "csr", "-o", "name"])?);
    for machine in cluster.machines() {
        for (what, script) in [
            (
                "routes",
                "{ ip route show table all; ip -6 route show table all; } | grep -v veth | sed 's/ linkdown//' | sort",
            ),
            ("rules", "ip rule; nft -s list table inet dmvpn"),
            ("interfaces", INTERFACES),
            (
                "files",
                "find /run/kube-dmvpn /var/lib/kube-dmvpn -type f | sort; wc -c < /var/lib/kube-dmvpn/pods.json",
            ),
        ] {
            kept.insert(format!("{what} of {}", machine.name()), machine.run("sh", &["-c", script])?);
        }
    }
    Ok(kept)
}

/// KiB of memory that each agent and each datapath of a cluster holds.
fn memory(cluster: &Cluster) -> Result<BTreeMap<String, u64>> {
    let of = |machine: &Machine, program: &str| {
        let script = format!("grep VmRSS /proc/$(pgrep -x -o {program})/status");
        let said = machine.run("sh", &["-c", &script])?;
        let kib = said.split_whitespace().nth(1).and_then(|kib| kib.parse().ok());
        let kib = kib.ok_or_else(|| Error::other(format!("memory of {program}: {said}")))?;
        Ok((format!("{program} of {}", machine.name()), kib))
    };
    let machines = cluster.machines();
    let programs =
        machines.iter().flat_map(|m| ["dmvpn-agent", "dmvpn-datapath"].map(|program| (m, program)));
    programs.map(|(machine, program)| of(machine, program)).collect()
}

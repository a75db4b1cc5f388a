//! Who nodes are, over time: keys, CAs and roots that are replaced while pods talk, and a stolen node that is thrown out.

use identity::pki::{Described, describe};
use lab::kubernetes::overlay::{CA, KEY};
use lab::kubernetes::{Chapters, Cluster, Machine, PodPlan, Stage, lost_at_most};
use lab::narration::ensure;
use lab::traffic::{Flow, Ping};
use lab::wait::{self, PATIENCE};
use lab::{Error, Result, heavy_story};
use serde_json::json;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

/// Packets a second.
const RATE: u32 = 1000;
const SECOND: Duration = Duration::from_secs(1);
/// When all have the list, a revoked node's sessions are gone within this.
const AT_MOST: Duration = Duration::from_secs(5);
/// Nodes with this label are left out of the overlay.
const SUSPECT: &str = "node-restriction.kubernetes.io/suspect";

#[test]
fn credentials_are_replaced_without_loss_and_a_stolen_node_is_out_within_seconds() {
    heavy_story("kubernetes_identity", |lab| {
        let stage = Stage::new(lab, 3)?;
        stage.wait_direct()?;
        let mut chapters = Chapters::default();
        chapters.tell("root_cas_and_certificates_are_replaced_without_loss", || root_replaced(&stage));
        chapters.tell("a_leaked_key_is_replaced_and_revoked_without_loss", || leaked_key(&stage));
        chapters.tell("a_stolen_node_is_cut_off_within_five_seconds", || stolen_node(&stage));
        chapters.tell("a_pre_shared_key_is_replaced_without_loss", || shared_key(lab, &stage));
        chapters.end()
    });
}

/// As docs/kubernetes/day-2.md says it: both roots, new CAs, new certificates, the new root alone.
fn root_replaced(stage: &Stage) -> Result {
    let clusters = [&stage.hub, &stage.a, &stage.b];
    let folder = stage.overlay.folder();
    let before = own_serials(&clusters)?;
    stage.overlay.pki(&["root", "Second Root", "--out", "second"])?;
    let second = folder.join("second/ca.crt");
    let both = folder.join("both.crt");
    let roots = [folder.join("root/ca.crt"), second.clone()].map(fs::read_to_string);
    let [first, other] = roots.map(|read| read.map_err(Error::io("read a root")));
    fs::write(&both, first? + &other?).map_err(Error::io("write both roots"))?;

    let flows = stage.flows(RATE)?;
    for cluster in clusters {
        trust(cluster, &both, None)?;
    }
    sleep(SECOND);
    for cluster in clusters {
        let ca = stage.overlay.authority_by("second", cluster.plan())?;
        let (certificate, key) = (ca.join("tls.crt"), ca.join("tls.key"));
        cluster.put_secret(CA, &[("tls.crt", &certificate), ("tls.key", &key)])?;
    }
    sleep(SECOND);
    for cluster in clusters {
        renew(cluster)?;
    }
    let after = wait_renewed(&clusters, &before)?;
    wait_known(stage, &clusters, &after)?;
    for cluster in clusters {
        trust(cluster, &second, None)?;
    }
    sleep(3 * SECOND);
    lost_at_most(&flows.map(Flow::stop), 0)?;
    // Whoever had not been signed below the new root would be out by now.
    wait_known(stage, &clusters, &after)?;
    let still = own_serials(&clusters)?;
    ensure(still == after, &format!("certificates were replaced again: {after:?}, {still:?}"))?;
    stage.wait_direct()
}

/// A good node's key is in wrong hands: a new one first, then the old one on the list.
fn leaked_key(stage: &Stage) -> Result {
    let clusters = [&stage.hub, &stage.a, &stage.b];
    let [_, b] = stage.machines()?;
    let leaked = own_serial(&b)?;
    let before = own_serials(&[&stage.b])?;
    let flows = stage.flows(RATE)?;
    renew(&stage.b)?;
    let after = wait_renewed(&[&stage.b], &before)?;
    wait_known(stage, &[&stage.b], &after)?;
    let list = revoke(stage, &stage.b, &leaked)?;
    for cluster in clusters {
        trust(cluster, &root(stage), Some(&list))?;
    }
    sleep(3 * SECOND);
    lost_at_most(&flows.map(Flow::stop), 0)?;
    let now = own_serial(&b)?;
    ensure(after.contains(&now) && now != leaked, &format!("{leaked}, {after:?}, {now}"))
}

/// A node is in wrong hands, and hears nothing of its cluster any more: it keeps what it has.
fn stolen_node(stage: &Stage) -> Result {
    let spoke = stage.spoke_resource(&stage.a, 3);
    let unsuspected = json!({"matchExpressions": [{"key": SUSPECT, "operator": "DoesNotExist"}]});
    stage.a.apply(&spoke.with(json!({"nodes": unsuspected})).text())?;
    let guest = stage.a.run_pod(&PodPlan::new("guest").on("a-2"))?;
    let thief = stage.a.machine(2)?;
    wait::until("the guest to be direct", PATIENCE, || {
        Ping::times(5).expect(guest.host(), &stage.web.address)?;
        let path = thief.ask()?.path("", &stage.web.address)?;
        ensure(path.kind == "shortcut", &format!("{path:?}"))
    })?;
    let identity = "a-2.a.example.com";
    let serial = stage.hub.machine(1)?.ask()?.sessions()?.into_iter().find(|s| s.identity == identity);
    let serial = serial.ok_or_else(|| Error::other("the hub has no session with the node"))?.serial;

    let control = stage.a.plan().address(13);
    thief.node().namespace().nft(&format!(
        "table inet thief {{\n  chain out {{\n    type filter hook output priority filter\n    ip daddr {control} drop\n  }}\n}}\n"
    ))?;
    let flows = stage.flows(RATE)?;
    let (from, to) = ((guest.host(), guest.address.as_str()), (stage.web.host(), stage.web.address.as_str()));
    let stolen = Flow::start(from, to, 7003, 200, 200)?;
    // First, so that it gets no other certificate.
    stage.a.kubectl(&["label", "node", "a-2", &format!("{SUSPECT}=true")])?;
    let list = revoke(stage, &stage.a, &serial)?;
    let told = [&stage.hub, &stage.b, &stage.a];
    for cluster in told {
        trust(cluster, &root(stage), Some(&list))?;
    }
    let revoked = Instant::now();
    for machine in told.iter().flat_map(|cluster| cluster.machines()).filter(|m| m.name() != "a-2") {
        let left = AT_MOST.saturating_sub(revoked.elapsed());
        wait::until(&format!("{} to end its session with the thief", machine.name()), left, || {
            let sessions = machine.ask()?.sessions()?;
            let live = sessions.iter().find(|s| s.identity == identity && !s.sas.is_empty());
            live.map_or(Ok(()), |session| Err(Error::other(format!("{session:?}"))))
        })?;
    }
    println!(
        "  no session with the stolen node {:.1?} after the last cluster got the list",
        revoked.elapsed()
    );
    let arrived = stolen.received();
    sleep(2 * SECOND);
    ensure(stolen.received() == arrived, "the stolen node's pod still gets through")?;
    let report = Ping { patience: SECOND, ..Ping::times(3) }.run(guest.host(), &stage.web.address)?;
    ensure(report.round_trips.is_empty(), &format!("{report}"))?;
    let sent = stolen.stop();
    ensure(sent.received > 0 && sent.lost > 0, &format!("{sent}"))?;
    lost_at_most(&flows.map(Flow::stop), 0)?;

    // The machine was got back and cleaned: the label is all that kept it out.
    thief.node().namespace().nft("delete table inet thief\n")?;
    stage.a.kubectl(&["label", "node", "a-2", &format!("{SUSPECT}-")])?;
    wait::until("the guest to be let in again", 2 * PATIENCE, || {
        Ping::times(3).expect(guest.host(), &stage.web.address)
    })?;
    let again = own_serial(&thief)?;
    ensure(again != serial, "it came back by the revoked certificate")?;
    stage.a.kubectl(&["delete", "pod", "guest", "--now"]).map(drop)
}

/// One key for all, replaced cluster by cluster. Sessions go on; whoever begins one needs the new key.
fn shared_key(lab: &lab::Lab, stage: &Stage) -> Result {
    let clusters = [&stage.a, &stage.hub, &stage.b];
    let file = |name: &str| -> Result<PathBuf> {
        let (path, key) = (lab.directory().join(name), format!("{name}-0123456789abcdef0123456789abcdef"));
        fs::write(&path, key).map_err(Error::io("write a key")).map(|()| path)
    };
    let (first, second, wrong) = (file("first")?, file("second")?, file("wrong")?);
    for cluster in clusters {
        cluster.put_secret(KEY, &[("psk", &first)])?;
    }
    let shared =
        json!({"security": {"authentication": {"certificates": null, "preSharedKey": {"secret": KEY}}}});
    stage.hub.apply(&stage.hub_resource(3).with(shared.clone()).text())?;
    for spoke in [&stage.a, &stage.b] {
        spoke.apply(&stage.spoke_resource(spoke, 3).with(shared.clone()).text())?;
    }
    stage.wait_joined()?;
    stage.wait_direct()?;

    let flows = stage.flows(RATE)?;
    for cluster in clusters {
        cluster.put_secret(KEY, &[("psk", &second)])?;
        sleep(2 * SECOND);
    }
    lost_at_most(&flows.map(Flow::stop), 0)?;

    // What begins now needs the new key, at both ends.
    let [_, b] = stage.machines()?;
    b.ask()?.clear_sessions("")?;
    stage.wait_reachable()?;
    stage.b.put_secret(KEY, &[("psk", &wrong)])?;
    sleep(2 * SECOND);
    b.ask()?.clear_sessions("")?;
    sleep(3 * SECOND);
    let report = Ping { patience: SECOND, ..Ping::times(3) }.run(stage.client.host(), &stage.web.address)?;
    ensure(report.round_trips.is_empty(), &format!("with another key: {report}"))?;
    stage.b.put_secret(KEY, &[("psk", &second)])?;
    stage.wait_reachable()
}

/// The root that is trusted since it was replaced.
fn root(stage: &Stage) -> PathBuf {
    let second = stage.overlay.folder().join("second/ca.crt");
    if second.is_file() { second } else { stage.overlay.folder().join("root/ca.crt") }
}

/// The folder of the CA that signs for a cluster's nodes.
fn authority(stage: &Stage, cluster: &Cluster) -> String {
    let (first, second) = (cluster.plan().name.clone(), format!("{}-by-second", cluster.plan().name));
    if stage.overlay.folder().join(&second).is_dir() { second } else { first }
}

/// Puts a certificate on its CA's list, and returns the file.
fn revoke(stage: &Stage, cluster: &Cluster, serial: &str) -> Result<PathBuf> {
    let ca = authority(stage, cluster);
    stage.overlay.pki(&["revoke", serial, "--ca", &ca])?;
    // The lists of all CAs, one after another.
    let lists =
        ["a", "b", "a-by-second", "b-by-second"].map(|ca| stage.overlay.folder().join(ca).join("crl.pem"));
    let all: String = lists.iter().filter_map(|list| fs::read_to_string(list).ok()).collect();
    let file = stage.overlay.folder().join("crl.pem");
    fs::write(&file, all).map_err(Error::io("write the lists")).map(|()| file)
}

fn trust(cluster: &Cluster, roots: &Path, lists: Option<&Path>) -> Result {
    let mut files = vec![("ca.crt", roots)];
    files.extend(lists.map(|lists| ("crl.pem", lists)));
    cluster.put_secret(&format!("{CA}-trust"), &files)
}

/// Lets all nodes of a cluster get new certificates now.
fn renew(cluster: &Cluster) -> Result {
    let now = cluster.output(Command::new("date").args(["-u", "+%Y-%m-%dT%H:%M:%SZ"]), "")?;
    let kind = if cluster.plan().name == "hub" { "dmvpnhub" } else { "dmvpnspoke" };
    let after =
        json!({"spec": {"security": {"authentication": {"certificates": {"issuedAfter": now.trim()}}}}});
    cluster
        .kubectl(&["patch", kind, &cluster.plan().name, "--type", "merge", "-p", &after.to_string()])
        .map(drop)
}

/// Serial number of the certificate that a node has got.
fn own_serial(machine: &Machine) -> Result<String> {
    let cluster = machine.name().split('-').next().unwrap_or_default();
    let path = machine.path(&format!("/var/lib/kube-dmvpn/certificates/{cluster}/tls.crt"))?;
    let chain = fs::read(&path).map_err(Error::io(format!("read {}", path.display())))?;
    match describe(&chain).map_err(|e| Error::other(e.0))?.into_iter().next() {
        Some(Described::Certificate(own)) => Ok(own.serial),
        other => Err(Error::other(format!("no certificate: {other:?}"))),
    }
}

fn own_serials(clusters: &[&Cluster]) -> Result<BTreeSet<String>> {
    clusters.iter().flat_map(|cluster| cluster.machines()).map(|machine| own_serial(&machine)).collect()
}

/// Waits until every node has another certificate.
fn wait_renewed(clusters: &[&Cluster], before: &BTreeSet<String>) -> Result<BTreeSet<String>> {
    wait::until("every node's new certificate", PATIENCE, || {
        let now = own_serials(clusters)?;
        ensure(now.is_disjoint(before), &format!("{before:?}, {now:?}")).map(|()| now)
    })
}

/// Waits until every session with a node of these clusters is by one of these certificates.
fn wait_known(stage: &Stage, clusters: &[&Cluster], serials: &BTreeSet<String>) -> Result {
    let domains: Vec<String> = clusters.iter().map(|c| format!(".{}.example.com", c.plan().name)).collect();
    let machines = [&stage.hub, &stage.a, &stage.b].into_iter().flat_map(|cluster| cluster.machines());
    let asks = machines.map(|machine| machine.ask()).collect::<Result<Vec<_>>>()?;
    wait::until("sessions by the new certificates", PATIENCE, || {
        for ask in &asks {
            let sessions = ask.sessions()?;
            let of = sessions.iter().filter(|s| domains.iter().any(|domain| s.identity.ends_with(domain)));
            let mut live = of.filter(|s| !s.sas.is_empty());
            if let Some(old) = live.find(|s| !serials.contains(&s.serial)) {
                return Err(Error::other(format!("{old:?}")));
            }
        }
        Ok(())
    })
}

//! Encryption of the agent with a real kernel and a real datapath: credentials that change, are wrong, or are revoked.
//! Needs root. (What `tests/overlay.rs` tells, it tells encrypted too.)

mod support;

use identity::pki::{Described, describe};
use lab::agent::binary;
use lab::security::Proof;
use lab::traffic::Ping;
use lab::{Agent, Capture, End, Error, Manifest, Result, story, wait};
use rpc::agent::{Check, PeerKind, Verdict};
use serde_json::json;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use support::{Overlay, hub_manifest, spoke};

/// A certificate that is no longer believed must be without a tunnel after this.
const REVOKED_WITHIN: Duration = Duration::from_secs(5);

#[test]
fn a_pre_shared_key_encrypts_and_proves_no_name() {
    story("psk", |lab| {
        let overlay = Overlay::tuned(lab, |manifest| manifest.proven_by(Proof::SharedKey))?;
        let wire = Capture::start(overlay.a.node(), &["wan"])?;
        overlay.wait_shortcut()?;
        assert_eq!(wire.count(|p| p.ip.is_clear()), 0, "something left in clear");
        assert!(wire.count(|p| p.ip.esp().is_some()) > 0);
        let tunnel = overlay.a.ask().tunnel()?;
        assert!(tunnel.encrypted && tunnel.identity_unverified, "{tunnel:?}");
        let by_esp = tunnel.protection.starts_with(&format!("{}, ", lab::security::esp()));
        assert!(by_esp, "{}", tunnel.protection);
        assert!(overlay.hub.ask().peers()?.iter().all(|peer| !peer.identity_verified));
        let table = overlay.a.ctl(&["sa"])?;
        assert!(table.contains("aes256gcm16-prfsha384-x25519") && table.contains("hub (?)"), "{table}");
        Ok(())
    });
}

#[test]
fn a_certificate_proves_a_name() {
    story("certificates", |lab| {
        let overlay = Overlay::tuned(lab, |manifest| manifest.proven_by(Proof::Certificates))?;
        overlay.wait_shortcut()?;
        let peers = overlay.hub.ask().peers()?;
        let registered: Vec<_> = peers.iter().filter(|p| p.kind() == PeerKind::Registered).collect();
        assert!(registered.iter().all(|peer| peer.identity_verified), "{registered:?}");
        assert!(!overlay.hub.ask().tunnel()?.identity_unverified);
        let checks = overlay.a.ask().diagnose()?;
        assert!(
            checks.iter().any(|c| c.name.ends_with("certificate") && c.verdict() == Verdict::Ok),
            "{checks:?}"
        );
        Ok(())
    });
}

#[test]
fn certificates_that_are_renewed_on_live_tunnels_lose_nothing() {
    story("rotation", |lab| {
        let overlay = Overlay::tuned(lab, |manifest| manifest.proven_by(Proof::Certificates))?;
        overlay.wait_shortcut()?;
        let pki = lab.pki()?;
        overlay.lossless(250, || {
            for (agent, manifest) in nodes(&overlay) {
                let renewed = pki.node(&manifest.claims(agent.name()))?;
                agent.write_manifest("credentials.yaml", &pki.file(&renewed, None))?;
                agent.wait_log("a new configuration is in force", Duration::from_secs(5))?;
            }
            Ok(())
        })?;
        assert_eq!(overlay.a.ask().path("", "10.2.0.10")?.kind, "shortcut");
        Ok(())
    });
}

#[test]
fn a_revoked_spoke_has_no_tunnel_within_seconds() {
    story("revoked", |lab| {
        let overlay = Overlay::tuned(lab, |manifest| manifest.proven_by(Proof::Certificates))?;
        overlay.wait_shortcut()?;
        let pki = lab.pki()?;
        let credentials = fs::read_to_string(overlay.b.manifests().join("credentials.yaml"));
        let credentials = credentials.map_err(Error::io("read the credentials of b"))?;
        let revoked = pki.revoke(&[serial(&credentials)?], 1)?;
        let start = Instant::now();
        for (agent, _) in nodes(&overlay).into_iter().filter(|(agent, _)| agent.name() != overlay.b.name()) {
            let path = agent.manifests().join("credentials.yaml");
            let own = fs::read_to_string(&path).map_err(Error::io("read credentials"))?;
            agent.write_manifest("credentials.yaml", &with_list(&own, &revoked)?)?;
        }
        wait::until("the tunnels to b to be gone", REVOKED_WITHIN, || {
            for agent in [&overlay.a, &overlay.hub] {
                let table = agent.ctl(&["sa", "-o", "json"])?;
                let left = table.contains("\"identity\": \"b\"");
                if left {
                    return Err(Error::other(format!("{}: {table}", agent.name())));
                }
            }
            Ok(())
        })?;
        assert!(start.elapsed() < REVOKED_WITHIN);
        assert!(Ping::times(3).run(&overlay.host_a, "10.2.0.10")?.round_trips.is_empty());
        overlay.hub.wait_log("SessionDown", Duration::from_secs(1))?;
        wait::until("diagnose to say so", wait::PATIENCE, || {
            let checks = overlay.hub.ask().diagnose()?;
            let said = checks.iter().any(|c| c.name.contains("handshake") && c.found.contains("revoked"));
            if said { Ok(()) } else { Err(Error::other(format!("{checks:?}"))) }
        })
    });
}

#[test]
fn another_key_is_refused_and_diagnose_says_so_at_both_ends() {
    story("wrong-key", |lab| {
        let hub = lab.site("hub", &["198.51.100.1"])?;
        let a = lab.site("a", &["203.0.113.1"])?;
        let wire = Capture::start(&a, &["wan"])?;
        let hub = Agent::start(lab, &hub, &hub_manifest().proven_by(Proof::SharedKey))?;
        hub.ask().wait_ready()?;
        let manifest = spoke("10.200.1.1", "10.1.0.0/24").proven_by(Proof::SharedKey);
        let other = manifest
            .text()
            .replace("lab-pre-shared-key-0123456789abcdef", "another-key-0123456789abcdefghij");
        let a = Agent::prepare(lab, &a, &[])?;
        a.write_manifest("lab.yaml", &other)?;
        a.launch()?;
        for agent in [&a, &hub] {
            let handshake = wait_handshake(agent)?;
            let told = format!("{} {}", handshake.found, handshake.advice);
            assert!(told.contains("key") || told.contains("authentication"), "{told}");
        }
        assert!(a.ask().hubs()?.iter().all(|hub| !hub.up));
        assert_eq!(wire.count(|p| p.ip.is_clear()), 0, "something left in clear");

        a.write_manifest("lab.yaml", &manifest.text())?;
        a.ask().wait_hubs(1)
    });
}

#[test]
fn nothing_in_common_names_both_offers() {
    story("no-proposal", |lab| {
        let (hub, a) = (lab.site("hub", &["198.51.100.1"])?, lab.site("a", &["203.0.113.1"])?);
        let hub = Agent::start(lab, &hub, &hub_manifest().proven_by(Proof::SharedKey))?;
        hub.ask().wait_ready()?;
        let manifest = spoke("10.200.1.1", "10.1.0.0/24").proven_by(Proof::SharedKey);
        let a =
            Agent::start(lab, &a, &manifest.with(json!({"security": {"ike": ["aes128-sha256-modp2048"]}})))?;
        let found = wait_handshake(&hub)?.found;
        assert!(found.contains("aes256gcm16-prfsha384-x25519") && found.contains("modp2048"), "{found}");
        assert!(wait_handshake(&a)?.advice.contains("security.ike"));
        Ok(())
    });
}

#[test]
fn unusable_credentials_make_no_tunnel_and_send_nothing() {
    story("unusable", |lab| {
        let a = lab.site("a", &["203.0.113.1"])?;
        let host = a.lan("lan", "10.1.0.1/24")?;
        let wire = Capture::start(&a, &["wan"])?;
        let agent = Agent::prepare(lab, &a, &[])?;
        let manifest = spoke("10.200.1.1", "10.1.0.0/24").proven_by(Proof::SharedKey).text();
        agent.write_manifest("lab.yaml", &manifest.replace("lab-pre-shared-key-0123456789abcdef", "''"))?;
        agent.launch()?;
        agent.wait_log("nothing is sent in clear instead", Duration::from_secs(5))?;
        Ping::times(3).run(&host, "10.2.0.10")?;
        assert_eq!(wire.count(|p| p.ip.is_clear()), 0, "overlay packets left in clear");
        assert!(agent.ask().status()?.tunnels.is_empty());
        Ok(())
    });
}

#[test]
fn encryption_that_is_switched_on_by_the_manifest_is_on_after_a_restart_too() {
    story("switched-on", |lab| {
        let overlay = Overlay::tuned(lab, Manifest::clear)?;
        assert!(!overlay.a.ask().tunnel()?.encrypted);
        for (agent, manifest) in nodes(&overlay) {
            // While no agent runs: the datapath still has a tunnel in clear.
            agent.end(End::Kill)?;
            agent.apply(&manifest.proven_by(Proof::SharedKey))?;
            agent.launch()?;
        }
        overlay.a.ask().wait_hubs(1)?;
        overlay.b.ask().wait_hubs(1)?;
        let wire = Capture::start(overlay.a.node(), &["wan"])?;
        wait::until("packets to pass", wait::PATIENCE, || {
            let report = Ping::times(1).run(&overlay.host_a, "10.2.0.10")?;
            if report.complete() { Ok(()) } else { Err(Error::other(format!("{report}"))) }
        })?;
        assert_eq!(wire.count(|p| p.ip.is_clear()), 0, "something left in clear");
        assert!(wire.count(|p| p.ip.esp().is_some()) > 0);
        Ok(())
    });
}

#[test]
fn keys_are_exported_for_the_owner_only_and_removed_afterwards() {
    story("exported", |lab| {
        let overlay = Overlay::tuned(lab, |manifest| manifest.proven_by(Proof::SharedKey))?;
        let folder = overlay.a.run_directory().join("keys/dmvpn0");
        for file in ["esp_sa", "ikev2_decryption_table"] {
            let metadata = fs::metadata(folder.join(file)).map_err(Error::io(file))?;
            assert_eq!(metadata.permissions().mode() & 0o777, 0o600);
            assert!(metadata.len() > 0);
        }
        overlay.a.wait_log("whoever reads them reads all traffic", Duration::from_secs(1))?;
        let silent = spoke("10.200.1.1", "10.1.0.0/24").proven_by(Proof::SharedKey);
        overlay.a.apply(&silent.with(json!({"security": {"exportKeys": false}})))?;
        overlay.a.wait_log("a new configuration is in force", Duration::from_secs(5))?;
        wait::until("the files to be gone", wait::PATIENCE, || {
            if folder.exists() { Err(Error::other("they are there")) } else { Ok(()) }
        })
    });
}

#[test]
fn sessions_that_are_cleared_form_again() {
    story("clear-sa", |lab| {
        let overlay = Overlay::tuned(lab, |manifest| manifest.proven_by(Proof::SharedKey))?;
        let said = overlay.a.ctl(&["clear", "sa", "hub"])?;
        assert!(said.starts_with("1 session ended"), "{said}");
        wait::until("packets to pass again", wait::PATIENCE, || {
            let report = Ping::times(1).run(&overlay.host_a, "10.2.0.10")?;
            if report.complete() { Ok(()) } else { Err(Error::other(format!("{report}"))) }
        })
    });
}

#[test]
fn a_datapath_that_a_newer_one_takes_over_loses_nothing() {
    story("taken-over", |lab| {
        let overlay = Overlay::tuned(lab, |manifest| manifest.proven_by(Proof::Certificates))?;
        overlay.wait_shortcut()?;
        let before = overlay.a.datapaths();
        let mut command = Command::new(binary("dmvpn-datapath")?);
        command.arg("--socket").arg(overlay.a.run_directory().join("datapath.sock")).arg("--takeover");
        command.stdout(Stdio::null()).stderr(Stdio::null());
        overlay.lossless(200, || {
            std::thread::sleep(Duration::from_millis(500));
            overlay.a.node().spawn(&mut command)?;
            wait::until("the successor to be alone", wait::PATIENCE, || {
                let now = overlay.a.datapaths();
                if now.len() == 1 && now != before { Ok(()) } else { Err(Error::other(format!("{now:?}"))) }
            })
        })?;
        // The agent found its tunnel as it was: nobody shook hands again.
        assert_eq!(overlay.a.ask().path("", "10.2.0.10")?.kind, "shortcut");
        let metrics = overlay.a.ask().tunnel()?;
        assert!(metrics.datapath_connected && metrics.sessions >= 2, "{metrics:?}");
        overlay.lossless(50, || Ok(()))
    });
}

#[test]
fn keys_that_are_replaced_all_the_time_lose_nothing() {
    story("rekeys", |lab| {
        let often = |manifest: Manifest| {
            let manifest = manifest.proven_by(Proof::Certificates);
            manifest.with(json!({"security": {"rekey": {"child": "2s", "ike": "5s"}}}))
        };
        let overlay = Overlay::tuned(lab, often)?;
        overlay.wait_shortcut()?;
        overlay.lossless(600, || Ok(()))?;
        assert!(overlay.a.ask().tunnel()?.protection.contains("rekeyed"), "{:?}", overlay.a.ask().tunnel()?);
        Ok(())
    });
}

/// Each agent with its manifest.
fn nodes(overlay: &Overlay) -> [(&Agent, Manifest); 3] {
    [
        (&overlay.hub, hub_manifest()),
        (&overlay.a, spoke("10.200.1.1", "10.1.0.0/24")),
        (&overlay.b, spoke("10.200.2.1", "10.2.0.0/24")),
    ]
}

/// What `diagnose` says of a failed handshake, once it does.
fn wait_handshake(agent: &Agent) -> Result<Check> {
    wait::until(&format!("{} to tell of a handshake", agent.name()), wait::PATIENCE, || {
        let checks = agent.ask().diagnose()?;
        let found = checks.iter().find(|check| check.name.contains("handshake")).cloned();
        found.ok_or_else(|| Error::other(format!("{checks:?}")))
    })
}

/// The serial number of the first certificate in a file of credentials.
fn serial(credentials: &str) -> Result<Vec<u8>> {
    let pem = entry(credentials, "node-certificate", "tls.crt")?;
    let found = describe(pem.as_bytes()).map_err(Error::other)?;
    let serial = found.iter().find_map(|described| match described {
        Described::Certificate(facts) => Some(facts.serial.clone()),
        _ => None,
    });
    let hex = serial.ok_or_else(|| Error::other("there is no certificate"))?;
    let digits: Vec<u8> = hex.bytes().filter(u8::is_ascii_hexdigit).collect();
    let octet = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap_or_default(), 16);
    digits.chunks(2).map(octet).collect::<std::result::Result<_, _>>().map_err(Error::other)
}

/// Credentials with a revocation list.
fn with_list(credentials: &str, list: &str) -> Result<String> {
    let secret = |name: &str, entries: serde_json::Value| json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": entries});
    let own = json!({
        "tls.crt": entry(credentials, "node-certificate", "tls.crt")?,
        "tls.key": entry(credentials, "node-certificate", "tls.key")?,
    });
    let trust = json!({"ca.crt": entry(credentials, "roots", "ca.crt")?, "crl.pem": list});
    // JSON is YAML.
    Ok(format!("{}\n---\n{}\n", secret("node-certificate", own), secret("roots", trust)))
}

/// An entry of a Secret in a file.
fn entry(file: &str, secret: &str, entry: &str) -> Result<String> {
    let manifests = crds::manifest::read_text("credentials.yaml", file).map_err(Error::other)?;
    let value = manifests.secrets.get(secret).and_then(|secret| secret.get(entry));
    let value = value.ok_or_else(|| Error::other(format!("there is no {secret} with {entry}")))?;
    Ok(String::from_utf8_lossy(value).into_owned())
}

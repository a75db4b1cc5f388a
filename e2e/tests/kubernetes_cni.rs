//! The CNI plugin after the cluster's own, driven by cnitool: what a runtime sees, what the pod gets, and what becomes of
//! both while the agent is away.

mod cni;

use cni::{FAR, NETWORK, Rig};
use lab::traffic::Ping;
use lab::{End, Error, Node, Result, agent, story, wait};
use serde_json::{Value, json};
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

#[test]
fn a_chained_pod_gets_the_overlays_mtu_and_reaches_it_and_leaves_without_a_trace() {
    story("kubernetes_cni_chained", |lab| {
        let rig = Rig::build(lab)?;
        rig.configure("1.1.0", &[rig.bridge(), rig.chained()])?;
        let pod = lab.node("web")?;
        let result = rig.cnitool("add", &pod)?;
        assert_eq!(
            result["interfaces"].as_array().map(Vec::len),
            Some(3),
            "the bridge's result came through"
        );
        assert_eq!(result["routes"][0]["mtu"], 1300);
        assert_eq!(rig.default_mtu(&pod)?, Some(1300));
        Ping::times(3).expect(&pod, FAR)?;
        rig.cnitool("status", &pod)?;
        rig.cnitool("check", &pod)?;
        pod.namespace().ip(&["route replace default via 10.244.1.1"])?;
        let error = rig.cnitool("check", &pod).map(drop).expect_err("a route was raised");
        assert!(error.to_string().contains("1300"), "{error}");
        for _ in 0..2 {
            rig.cnitool("del", &pod)?;
        }
        assert_eq!(rig.given_out(), 0);
        Ok(())
    });
}

#[test]
fn every_version_a_cluster_may_speak_is_spoken() {
    story("kubernetes_cni_versions", |lab| {
        let rig = Rig::build(lab)?;
        for (number, version) in ["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"].iter().enumerate() {
            rig.configure(version, &[rig.bridge(), rig.chained()])?;
            let pod = lab.node(&format!("pod{number}"))?;
            let result = rig.cnitool("add", &pod)?;
            assert_eq!(result["cniVersion"], *version);
            assert_eq!(rig.default_mtu(&pod)?, Some(1300), "{version}");
            rig.cnitool("del", &pod)?;
        }
        let (_, said) = rig.call("VERSION", None, &json!({"cniVersion": "1.0.0"}))?;
        assert_eq!((&said["cniVersion"], &said["supportedVersions"][4]), (&json!("1.0.0"), &json!("1.1.0")));
        let (fine, said) =
            rig.call("ADD", Some(&lab.node("old")?), &json!({"cniVersion": "0.2.0", "name": NETWORK}))?;
        assert_eq!((fine, &said["code"]), (false, &json!(1)));
        Ok(())
    });
}

#[test]
fn errors_have_the_specifications_codes() {
    story("kubernetes_cni_errors", |lab| {
        let rig = Rig::build(lab)?;
        let pod = lab.node("web")?;
        let code = |verb: &str, pod: Option<&Node>, input: Value| -> Result<Value> {
            let (fine, said) = rig.call(verb, pod, &input)?;
            assert!(!fine, "{verb} {input}");
            Ok(said["code"].clone())
        };
        let plain = json!({"cniVersion": "1.1.0", "name": NETWORK});
        assert_eq!(code("ADD", None, plain.clone())?, 4);
        assert_eq!(code("MOVE", Some(&pod), plain.clone())?, 4);
        assert_eq!(code("ADD", Some(&pod), json!("text"))?, 1);
        assert_eq!(code("ADD", Some(&pod), plain.clone())?, 7);
        assert_eq!(code("CHECK", Some(&pod), plain)?, 7);
        let gone = lab.node("gone")?;
        gone.namespace().remove();
        let after = json!({"cniVersion": "1.1.0", "name": NETWORK, "prevResult": {"cniVersion": "1.1.0"}});
        assert_eq!(code("ADD", Some(&gone), after.clone())?, 3);
        let (fine, said) = rig.call("DEL", Some(&gone), &after)?;
        assert!(fine, "a pod whose namespace is gone is deleted: {said}");
        Ok(())
    });
}

#[test]
fn fifty_pods_come_and_go_at_once() {
    story("kubernetes_cni_fifty", |lab| {
        let rig = Rig::build(lab)?;
        rig.configure("1.1.0", &[rig.bridge(), rig.chained()])?;
        let pods = (0..50).map(|n| lab.node(&format!("p{n}"))).collect::<Result<Vec<Node>>>()?;
        for verb in ["add", "del"] {
            std::thread::scope(|scope| {
                let all: Vec<_> = pods.iter().map(|pod| scope.spawn(|| rig.cnitool(verb, pod))).collect();
                let done =
                    all.into_iter().map(|one| one.join().map_err(|_| Error::other("a call panicked"))?);
                done.map(|one| one.map(drop)).collect::<Result<Vec<()>>>()
            })?;
            if verb == "add" {
                for pod in &pods {
                    assert_eq!(rig.default_mtu(pod)?, Some(1300), "{}", pod.name());
                }
            }
        }
        assert_eq!(rig.given_out(), 0);
        Ok(())
    });
}

#[test]
fn pods_start_and_end_while_the_agent_is_away_and_it_learns_of_them() {
    story("kubernetes_cni_away", |lab| {
        let rig = Rig::build(lab)?;
        rig.configure("1.1.0", &[rig.bridge(), rig.chained()])?;
        rig.agent.end(End::Kill)?;
        let (stays, goes) = (lab.node("stays")?, lab.node("goes")?);
        for pod in [&stays, &goes] {
            rig.cnitool("add", pod)?;
        }
        rig.cnitool("status", &stays)?;
        rig.cnitool("check", &stays)?;
        rig.cnitool("del", &goes)?;
        assert_eq!(rig.default_mtu(&stays)?, None);
        Ping::times(3).expect(&stays, FAR)?;
        rig.agent.launch()?;
        rig.agent.wait_log("the pod started while the agent was away", Duration::from_secs(10))?;
        assert!(!rig.agent.log().contains("pod=\"goes\""), "one that is gone is not spoken of");
        let notes = rig.agent.run_directory().join(rpc::cni::MISSED);
        assert_eq!(fs::read_dir(notes).into_iter().flatten().count(), 0);
        Ok(())
    });
}

#[test]
fn a_pod_that_wants_no_overlay_gets_none_in_either_direction_also_after_a_restart() {
    story("kubernetes_cni_opt_out", |lab| {
        let rig = Rig::build(lab)?;
        rig.configure("1.1.0", &[rig.bridge(), rig.chained()])?;
        let (inside, outside) = (lab.node("in")?, lab.node("out")?);
        rig.cnitool("add", &inside)?;
        assert_eq!(rig.rules(), "", "without a pod to keep out there is no table");
        let result =
            rig.cnitool_as("add", &outside, "eth0", &json!({"kube-dmvpn.io/overlay": "disabled"}))?;
        assert_eq!(rig.default_mtu(&outside)?, None);
        let address =
            result["ips"][0]["address"].as_str().and_then(|a| a.split('/').next()).unwrap_or_default();
        assert!(rig.rules().contains(address), "{}", rig.rules());
        let blocked = |from: &Node, to: &str| -> Result {
            let report = Ping::times(2).run(from, to)?;
            assert_eq!(report.round_trips.len(), 0, "{} reached {to}", from.name());
            Ok(())
        };
        blocked(&outside, FAR)?;
        blocked(rig.hub.node(), address)?;
        Ping::times(2).expect(&inside, FAR)?;
        Ping::times(2).expect(&outside, "10.244.1.1")?;

        // What is remembered is in force before anything else, and who flushes everything is told so.
        rig.agent.end(End::Orderly)?;
        rig.agent.launch()?;
        rig.agent.ask().wait_hubs(1)?;
        blocked(&outside, FAR)?;
        rig.node.run("nft", &["delete", "table", "inet", cni::TABLE])?;
        wait::until("the table to be put back", wait::PATIENCE, || {
            if rig.rules().contains(address) { Ok(()) } else { Err("it is not there") }
        })?;
        rig.cnitool_as("del", &outside, "eth0", &json!({}))?;
        assert_eq!(rig.rules(), "", "the last one took the table along");
        Ok(())
    });
}

#[test]
fn gc_forgets_what_is_not_valid_and_nothing_else() {
    story("kubernetes_cni_gc", |lab| {
        let rig = Rig::build(lab)?;
        rig.configure("1.1.0", &[rig.bridge(), rig.chained()])?;
        let out = json!({"kube-dmvpn.io/overlay": "disabled"});
        let pods = [lab.node("a")?, lab.node("b")?];
        for (pod, address) in pods.iter().zip(["10.244.1.7", "10.244.1.8"]) {
            let input = json!({
                "cniVersion": "1.1.0", "name": NETWORK, "runDir": rig.agent.run_directory(),
                "runtimeConfig": {"io.kubernetes.cri.pod-annotations": out},
                "prevResult": {"cniVersion": "1.1.0", "ips": [{"address": format!("{address}/24")}]}
            });
            let (fine, said) = rig.call("ADD", Some(pod), &input)?;
            assert!(fine, "{said}");
        }
        let valid = json!([{"containerID": cni::container(&pods[0]), "ifname": "eth0"}]);
        let mut input = json!({"cniVersion": "1.1.0", "name": NETWORK, "runDir": rig.agent.run_directory()});
        assert_eq!(rig.call("GC", None, &input)?, (true, Value::Null), "without a list nothing is removed");
        assert!(rig.rules().contains("10.244.1.8"));
        input["cni.dev/valid-attachments"] = valid;
        assert_eq!(rig.call("GC", None, &input)?, (true, Value::Null));
        let rules = rig.rules();
        assert!(rules.contains("10.244.1.7") && !rules.contains("10.244.1.8"), "{rules}");
        Ok(())
    });
}

/// A file system that is soon full.
struct Disk(PathBuf);

impl Disk {
    fn mount(path: PathBuf) -> Result<Self> {
        fs::create_dir_all(&path).map_err(Error::io("make a mount point"))?;
        let mounted =
            Command::new("mount").args(["-t", "tmpfs", "-o", "size=64k", "tmpfs"]).arg(&path).status();
        match mounted {
            Ok(status) if status.success() => Ok(Self(path)),
            other => Err(Error::other(format!("mount tmpfs: {other:?}"))),
        }
    }

    fn fill(&self) {
        let _ = fs::write(self.0.join("ballast"), vec![0; 128 << 10]);
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

#[test]
fn a_full_disk_leaves_the_list_alone_until_there_is_room_and_uninstalling_restores_it() {
    story("kubernetes_cni_disk", |lab| {
        let disk = Disk::mount(lab.directory().join("etc"))?;
        let (list, binaries) = (disk.0.join("10-pods.conflist"), lab.directory().join("opt"));
        let text = "{\n  \"name\": \"pods\",\n  \"x\": 1.50,\n  \"plugins\": [\n    {\"type\": \"bridge\"}\n  ]\n}\n";
        fs::write(&list, text).map_err(Error::io("write a list"))?;
        disk.fill();
        let folders = [disk.0.display().to_string(), binaries.display().to_string()];
        let rig = Rig::with(lab, &["--cni-conf-dir", &folders[0], "--cni-bin-dir", &folders[1]])?;
        rig.agent.wait_log("can't be installed", Duration::from_secs(20))?;
        let read = || fs::read_to_string(&list).unwrap_or_default();
        assert_eq!(read(), text);
        assert_eq!(fs::read_dir(&disk.0).into_iter().flatten().count(), 2, "the list and the ballast");

        let chained = || {
            wait::until("the list to be changed", wait::PATIENCE, || {
                if read().contains("dmvpn-cni") { Ok(()) } else { Err(read()) }
            })
        };
        fs::remove_file(disk.0.join("ballast")).map_err(Error::io("make room"))?;
        chained()?;
        // As a primary plugin does that is upgraded.
        fs::write(&list, text).map_err(Error::io("write a list"))?;
        chained()?;

        rig.agent.end(End::Orderly)?;
        assert!(read().contains("dmvpn-cni"), "an agent that ends for a moment leaves the plugin");
        let (run, state) = (rig.agent.run_directory(), rig.agent.state_directory());
        let program = agent::binary("dmvpn-agent")?;
        let words = [("--run-dir", run), ("--state-dir", state)]
            .map(|(a, b)| [a.to_owned(), b.display().to_string()]);
        let words: Vec<&str> = words.iter().flatten().map(String::as_str).collect();
        rig.node.run(&program.display().to_string(), &[&["uninstall"], &words[..]].concat())?;
        assert_eq!(read(), text);
        assert_eq!(fs::read_dir(&binaries).into_iter().flatten().count(), 0);
        Ok(())
    });
}

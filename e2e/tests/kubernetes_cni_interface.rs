//! The CNI plugin with an interface of its own: as a pod's only one, and as its second.

mod cni;

use cni::{FAR, NETWORK, Rig, container, links};
use lab::traffic::Ping;
use lab::{End, Error, Node, Result, story};
use serde_json::{Value, json};

#[test]
fn alone_it_gives_a_pod_an_interface_an_address_and_the_overlay() {
    story("kubernetes_cni_alone", |lab| {
        let rig = Rig::build(lab)?;
        rig.configure("1.1.0", &[rig.standalone()])?;
        let (a, b) = (lab.node("a")?, lab.node("b")?);
        let result = rig.cnitool("add", &a)?;
        let address = result["ips"][0]["address"].as_str().unwrap_or_default().to_owned();
        assert!(address.starts_with("10.244.1."), "{result}");
        assert_eq!(
            (&result["ips"][0]["interface"], &result["interfaces"][1]["mtu"]),
            (&json!(1), &json!(1300))
        );
        let other = rig.cnitool("add", &b)?;
        let other = other["ips"][0]["address"]
            .as_str()
            .and_then(|a| a.split('/').next())
            .unwrap_or_default()
            .to_owned();
        Ping::times(3).expect(&a, FAR)?;
        Ping::times(3).expect(&a, &other)?;
        let from_afar = Ping::times(3);
        from_afar.expect(rig.hub.node(), &other)?;
        rig.cnitool("status", &a)?;
        rig.cnitool("check", &a)?;

        let error = rig.cnitool("add", &a).map(drop).expect_err("the interface is there already");
        assert!(error.to_string().contains("CNI_IFNAME"), "{error}");
        Ping::times(3).expect(&a, FAR)?;

        a.namespace().ip(&["addr flush dev eth0"])?;
        let error = rig.cnitool("check", &a).map(drop).expect_err("the address is gone");
        assert!(error.to_string().contains("no address"), "{error}");
        for pod in [&a, &b, &a] {
            rig.cnitool("del", pod)?;
        }
        assert_eq!((rig.given_out(), links(&rig.node)?), (0, Vec::new()));
        Ok(())
    });
}

#[test]
fn without_the_agent_it_makes_nothing_and_says_try_again_and_still_deletes() {
    story("kubernetes_cni_alone_away", |lab| {
        let rig = Rig::build(lab)?;
        rig.configure("1.1.0", &[rig.standalone()])?;
        let (old, new) = (lab.node("old")?, lab.node("new")?);
        rig.cnitool("add", &old)?;
        rig.agent.end(End::Kill)?;
        let mut input = rig.standalone();
        input["cniVersion"] = json!("1.1.0");
        input["name"] = json!(NETWORK);
        let (fine, said) = rig.call("ADD", Some(&new), &input)?;
        assert_eq!((fine, &said["code"]), (false, &json!(11)), "{said}");
        let (fine, said) = rig.call("STATUS", None, &input)?;
        assert_eq!((fine, &said["code"]), (false, &json!(50)), "{said}");
        assert_eq!(rig.given_out(), 1);
        rig.cnitool("del", &old)?;
        assert_eq!((rig.given_out(), links(&rig.node)?), (0, Vec::new()));
        Ok(())
    });
}

#[test]
fn what_fails_half_way_is_undone() {
    story("kubernetes_cni_undone", |lab| {
        let rig = Rig::build(lab)?;
        let mut plugin = rig.standalone();
        plugin["cniVersion"] = json!("1.1.0");
        plugin["name"] = json!(NETWORK);
        plugin["ipam"] = rig.host_local(Some("10.244.1.0/24"));
        // The kernel refuses a gateway that is nowhere, when everything else is made.
        plugin["ipam"]["routes"] = json!([{"dst": "10.9.0.0/16", "gw": "192.0.2.1"}]);
        let pod = lab.node("web")?;
        let (fine, said) = rig.call("ADD", Some(&pod), &plugin)?;
        assert_eq!((fine, &said["code"]), (false, &json!(100)), "{said}");
        assert_eq!((rig.given_out(), links(&rig.node)?), (0, Vec::new()));
        Ok(())
    });
}

#[test]
fn as_a_second_interface_it_routes_the_overlay_and_leaves_the_default_route_alone() {
    story("kubernetes_cni_second", |lab| {
        let rig = Rig::build(lab)?;
        let pod = lab.node("web")?;
        let mut first = rig.bridge();
        first["ipam"] = rig.host_local(Some("172.20.0.0/24"));
        rig.configure("1.1.0", &[first])?;
        rig.cnitool("add", &pod)?;
        let mut second = rig.standalone();
        second["overlayOnly"] = json!(true);
        rig.configure("1.1.0", &[second])?;
        let result = rig.cnitool_as("add", &pod, "net1", &json!({}))?;
        assert_eq!(result["interfaces"][1]["name"], "net1");
        let route = |to: &str| -> Result<Value> {
            Ok(pod.namespace().ip_json(&format!("route get {to}"))?[0]["dev"].clone())
        };
        assert_eq!(
            (route(FAR)?, route("10.9.9.9")?, route("192.0.2.1")?),
            (json!("net1"), json!("net1"), json!("eth0"))
        );
        Ping::times(3).expect(&pod, FAR)?;
        rig.cnitool_as("check", &pod, "net1", &json!({}))?;
        rig.cnitool_as("del", &pod, "net1", &json!({}))?;
        assert_eq!(links(&rig.node)?, Vec::<String>::new());
        assert_eq!(route("192.0.2.1")?, "eth0");
        Ok(())
    });
}

#[test]
fn gc_removes_interfaces_of_attachments_that_are_not_valid() {
    story("kubernetes_cni_alone_gc", |lab| {
        let rig = Rig::build(lab)?;
        let mut input = rig.standalone();
        input["cniVersion"] = json!("1.1.0");
        input["name"] = json!(NETWORK);
        let pods = [lab.node("a")?, lab.node("b")?];
        for pod in &pods {
            let (fine, said) = rig.call("ADD", Some(pod), &input)?;
            assert!(fine, "{said}");
        }
        assert_eq!(links(&rig.node)?.len(), 2);
        input["cni.dev/valid-attachments"] = json!([{"containerID": container(&pods[0]), "ifname": "eth0"}]);
        assert_eq!(rig.call("GC", None, &input)?, (true, Value::Null));
        assert_eq!(links(&rig.node)?.len(), 1);
        Ping::times(3).expect(&pods[0], FAR)?;
        Ok(())
    });
}

#[test]
fn fifty_at_once_have_fifty_addresses() {
    story("kubernetes_cni_alone_fifty", |lab| {
        let rig = Rig::build(lab)?;
        rig.configure("1.1.0", &[rig.standalone()])?;
        let pods = (0..50).map(|n| lab.node(&format!("p{n}"))).collect::<Result<Vec<Node>>>()?;
        for (verb, given_out) in [("add", 50), ("del", 0)] {
            std::thread::scope(|scope| {
                let all: Vec<_> = pods.iter().map(|pod| scope.spawn(|| rig.cnitool(verb, pod))).collect();
                let done =
                    all.into_iter().map(|one| one.join().map_err(|_| Error::other("a call panicked"))?);
                done.map(|one| one.map(drop)).collect::<Result<Vec<()>>>()
            })?;
            assert_eq!((rig.given_out(), links(&rig.node)?.len()), (given_out, given_out));
        }
        Ok(())
    });
}

//! What the CNI specification 1.1 asks of plugins and no ordinary life of a pod shows: docs/cni.md says which test holds
//! which sentence.

mod cni;

use cni::{FAR, NETWORK, Rig, container};
use lab::traffic::Ping;
use lab::{End, Error, Node, Result, story};
use serde_json::{Value, json};
use std::fs;
use std::path::Path;

/// A configuration as a runtime hands it over.
fn input(mut plugin: Value, more: &Value) -> Value {
    plugin["cniVersion"] = json!("1.1.0");
    plugin["name"] = json!(NETWORK);
    for (key, value) in more.as_object().into_iter().flatten() {
        plugin[key] = value.clone();
    }
    plugin
}

fn attachment(pod: &Node) -> [(&'static str, String); 2] {
    [("CNI_CONTAINERID", container(pod)), ("CNI_IFNAME", "eth0".to_owned())]
}

#[test]
fn del_takes_away_what_is_there_and_misses_nothing_that_is_not() {
    story("kubernetes_cni_del", |lab| {
        let rig = Rig::build(lab)?;
        let (never, pod) = (lab.node("never")?, lab.node("web")?);
        for plugin in [rig.chained(), rig.standalone()] {
            // Neither prevResult nor a namespace, and nothing that was ever added.
            for _ in 0..2 {
                let said = rig.call_with("DEL", &attachment(&never), &input(plugin.clone(), &json!({})))?;
                assert!(said.fine && said.output.is_null(), "{} {}", said.output, said.stderr);
            }
        }
        let alone = input(rig.standalone(), &json!({}));
        let (fine, result) = rig.call("ADD", Some(&pod), &alone)?;
        assert!(fine, "{result}");
        assert_eq!(rig.given_out(), 1);
        // The pod's end went with its namespace, and the runtime has lost what it knew.
        pod.namespace().ip(&["link del eth0"])?;
        for _ in 0..2 {
            let said = rig.call_with("DEL", &attachment(&pod), &alone)?;
            assert!(said.fine, "{} {}", said.output, said.stderr);
            assert_eq!(rig.given_out(), 0);
        }
        // Also while nobody is there to be told.
        let (fine, result) = rig.call("ADD", Some(&pod), &alone)?;
        assert!(fine, "{result}");
        rig.agent.end(End::Kill)?;
        let said = rig.call_with("DEL", &attachment(&pod), &alone)?;
        assert!(said.fine, "{} {}", said.output, said.stderr);
        assert_eq!(rig.given_out(), 0);
        Ok(())
    });
}

#[test]
fn check_goes_by_the_result_and_allows_for_what_a_later_plugin_changed() {
    story("kubernetes_cni_check", |lab| {
        let rig = Rig::build(lab)?;
        rig.configure("1.1.0", &[rig.bridge(), rig.chained()])?;
        let pod = lab.node("web")?;
        let result = rig.cnitool("add", &pod)?;
        // The same again under a name of our own, which the agent then knows.
        let (fine, result) =
            rig.call("ADD", Some(&pod), &input(rig.chained(), &json!({"prevResult": result})))?;
        assert!(fine, "{result}");
        let check = |result: &Value| {
            rig.call("CHECK", Some(&pod), &input(rig.chained(), &json!({"prevResult": result})))
        };
        // At once after ADD.
        assert_eq!(check(&result)?, (true, Value::Null));
        // A later plugin of the chain may take routes away, and make them smaller.
        pod.namespace().ip(&["route replace default via 10.244.1.1 mtu 1200"])?;
        assert_eq!(check(&result)?, (true, Value::Null));
        pod.namespace().ip(&["route del default"])?;
        assert_eq!(check(&result)?, (true, Value::Null));
        pod.namespace().ip(&["route add default via 10.244.1.1"])?;
        let (fine, said) = check(&result)?;
        assert_eq!((fine, &said["code"]), (false, &json!(101)), "the route lets too much through: {said}");
        // What the result says counts, and not what is there by chance.
        let mut other = result.clone();
        other["ips"][0]["address"] = json!("10.244.1.200/24");
        other["routes"] = json!([]);
        let (fine, said) = check(&other)?;
        assert_eq!((fine, &said["code"]), (false, &json!(101)), "{said}");
        pod.namespace().ip(&["link del eth0"])?;
        let (fine, said) = check(&result)?;
        assert!(!fine && said["msg"].as_str().is_some_and(|m| m.contains("no interface eth0")), "{said}");
        Ok(())
    });
}

/// Gives one address to everybody, writes down how it was called, and fails where it is told to.
fn recorder(folder: &Path) -> String {
    let folder = folder.display();
    format!(
        r#"#!/bin/sh
export LC_ALL=C
cd {folder}
cat > $CNI_COMMAND.stdin
env | grep ^CNI_ | sort > $CNI_COMMAND.env
echo $CNI_COMMAND >> calls
echo "the recorder was called for $CNI_COMMAND" >&2
if [ -e fail-$CNI_COMMAND ]; then
    echo '{{"cniVersion": "1.1.0", "code": 111, "msg": "out of addresses", "details": "all 254"}}'
    exit 1
fi
[ $CNI_COMMAND != ADD ] || echo '{{"cniVersion": "1.1.0", "ips": [{{"address": "10.244.1.9/24", "gateway": "10.244.1.1"}}]}}'
"#
    )
}

#[test]
fn the_plugin_for_addresses_is_called_for_every_verb_as_we_were_and_its_errors_come_back() {
    story("kubernetes_cni_delegates", |lab| {
        let rig = Rig::build(lab)?;
        let notes = lab.directory().join("recorder");
        fs::create_dir_all(&notes).map_err(Error::io("make a folder"))?;
        rig.plugin("recorder", &recorder(&notes))?;
        let pod = lab.node("web")?;
        let alone = json!({
            "type": "dmvpn-cni", "runDir": rig.agent.run_directory(), "keyA": ["kept", 1],
            "ipam": {"type": "recorder", "keyB": true},
        });
        let parameters = [
            ("CNI_CONTAINERID", container(&pod)),
            ("CNI_NETNS", format!("/run/netns/{}", pod.namespace().name())),
            ("CNI_IFNAME", "eth0".to_owned()),
            ("CNI_ARGS", "IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web".to_owned()),
        ];
        let read = |name: String| fs::read_to_string(notes.join(name)).unwrap_or_default();
        let mut result = json!({});
        for verb in ["STATUS", "ADD", "CHECK", "GC", "DEL"] {
            let more = match verb {
                "CHECK" | "DEL" => json!({"prevResult": result}),
                "GC" => {
                    json!({"cni.dev/valid-attachments": [{"containerID": container(&pod), "ifname": "eth0"}]})
                }
                _ => json!({}),
            };
            let given = input(alone.clone(), &more);
            let said = rig.call_with(verb, &parameters, &given)?;
            assert!(said.fine, "{verb}: {} {}", said.output, said.stderr);
            assert!(said.stderr.contains(&format!("called for {verb}")), "{verb}: {}", said.stderr);
            let mut environment: Vec<String> =
                parameters.iter().map(|(name, value)| format!("{name}={value}")).collect();
            environment.extend([format!("CNI_COMMAND={verb}"), format!("CNI_PATH={}", rig.path())]);
            environment.sort();
            assert_eq!(read(format!("{verb}.env")).trim(), environment.join("\n"), "{verb}");
            let came: Value = serde_json::from_str(&read(format!("{verb}.stdin"))).map_err(Error::other)?;
            assert_eq!(came, given, "{verb}");
            match verb {
                "ADD" => {
                    assert_eq!(said.output["ips"][0]["address"], "10.244.1.9/24");
                    result = said.output;
                    Ping::times(3).expect(&pod, FAR)?;
                }
                _ => assert_eq!(said.output, Value::Null, "{verb}"),
            }
        }
        let calls = || read("calls".to_owned()).lines().map(str::to_owned).collect::<Vec<_>>();
        for verb in ["STATUS", "ADD", "CHECK", "GC", "DEL"] {
            if verb == "CHECK" {
                // CHECK finds everything else in order.
                let (fine, made) = rig.call("ADD", Some(&pod), &input(alone.clone(), &json!({})))?;
                assert!(fine, "{made}");
                result = made;
            }
            let fails = notes.join(format!("fail-{verb}"));
            fs::write(&fails, "").map_err(Error::io("make it fail"))?;
            let before = calls().len();
            let valid = json!([{"containerID": container(&pod), "ifname": "eth0"}]);
            let more = json!({"prevResult": result, "cni.dev/valid-attachments": valid});
            let more = if verb == "ADD" { json!({}) } else { more };
            let said = rig.call_with(verb, &parameters, &input(alone.clone(), &more))?;
            fs::remove_file(&fails).map_err(Error::io("let it work again"))?;
            assert_eq!((said.fine, &said.output["code"]), (false, &json!(111)), "{verb}: {}", said.output);
            assert_eq!(said.output["details"], "all 254", "{verb}");
            let expected: &[&str] = if verb == "ADD" { &["ADD", "DEL"] } else { &[verb] };
            assert_eq!(calls()[before..], *expected, "{verb}");
        }
        // The DEL that failed has taken the interface away nevertheless.
        assert_eq!(cni::links(&rig.node)?, Vec::<String>::new());
        assert!(pod.namespace().ip_json("link show")?.as_array().is_some_and(|links| links.len() == 1));
        Ok(())
    });
}

#[test]
fn errors_name_what_is_wrong() {
    story("kubernetes_cni_says", |lab| {
        let rig = Rig::build(lab)?;
        let pod = lab.node("web")?;
        let says = |verb: &str, parameters: &[(&str, String)], given: &Value| -> Result<(Value, String)> {
            let said = rig.call_with(verb, parameters, given)?;
            assert!(!said.fine, "{verb} {given}");
            assert_eq!(said.output["cniVersion"], "1.1.0");
            let message = said.output["msg"].as_str().unwrap_or_default().to_owned();
            Ok((said.output["code"].clone(), message))
        };
        // Each variable that is wrong, by its name.
        let chained = input(rig.chained(), &json!({"prevResult": {"cniVersion": "1.1.0"}}));
        let (code, message) = says("ADD", &[("CNI_IFNAME", "a/b".to_owned())], &chained)?;
        assert_eq!(code, 4);
        for name in ["CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME=a/b"] {
            assert!(message.contains(name), "{message}");
        }
        // A field that is not supported, with its value.
        let parameters =
            [&attachment(&pod)[..], &[("CNI_NETNS", format!("/run/netns/{}", pod.namespace().name()))]]
                .concat();
        let masquerade = input(rig.standalone(), &json!({"ipMasq": true}));
        let (code, message) = says("ADD", &parameters, &masquerade)?;
        assert_eq!(code, 2);
        assert!(message.contains("ipMasq: true"), "{message}");
        // Content that is no result.
        let garbage = input(rig.chained(), &json!({"prevResult": {"ips": "none"}}));
        assert_eq!(says("ADD", &parameters, &garbage)?.0, 6);
        // In the runtime's version, whatever is wrong.
        let mut older = input(rig.chained(), &json!({}));
        older["cniVersion"] = json!("0.4.0");
        let said = rig.call_with("ADD", &[], &older)?;
        assert_eq!((&said.output["code"], &said.output["cniVersion"]), (&json!(4), &json!("0.4.0")));
        // Verbs that the configuration's version does not have.
        for (verb, version) in [("CHECK", "0.3.1"), ("GC", "1.0.0"), ("STATUS", "1.0.0")] {
            older["cniVersion"] = json!(version);
            let said = rig.call_with(verb, &parameters, &older)?;
            assert_eq!((said.fine, &said.output["code"]), (false, &json!(1)), "{verb} in {version}");
            assert_eq!(said.output["cniVersion"], version);
        }
        // An interface of the node is none of a pod.
        let own = [&attachment(&pod)[..], &[("CNI_NETNS", "/proc/self/ns/net".to_owned())]].concat();
        assert_eq!(says("ADD", &own, &input(rig.standalone(), &json!({})))?.0, 4);
        Ok(())
    });
}

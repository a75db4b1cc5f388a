//! The plugin that gives addresses, by the specification's delegation: found in `CNI_PATH`, run with our own environment
//! and the whole configuration.

use crate::call::{Call, Command};
use crate::config::Config;
use crate::error::Error;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::fs;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Child, Stdio};

/// The file in the run directory that says which networks the agent last said; so that addresses can be given back
/// while it is away.
const NETWORKS: &str = "cni-pod-networks";
/// `host-local` wants a network also to give back what it finds by the container's name: any will do.
const ANY: &str = "192.0.2.0/24";

/// What a plugin says that failed.
#[derive(Deserialize)]
struct Said {
    code: u32,
    #[serde(default)]
    msg: String,
    #[serde(default)]
    details: String,
}

/// Runs the plugin for `command`. Returns what it says, null when that is nothing.
pub(crate) fn run(call: &Call, command: Command, config: &Config, plugin: &str) -> Result<Value, Error> {
    let binary = find(call, plugin)?;
    let input = serde_json::to_vec(&complete(config, command)?).unwrap_or_default();
    let failed =
        |e: std::io::Error| Error::Io { what: format!("run {}", binary.display()), why: e.to_string() };
    //= cni-1.1.0#section-4: Ensure that the delegated plugin's stderr is output to the calling plugin's stderr.
    let child = std::process::Command::new(&binary)
        .env("CNI_COMMAND", command.as_str())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn();
    let mut child: Child = child.map_err(failed)?;
    if let Some(mut stdin) = child.stdin.take() {
        // A plugin that stopped reading says why on its output, which is the better message.
        let _ = stdin.write_all(&input);
    }
    let output = child.wait_with_output().map_err(failed)?;
    understand(plugin, output.status.success(), &output.stdout)
}

/// Keeps the networks that the agent said, for [`run`].
pub(crate) fn keep(config: &Config, networks: &[String]) {
    if networks.is_empty() || !needs_ranges(&config.raw) || *networks == kept(config) {
        return;
    }
    let file = config.run_dir.join(NETWORKS);
    let fresh = file.with_extension(format!("new-{}", std::process::id()));
    let written = fs::write(&fresh, networks.join("\n")).and_then(|()| fs::rename(&fresh, &file));
    if let Err(error) = written {
        crate::say(format_args!("cannot keep {}: {error}", file.display()));
    }
}

fn kept(config: &Config) -> Vec<String> {
    let text = fs::read_to_string(config.run_dir.join(NETWORKS)).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

/// The configuration for the plugin: ours, and where `host-local` is not told what to give, the node's pod networks.
fn complete(config: &Config, command: Command) -> Result<Map<String, Value>, Error> {
    let mut raw = config.raw.clone();
    if needs_ranges(&raw) {
        let mut networks = kept(config);
        if networks.is_empty() {
            // After the machine was started anew, pods end before the first begins.
            if !matches!(command, Command::Del | Command::Gc) {
                return Err(Error::NoNetworks);
            }
            networks.push(ANY.to_owned());
        }
        let ranges = networks.iter().map(|network| json!([{"subnet": network}])).collect();
        if let Some(ipam) = raw.get_mut("ipam") {
            ipam["ranges"] = Value::Array(ranges);
        }
    }
    Ok(raw)
}

fn needs_ranges(raw: &Map<String, Value>) -> bool {
    let Some(ipam) = raw.get("ipam") else { return false };
    ipam.get("type").is_some_and(|kind| kind == "host-local")
        && ["ranges", "subnet"].iter().all(|key| ipam.get(key).is_none())
}

fn find(call: &Call, plugin: &str) -> Result<PathBuf, Error> {
    if call.path.is_empty() {
        return Err(Error::Environment(format!("CNI_PATH is missing, and {plugin} must be found")));
    }
    let found = call.path.iter().map(|folder| folder.join(plugin)).find(|file| file.is_file());
    found.ok_or_else(|| Error::Config(format!("ipam.type: there is no plugin {plugin} in CNI_PATH")))
}

fn understand(plugin: &str, success: bool, output: &[u8]) -> Result<Value, Error> {
    if success {
        if output.iter().all(u8::is_ascii_whitespace) {
            return Ok(Value::Null);
        }
        return serde_json::from_slice(output)
            .map_err(|e| Error::Decode(format!("what {plugin} answers: {e}")));
    }
    let plugin = plugin.to_owned();
    Err(match serde_json::from_slice::<Said>(output) {
        Ok(Said { code, msg, details }) => Error::Delegate { plugin, code, msg, details },
        Err(_) => {
            let msg = String::from_utf8_lossy(output).trim().to_owned();
            Error::Delegate { plugin, code: 100, msg: format!("failed: {msg}"), details: String::new() }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{call, config};

    fn configured(ipam: Value, run_dir: &std::path::Path) -> Config {
        let input = json!({"cniVersion": "1.1.0", "name": "n", "ipam": ipam, "runDir": run_dir, "keyA": 1});
        config::for_tests("ADD", input).unwrap()
    }

    #[test]
    fn a_plugin_that_is_not_there_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let config = configured(json!({"type": "no-such-plugin"}), dir.path());
        let error = run(&call::for_tests("ADD"), Command::Add, &config, "no-such-plugin").unwrap_err();
        assert_eq!(error.code(), 7);
        assert!(error.to_string().contains("no-such-plugin"), "{error}");
    }

    #[test]
    fn the_nodes_networks_are_filled_in_where_none_are_said() {
        let dir = tempfile::tempdir().unwrap();
        let config = configured(json!({"type": "host-local"}), dir.path());
        keep(&config, &["10.1.0.0/24".to_owned(), "fd00:1::/64".to_owned()]);
        let complete = complete(&config, Command::Add).unwrap();
        assert_eq!(
            complete["ipam"]["ranges"],
            json!([[{"subnet": "10.1.0.0/24"}], [{"subnet": "fd00:1::/64"}]])
        );
        assert_eq!(complete["keyA"], 1);
    }

    #[test]
    fn networks_that_are_said_stay() {
        let dir = tempfile::tempdir().unwrap();
        let config = configured(json!({"type": "host-local", "subnet": "10.9.0.0/24"}), dir.path());
        keep(&config, &["10.1.0.0/24".to_owned()]);
        assert_eq!(Value::Object(complete(&config, Command::Add).unwrap()), Value::Object(config.raw));
    }

    #[test]
    fn before_the_node_announces_anything_addresses_are_given_back_and_none_given() {
        let dir = tempfile::tempdir().unwrap();
        let config = configured(json!({"type": "host-local"}), dir.path());
        for command in [Command::Add, Command::Check, Command::Status] {
            assert_eq!(complete(&config, command).unwrap_err().code(), 11);
        }
        for command in [Command::Del, Command::Gc] {
            assert_eq!(complete(&config, command).unwrap()["ipam"]["ranges"], json!([[{"subnet": ANY}]]));
        }
    }

    #[test]
    fn an_error_of_the_plugin_is_passed_on_with_its_code() {
        let said = br#"{"cniVersion": "1.1.0", "code": 11, "msg": "full", "details": "of 254"}"#;
        let error = understand("host-local", false, said).unwrap_err();
        assert_eq!((error.code(), error.to_string().as_str()), (11, "host-local: full"));
        assert_eq!(understand("x", false, b"panic").unwrap_err().code(), 100);
    }

    #[test]
    fn no_output_is_no_result() {
        assert_eq!(understand("host-local", true, b"\n"), Ok(Value::Null));
        assert_eq!(understand("host-local", true, b"{").unwrap_err().code(), 6);
    }
}

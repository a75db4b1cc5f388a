//! Removes everything the agent ever made on this machine: interfaces with their routes and neighbours, protected
//! prefixes, kernel switches, files. Goes on when one step fails, and says what is left.

use crate::datapath::Process;
use crate::kernel::Kernel;
use crate::kernel::sysctl::Memory;
use crate::sources;
use crate::state::StateDir;
use crate::{agent, cni};
use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;
use std::{fs, io};

/// Between two looks whether an agent still runs.
const PAUSE: Duration = Duration::from_millis(200);

/// Removes everything. Returns what could not be removed, in words.
pub async fn run(run_dir: &Path, state_dir: &Path, folders: Option<&cni::Folders>) -> Vec<String> {
    if is_running(run_dir) {
        return vec![format!("an agent runs with run directory {}: stop it first", run_dir.display())];
    }
    // First: pods must start while the rest goes.
    let mut left = cni::uninstall(folders, state_dir);
    let process =
        Process { socket: run_dir.join("datapath.sock"), binary: None, log: run_dir.join("datapath.log") };
    note(&mut left, "datapath", process.stop().await);
    match Kernel::open() {
        Ok(kernel) => remove_from_kernel(&kernel, state_dir, &mut left).await,
        Err(error) => left.push(error.to_string()),
    }
    note(&mut left, "nftables table", sources::remove());
    if state_dir.exists() {
        note(&mut left, "kernel switches", Memory::new(state_dir).restore());
    }
    for name in ["agent.sock", agent::RUNNING, agent::WAITING, "datapath.sock", "datapath.log"] {
        note(&mut left, name, gone(fs::remove_file(run_dir.join(name))));
    }
    note(&mut left, "exported keys", gone(fs::remove_dir_all(run_dir.join("keys"))));
    note(&mut left, "notes of the CNI plugin", gone(fs::remove_dir_all(run_dir.join(rpc::cni::MISSED))));
    note(&mut left, "networks of pods", gone(fs::remove_file(run_dir.join("cni-pod-networks"))));
    note(&mut left, "run directory", gone_or_empty(run_dir, fs::remove_dir(run_dir)));
    // While something is left, the state directory says what.
    if left.is_empty() {
        note(&mut left, "state directory", gone_or_empty(state_dir, fs::remove_dir_all(state_dir)));
    }
    left
}

/// Waits until no agent runs.
pub async fn no_agent_runs(run_dir: &Path) {
    while is_running(run_dir) {
        tokio::time::sleep(PAUSE).await;
    }
}

/// An agent holds the lock for as long as it lives.
fn is_running(run_dir: &Path) -> bool {
    fs::File::open(run_dir.join(agent::RUNNING)).is_ok_and(|lock| lock.try_lock().is_err())
}

async fn remove_from_kernel(kernel: &Kernel, state_dir: &Path, left: &mut Vec<String>) {
    // By what is remembered, and by the link-layer address that only our interfaces have.
    let mut interfaces = BTreeSet::new();
    if state_dir.exists() {
        match StateDir::open(state_dir).and_then(|s| s.interfaces()) {
            Ok(remembered) => interfaces.extend(remembered),
            Err(error) => left.push(format!("{}: {error}", state_dir.display())),
        }
    }
    match kernel.links().await {
        Ok(links) => interfaces.extend(links.into_iter().filter(|l| l.is_tunnel()).map(|l| l.name)),
        Err(error) => left.push(error.to_string()),
    }
    for interface in interfaces {
        note(left, &interface, kernel.delete_link(&interface).await);
    }
    match kernel.gateway_routes().await {
        Ok(routes) => {
            for (prefix, via) in routes {
                note(left, &prefix.to_string(), kernel.remove_gateway_route(prefix, via).await);
            }
        }
        Err(error) => left.push(error.to_string()),
    }
    match kernel.server_routes().await {
        Ok(routes) => {
            for (address, hop) in routes {
                note(left, &address.to_string(), kernel.remove_server_route(address, &hop).await);
            }
        }
        Err(error) => left.push(error.to_string()),
    }
    match kernel.protected().await {
        Ok(prefixes) => {
            for prefix in prefixes {
                note(left, &prefix.to_string(), kernel.unprotect(prefix).await);
            }
        }
        Err(error) => left.push(error.to_string()),
    }
}

fn note<E: std::fmt::Display>(left: &mut Vec<String>, what: &str, outcome: Result<(), E>) {
    if let Err(error) = outcome {
        left.push(format!("{what}: {error}"));
    }
}

fn gone(outcome: io::Result<()>) -> io::Result<()> {
    match outcome {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}

/// A folder that is mounted into our container can be emptied and not removed.
fn gone_or_empty(folder: &Path, outcome: io::Result<()>) -> io::Result<()> {
    let empty = || fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_none());
    match gone(outcome) {
        Err(_) if empty() => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mounted_folder_that_is_empty_counts_as_removed() {
        let folder = tempfile::tempdir().unwrap();
        let busy = || Err(io::ErrorKind::ResourceBusy.into());
        assert!(gone_or_empty(folder.path(), busy()).is_ok());
        fs::write(folder.path().join("left"), "").unwrap();
        assert!(gone_or_empty(folder.path(), busy()).is_err());
    }
}

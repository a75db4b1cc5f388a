//! A node's cgroups, which kubelet wants made before it starts, and which outlive processes.

use crate::error::{Error, Result};
use rustix::process::getpriority_process;
use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

const ROOT: &str = "/sys/fs/cgroup";

/// Where containerd keeps the containers of all machines, side by side.
const CONTAINERS: &str = "k8s.io";

/// Shares of the CPUs that a kubelet gives the cgroup of its pods for each CPU of its machine.
const SHARES: usize = 1024;

/// Machines of most stories: a hub's cluster of one node and two spokes' of two.
const MACHINES: usize = 5;

/// How long the kernel may take to bury processes that were killed.
const BURIAL: Duration = Duration::from_secs(5);

/// Makes the cgroup of this name in every hierarchy, those of v1 each have one, v2 is a single one, and sees to the one
/// of containers.
pub(super) fn create(name: &str) -> Result {
    for hierarchy in hierarchies() {
        make(&hierarchy, name)?;
        make(&hierarchy, CONTAINERS)?;
        weigh(&hierarchy.join(CONTAINERS));
    }
    Ok(())
}

fn make(hierarchy: &Path, name: &str) -> Result {
    let unified = Path::new(ROOT).join("cgroup.controllers").exists();
    let folder = hierarchy.join(name);
    fs::create_dir_all(&folder).map_err(Error::io(format!("make {}", folder.display())))?;
    if unified {
        for parent in [hierarchy, &folder] {
            // A controller that the parent does not have can't be handed on, and the others can.
            for controller in ["cpu", "cpuset", "io", "memory", "pids"] {
                let _ = fs::write(parent.join("cgroup.subtree_control"), format!("+{controller}"));
            }
        }
    }
    // A cpuset of v1 is empty when made, and takes no process then.
    for file in ["cpuset.cpus", "cpuset.mems"] {
        if let Ok(all) = fs::read(hierarchy.join(file)) {
            let _ = fs::write(folder.join(file), all);
        }
    }
    Ok(())
}

/// Gives containers what the kubelets of all machines would give the cgroups of their pods, which they don't have here.
/// By itself the cgroup of all containers weighs as much as any single process beside it, so that a datapath that asks
/// for a tenth of a CPU would get none for seconds while kubelets start pods: no machine of users is like that.
fn weigh(containers: &Path) {
    // A process weighs a quarter more with each step of its priority, and all that a story starts has the story's.
    let nice = getpriority_process(None).unwrap_or(0);
    let cpus = thread::available_parallelism().map_or(1, usize::from);
    let shares = (SHARES * MACHINES * cpus) as f64 * 1.25_f64.powi(-nice);
    let shares = (shares as usize).clamp(2, 262_144);
    // v1 counts from 2 to 262,144, v2 from 1 to 10,000.
    for (file, weight) in [("cpu.shares", shares), ("cpu.weight", 1 + (shares - 2) * 9999 / 262_142)] {
        let file = containers.join(file);
        if file.exists() {
            // As good as it gets: stories are told on machines that don't let us as well.
            let _ = fs::write(file, weight.to_string());
        }
    }
}

/// Removes all cgroups whose name begins like this. Those with a process in them stay.
pub(crate) fn remove(prefix: &str) {
    for folder in named(prefix) {
        remove_tree(&folder);
    }
}

/// Removes the cgroups of containers, by their ids, once their processes are dead: containerd keeps those of all machines
/// side by side, and a kubelet that boots asks in vain for three seconds about each of its own that is left.
pub(super) fn remove_containers(ids: &[String]) {
    let folders: Vec<_> = hierarchies()
        .into_iter()
        .flat_map(|hierarchy| ids.iter().map(move |id| hierarchy.join(CONTAINERS).join(id)))
        .collect();
    let give_up = Instant::now() + BURIAL;
    while folders.iter().any(|folder| folder.exists()) && Instant::now() < give_up {
        for folder in &folders {
            remove_tree(folder);
        }
        thread::sleep(Duration::from_millis(5));
    }
}

/// The cgroups whose name begins like this.
#[must_use]
pub(crate) fn named(prefix: &str) -> Vec<PathBuf> {
    let begins =
        |path: &PathBuf| path.file_name().and_then(|n| n.to_str()).is_some_and(|n| n.starts_with(prefix));
    hierarchies().iter().flat_map(|hierarchy| folders(hierarchy)).filter(begins).collect()
}

fn remove_tree(folder: &Path) {
    for child in folders(folder) {
        remove_tree(&child);
    }
    let _ = fs::remove_dir(folder);
}

fn hierarchies() -> Vec<PathBuf> {
    if Path::new(ROOT).join("cgroup.controllers").exists() {
        return vec![ROOT.into()];
    }
    folders(Path::new(ROOT))
}

fn folders(path: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    entries.filter(|e| e.file_type().is_ok_and(|t| t.is_dir())).map(|e| e.path()).collect()
}

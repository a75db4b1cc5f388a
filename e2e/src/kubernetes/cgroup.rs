//! A node's cgroups, which kubelet wants made before it starts, and which outlive processes.

use crate::error::{Error, Result};
use std::fs;
use std::path::{Path, PathBuf};

const ROOT: &str = "/sys/fs/cgroup";

/// Makes the cgroup of this name in every hierarchy: those of v1 each have one, v2 is a single one. Those that pods left
/// before a reboot go first: kubelet waits for each in vain.
pub(super) fn create(name: &str) -> Result {
    let unified = Path::new(ROOT).join("cgroup.controllers").exists();
    for hierarchy in hierarchies() {
        let folder = hierarchy.join(name);
        remove_tree(&folder);
        fs::create_dir_all(&folder).map_err(Error::io(format!("make {}", folder.display())))?;
        if unified {
            for parent in [&hierarchy, &folder] {
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
    }
    Ok(())
}

/// Removes all cgroups whose name begins like this. Those with a process in them stay.
pub(crate) fn remove(prefix: &str) {
    for folder in named(prefix) {
        remove_tree(&folder);
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

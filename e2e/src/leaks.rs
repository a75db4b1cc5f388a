//! What a lab, or a whole test run, may have left behind.

use crate::kubernetes::cgroup;
use crate::netns;
use crate::topology::MARK;
use rustix::process::{Pid, WaitOptions, getpid, set_child_subreaper, waitpid};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Once;
use std::thread;
use tokio::signal::unix::{SignalKind, signal};

/// A file system in memory.
pub(crate) const MEMORY: &str = "/dev/shm";

/// What all names of this process's labs begin with: namespaces, folders, and by their arguments processes. The mark
/// tells checkouts apart that are tested on one machine at the same time (`DMVPN_TEST_MARK`; the Makefile sets it).
#[must_use]
pub fn prefix() -> String {
    let mark = std::env::var("DMVPN_TEST_MARK").unwrap_or_default();
    let mark = if mark.is_empty() { "x" } else { &mark };
    format!("{MARK}-{mark}-{}-", std::process::id())
}

/// What there is on this machine that this process could have made. Taken before and after a run, the difference is
/// what was left behind.
#[derive(Clone, Debug, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
pub struct Snapshot {
    /// `kind name`, as in `namespace kdlab-x-1-0-hub`.
    pub things: BTreeSet<String>,
}

impl Snapshot {
    /// Looks at our namespaces, processes and folders, and at interfaces and routes of the host as an agent makes them.
    #[must_use]
    pub fn take() -> Self {
        let prefix = prefix();
        let mut things = BTreeSet::new();
        things.extend(netns::named(&prefix).into_iter().map(|n| format!("namespace {n}")));
        let names = lines(&["-o", "link"]);
        let names = names.iter().filter_map(|l| l.split(": ").nth(1));
        things.extend(names.filter(|n| n.starts_with("dmvpn")).map(|n| format!("interface {n}")));
        for family in ["-4", "-6"] {
            let routes = lines(&[family, "route", "show", "table", "all"]);
            let ours = routes.iter().filter(|r| r.contains("dmvpn") || r.contains("proto nhrp"));
            things.extend(ours.map(|r| format!("route {r}")));
        }
        let processes = our_processes().into_iter().filter(|p| p.contains(&prefix));
        things.extend(processes.map(|p| format!("process {p}")));
        things.extend(folders(&prefix).into_iter().map(|path| format!("file {}", path.display())));
        things.extend(cgroup::named(&prefix).into_iter().map(|path| format!("cgroup {}", path.display())));
        Self { things }
    }

    /// What is there now and was not there before.
    #[must_use]
    pub fn since(&self, before: &Self) -> Vec<String> {
        self.things.difference(&before.things).cloned().collect()
    }
}

/// What is left of one lab, by its prefix and folder.
pub(crate) fn of_lab(id: &str, directory: &Path) -> Vec<String> {
    let mut left: Vec<String> =
        netns::named(&format!("{id}-")).into_iter().map(|n| format!("namespace {n}")).collect();
    if directory.exists() {
        left.push(format!("file {}", directory.display()));
    }
    left.extend(cgroup::named(&format!("{id}-")).iter().map(|path| format!("cgroup {}", path.display())));
    let mark = directory.to_string_lossy().into_owned();
    left.extend(our_processes().into_iter().filter(|p| p.contains(&mark)).map(|p| format!("process {p}")));
    left
}

/// Removes the namespaces and folders of labs whose process is gone without having cleaned up (it was killed).
pub fn sweep() {
    let mark = format!("{MARK}-");
    let folders = folders(&mark);
    let folders = folders.iter().filter_map(|f| f.file_name()?.to_str().map(str::to_owned));
    let makers: BTreeSet<(String, u32)> =
        netns::named(&mark).into_iter().chain(folders).filter_map(maker).collect();
    for (mark, pid) in makers {
        if !Path::new(&format!("/proc/{pid}")).exists() {
            remove_all(&format!("{MARK}-{mark}-{pid}-"));
        }
    }
}

/// The mark and the process in a name.
fn maker(name: String) -> Option<(String, u32)> {
    let mut parts = name.strip_prefix(MARK)?.strip_prefix('-')?.split('-');
    Some((parts.next()?.to_owned(), parts.next()?.parse().ok()?))
}

/// Removes what this process made when it is interrupted or told to end, since then nothing is dropped.
pub(crate) fn clean_up_when_interrupted() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // Without the handler the sweep of the next run removes what is left.
        let _ = thread::Builder::new().name("interrupted".into()).spawn(|| {
            let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else {
                return;
            };
            runtime.block_on(async {
                let Ok(mut terminated) = signal(SignalKind::terminate()) else { return };
                tokio::select! { _ = tokio::signal::ctrl_c() => {}, _ = terminated.recv() => {} }
                eprintln!("interrupted: cleaning up");
                remove_all(&prefix());
                std::process::exit(130);
            });
        });
    });
}

/// Removes the namespaces, with what runs in them, and the folders that begin like this.
fn remove_all(prefix: &str) {
    for name in netns::named(prefix) {
        netns::remove_stale(&name);
    }
    for path in folders(prefix) {
        let _ = fs::remove_dir_all(&path);
    }
    cgroup::remove(prefix);
}

/// Folders that begin like this, where labs have theirs.
fn folders(prefix: &str) -> Vec<PathBuf> {
    let places = [std::env::temp_dir(), MEMORY.into()];
    let begins =
        |path: &PathBuf| path.file_name().and_then(|n| n.to_str()).is_some_and(|n| n.starts_with(prefix));
    places.iter().flat_map(|place| entries(place)).filter(begins).collect()
}

/// Takes note of the death of orphans that were adopted by this process (see [`adopt_orphans`]), so that no zombie
/// stays. A child that its maker still waits for is not touched, unless it was killed by us already.
pub(crate) fn reap_orphans() {
    let own = std::process::id().to_string();
    for path in entries(Path::new("/proc")) {
        let Ok(stat) = fs::read_to_string(path.join("stat")) else { continue };
        // "pid (name) state parent ...", and the name may hold anything.
        let Some((head, tail)) = stat.rsplit_once(')') else { continue };
        let mut fields = tail.split_whitespace();
        let dead = fields.next() == Some("Z") && fields.next() == Some(own.as_str());
        let orphan = ["dmvpn-datapath", "linux.uml"].iter().any(|name| head.ends_with(&format!("({name}")));
        let pid = path.file_name().and_then(|n| n.to_str()?.parse().ok()).and_then(Pid::from_raw);
        if dead && orphan {
            let _ = waitpid(pid, WaitOptions::NOHANG);
        }
    }
}

/// Makes this process the parent of its orphaned descendants, such as a datapath whose agent was killed: not every
/// machine has an init that reaps them.
pub(crate) fn adopt_orphans() {
    let _ = set_child_subreaper(Some(getpid()));
}

/// Command lines of the processes of this project, with their number. The test itself is not one.
fn our_processes() -> Vec<String> {
    let own = std::process::id().to_string();
    let programs = ["dmvpn-operator", "dmvpn-agent", "dmvpn-datapath", "dmvpnctl", "linux.uml"];
    // Of a cluster, what would be left if its first process were.
    let programs = programs.into_iter().chain(["etcd", "kube-apiserver", "kubelet", "containerd"]);
    let programs: Vec<_> = programs.collect();
    entries(Path::new("/proc"))
        .into_iter()
        .filter(|path| path.file_name().is_some_and(|n| n != own.as_str()))
        .filter_map(|path| {
            let line = fs::read(path.join("cmdline")).ok()?;
            let words: Vec<_> = line.split(|b| *b == 0).map(String::from_utf8_lossy).collect();
            let program = Path::new(words.first()?.as_ref()).file_name()?.to_string_lossy().into_owned();
            programs.contains(&program.as_str()).then(|| format!("{} {}", path.display(), words.join(" ")))
        })
        .collect()
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    fs::read_dir(folder).map(|d| d.flatten().map(|e| e.path()).collect()).unwrap_or_default()
}

fn lines(ip: &[&str]) -> Vec<String> {
    let output = Command::new("ip").args(ip).output();
    output
        .map(|o| String::from_utf8_lossy(&o.stdout).lines().map(str::to_owned).collect())
        .unwrap_or_default()
}

//! What a lab, or a whole test run, may have left behind.

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

/// What there is on this machine that our programs or the lab could have made. Taken before and after a run, the
/// difference is what was left behind.
#[derive(Clone, Debug, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
pub struct Snapshot {
    /// `kind name`, as in `namespace kdlab-1-0-hub`.
    pub things: BTreeSet<String>,
}

impl Snapshot {
    /// Looks at the namespaces, the interfaces and routes of the host, the processes with our names, and the
    /// folders our programs use by default.
    #[must_use]
    pub fn take() -> Self {
        let mut things = BTreeSet::new();
        things.extend(netns::named("").into_iter().map(|n| format!("namespace {n}")));
        things.extend(
            lines(&["-o", "link"])
                .iter()
                .filter_map(|l| Some(format!("interface {}", l.split(": ").nth(1)?))),
        );
        for family in ["-4", "-6"] {
            things.extend(
                lines(&[family, "route", "show", "table", "all"]).iter().map(|r| format!("route {r}")),
            );
            things.extend(lines(&[family, "rule"]).iter().map(|r| format!("rule {r}")));
        }
        things.extend(our_processes().into_iter().map(|p| format!("process {p}")));
        let folders = [std::env::temp_dir(), "/run".into(), "/var/lib".into()];
        for path in folders.iter().flat_map(|f| entries(f)) {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if name.starts_with(MARK) || name.starts_with("kube-dmvpn") {
                things.insert(format!("file {}", path.display()));
            }
        }
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
    let mark = directory.to_string_lossy().into_owned();
    left.extend(our_processes().into_iter().filter(|p| p.contains(&mark)).map(|p| format!("process {p}")));
    left
}

/// Removes the namespaces and folders of labs whose process is gone without having cleaned up (it was killed).
pub fn sweep() {
    let folders = entries(&std::env::temp_dir());
    let folders = folders.iter().filter_map(|f| f.file_name()?.to_str().map(str::to_owned));
    let makers: BTreeSet<u32> = netns::named(MARK)
        .into_iter()
        .chain(folders)
        .filter_map(|name| name.strip_prefix(MARK)?.strip_prefix('-')?.split('-').next()?.parse().ok())
        .collect();
    for pid in makers.into_iter().filter(|pid| !Path::new(&format!("/proc/{pid}")).exists()) {
        remove_all(&format!("{MARK}-{pid}-"));
    }
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
                remove_all(&format!("{MARK}-{}-", std::process::id()));
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
    for path in entries(&std::env::temp_dir()) {
        if path.file_name().and_then(|n| n.to_str()).is_some_and(|n| n.starts_with(prefix)) {
            let _ = fs::remove_dir_all(&path);
        }
    }
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
    let programs = ["dmvpn-agent", "dmvpn-datapath", "dmvpnctl", "linux.uml"];
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

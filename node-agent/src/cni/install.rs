//! The plugin on the node: its binary, and its place in the list of the cluster's own. Everything is written beside and
//! renamed, so that a runtime sees the old file or the new one, also when the disk is full or the power fails.

use super::conflist::{self, PLUGIN, Unusable};
use notify::{RecursiveMode, Watcher as _};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};

/// How long the folder must be quiet: plugins are installed in several steps.
const QUIET: Duration = Duration::from_millis(200);
/// The folder is looked at so often in any case.
const LOOK: Duration = Duration::from_secs(30);
/// After a failure it is tried again so soon.
const RETRY: Duration = Duration::from_secs(5);
/// A list that is rewritten more often than this many times ...
const FIGHT: u32 = 5;
/// ... within so long is somebody's who does not want us in it: then it is left for as long again.
const TRUCE: Duration = Duration::from_secs(60);

/// Where runtimes look.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Folders {
    /// For network configurations.
    pub configuration: PathBuf,
    /// For binaries.
    pub binaries: PathBuf,
}

/// What is to be there.
#[derive(Clone, Debug)]
pub struct Install {
    /// Where.
    pub folders: Folders,
    /// Our binary.
    pub binary: PathBuf,
    /// The agent's run directory, as the plugin finds it.
    pub run_dir: PathBuf,
}

/// How far it is.
#[derive(Debug, PartialEq, Eq)]
pub enum State {
    /// In this list.
    Chained(PathBuf),
    /// There is no configuration yet.
    Waiting,
    /// What a runtime takes first can't be used.
    Refused(PathBuf, Unusable),
}

impl Install {
    /// Makes everything so. Says where our plugin is, and whether its list had to be changed.
    pub fn bring(&self) -> io::Result<(State, bool)> {
        self.install_binary()?;
        let files = configurations(&self.folders.configuration)?;
        let Some((first, others)) = files.split_first() else { return Ok((State::Waiting, false)) };
        let changed = match edit(first, |text| conflist::with(text, &self.entry()))? {
            Ok(changed) => changed,
            Err(unusable) => return Ok((State::Refused(first.clone(), unusable), false)),
        };
        // A list that was first once.
        for other in others {
            let _ = edit(other, conflist::without)?;
        }
        Ok((State::Chained(first.clone()), changed))
    }

    /// Follows what others do, for as long as the agent lives.
    pub async fn keep(self) -> io::Result<()> {
        let (changes, mut changed) = mpsc::channel(1);
        let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            // Reading is told as well, and we read.
            if event.is_ok_and(|event| !event.kind.is_access()) {
                let _ = changes.try_send(());
            }
        })
        .map_err(io::Error::other)?;
        let mut watched = false;
        let mut told = None;
        let mut fight = Fight::default();
        loop {
            // It may be made later than we start.
            if !watched {
                watched = watcher.watch(&self.folders.configuration, RecursiveMode::NonRecursive).is_ok();
            }
            let install = self.clone();
            let done =
                tokio::task::spawn_blocking(move || install.bring()).await.map_err(io::Error::other)?;
            let (rewritten, failed) = (matches!(done, Ok((State::Chained(_), true))), done.is_err());
            let now = tell(done);
            if told.as_ref() != Some(&now) {
                if now.1 {
                    tracing::info!("{}", now.0)
                } else {
                    tracing::warn!("{}", now.0)
                }
                told = Some(now);
            }
            if rewritten && fight.is_on(Instant::now()) {
                tracing::warn!(
                    "somebody rewrites the CNI configuration again and again; it is left alone for {} s. Let that plugin \
                     chain others, or set agent.cni.enabled to false",
                    TRUCE.as_secs()
                );
                tokio::time::sleep(TRUCE).await;
            }
            // What we tried is told as well: a full disk must not keep us busy.
            if failed {
                tokio::time::sleep(RETRY).await;
                let _ = changed.try_recv();
            } else if timeout(LOOK, changed.recv()).await.is_ok() {
                while matches!(timeout(QUIET, changed.recv()).await, Ok(Some(()))) {}
            }
        }
    }

    /// Remembers where, so that `uninstall` finds it.
    pub fn remember(&self, state_dir: &Path) -> io::Result<()> {
        let text = serde_json::to_string(&self.folders).map_err(io::Error::other)?;
        fs::write(state_dir.join(MEMORY), text)
    }

    fn entry(&self) -> Value {
        let mut entry = json!({"type": PLUGIN, "capabilities": {"io.kubernetes.cri.pod-annotations": true}});
        if self.run_dir != Path::new("/run/kube-dmvpn") {
            entry["runDir"] = json!(self.run_dir);
        }
        entry
    }

    /// Before any list names it.
    fn install_binary(&self) -> io::Result<()> {
        let target = self.folders.binaries.join(PLUGIN);
        let content = fs::read(&self.binary)?;
        if fs::read(&target).is_ok_and(|there| there == content)
            && fs::metadata(&target).is_ok_and(|m| m.permissions().mode() & 0o111 == 0o111)
        {
            return Ok(());
        }
        fs::create_dir_all(&self.folders.binaries)?;
        replace(&target, &content, fs::Permissions::from_mode(0o755), None)
    }
}

const MEMORY: &str = "cni-folders.json";

/// Takes our plugin out of every list, then removes the binary, unless somebody else's configuration names it: pods that
/// have their interface from it could not end. Goes on when one fails; returns what did.
#[must_use]
pub fn restore(folders: &Folders) -> Vec<String> {
    let mut left = Vec::new();
    let files = configurations(&folders.configuration).unwrap_or_default();
    let mut named = false;
    for file in files {
        named |= fs::read_to_string(&file).is_ok_and(|text| conflist::stands_alone(&text));
        match edit(&file, conflist::without) {
            // What is no list of ours to read has no entry of ours.
            Ok(_) => {}
            Err(error) => left.push(format!("{PLUGIN} in {}: {error}", file.display())),
        }
    }
    if left.is_empty() && !named {
        match fs::remove_file(folders.binaries.join(PLUGIN)) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => left.push(format!("{PLUGIN}: {e}")),
            _ => {}
        }
    }
    left
}

/// Where an agent with this state directory installed the plugin.
#[must_use]
pub fn remembered(state_dir: &Path) -> Option<Folders> {
    serde_json::from_str(&fs::read_to_string(state_dir.join(MEMORY)).ok()?).ok()
}

/// Forgets that.
pub fn forget(state_dir: &Path) {
    let _ = fs::remove_file(state_dir.join(MEMORY));
}

/// Files that runtimes read, in their order: they take the first.
fn configurations(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(e),
    };
    let mut files: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    let is_read = |file: &PathBuf| {
        file.extension().is_some_and(|e| e == "conf" || e == "conflist" || e == "json") && file.is_file()
    };
    files.retain(is_read);
    files.sort();
    Ok(files)
}

/// Changes a file by `change`. Says whether it had to be changed.
fn edit(
    file: &Path,
    change: impl Fn(&str) -> Result<Option<String>, Unusable>,
) -> io::Result<Result<bool, Unusable>> {
    // A link stays a link.
    let file = fs::canonicalize(file)?;
    let Ok(text) = String::from_utf8(fs::read(&file)?) else { return Ok(Err(Unusable::NoList)) };
    let new = match change(&text) {
        Ok(Some(new)) => new,
        Ok(None) => return Ok(Ok(false)),
        Err(unusable) => return Ok(Err(unusable)),
    };
    let metadata = fs::metadata(&file)?;
    let before = Some((text.as_bytes(), metadata.uid(), metadata.gid()));
    replace(&file, new.as_bytes(), metadata.permissions(), before)?;
    Ok(Ok(true))
}

/// Puts a new file in the place of an old one. `before`: only if that is still what is there, and with its owner.
fn replace(
    file: &Path,
    content: &[u8],
    permissions: fs::Permissions,
    before: Option<(&[u8], u32, u32)>,
) -> io::Result<()> {
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    // No runtime reads files that end so.
    let fresh = file.with_file_name(format!(".{name}.{}.new", process::id()));
    let written = || -> io::Result<()> {
        let mut open = File::create(&fresh)?;
        open.write_all(content)?;
        open.set_permissions(permissions)?;
        open.sync_all()?;
        if let Some((old, user, group)) = before {
            let _ = std::os::unix::fs::chown(&fresh, Some(user), Some(group));
            if fs::read(file)? != old {
                return Err(io::Error::other("somebody else changed it meanwhile"));
            }
        }
        fs::rename(&fresh, file)
    };
    let written = written();
    if written.is_err() {
        let _ = fs::remove_file(&fresh);
    }
    written
}

/// In words, and whether all is well.
fn tell(done: io::Result<(State, bool)>) -> (String, bool) {
    match done {
        Ok((State::Chained(file), _)) => (format!("CNI: {PLUGIN} is chained in {}", file.display()), true),
        Ok((State::Waiting, _)) => ("CNI: there is no network configuration yet".to_owned(), true),
        Ok((State::Refused(file, why @ Unusable::Standalone), _)) => {
            (format!("CNI: {} stays as it is: {why}", file.display()), true)
        }
        Ok((State::Refused(file, why), _)) => {
            (format!("CNI: {} can't be chained after: {why}. Pods work without", file.display()), false)
        }
        Err(error) => (format!("CNI: {PLUGIN} can't be installed: {error}. It is tried again"), false),
    }
}

/// How often a list was rewritten lately.
#[derive(Default)]
struct Fight {
    since: Option<Instant>,
    rounds: u32,
}

impl Fight {
    /// One more round.
    fn is_on(&mut self, now: Instant) -> bool {
        if self.since.is_none_or(|since| now - since > TRUCE) {
            (self.since, self.rounds) = (Some(now), 0);
        }
        self.rounds += 1;
        self.rounds > FIGHT
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIST: &str = "{\n  \"name\": \"pods\",\n  \"plugins\": [\n    {\"type\": \"bridge\"}\n  ]\n}\n";

    struct Node {
        dir: tempfile::TempDir,
        install: Install,
    }

    fn node() -> Node {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        fs::create_dir(path("net.d")).unwrap();
        fs::write(path("built"), "binary").unwrap();
        let folders = Folders { configuration: path("net.d"), binaries: path("bin") };
        let install = Install { folders, binary: path("built"), run_dir: PathBuf::from("/run/kube-dmvpn") };
        Node { dir, install }
    }

    impl Node {
        fn write(&self, name: &str, text: &str) -> PathBuf {
            let file = self.dir.path().join("net.d").join(name);
            fs::write(&file, text).unwrap();
            file
        }

        fn names(&self) -> Vec<String> {
            let entries = fs::read_dir(self.dir.path().join("net.d")).unwrap();
            let mut names: Vec<_> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
            names.sort();
            names
        }
    }

    fn read(file: &Path) -> String {
        fs::read_to_string(file).unwrap()
    }

    #[test]
    fn the_first_list_is_chained_with_its_mode_and_only_once() {
        let node = node();
        let file = node.write("10-pods.conflist", LIST);
        node.write("99-other.conflist", LIST);
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        assert_eq!(node.install.bring().unwrap(), (State::Chained(file.clone()), true));
        assert!(read(&file).contains(PLUGIN));
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(node.install.bring().unwrap(), (State::Chained(file), false));
        assert_eq!(read(&node.dir.path().join("net.d/99-other.conflist")), LIST);
        assert_eq!(node.names(), ["10-pods.conflist", "99-other.conflist"]);
    }

    #[test]
    fn the_binary_is_there_before_a_list_names_it_and_can_be_run() {
        let node = node();
        assert_eq!(node.install.bring().unwrap().0, State::Waiting);
        let binary = node.dir.path().join("bin").join(PLUGIN);
        assert_eq!(fs::metadata(&binary).unwrap().permissions().mode() & 0o777, 0o755);
        fs::write(node.dir.path().join("built"), "newer").unwrap();
        node.install.bring().unwrap();
        assert_eq!(read(&binary), "newer");
    }

    #[test]
    fn restored_is_as_before_to_the_octet() {
        let node = node();
        let file = node.write("10-pods.conflist", LIST);
        node.install.bring().unwrap();
        assert_eq!(restore(&node.install.folders), Vec::<String>::new());
        assert_eq!(read(&file), LIST);
        assert_eq!(fs::read_dir(node.dir.path().join("bin")).unwrap().count(), 0);
        assert_eq!(restore(&node.install.folders), Vec::<String>::new(), "twice is no error");
    }

    #[test]
    fn a_list_that_comes_to_stand_first_is_chained_and_the_other_restored() {
        let node = node();
        let old = node.write("10-pods.conflist", LIST);
        node.install.bring().unwrap();
        let new = node.write("05-pods.conflist", LIST);
        assert_eq!(node.install.bring().unwrap().0, State::Chained(new));
        assert_eq!(read(&old), LIST);
    }

    #[test]
    fn what_can_not_be_chained_is_left_alone() {
        let node = node();
        let file = node.write("10-old.conf", "{\"type\": \"bridge\"}");
        assert_eq!(node.install.bring().unwrap(), (State::Refused(file.clone(), Unusable::NoList), false));
        assert_eq!(read(&file), "{\"type\": \"bridge\"}");
    }

    #[test]
    fn where_our_plugin_makes_the_interface_the_list_and_the_binary_stay() {
        let node = node();
        let alone = "{\"plugins\": [{\"type\": \"dmvpn-cni\", \"ipam\": {\"type\": \"host-local\"}}]}";
        let file = node.write("10-pods.conflist", alone);
        let refused = (State::Refused(file.clone(), Unusable::Standalone), false);
        assert_eq!(node.install.bring().unwrap(), refused);
        assert_eq!(restore(&node.install.folders), Vec::<String>::new());
        assert_eq!(read(&file), alone);
        assert!(node.dir.path().join("bin").join(PLUGIN).exists(), "pods that have it end by it");
    }

    #[test]
    fn a_list_behind_a_link_is_changed_and_the_link_stays() {
        let node = node();
        let real = node.dir.path().join("real");
        fs::write(&real, LIST).unwrap();
        let link = node.dir.path().join("net.d/10-pods.conflist");
        std::os::unix::fs::symlink(&real, &link).unwrap();
        node.install.bring().unwrap();
        assert!(read(&real).contains(PLUGIN));
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    }

    #[test]
    fn a_list_that_changed_while_it_was_read_is_not_overwritten() {
        let node = node();
        let file = node.write("10-pods.conflist", LIST);
        let permissions = fs::metadata(&file).unwrap().permissions();
        assert!(replace(&file, b"new", permissions, Some((b"older", 0, 0))).is_err());
        assert_eq!((read(&file).as_str(), node.names().len()), (LIST, 1));
    }

    #[test]
    fn where_it_was_installed_is_remembered() {
        let node = node();
        assert_eq!(remembered(node.dir.path()), None);
        node.install.remember(node.dir.path()).unwrap();
        assert_eq!(remembered(node.dir.path()), Some(node.install.folders));
    }

    #[test]
    fn one_who_rewrites_a_list_again_and_again_is_given_way() {
        let mut fight = Fight::default();
        let now = Instant::now();
        assert!((0..FIGHT).all(|_| !fight.is_on(now)));
        assert!(fight.is_on(now));
        assert!(!fight.is_on(now + TRUCE * 2));
    }

    #[tokio::test]
    async fn a_list_that_its_owner_writes_anew_is_chained_again() {
        let node = node();
        let file = node.write("10-pods.conflist", LIST);
        let keeping = tokio::spawn(node.install.clone().keep());
        for _ in 0..2 {
            wait_for(&file, PLUGIN).await;
            fs::write(&file, LIST).unwrap();
        }
        wait_for(&file, PLUGIN).await;
        keeping.abort();
    }

    async fn wait_for(file: &Path, text: &str) {
        for _ in 0..200 {
            if fs::read_to_string(file).is_ok_and(|t| t.contains(text)) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("{} never had {text}", file.display());
    }
}

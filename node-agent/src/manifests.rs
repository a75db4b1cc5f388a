//! The folder of manifests: read, planned and parsed as a whole, and watched.
//!
//! Files and folders that manifests name (`file:`) are watched too: what a certificate is renewed with lies there.
//!
//! A folder with a mistake anywhere changes nothing: what runs goes on, and every mistake is told.

use crate::config::TunnelConfig;
use crate::source::{self, About, Outcomes};
use crds::manifest;
use notify::{RecommendedWatcher, RecursiveMode, Watcher as _};
use plan::NodeFacts;
use std::collections::BTreeSet;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{fs, io};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};

/// How long a folder must be quiet before it is read: editors and `kubectl cp` write in several steps.
const QUIET: Duration = Duration::from_millis(200);
/// It is read at the latest after so long.
const PATIENCE: Duration = Duration::from_secs(2);
/// It is read again this often in any case, as some file systems tell nothing.
const REREAD: Duration = Duration::from_secs(60);

/// Where in the state directory the manifests stand that were last in force.
const LAST_GOOD: &str = "manifests";

/// What a node is to do; or everything that is wrong with the folder.
pub type Outcome = Result<Vec<TunnelConfig>, Vec<String>>;

/// Tells what the folder says, and each change. Where it can't be used at the start, what was last in force comes first.
pub fn start(folder: &Path, about: &About) -> notify::Result<Outcomes> {
    let About { node, workers, state } = about.clone();
    let last = state.path().join(LAST_GOOD);
    let first = load(folder, &node, workers);
    let mut changes = watch(folder.to_owned(), node.clone(), workers, first.clone())?;
    let before = first.is_err().then(|| load(&last, &node, workers)).and_then(Result::ok);
    let (outcomes, receiver) = mpsc::channel::<source::Outcome>(1);
    let folder = folder.to_owned();
    tokio::spawn(async move {
        if let Some(before) = before {
            tracing::warn!("the manifests can't be used: starting with those that were last in force");
            if outcomes.send(Ok(before).into()).await.is_err() {
                return;
            }
        }
        let mut next = Some(first);
        while let Some(outcome) = next {
            let good = outcome.is_ok();
            if outcomes.send(outcome.into()).await.is_err() {
                return;
            }
            // A copy, so that a restart finds one whatever becomes of the folder.
            let kept = keep(&folder, &last, |copy| load(copy, &node, workers).is_ok());
            if let (true, Err(error)) = (good, kept) {
                tracing::warn!(%error, folder = %last.display(), "cannot keep a copy of the manifests");
            }
            next = tokio::select! {
                () = outcomes.closed() => None,
                change = changes.recv() => change,
            };
        }
    });
    Ok(receiver)
}

/// Reads the folder for this node. `workers`: datapath threads per tunnel.
pub fn load(folder: &Path, node: &str, workers: u16) -> Outcome {
    let manifests = manifest::read_folder(folder).map_err(lines)?;
    let spec = plan::standalone(&manifests, &NodeFacts::named(node)).map_err(lines)?;
    let mut tunnels = Vec::new();
    let mut errors = Vec::new();
    for tunnel in &spec.tunnels {
        match TunnelConfig::parse(tunnel, &manifests.secrets, workers) {
            Ok(config) => tunnels.push(config),
            Err(error) => errors.push(error.to_string()),
        }
    }
    if errors.is_empty() { Ok(tunnels) } else { Err(errors) }
}

/// Keeps a copy of the folder, readable by its owner only, since it holds secrets. `is_good` judges the copy: the
/// folder may have changed since it was read, and then the copy from before is kept.
pub fn keep(folder: &Path, copy: &Path, is_good: impl Fn(&Path) -> bool) -> io::Result<()> {
    let draft = copy.with_extension("new");
    remove(&draft)?;
    fs::DirBuilder::new().mode(0o700).recursive(true).create(&draft)?;
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default();
        let wanted =
            path.extension().is_some_and(|e| ["yaml", "yml", "json"].iter().any(|known| e == *known));
        if wanted && !name.as_encoded_bytes().starts_with(b".") && path.is_file() {
            let target = draft.join(name);
            fs::copy(&path, &target)?;
            fs::set_permissions(&target, fs::Permissions::from_mode(0o600))?;
        }
    }
    if !is_good(&draft) {
        return remove(&draft);
    }
    remove(copy)?;
    fs::rename(&draft, copy)
}

fn remove(folder: &Path) -> io::Result<()> {
    match fs::remove_dir_all(folder) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}

/// Watches the folder and reads it when it changed. Only a different outcome is told. Ends with the receiver.
pub fn watch(
    folder: PathBuf,
    node: String,
    workers: u16,
    first: Outcome,
) -> notify::Result<mpsc::Receiver<Outcome>> {
    let (touched, touches) = mpsc::channel(1);
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        // Reading is no change; to hear of our own reading would never end.
        if event.is_ok_and(|e| !e.kind.is_access()) {
            let _ = touched.try_send(());
        }
    })?;
    watcher.watch(&folder, RecursiveMode::NonRecursive)?;
    let (outcomes, receiver) = mpsc::channel(1);
    let mut watched = Watched { watcher, named: BTreeSet::new() };
    watched.follow(&first);
    tokio::spawn(follow(watched, touches, outcomes, first, move || load(&folder, &node, workers)));
    Ok(receiver)
}

/// What is watched besides the folder of manifests.
struct Watched {
    watcher: RecommendedWatcher,
    named: BTreeSet<PathBuf>,
}

impl Watched {
    /// Watches the folders of files that a good outcome names; a bad one names none, and changes nothing.
    fn follow(&mut self, outcome: &Outcome) {
        let Ok(tunnels) = outcome else { return };
        // A file is replaced by another of its name: that is seen in its folder.
        let folder = |path: &PathBuf| {
            if path.is_dir() { path.clone() } else { path.parent().unwrap_or(path).to_owned() }
        };
        let named: BTreeSet<PathBuf> = tunnels.iter().flat_map(|t| &t.files).map(folder).collect();
        for gone in self.named.difference(&named) {
            // It may be gone altogether.
            let _ = self.watcher.unwatch(gone);
        }
        for new in named.difference(&self.named) {
            if let Err(error) = self.watcher.watch(new, RecursiveMode::NonRecursive) {
                tracing::warn!(folder = %new.display(), %error, "cannot watch; it is read again every minute");
            }
        }
        self.named = named;
    }
}

async fn follow(
    mut watched: Watched,
    mut touches: mpsc::Receiver<()>,
    outcomes: mpsc::Sender<Outcome>,
    mut last: Outcome,
    load: impl Fn() -> Outcome,
) {
    loop {
        tokio::select! {
            () = outcomes.closed() => return,
            touch = touches.recv() => if touch.is_none() { return },
            () = tokio::time::sleep(REREAD) => {}
        }
        let patience = Instant::now() + PATIENCE;
        while timeout_at(patience.min(Instant::now() + QUIET), touches.recv()).await.is_ok() {
            if Instant::now() >= patience {
                break;
            }
        }
        let outcome = load();
        watched.follow(&outcome);
        if outcome != last {
            last.clone_from(&outcome);
            if outcomes.send(outcome).await.is_err() {
                return;
            }
        }
    }
}

fn lines(error: impl std::fmt::Display) -> Vec<String> {
    error.to_string().lines().map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPOKE: &str = "apiVersion: kube-dmvpn.io/v1alpha1
kind: DmvpnSpoke
metadata: {name: site}
spec:
  tunnel: {network: 10.200.0.0/16, addresses: 10.200.16.1/32}
  security: {mode: None}
  hubs: [{address: 198.51.100.1}]
";

    #[test]
    fn a_folder_becomes_tunnels() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("site.yaml"), SPOKE).unwrap();
        let tunnels = load(folder.path(), "a-1", 1).unwrap();
        assert_eq!(tunnels.iter().map(TunnelConfig::interface).collect::<Vec<_>>(), ["dmvpn0"]);
    }

    #[test]
    fn encryption_without_a_key_is_refused_and_nothing_runs() {
        let folder = tempfile::tempdir().unwrap();
        let secret = "---\napiVersion: v1\nkind: Secret\nmetadata: {name: psk}\nstringData: {psk: ''}\n";
        let encrypted = "{authentication: {preSharedKey: {secret: psk}}}";
        let text = SPOKE.replace("{mode: None}", encrypted) + secret;
        fs::write(folder.path().join("site.yaml"), text).unwrap();
        let errors = load(folder.path(), "a-1", 1).unwrap_err();
        assert!(errors.iter().any(|e| e.contains("the pre-shared key is empty")), "{errors:?}");
    }

    #[test]
    fn the_last_good_manifests_are_kept_and_a_broken_folder_does_not_replace_them() {
        let (folder, state) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let kept = state.path().join("manifests");
        let is_good = |folder: &Path| load(folder, "a-1", 1).is_ok();
        fs::write(folder.path().join("site.yaml"), SPOKE).unwrap();
        keep(folder.path(), &kept, is_good).unwrap();
        fs::write(folder.path().join("site.yaml"), "kind: [").unwrap();
        keep(folder.path(), &kept, is_good).unwrap();
        assert_eq!(fs::read_to_string(kept.join("site.yaml")).unwrap(), SPOKE);
        assert_eq!(fs::metadata(&kept).unwrap().permissions().mode() & 0o777, 0o700);
    }

    #[tokio::test]
    async fn a_key_in_a_file_is_read_again_when_it_changes() {
        let (folder, keys) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let key = keys.path().join("psk");
        fs::write(&key, "thirty-two octets of random text").unwrap();
        let encrypted = format!("{{authentication: {{preSharedKey: {{secret: 'file:{}'}}}}}}", key.display());
        fs::write(folder.path().join("site.yaml"), SPOKE.replace("{mode: None}", &encrypted)).unwrap();
        let first = load(folder.path(), "a-1", 1);
        let before = first.clone().unwrap();
        let mut outcomes = watch(folder.path().to_owned(), "a-1".to_owned(), 1, first).unwrap();
        fs::write(keys.path().join("new"), "another key of thirty-two octets").unwrap();
        fs::rename(keys.path().join("new"), &key).unwrap();
        let told = tokio::time::timeout(Duration::from_secs(10), outcomes.recv()).await.unwrap().unwrap();
        assert_ne!(told.unwrap(), before);
    }

    #[tokio::test]
    async fn a_change_is_told_once_and_only_if_it_means_something() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("site.yaml");
        fs::write(&file, SPOKE).unwrap();
        let first = load(folder.path(), "a-1", 1);
        let mut outcomes = watch(folder.path().to_owned(), "a-1".to_owned(), 1, first).unwrap();
        fs::write(&file, format!("# a comment\n{SPOKE}")).unwrap();
        let quiet = tokio::time::timeout(Duration::from_millis(900), outcomes.recv()).await;
        assert!(quiet.is_err(), "a comment is no change");
        fs::write(&file, SPOKE.replace("198.51.100.1", "198.51.100.2")).unwrap();
        let told = tokio::time::timeout(Duration::from_secs(10), outcomes.recv()).await.unwrap().unwrap();
        let address = "198.51.100.2".parse::<std::net::IpAddr>().unwrap();
        assert!(told.unwrap()[0].literal_hubs().all(|hub| hub == address));
    }
}

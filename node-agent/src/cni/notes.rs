//! What plugins left for an agent that was away.

use super::events::Missed;
use super::pods::{Key, PodName, Pods};
use rpc::Message as _;
use rpc::cni::{MISSED, MISSED_MOST, Note};
use std::fs;
use std::path::Path;

/// A note is not larger than this; a file that is was not left by a plugin.
const LARGEST: u64 = 64 << 10;

/// One note, read.
#[derive(Debug)]
pub struct Word(Note);

/// Reads all notes and removes them.
#[must_use]
pub fn take(run_dir: &Path) -> Vec<Word> {
    let Ok(entries) = fs::read_dir(run_dir.join(MISSED)) else { return Vec::new() };
    let mut notes = Vec::new();
    for file in entries.flatten().map(|entry| entry.path()).take(MISSED_MOST) {
        // A plugin writes under another name first.
        if file.extension().is_some() {
            continue;
        }
        let small = fs::metadata(&file).is_ok_and(|m| m.is_file() && m.len() <= LARGEST);
        let octets = if small { fs::read(&file).unwrap_or_default() } else { Vec::new() };
        match Note::decode(octets.as_slice()) {
            Ok(note) if note.attachment.is_some() => notes.push(Word(note)),
            _ => tracing::warn!(file = %file.display(), "not a note of the CNI plugin's"),
        }
        let _ = fs::remove_file(&file);
    }
    notes
}

impl Word {
    /// Does what it says. Returns the pod that was attached.
    pub fn apply(&self, pods: &mut Pods) -> Option<Missed> {
        let Note { added, attachment, why } = &self.0;
        let Some(request) = added else {
            pods.delete(&Key::from(attachment.as_ref()?));
            return None;
        };
        // Its routes were not limited.
        let overlay = pods.add(request, 0).ok()?;
        let pod = request.pod.as_ref().filter(|_| overlay)?;
        let name = PodName { namespace: pod.namespace.clone(), name: pod.name.clone() };
        Some(Missed { pod: name, uid: pod.uid.clone(), why: why.clone() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rpc::cni::{AddRequest, Attachment, Pod};

    fn note(container: &str, attached: bool) -> Note {
        let attachment = Attachment { container: container.to_owned(), ..Attachment::default() };
        let pod = Pod { namespace: "shop".to_owned(), name: container.to_owned(), uid: "u-1".to_owned() };
        let request =
            AddRequest { attachment: Some(attachment.clone()), pod: Some(pod), ..AddRequest::default() };
        Note { added: attached.then_some(request), attachment: Some(attachment), why: "away".to_owned() }
    }

    fn leave(run_dir: &Path, name: &str, octets: &[u8]) {
        fs::create_dir_all(run_dir.join(MISSED)).unwrap();
        fs::write(run_dir.join(MISSED).join(name), octets).unwrap();
    }

    #[test]
    fn a_pod_attached_meanwhile_is_known_and_told() {
        let (dir, mut pods) = (tempfile::tempdir().unwrap(), Pods::default());
        leave(dir.path(), "1", &note("web", true).encode_to_vec());
        let told: Vec<_> = take(dir.path()).iter().filter_map(|n| n.apply(&mut pods)).collect();
        assert_eq!(told.len(), 1);
        let Missed { pod, uid, why } = &told[0];
        assert_eq!((pod.name.as_str(), uid.as_str(), why.as_str()), ("web", "u-1", "away"));
        let key = Key::from(note("web", true).attachment.as_ref().unwrap());
        assert_eq!(pods.get(&key).unwrap().mtu, 0, "there is nothing to undo");
        assert!(take(dir.path()).is_empty(), "notes are read once");
    }

    #[test]
    fn a_pod_detached_meanwhile_is_forgotten() {
        let (dir, mut pods) = (tempfile::tempdir().unwrap(), Pods::default());
        Word(note("web", true)).apply(&mut pods);
        leave(dir.path(), "1", &note("web", false).encode_to_vec());
        assert!(take(dir.path())[0].apply(&mut pods).is_none());
        assert_eq!(pods, Pods::default());
    }

    #[test]
    fn garbage_is_removed_and_nothing_comes_of_it() {
        let dir = tempfile::tempdir().unwrap();
        leave(dir.path(), "1", b"garbage");
        leave(dir.path(), "2", &vec![0; 100_000]);
        leave(dir.path(), "3.new-1", b"being written");
        assert!(take(dir.path()).is_empty());
        assert_eq!(fs::read_dir(dir.path().join(MISSED)).unwrap().count(), 1);
    }
}

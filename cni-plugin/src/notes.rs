//! What the agent could not be told is left for it in its run directory: one file an attachment, the last word of which
//! counts. All of it is best effort: a pod never waits for it, nor fails by it.

use crate::error::Error;
use rpc::Message as _;
use rpc::cni::{AddRequest, Attachment, MISSED, MISSED_MOST, Note};
use std::fs;
use std::path::{Path, PathBuf};

/// Leaves word that a pod was attached.
pub(crate) fn attached(run_dir: &Path, request: AddRequest, why: &str) -> Result<(), Error> {
    let attachment = request.attachment.clone();
    leave(run_dir, &Note { added: Some(request), attachment, why: why.to_owned() })
}

/// Leaves word that it was detached.
pub(crate) fn detached(run_dir: &Path, attachment: Attachment, why: &str) -> Result<(), Error> {
    leave(run_dir, &Note { added: None, attachment: Some(attachment), why: why.to_owned() })
}

/// The agent knows by itself now.
pub(crate) fn forget(run_dir: &Path, attachment: &Attachment) {
    let _ = fs::remove_file(run_dir.join(MISSED).join(key(attachment)));
}

/// A name for an attachment that is always the same, and short.
pub(crate) fn key(attachment: &Attachment) -> String {
    let Attachment { network, container, interface } = attachment;
    // FNV-1a: it needs to be the same for ever, and has nothing to protect.
    let hash = format!("{network}/{container}/{interface}")
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, octet| {
            (hash ^ u64::from(octet)).wrapping_mul(0x0100_0000_01b3)
        });
    format!("{hash:016x}")
}

fn leave(run_dir: &Path, note: &Note) -> Result<(), Error> {
    let folder = run_dir.join(MISSED);
    let io = |what: String| move |e: std::io::Error| Error::Io { what, why: e.to_string() };
    fs::create_dir_all(&folder).map_err(io(format!("make {}", folder.display())))?;
    let file = folder.join(note.attachment.as_ref().map(key).unwrap_or_default());
    if !file.exists() && fs::read_dir(&folder).is_ok_and(|entries| entries.count() >= MISSED_MOST) {
        return Err(Error::Io {
            what: format!("write {}", file.display()),
            why: "too many are there".to_owned(),
        });
    }
    write(&file, &note.encode_to_vec()).map_err(io(format!("write {}", file.display())))
}

/// Whole or not at all.
fn write(file: &PathBuf, octets: &[u8]) -> std::io::Result<()> {
    let fresh = file.with_extension(format!("new-{}", std::process::id()));
    let written = fs::write(&fresh, octets).and_then(|()| fs::rename(&fresh, file));
    if written.is_err() {
        let _ = fs::remove_file(&fresh);
    }
    written
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attachment(container: &str) -> Attachment {
        Attachment { network: "n".to_owned(), container: container.to_owned(), interface: "eth0".to_owned() }
    }

    fn read(run_dir: &Path, container: &str) -> Note {
        let octets = fs::read(run_dir.join(MISSED).join(key(&attachment(container)))).unwrap();
        Note::decode(octets.as_slice()).unwrap()
    }

    #[test]
    fn the_last_word_about_an_attachment_counts() {
        let dir = tempfile::tempdir().unwrap();
        let request = AddRequest { attachment: Some(attachment("c")), ..AddRequest::default() };
        attached(dir.path(), request, "away").unwrap();
        assert!(read(dir.path(), "c").added.is_some());
        detached(dir.path(), attachment("c"), "away").unwrap();
        assert_eq!(read(dir.path(), "c").added, None);
        forget(dir.path(), &attachment("c"));
        assert_eq!(fs::read_dir(dir.path().join(MISSED)).unwrap().count(), 0);
    }

    #[test]
    fn notes_are_bounded() {
        let dir = tempfile::tempdir().unwrap();
        for number in 0..MISSED_MOST {
            detached(dir.path(), attachment(&number.to_string()), "away").unwrap();
        }
        assert_eq!(detached(dir.path(), attachment("more"), "away").unwrap_err().code(), 5);
        detached(dir.path(), attachment("0"), "again").unwrap();
        assert_eq!(read(dir.path(), "0").why, "again");
    }

    #[test]
    fn keys_of_attachments_differ_and_stay() {
        assert_ne!(key(&attachment("a")), key(&attachment("b")));
        // FNV-1a of "//": an older plugin's notes are found by a newer one.
        assert_eq!(key(&Attachment::default()), "07d69907b49d2e23");
    }
}

//! The frame of a story: a lab is made, the story is told, and whatever its end, nothing is left behind.

use crate::error::{Error, Result};
use crate::priority::Priority;
use crate::security;
use crate::topology::Lab;
use rustix::fs::{FlockOperation, flock};
use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

/// Tells a story. Several may be told at the same time.
///
/// # Panics
/// When the story fails, after having said what the nodes and the wire knew about it.
#[track_caller]
pub fn story(name: &str, tell: impl FnOnce(&Lab) -> Result) {
    run(name, FlockOperation::LockShared, tell);
}

/// Tells a story that measures: no other is told on this machine meanwhile, and what else it does goes second.
///
/// # Panics
/// When the story fails, after having said what the nodes and the wire knew about it.
#[track_caller]
pub fn heavy_story(name: &str, tell: impl FnOnce(&Lab) -> Result) {
    run(name, FlockOperation::LockExclusive, tell);
}

#[track_caller]
fn run(name: &str, lock: FlockOperation, tell: impl FnOnce(&Lab) -> Result) {
    let _turn = turn(lock).unwrap_or_else(|e| panic!("{name}: {e}"));
    let _priority = (lock == FlockOperation::LockExclusive).then(Priority::raise);
    security::tells(name);
    let lab = Lab::new(name).unwrap_or_else(|e| panic!("{name}: {e}"));
    let outcome = catch_unwind(AssertUnwindSafe(|| tell(&lab)));
    match outcome {
        Ok(Ok(())) => {}
        Ok(Err(error)) => {
            lab.tell_all();
            drop(lab);
            panic!("{name} ({}): {error}", security::described());
        }
        Err(panic) => {
            lab.tell_all();
            resume_unwind(panic);
        }
    }
}

/// Waits for this story's turn on the machine; held as long as the file is. A heavy story waits until no other runs,
/// in any checkout: what they lock is what all of them use, and no file of ours.
fn turn(lock: FlockOperation) -> Result<File> {
    let locked = |path: &str| {
        let file = File::open(path).map_err(Error::io(format!("open {path}")))?;
        flock(&file, lock).map_err(Error::sys("wait for the machine"))?;
        Ok(file)
    };
    // While a heavy story waits nobody else may begin, or it could wait for ever.
    let _door = locked("/dev/null")?;
    locked("/dev/net/tun")
}

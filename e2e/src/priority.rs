//! Priority over what else the machine does: a story that measures loss and gaps measures neither another checkout's
//! compiler nor a backup.

use rustix::process::{getpriority_process, setpriority_process};
use std::fs;

/// As `nice` has it: about nine times the share of others.
const NICE: i32 = -10;
/// Processes of a session share its priority against other sessions, where the kernel groups them so (sched(7)).
const SESSION: &str = "/proc/self/autogroup";

/// While it lives, the calling thread, those it starts, their processes, and the session of all of them go before others.
/// Where that is not possible they wait their turn.
pub(crate) struct Priority {
    thread: i32,
    session: Option<String>,
}

impl Priority {
    pub(crate) fn raise() -> Self {
        let thread = getpriority_process(None).unwrap_or(0);
        let session =
            fs::read_to_string(SESSION).ok().and_then(|text| session_nice(&text).map(str::to_owned));
        let before = Self { thread, session };
        set(NICE, before.session.is_some().then(|| NICE.to_string()).as_deref());
        before
    }
}

impl Drop for Priority {
    fn drop(&mut self) {
        set(self.thread, self.session.as_deref());
    }
}

fn set(thread: i32, session: Option<&str>) {
    let _ = setpriority_process(None, thread);
    if let Some(nice) = session {
        let _ = fs::write(SESSION, nice);
    }
}

/// Out of `/autogroup-7951 nice 0`.
fn session_nice(text: &str) -> Option<&str> {
    text.trim_end().rsplit_once(" nice ").map(|(_, nice)| nice)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_session_had_is_found() {
        assert_eq!(session_nice("/autogroup-7951 nice -5\n"), Some("-5"));
        assert_eq!(session_nice("\n"), None);
    }

    #[test]
    fn a_threads_priority_is_as_before_at_the_end() {
        let before = getpriority_process(None).unwrap();
        // Root may raise it, others keep what they have.
        drop(Priority::raise());
        assert_eq!(getpriority_process(None).unwrap(), before);
    }
}

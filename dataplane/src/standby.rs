//! A datapath in a container that was handed over, and must not end: the container would be started again, and take all
//! back. It stands by until a signal comes; if its successor vanishes before, it begins anew.

use std::io;
use std::path::Path;
use std::time::Duration;

/// How often to look.
pub const INTERVAL: Duration = Duration::from_millis(200);
/// Whoever was not seen so many times has vanished.
const MISSES: u32 = 5;

/// Waits while somebody listens at `socket`. False: `is_told_to_end` said so.
///
/// # Errors
/// If the kernel does not say who listens.
pub fn wait(socket: &Path, mut is_told_to_end: impl FnMut() -> bool) -> io::Result<bool> {
    let mut misses = 0;
    while misses < MISSES {
        if is_told_to_end() {
            return Ok(false);
        }
        misses = if listens(&std::fs::read_to_string("/proc/net/unix")?, socket) { 0 } else { misses + 1 };
        std::thread::sleep(INTERVAL);
    }
    Ok(true)
}

/// Does this table of unix sockets have one that listens at `path`? To connect would be a visit by an agent.
fn listens(table: &str, path: &Path) -> bool {
    /// `__SO_ACCEPTCON`.
    const LISTENING: u32 = 1 << 16;
    table.lines().skip(1).any(|line| {
        let mut words = line.split_ascii_whitespace();
        let flags = words.nth(3).and_then(|flags| u32::from_str_radix(flags, 16).ok()).unwrap_or(0);
        flags & LISTENING != 0 && words.nth(3).is_some_and(|at| Path::new(at) == path)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "Num       RefCount Protocol Flags    Type St Inode Path
0000000000000000: 00000002 00000000 00010000 0001 01 26421 /run/kube-dmvpn/datapath.sock
0000000000000000: 00000003 00000000 00000000 0001 03 26422 /run/kube-dmvpn/other.sock
0000000000000000: 00000003 00000000 00000000 0001 03 26423
";

    #[test]
    fn only_who_listens_is_there() {
        assert!(listens(TABLE, Path::new("/run/kube-dmvpn/datapath.sock")));
        assert!(!listens(TABLE, Path::new("/run/kube-dmvpn/other.sock")));
        assert!(!listens(TABLE, Path::new("/run/kube-dmvpn/third.sock")));
    }

    #[test]
    fn a_successor_that_vanished_is_noticed_and_a_signal_ends_the_wait() {
        let dir = std::env::temp_dir().join(format!("standby-{}", std::process::id()));
        let socket = dir.join("datapath.sock");
        let listener = crate::control::listen(&socket).unwrap();
        assert!(!wait(&socket, || true).unwrap());
        std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(300));
            drop(listener);
        });
        assert!(wait(&socket, || false).unwrap());
        std::fs::remove_dir_all(dir).unwrap();
    }
}

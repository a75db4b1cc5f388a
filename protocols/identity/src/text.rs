//! How names, serials and times look in messages for people. What peers send is never trusted to be printable.

use std::fmt::Write as _;
use std::time::Duration;
use x509_cert::name::Name;

/// Characters of a name shown at most.
const SHOWN: usize = 200;

/// A distinguished name, safe to print.
pub(crate) fn name(name: &Name) -> String {
    if name.is_empty() { "(no subject)".to_owned() } else { printable(&name.to_string()) }
}

pub(crate) fn printable(text: &str) -> String {
    text.chars().take(SHOWN).map(|c| if moves(c) { '\u{fffd}' } else { c }).collect()
}

/// Controls, and characters that turn the direction of writing or cannot be seen.
fn moves(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

pub(crate) fn hex(octets: &[u8]) -> String {
    octets.iter().fold(String::with_capacity(octets.len() * 2), |mut text, octet| {
        let _ = write!(text, "{octet:02x}");
        text
    })
}

/// Seconds since 1970 as RFC 3339.
pub fn time(unix: u64) -> String {
    der::DateTime::from_unix_duration(Duration::from_secs(unix))
        .map_or_else(|_| format!("{unix} s after 1970"), |time| time.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_peer_sends_cannot_move_the_cursor() {
        assert_eq!(printable("a\u{1b}[2Jb\n"), "a\u{fffd}[2Jb\u{fffd}");
        assert_eq!(printable("a\u{202e}b"), "a\u{fffd}b");
        assert_eq!(printable(&"x".repeat(10_000)).len(), SHOWN);
    }

    #[test]
    fn times_read_as_dates() {
        assert_eq!(time(1_700_000_000), "2023-11-14T22:13:20Z");
        assert_eq!(time(u64::MAX), format!("{} s after 1970", u64::MAX));
    }
}

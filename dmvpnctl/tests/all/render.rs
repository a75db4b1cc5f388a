//! What people read, from fixed replies. `UPDATE_GOLDEN=1 cargo test -p dmvpnctl` writes the files anew.

use crate::replies;

use dmvpnctl::{commands, json};
use rpc::agent::*;
use std::path::Path;

fn golden(name: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(expected == text, "{name} was\n{expected}\nand is\n{text}");
}

#[test]
fn status() {
    golden("status.txt", &commands::status::render(&replies::status()));
}

#[test]
fn status_as_json() {
    let value = json::to_value(&replies::status()).unwrap();
    golden("status.json", &format!("{}\n", serde_json::to_string_pretty(&value).unwrap()));
}

#[test]
fn peers() {
    golden("peers.txt", &commands::peers::render(&replies::peers()));
}

#[test]
fn cache() {
    golden("cache.txt", &commands::cache::render(&replies::cache()));
}

#[test]
fn shortcuts() {
    golden("shortcuts.txt", &commands::shortcuts::render(&replies::shortcuts()));
}

#[test]
fn diagnose() {
    let text = commands::diagnose::render(&replies::diagnose(true));
    golden("diagnose.txt", &text);
    assert!(commands::diagnose::failed(&replies::diagnose(true)));
    assert!(!commands::diagnose::failed(&replies::diagnose(false)));
    assert!(commands::diagnose::render(&replies::diagnose(false)).ends_with("\nall 1 checks passed\n"));
}

#[test]
fn watch() {
    golden("watch.txt", &replies::events().iter().map(commands::watch::render).collect::<String>());
}

#[test]
fn a_path_by_shortcut_says_how_long_it_is_direct() {
    assert_eq!(
        commands::path::render(&replies::path()),
        "10.2.3.4  prefix 10.2.3.0/24  via shortcut b-2 (10.200.17.2, 203.0.113.9:4500, behind NAT), direct for 3m12s\n          hub path ready as fallback: hq-1\n"
    );
}

#[test]
fn the_agents_own_words_go_before_ours() {
    let reply = PathReply { explanation: vec!["10.2.3.4  first".into(), "second".into()], ..replies::path() };
    assert_eq!(commands::path::render(&reply), "10.2.3.4  first\n          second\n");
}

#[test]
fn each_kind_of_path_has_its_words() {
    for (kind, words) in [
        ("hub", "by the hub b-2 (10.200.17.2, 203.0.113.9:4500, behind NAT)"),
        ("peer", "via peer b-2 (10.200.17.2"),
        ("local", "is this node"),
        ("kernel", "leaves by another interface"),
        ("unreachable", "is unreachable: protected"),
        ("none", "has no route"),
    ] {
        let text = commands::path::render(&PathReply { kind: kind.into(), ..replies::path() });
        assert!(text.contains(words), "{kind}: {text}");
    }
}

#[test]
fn nothing_is_said_in_words() {
    assert_eq!(commands::peers::render(&PeersReply::default()), "no peers\n");
    assert_eq!(commands::cache::render(&CacheReply::default()), "the cache is empty\n");
    assert_eq!(
        commands::shortcuts::render(&ShortcutsReply::default()),
        "no shortcuts: all traffic goes by the hub\n"
    );
    let nothing = StatusReply { node: "a-1".into(), ..StatusReply::default() };
    assert_eq!(commands::status::render(&nothing), "a-1 has no tunnel\n");
}

#[test]
fn sessions_and_their_sas() {
    golden("sa.txt", &commands::sa::render(&replies::sas()));
    assert_eq!(commands::sa::render(&SasReply::default()), "no sessions\n");
}

#[test]
fn clearing_counts() {
    for (number, words) in [(0, "no shortcuts"), (1, "1 shortcut given"), (2, "2 shortcuts given")] {
        let reply = ClearReply { shortcuts: number, ..ClearReply::default() };
        assert!(commands::clear::shortcuts(&reply).starts_with(words));
    }
    for (number, words) in [(0, "no such session"), (1, "1 session ended"), (2, "2 sessions ended")] {
        let reply = ClearReply { sessions: number, ..ClearReply::default() };
        assert!(commands::clear::sessions(&reply).starts_with(words));
    }
    for (number, words) in [(0, "no such registration"), (1, "1 registration f"), (2, "2 registrations f")] {
        let reply = ClearReply { registrations: number, ..ClearReply::default() };
        assert!(commands::clear::registrations(&reply).starts_with(words));
    }
}

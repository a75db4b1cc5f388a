//! The whole command against an agent on a unix socket.

use crate::fake::Fake;
use clap::Parser as _;
use dmvpnctl::cli::Cli;
use dmvpnctl::error::Error;
use pcap_file::DataLink;
use pcap_file::pcapng::{Block, PcapNgReader};
use std::path::Path;
use std::process::ExitCode;

async fn run(socket: &Path, words: &[&str]) -> (Result<ExitCode, Error>, Vec<u8>) {
    let socket = socket.to_str().unwrap();
    let all = ["dmvpnctl", "--socket", socket].into_iter().chain(words.iter().copied());
    let mut out = Vec::new();
    let result = dmvpnctl::run::run(&Cli::parse_from(all), &mut out).await;
    (result, out)
}

async fn text(fake: &Fake, words: &[&str]) -> String {
    let (result, out) = run(&fake.socket, words).await;
    result.unwrap();
    String::from_utf8(out).unwrap()
}

#[tokio::test]
async fn commands_ask_and_show() {
    let fake = Fake::start();
    assert!(text(&fake, &["status"]).await.starts_with("NODE  TUNNEL ADDRESS"));
    assert!(text(&fake, &["peers", "-i", "dmvpn0"]).await.contains("203.0.113.9:4500"));
    assert!(text(&fake, &["cache"]).await.contains("registered"));
    assert!(text(&fake, &["clear", "10.2.3.0/24"]).await.starts_with("3 shortcuts"));
    assert!(text(&fake, &["clear", "sa", "b-2"]).await.starts_with("1 session ended"));
    assert!(text(&fake, &["clear", "registrations"]).await.starts_with("no such registration"));
    assert!(text(&fake, &["rekey", "--ike", "b-2"]).await.starts_with("1 session replaces"));
    assert!(text(&fake, &["rekey"]).await.starts_with("no such session"));
    assert!(text(&fake, &["sa"]).await.contains("c0ffee00"));
    assert!(text(&fake, &["path", "10.2.3.4"]).await.contains("via shortcut b-2"));
    assert!(text(&fake, &["path", "10.1.0.1", "10.2.3.4"]).await.contains("via shortcut b-2"));
    let asked = fake.asked.lock().unwrap().join("\n");
    assert!(asked.contains("PeersRequest { interface: \"dmvpn0\" }"), "{asked}");
    assert!(asked.contains("RekeyRequest { interface: \"\", peer: \"b-2\", ike: true }"), "{asked}");
    assert!(asked.contains("PathRequest { source: \"\", destination: \"10.2.3.4\" }"), "{asked}");
    assert!(asked.contains("PathRequest { source: \"10.1.0.1\", destination: \"10.2.3.4\" }"), "{asked}");
}

#[tokio::test]
async fn json_has_enums_by_name() {
    let fake = Fake::start();
    let status: serde_json::Value =
        serde_json::from_str(&text(&fake, &["-o", "json", "status"]).await).unwrap();
    assert_eq!(status["tunnels"][0]["state"], "up");
    assert_eq!(status["tunnels"][1]["role"], "hub");
    let peers: serde_json::Value =
        serde_json::from_str(&text(&fake, &["peers", "-o", "json"]).await).unwrap();
    assert_eq!(peers["peers"][1]["kind"], "direct");
    assert_eq!(peers["peers"][1]["state"], "carries");
}

#[tokio::test]
async fn events_are_a_line_each_until_the_agent_goes() {
    let fake = Fake::start();
    let (result, out) = run(&fake.socket, &["watch", "-o", "json"]).await;
    assert!(matches!(result, Err(Error::Gone(_))));
    let lines: Vec<serde_json::Value> =
        String::from_utf8(out).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 2);
    assert_eq!((&lines[1]["severity"], &lines[1]["reason"]), (&"warning".into(), &"ShortcutLost".into()));
}

#[tokio::test]
async fn a_failed_check_fails_the_command() {
    let fake = Fake::start();
    let (result, out) = run(&fake.socket, &["diagnose"]).await;
    assert_eq!(format!("{:?}", result.unwrap()), format!("{:?}", ExitCode::FAILURE));
    assert!(String::from_utf8(out).unwrap().contains("-> open UDP port 4754"));
}

#[tokio::test]
async fn a_capture_is_pcapng_with_names_directions_and_nanoseconds() {
    let fake = Fake::start();
    let (result, out) = run(&fake.socket, &["capture"]).await;
    result.unwrap();
    let mut reader = PcapNgReader::new(out.as_slice()).unwrap();
    let (mut interfaces, mut packets) = (Vec::new(), Vec::new());
    while let Some(block) = reader.next_block() {
        match block.unwrap() {
            Block::InterfaceDescription(block) => {
                assert_eq!(block.linktype, DataLink::RAW);
                interfaces.push(format!("{:?}", block.options));
            }
            Block::EnhancedPacket(block) => {
                packets.push((
                    block.interface_id,
                    block.timestamp.as_nanos(),
                    block.data.to_vec(),
                    format!("{:?}", block.options),
                ));
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(interfaces.len(), 2);
    assert!(
        interfaces[1].contains("IfName(\"dmvpn1\")") && interfaces[1].contains("IfTsResol(9)"),
        "{interfaces:?}"
    );
    let order: Vec<_> =
        packets.iter().map(|(interface, time, data, _)| (*interface, *time, data.clone())).collect();
    assert_eq!(
        order,
        [
            (0, 1_709_251_199_123_456_789, vec![0x45, 1, 0, 3]),
            (1, 1_709_251_199_123_456_790, vec![0x45, 2, 0, 3]),
            (0, 1_709_251_199_123_456_791, vec![0x45, 3, 0, 3]),
        ]
    );
    assert!(packets[0].3.contains("Flags(2)") && packets[0].3.contains("to 10.200.17.2"), "{:?}", packets[0]);
    assert!(
        packets[1].3.contains("Flags(1)") && packets[1].3.contains("from 10.200.17.2"),
        "{:?}",
        packets[1]
    );
}

#[tokio::test]
async fn no_socket_says_how_to_start_the_agent() {
    let folder = tempfile::tempdir().unwrap();
    let (result, _) = run(&folder.path().join("agent.sock"), &["status"]).await;
    let error = result.unwrap_err();
    assert!(matches!(error, Error::NoSocket(_)));
    assert!(error.to_string().contains("start dmvpn-agent"), "{error}");
}

#[tokio::test]
async fn a_socket_without_an_agent_says_it_stopped() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("agent.sock");
    drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
    let error = run(&socket, &["status"]).await.0.unwrap_err();
    assert!(matches!(error, Error::NotListening(_)), "{error:?}");
}

#[tokio::test]
async fn another_program_on_the_socket_is_told_apart() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("agent.sock");
    let listener = tokio::net::UnixListener::bind(&socket).unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = tokio::io::AsyncWriteExt::write_all(&mut stream, b"220 hello\r\n").await;
        }
    });
    let error = run(&socket, &["status"]).await.0.unwrap_err();
    assert!(matches!(error, Error::Protocol { .. } | Error::Gone(_)), "{error:?}");
}

#[tokio::test]
async fn an_old_agent_says_upgrade() {
    let fake = Fake::start();
    let error = run(&fake.socket, &["shortcuts"]).await.0.unwrap_err();
    assert!(matches!(error, Error::TooOld), "{error:?}");
}

#[tokio::test]
async fn the_agents_refusal_is_shown_in_its_words() {
    let fake = Fake::start();
    let error = run(&fake.socket, &["clear", "-i", "dmvpn9"]).await.0.unwrap_err();
    assert_eq!(error.to_string(), "no tunnel dmvpn9: this node has dmvpn0");
}

#[tokio::test]
async fn completions_and_the_manual_need_no_agent() {
    let nowhere = Path::new("/nonexistent/agent.sock");
    let (result, out) = run(nowhere, &["completions", "bash"]).await;
    result.unwrap();
    assert!(String::from_utf8(out).unwrap().contains("shortcuts"));
    let (result, out) = run(nowhere, &["man"]).await;
    result.unwrap();
    assert!(String::from_utf8(out).unwrap().contains(".TH dmvpnctl"));
}

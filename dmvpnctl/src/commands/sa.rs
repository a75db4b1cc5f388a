//! `sa`: who is encrypted to, by what, and since when.

use crate::table::Table;
use crate::text::{octets, span};
use rpc::agent::{Sa, SasReply, Session, Traffic};

/// What people read: a line for each pair of SAs, and for each session that has none.
#[must_use]
pub fn render(reply: &SasReply) -> String {
    let mut table = Table::new(&[
        "INTERFACE",
        "PEER",
        "PATH",
        "NAT",
        "STATE",
        "IKE",
        "ESP",
        "LANE",
        "IN",
        "OUT",
        "AGE",
        "REKEY IN",
        "PACKETS",
        "RX/TX",
    ]);
    for session in &reply.sessions {
        if session.sas.is_empty() {
            table.row(row(session, None));
        }
        for sa in &session.sas {
            table.row(row(session, Some(sa)));
        }
    }
    let mut text = table.without_constant(&["INTERFACE", "LANE"]).render("no sessions");
    if reply.sessions.iter().any(|session| !session.identity.is_empty() && !session.verified) {
        text.push_str(
            "\n(?) knows the pre-shared key, and is called what it says: nobody proved that name.\n",
        );
    }
    let wrong = |sa: &&Sa| sa.replayed > 0 || sa.forged > 0;
    for (session, sa) in reply.sessions.iter().flat_map(|s| s.sas.iter().filter(wrong).map(move |sa| (s, sa)))
    {
        text.push_str(&format!(
            "{}: {} dropped as seen before or too old, {} not authentic (SPI {})\n",
            peer(session),
            sa.replayed,
            sa.forged,
            sa.inbound_spi
        ));
    }
    text
}

fn row(session: &Session, sa: Option<&Sa>) -> [String; 14] {
    let of = |text: fn(&Sa) -> String| sa.map(text).unwrap_or_default();
    [
        session.interface.clone(),
        peer(session),
        session.path.clone(),
        nat(session).to_owned(),
        state(session),
        session.ike.clone(),
        of(|sa| format!("{}{}", sa.suite, if sa.esn { "-esn" } else { "" })),
        of(|sa| sa.lane.to_string()),
        of(|sa| sa.inbound_spi.clone()),
        of(|sa| sa.outbound_spi.clone()),
        of(|sa| span(sa.age_ms)),
        of(|sa| span(sa.rekey_in_ms)),
        of(|sa| both(sa.traffic.as_ref(), |t| format!("{}/{}", octets(t.rx_packets), octets(t.tx_packets)))),
        of(|sa| both(sa.traffic.as_ref(), |t| format!("{}/{}", octets(t.rx_bytes), octets(t.tx_bytes)))),
    ]
}

/// Its identity; with a mark where nobody proved it.
fn peer(session: &Session) -> String {
    match (session.identity.as_str(), session.verified) {
        ("", _) if session.remote_id.is_empty() => String::new(),
        ("", _) => format!("{} (?)", session.remote_id),
        (name, true) => name.to_owned(),
        (name, false) => format!("{name} (?)"),
    }
}

const fn nat(session: &Session) -> &'static str {
    match (session.peer_behind_nat, session.we_behind_nat) {
        (false, false) => "no",
        (true, false) => "peer",
        (false, true) => "us",
        (true, true) => "both",
    }
}

fn state(session: &Session) -> String {
    if session.state == "Established" { "up".to_owned() } else { session.state.clone() }
}

fn both(traffic: Option<&Traffic>, text: impl Fn(&Traffic) -> String) -> String {
    traffic.map(text).unwrap_or_default()
}

//! The loop's part in encryption: the time of day, exported keys, and SAs that only the datapath knows.

use super::{Control, WALL_CLOCK_INTERVAL};
use crate::clock::{self, now};
use crate::executor::Step;
use crate::keylog::KeyLog;
use dataplane::messages::{Request, SaCounters};
use dmvpn::{Action, Event, Input, Tunnel};
use ikev2::SessionView;
use packet::Path;
use rpc::agent::Severity;
use std::collections::BTreeSet;
use std::time::Duration;

/// The wall clock was set when it moved against the machine's own by more than this.
const JUMP: Duration = Duration::from_secs(1);

impl Control {
    /// Tells the engine the time of day, by which certificates hold: now and then, and at once when it was set.
    pub(super) fn tell_time(&mut self) {
        let now = now();
        let told = self.clock_offset;
        let offset = clock::unix_offset();
        if self.due.wall_clock > now && told.abs_diff(offset) < JUMP {
            return;
        }
        if self.config.protection.is_none() || self.engine.is_none() {
            return;
        }
        if told != Duration::ZERO && told.abs_diff(offset) >= JUMP {
            let jump = told.abs_diff(offset);
            self.events.agent(
                Severity::Normal,
                "ClockSet",
                format!("the time of day was set, by {jump:.0?}"),
            );
        }
        self.due.wall_clock = now + WALL_CLOCK_INTERVAL;
        self.clock_offset = offset;
        self.input(Input::WallClock(clock::unix_millis() / 1000));
    }

    /// Says what should be changed about the tunnel's security, and begins or ends the export of keys.
    pub(super) fn judge_security(&mut self) {
        let folder = self.key_folder();
        let warnings = self.config.protection.as_ref().map(|p| p.warnings.clone()).unwrap_or_default();
        for warning in warnings {
            self.events.agent(Severity::Warning, "WeakSecurity", warning);
        }
        self.keylog = None;
        if !self.config.protection.as_ref().is_some_and(|p| p.exports_keys()) {
            if let Err(error) = KeyLog::remove(&folder) {
                self.fail(format!("cannot remove exported keys in {}: {error}", folder.display()));
            }
            return;
        }
        self.events.agent(Severity::Warning, "KeysExported", exported(&folder));
        match KeyLog::open(folder) {
            Ok(log) => self.keylog = Some(log),
            Err(error) => self.fail(format!("cannot export keys: {error}")),
        }
    }

    /// Where keys are exported to.
    pub(super) fn key_folder(&self) -> std::path::PathBuf {
        self.parts.run_dir.join("keys").join(self.config.interface())
    }

    /// Writes the keys in an action into the file for Wireshark, if that was asked for.
    pub(super) fn export_keys(&mut self, action: &Action) {
        let Some(log) = &self.keylog else { return };
        let written = match action {
            Action::AddInboundSa { path, keys } | Action::SetOutboundSa { path, keys, .. } => {
                log.esp(*path, keys)
            }
            _ => return,
        };
        if let Err(error) = written {
            self.fail(format!("cannot export keys: {error}"));
        }
    }

    /// The same of an IKE SA. True: the event was a key, and nothing for people.
    pub(super) fn export_ike_keys(&mut self, event: &Event) -> bool {
        let Event::IkeKeys { line } = event else { return false };
        if let Some(Err(error)) = self.keylog.as_ref().map(|log| log.ike(line)) {
            self.fail(format!("cannot export keys: {error}"));
        }
        true
    }

    /// The IKE sessions.
    pub(super) fn sessions(&self) -> Vec<SessionView> {
        self.engine.as_ref().map(Tunnel::sessions).unwrap_or_default()
    }

    /// Ends the sessions of a peer, by its identity, tunnel address or path, or all.
    pub(super) fn clear_sessions(&mut self, peer: &str) -> usize {
        let paths = self.session_paths(peer);
        let Some(engine) = &mut self.engine else { return 0 };
        for path in &paths {
            engine.close_session(now(), *path);
        }
        self.checkpoint.touch();
        paths.len()
    }

    /// Replaces the keys of the sessions of a peer, named in the same ways, or of all.
    pub(super) fn rekey(&mut self, peer: &str, ike: bool) -> usize {
        let paths = self.session_paths(peer);
        let Some(engine) = &mut self.engine else { return 0 };
        let begun = paths.into_iter().filter(|path| engine.rekey(now(), *path, ike)).count();
        self.checkpoint.touch();
        begun
    }

    /// The paths of the sessions with a peer, by its identity, tunnel address or path; with nobody named, of all.
    fn session_paths(&self, peer: &str) -> Vec<Path> {
        let Some(engine) = &self.engine else { return Vec::new() };
        if let Some(paths) = peer.parse().ok().and_then(|address| engine.peer_paths(address)) {
            return paths;
        }
        let named = |s: &SessionView| {
            s.identity.as_ref().is_some_and(|i| i.name == peer) || s.path.to_string() == peer
        };
        let sessions = engine.sessions().into_iter();
        sessions.filter(|s| peer.is_empty() || named(s)).map(|s| s.path).collect()
    }

    /// Asks a datapath that was just connected what SAs it holds.
    pub(super) fn ask_for_sas(&mut self) {
        if self.config.protection.is_none() {
            return;
        }
        // What is decided already comes before the question.
        self.drain();
        self.expected_sas = Some(sas_of(&self.sessions()).collect());
        self.executor.push(Step::Datapath(Request::GetSas));
    }

    /// What the datapath holds of SAs. What it holds and the engine doesn't know goes: its keys, and its peer's, are
    /// nobody's any more. What it lacks, it never got, or has lost: nobody else has the keys, so that session begins anew.
    pub(super) fn on_sas(&mut self, sas: Vec<SaCounters>) {
        if let Some(expected) = self.expected_sas.take() {
            self.remove_unknown(&sas, &expected);
            let present = sas.iter().map(|sa| (sa.outbound, sa.spi)).collect();
            self.replace_lacking(&expected.difference(&present).copied().collect());
        }
        self.sas = sas.into_iter().map(|sa| ((sa.outbound, sa.spi), sa)).collect();
    }

    /// Begins those sessions anew of whose SAs not one is there to receive by. What a session lacks besides may be on its
    /// way: while keys are replaced, an SA is known before the datapath has it, and after it has been taken out again.
    fn replace_lacking(&mut self, lacking: &BTreeSet<(bool, u32)>) {
        let is_lost = |session: &&SessionView| {
            let mut children = session.children.iter();
            !session.children.is_empty() && children.all(|child| lacking.contains(&(false, child.inbound)))
        };
        let paths: BTreeSet<Path> =
            self.sessions().iter().filter(is_lost).map(|session| session.path).collect();
        let Some(engine) = &mut self.engine else { return };
        for path in paths {
            tracing::info!(interface = self.config.interface(), %path, "the datapath lacks this session's SAs: it begins anew");
            engine.close_session(now(), path);
            self.checkpoint.touch();
        }
    }

    fn remove_unknown(&mut self, sas: &[SaCounters], expected: &BTreeSet<(bool, u32)>) {
        let unknown = sas.iter().filter(|sa| !expected.contains(&(sa.outbound, sa.spi)));
        let requests: Vec<Request> = unknown
            .map(|sa| {
                let SaCounters { spi, path, .. } = *sa;
                if sa.outbound {
                    Request::RemoveOutboundSa { path, spi }
                } else {
                    Request::RemoveInboundSa { spi }
                }
            })
            .collect();
        if !requests.is_empty() {
            tracing::info!(
                interface = self.config.interface(),
                count = requests.len(),
                "removing SAs of an agent before this one"
            );
        }
        requests.into_iter().for_each(|request| self.executor.push(Step::Datapath(request)));
    }
}

/// The SAs that sessions are about: do we send by it, and its SPI.
fn sas_of(sessions: &[SessionView]) -> impl Iterator<Item = (bool, u32)> + '_ {
    let children = sessions.iter().flat_map(|session| &session.children);
    children.flat_map(|child| [(false, child.inbound), (true, child.outbound)])
}

/// What is said of exported keys, each start and each change.
pub(super) fn exported(folder: &std::path::Path) -> String {
    format!(
        "the keys of every SA are written to {}: whoever reads them reads all traffic; remove security.exportKeys \
         when the fault is found",
        folder.display()
    )
}

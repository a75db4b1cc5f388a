//! The datapath's side of the loop: connecting, filling, what it tells, and what is captured.

use super::{Control, Datapath, RETRY, connect};
use crate::clock::now;
use crate::datapath::{self, Attachment, Connection, Message};
use crate::executor::Step;
use dataplane::messages::Request;
use packet::PeerId;
use rpc::agent::{CapturedPacket, Severity};
use std::time::Duration;

/// How long after a refusal everything is told again.
const REFUSED_RETRY: Duration = Duration::from_secs(5);

/// After a connection to a datapath that somebody else starts failed.
const EXTERNAL_RETRY: Duration = Duration::from_millis(100);

impl Control {
    pub(super) fn on_connected(&mut self, connection: Result<Connection, datapath::Error>) {
        let connection = match connection {
            Ok(connection) => connection,
            Err(error) => {
                // One that answers, and does not want us, has what it had.
                let refused = matches!(error, datapath::Error::Version { .. } | datapath::Error::Refused(_));
                if !refused {
                    self.tell_lost();
                }
                self.fail(format!("no datapath: {error}"));
                // Who starts none has waited already for one that answers.
                let external = self.parts.process.binary.is_none();
                let pause = if external && !refused { EXTERNAL_RETRY } else { RETRY };
                self.datapath = connect(&self.parts.process, self.config.interface(), pause);
                return;
            }
        };
        if let Err(error) = self.parts.state.remember_interface(self.config.interface()) {
            self.fail(format!("cannot write the state directory: {error}"));
        }
        let known = connection.attachment.settings.clone();
        let protected =
            known.as_ref().is_some_and(|known| known.encrypted == self.config.protection.is_some());
        self.datapath = Datapath::Connected(connection.messages);
        self.attachment = Some(connection.attachment);
        self.settings = known;
        self.hairpin.clear();
        self.capturing = false;
        self.expected_sas = None;
        self.executor.push(Step::Attach(Some(connection.sender)));
        if self.settings.is_some() && !protected {
            // Encryption was switched on or off while no agent ran. The datapath makes no tunnel weaker while it
            // lives, and what is remembered of the one before is of no use.
            self.executor.push(Step::Datapath(Request::Remove { delete_interface: false }));
            self.settings = None;
            self.attachment = Some(Attachment::default());
        }
        self.configure();
    }

    pub(super) fn on_datapath_lost(&mut self, why: &str) {
        if !self.datapath.is_connected() {
            return;
        }
        // It may have been handed over: that shows when another is found.
        self.lost = Some(why.to_owned());
        self.settings = None;
        self.executor.push(Step::Attach(None));
        self.datapath = connect(&self.parts.process, self.config.interface(), Duration::ZERO);
    }

    /// Says that the datapath was lost, if that was not said yet.
    pub(super) fn tell_lost(&mut self) {
        if let Some(why) = self.lost.take() {
            let message = format!("the datapath is gone, and its SAs with it: {why}");
            self.events.agent(Severity::Warning, "DatapathLost", message);
        }
    }

    /// Tells the datapath and the kernel how the tunnel is configured, where that changed.
    pub(super) fn configure(&mut self) {
        let settings = self.config.settings(self.underlay);
        // Even when it knows: the interface may have been deleted meanwhile, and this makes it again.
        self.executor.push(Step::Datapath(Request::Configure(settings.clone())));
        self.settings = Some(settings);
        let interface = self.config.kernel_interface(self.underlay);
        self.executor.push(Step::Prepare(interface.clone()));
        self.interface = Some(interface);
    }

    pub(super) fn on_message(&mut self, message: Message) {
        let input = match message {
            Message::Input(input) => input,
            Message::Counters { totals, peers } => {
                self.totals = totals;
                self.counters = peers.into_iter().collect();
                return self.answer_snapshots();
            }
            Message::Sas(sas) => return self.on_sas(sas),
            Message::PathMtu { path, mtu, inner } => return self.events.path_narrowed(path, mtu, inner),
            Message::Captured { time, peer, outbound, packet } => {
                return self.on_captured(time, peer, outbound, packet);
            }
            Message::Refused { number, error } => {
                self.due.repair = self.due.repair.min(now() + REFUSED_RETRY);
                return self.fail(format!("the datapath refused request {number}: {error}"));
            }
        };
        self.input(input);
    }

    pub(super) fn on_captured(
        &mut self,
        time_ns: u64,
        peer: Option<PeerId>,
        outbound: bool,
        packet: Vec<u8>,
    ) {
        let packet = CapturedPacket {
            time_ns,
            interface: self.config.interface().to_owned(),
            peer: peer.map(|id| self.name_of(id)).unwrap_or_default(),
            outbound,
            packet,
        };
        if self.parts.captured.send(packet).is_err() {
            self.follow_captures();
        }
    }

    pub(super) fn follow_captures(&mut self) {
        let wanted = self.parts.captured.receiver_count() > 0;
        if wanted != self.capturing {
            self.capturing = wanted;
            self.executor.push(Step::Datapath(Request::Capture(wanted)));
        }
    }

    pub(super) fn name_of(&self, peer: PeerId) -> String {
        let entry = self.engine.as_ref().and_then(|engine| engine.standing().peers.get(&peer));
        entry.and_then(|entry| entry.addresses.first()).map(ToString::to_string).unwrap_or_default()
    }
}

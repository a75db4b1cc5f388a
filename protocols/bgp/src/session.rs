//! One TCP connection to a peer: the states of RFC 4271 §8, from the OPEN to the end.
//!
//! Idle, Connect and Active are not here: without a connection there is no session, and when to connect is the
//! neighbour's business.

use crate::config::Config;
use crate::error::Notification;
use crate::event::{Command, ConnectionId, Event};
use crate::family::{Families, Family};
use crate::message::{self, Input, Kind};
use crate::open::{self, Open};
use crate::timer::{Timer, Timers};
use crate::update::{self, Dialect, Update};
use packet::Instant;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use std::collections::VecDeque;
use std::time::Duration;

/// How long a connection may take to come up.
const CONNECT_TIME: Duration = Duration::from_secs(10);
/// How long the peer may take to say OPEN. RFC 4271 suggests four minutes; nobody needs them here.
const OPEN_TIME: Duration = Duration::from_secs(30);
/// More than this is not handed out before the driver says that it left.
pub(crate) const WINDOW: usize = 64 * 1024;

/// Where everything that a session causes goes.
#[derive(Debug)]
pub(crate) struct Io {
    pub(crate) commands: VecDeque<Command>,
    pub(crate) events: VecDeque<Event>,
    pub(crate) timers: Timers,
    rng: SmallRng,
}

impl Io {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            commands: VecDeque::new(),
            events: VecDeque::new(),
            timers: Timers::default(),
            rng: SmallRng::seed_from_u64(seed),
        }
    }

    //= rfc4271#10: jitter, 0.75 to 1.0 of the time
    pub(crate) fn jitter(&mut self, time: Duration) -> Duration {
        time.mul_f64(self.rng.random_range(0.75..=1.0))
    }
}

/// What both sides agreed on by their OPENs.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Agreed {
    pub(crate) open: Open,
    pub(crate) hold_time: Duration,
    pub(crate) families: Families,
    pub(crate) dialect: Dialect,
}

/// What we wait for.
#[derive(Clone, PartialEq, Debug)]
pub(crate) enum State {
    /// The connection (Connect).
    ExpectConnection,
    /// The peer's OPEN; ours is sent (OpenSent).
    ExpectOpen,
    /// The KEEPALIVE that accepts our OPEN (OpenConfirm).
    ExpectKeepalive(Box<Agreed>),
    /// Whatever the peer has to say (Established).
    Established(Box<Agreed>),
}

/// What a message led to.
#[derive(Debug)]
pub(crate) enum Step {
    /// The peer's OPEN is acceptable; [`Session::confirm`] goes on, unless another connection is preferred.
    Opened,
    /// The session is up.
    Established,
    /// The peer is alive.
    Alive,
    /// Routes.
    Update(Update),
    /// The peer wants everything again.
    Refresh(Family),
    /// Nothing.
    Ignored,
    /// The peer ended the session.
    Ended(Notification),
}

/// One connection.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) id: ConnectionId,
    /// We connected.
    pub(crate) active: bool,
    pub(crate) state: State,
    input: Input,
    in_flight: usize,
    send_hold: Duration,
}

impl Session {
    /// We shall connect.
    pub(crate) fn connect(id: ConnectionId, now: Instant, io: &mut Io) -> Self {
        io.timers.set(Timer::Hold(id), now + CONNECT_TIME);
        Self::new(id, true, State::ExpectConnection)
    }

    /// The peer connected.
    pub(crate) fn accept(id: ConnectionId) -> Self {
        Self::new(id, false, State::ExpectOpen)
    }

    fn new(id: ConnectionId, active: bool, state: State) -> Self {
        Self { id, active, state, input: Input::default(), in_flight: 0, send_hold: OPEN_TIME * 2 }
    }

    /// The connection is there: introduce ourselves.
    pub(crate) fn open(&mut self, now: Instant, open: Vec<u8>, io: &mut Io) {
        self.state = State::ExpectOpen;
        io.timers.set(Timer::Hold(self.id), now + OPEN_TIME);
        self.send(now, open, io);
    }

    /// Accepts the peer's OPEN.
    pub(crate) fn confirm(&mut self, now: Instant, io: &mut Io) {
        let State::ExpectKeepalive(agreed) = &self.state else { return };
        let hold_time = agreed.hold_time;
        //= rfc9687#4.3: the send hold time is at least 8 minutes or twice the hold time; ours is the latter
        self.send_hold = if hold_time.is_zero() { Duration::from_secs(480) } else { hold_time * 2 };
        self.send(now, message::keepalive(), io);
        self.restart_hold(now, hold_time, io);
        self.restart_keepalive(now, hold_time, io);
    }

    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.input.push(bytes);
    }

    /// Handles the next whole message. An error is for the peer, and ends the session.
    pub(crate) fn next(
        &mut self,
        now: Instant,
        config: &Config,
        io: &mut Io,
    ) -> Result<Option<Step>, Notification> {
        let Some((kind, body)) = self.input.next()? else { return Ok(None) };
        if kind == Kind::Notification {
            return Ok(Some(Step::Ended(message::read_notification(&body))));
        }
        let step = match (&self.state, kind) {
            (State::ExpectConnection, _) => Step::Ignored,
            (State::ExpectOpen, Kind::Open) => {
                self.state = State::ExpectKeepalive(Box::new(agree(config, open::read(&body)?)?));
                Step::Opened
            }
            //= rfc6608#3: subcodes by state
            (State::ExpectOpen, _) => return Err(Notification::UNEXPECTED_IN_OPEN_SENT),
            (State::ExpectKeepalive(agreed), Kind::Keepalive) => {
                let agreed = agreed.clone();
                self.restart_hold(now, agreed.hold_time, io);
                self.state = State::Established(agreed);
                Step::Established
            }
            (State::ExpectKeepalive(_), _) => return Err(Notification::UNEXPECTED_IN_OPEN_CONFIRM),
            (State::Established(agreed), kind) => {
                let (hold_time, dialect) = (agreed.hold_time, agreed.dialect);
                self.restart_hold(now, hold_time, io);
                match kind {
                    Kind::Update => Step::Update(update::decode(&body, dialect)?),
                    Kind::Keepalive => Step::Alive,
                    Kind::RouteRefresh => {
                        message::read_route_refresh(&body).map_or(Step::Ignored, Step::Refresh)
                    }
                    Kind::Open | Kind::Notification => return Err(Notification::UNEXPECTED_IN_ESTABLISHED),
                }
            }
        };
        Ok(Some(step))
    }

    /// What was agreed on, once the session is up.
    pub(crate) const fn established(&self) -> Option<&Agreed> {
        match &self.state {
            State::Established(agreed) => Some(agreed),
            _ => None,
        }
    }

    /// The peer's OPEN, once it is known.
    pub(crate) const fn peer(&self) -> Option<&Open> {
        match &self.state {
            State::ExpectKeepalive(agreed) | State::Established(agreed) => Some(&agreed.open),
            _ => None,
        }
    }

    /// May more than a few octets be sent?
    pub(crate) const fn has_room(&self) -> bool {
        self.in_flight < WINDOW
    }

    pub(crate) fn send(&mut self, now: Instant, bytes: Vec<u8>, io: &mut Io) {
        if self.in_flight == 0 {
            io.timers.set(Timer::SendHold(self.id), now + self.send_hold);
        }
        self.in_flight += bytes.len();
        io.commands.push_back(Command::Send { connection: self.id, bytes });
    }

    /// Octets left.
    pub(crate) fn sent(&mut self, now: Instant, octets: usize, io: &mut Io) {
        self.in_flight = self.in_flight.saturating_sub(octets);
        if self.in_flight == 0 {
            io.timers.stop(Timer::SendHold(self.id));
        } else {
            io.timers.set(Timer::SendHold(self.id), now + self.send_hold);
        }
    }

    /// The keepalive timer fired.
    pub(crate) fn keep_alive(&mut self, now: Instant, io: &mut Io) {
        if let State::ExpectKeepalive(agreed) | State::Established(agreed) = &self.state {
            let hold_time = agreed.hold_time;
            self.send(now, message::keepalive(), io);
            self.restart_keepalive(now, hold_time, io);
        }
    }

    /// Ends the connection, telling the peer why.
    pub(crate) fn close(&self, farewell: Option<&Notification>, io: &mut Io) {
        if let Some(notification) = farewell
            && self.state != State::ExpectConnection
        {
            let bytes = message::write_notification(notification);
            io.commands.push_back(Command::Send { connection: self.id, bytes });
        }
        io.commands.push_back(Command::Close { connection: self.id });
        self.forget(io);
    }

    /// The connection is gone.
    pub(crate) fn forget(&self, io: &mut Io) {
        for timer in [Timer::Hold(self.id), Timer::Keepalive(self.id), Timer::SendHold(self.id)] {
            io.timers.stop(timer);
        }
    }

    //= rfc4271#4.2: a hold time of zero means no keepalives
    fn restart_hold(&self, now: Instant, hold_time: Duration, io: &mut Io) {
        if hold_time.is_zero() {
            io.timers.stop(Timer::Hold(self.id));
        } else {
            io.timers.set(Timer::Hold(self.id), now + hold_time);
        }
    }

    fn restart_keepalive(&self, now: Instant, hold_time: Duration, io: &mut Io) {
        if !hold_time.is_zero() {
            let time = io.jitter(hold_time / 3);
            io.timers.set(Timer::Keepalive(self.id), now + time);
        }
    }
}

/// Is the peer's OPEN acceptable to us (RFC 4271 §6.2)?
fn agree(config: &Config, open: Open) -> Result<Agreed, Notification> {
    if !config.remote_as.permits(config.asn, open.asn) {
        return Err(Notification::BAD_PEER_AS);
    }
    let internal = open.asn == config.asn;
    //= rfc6286#2.2: inside one AS identifiers differ
    if internal && open.router_id == config.router_id {
        return Err(Notification::BAD_IDENTIFIER);
    }
    let families = config.families().and(open.families);
    if families.is_empty() {
        return Err(Notification::UNSUPPORTED_CAPABILITY);
    }
    let ours_v6 = config.local_address(Family::Ipv6).is_some();
    let dialect = Dialect { asn4: open.asn4, internal, extended_next_hop: ours_v6 && open.extended_next_hop };
    Ok(Agreed { hold_time: config.hold_time.min(open.hold_time), families, dialect, open })
}

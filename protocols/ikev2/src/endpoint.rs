//! All sessions of a tunnel: whose message is it, who may begin, which session carries a path.
//!
//! After any call drain [`Endpoint::poll_event`], then [`Endpoint::poll_transmit`], and sleep until
//! [`Endpoint::poll_timeout`]. Events come first: they say what to receive before a peer may send it.

mod begin;
mod demux;
mod notes;
pub(crate) mod paths;
mod view;

use crate::bucket::Bucket;
use crate::cookie::Cookies;
use crate::counters::Counters;
use crate::session::{self, Cx, Id, Note, Out, Session};
use crate::settings::{ConfigError, Settings};
use crate::{Address, Config, Credentials, Event, Failure, SessionView, Transmit};
use claims::Identity;
use packet::{Instant, Path};
use paths::PathState;
use rand::SeedableRng;
use rand::rngs::StdRng;
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

/// Handshakes that strangers may make us begin, a second.
const INITS: u32 = 5_000;
/// Messages in the clear that tell strangers they are wrong, a second.
const COMPLAINTS: u32 = 2_000;
/// Events about strangers' failures, a second.
const REPORTS: u32 = 20;
/// Credentials of live sessions are looked at again so often.
const REVIEW: Duration = Duration::from_secs(30);

/// IKE for one tunnel.
pub struct Endpoint {
    pub(crate) settings: Settings,
    pub(crate) credentials: Arc<dyn Credentials>,
    /// Seconds since 1970; 0 until it is told.
    pub(crate) unix: u64,
    reviewed: Instant,
    rng: StdRng,
    pub(crate) sessions: HashMap<Id, Session>,
    pub(crate) next_id: Id,
    /// Our SPIs of IKE SAs.
    by_spi: HashMap<u64, Id>,
    /// Half-open sessions by who began them, and the SPI it chose.
    by_stranger: HashMap<(Address, u64), Id>,
    /// Our SPIs of child SAs.
    inbound: HashMap<u32, Id>,
    pub(crate) paths: BTreeMap<Path, PathState>,
    /// SAs of sessions that are over: what is under way is still received, until then.
    pub(crate) draining: BTreeSet<(Instant, u32)>,
    schedule: BTreeSet<(Instant, Id)>,
    scheduled: HashMap<Id, Instant>,
    /// Whom this process had a session with: identities, and addresses.
    pub(crate) met: BTreeSet<String>,
    cookies: Cookies,
    inits: Bucket,
    complaints: Bucket,
    reports: Bucket,
    out: Out,
    notes: VecDeque<(Id, Note)>,
}

impl Endpoint {
    /// An endpoint without sessions. `seed` is from the operating system's generator, and used once.
    ///
    /// # Errors
    /// A proposal has no meaning.
    pub fn new(
        config: Config,
        credentials: Arc<dyn Credentials>,
        seed: [u8; 32],
        now: Instant,
    ) -> Result<Self, ConfigError> {
        let mut rng = StdRng::from_seed(seed);
        Ok(Self {
            settings: Settings::new(config)?,
            credentials,
            unix: 0,
            reviewed: now,
            sessions: HashMap::new(),
            next_id: 1,
            by_spi: HashMap::new(),
            by_stranger: HashMap::new(),
            inbound: HashMap::new(),
            paths: BTreeMap::new(),
            draining: BTreeSet::new(),
            schedule: BTreeSet::new(),
            scheduled: HashMap::new(),
            met: BTreeSet::new(),
            cookies: Cookies::new(&mut rng, now),
            inits: Bucket::new(INITS, now),
            complaints: Bucket::new(COMPLAINTS, now),
            reports: Bucket::new(REPORTS, now),
            out: Out::default(),
            notes: VecDeque::new(),
            rng,
        })
    }

    /// Other settings, for what begins from now on.
    ///
    /// # Errors
    /// A proposal has no meaning; then nothing has changed.
    pub fn set_config(&mut self, _now: Instant, config: Config) -> Result<(), ConfigError> {
        self.settings = Settings::new(config)?;
        Ok(())
    }

    /// Other credentials. Sessions with peers that they no longer hold for are closed at once; if it is we who have
    /// become another, all sessions are replaced, make before break.
    pub fn set_credentials(&mut self, now: Instant, credentials: Arc<dyn Credentials>) {
        let old = std::mem::replace(&mut self.credentials, credentials);
        self.review(now);
        if old.local_id() != self.credentials.local_id() || old.chain() != self.credentials.chain() {
            let carrying: Vec<Path> =
                self.live().map(|s| s.base.path).collect::<BTreeSet<_>>().into_iter().collect();
            for path in carrying {
                self.begin(now, path);
            }
        }
        self.settle_notes(now);
    }

    /// The time of day, seconds since 1970: for certificates, whenever it is convenient. Tell it before the first
    /// handshake.
    pub fn set_wall_clock(&mut self, now: Instant, unix_seconds: u64) {
        self.unix = unix_seconds;
        let ended = |s: &Session| {
            s.live().and_then(|e| e.identity.certified()).is_some_and(|c| c.not_after < unix_seconds)
        };
        if now.since(self.reviewed) >= REVIEW || self.sessions.values().any(ended) {
            self.review(now);
            self.settle_notes(now);
        }
    }

    /// Makes sure that there is a session on this path, with a peer whose identity matches `expect`: begins one, unless
    /// there is one or one is being made by us.
    pub fn connect(&mut self, now: Instant, path: Path, expect: Option<String>) {
        let state = self.paths.entry(path).or_default();
        state.expect = expect;
        let expect = state.expect.clone();
        let wrong: Vec<(Id, Failure)> = self
            .on_path(path)
            .filter_map(|s| {
                let (found, expected) = (&s.live()?.identity.name, expect.as_ref()?);
                let failure = || Failure::Identity { expected: expected.clone(), found: found.clone() };
                (!claims::matches(expected, Some(found))).then(|| (s.base.id, failure()))
            })
            .collect();
        for (id, failure) in wrong {
            self.leave(now, id, failure);
        }
        if !self.on_path(path).any(|s| s.base.initiator && s.established().is_none() || s.live().is_some()) {
            self.begin(now, path);
        }
        self.settle_notes(now);
    }

    /// Leaves a path in good order: sends by it no more, tells the peer, and receives until it has answered.
    pub fn disconnect(&mut self, now: Instant, path: Path) {
        let ids: Vec<Id> = self.on_path(path).map(|s| s.base.id).collect();
        for id in ids {
            self.leave(now, id, Failure::Closed);
        }
        self.settle_notes(now);
        self.tidy(path);
    }

    /// Leaves all paths.
    pub fn close_all(&mut self, now: Instant) {
        let paths: Vec<Path> = self.paths.keys().copied().collect();
        for path in paths {
            self.disconnect(now, path);
        }
    }

    /// Replaces the child SA that we send by with this SPI: it nears its limits.
    pub fn rekey_child(&mut self, now: Instant, spi: u32) {
        let ids: Vec<(Id, u32)> = self
            .live()
            .flat_map(|s| s.live().into_iter().flat_map(|e| e.kept()).map(|c| (s.base.id, c)))
            .filter(|(_, c)| c.outbound == spi && matches!(c.sending, session::child::Sending::Live))
            .map(|(id, c)| (id, c.inbound))
            .collect();
        for (id, inbound) in ids {
            self.ask(now, id, session::task::Job::RekeyChild(inbound));
        }
        self.settle_notes(now);
    }

    /// Replaces the IKE SA of the session that carries this path.
    pub fn rekey_ike(&mut self, now: Instant, path: Path) {
        let ids: Vec<Id> = self.on_path(path).filter(|s| s.live().is_some()).map(|s| s.base.id).collect();
        for id in ids {
            self.ask(now, id, session::task::Job::RekeyIke);
        }
        self.settle_notes(now);
    }

    /// An authentic packet of this SA (ours to receive by) came by another path than the one it is bound to: the peer's
    /// NAT has given it another address. Goes after it.
    pub fn moved(&mut self, now: Instant, spi: u32, path: Path) {
        let Some(&id) = self.inbound.get(&spi) else { return };
        let to = session::address_of(path, self.settings.config.ports);
        self.with(now, id, |session, cx| {
            if let session::State::Established(state) = &mut session.state
                && session.base.address != to
            {
                state.follow(&mut session.base, cx, to);
                state.run(&mut session.base, cx);
            }
        });
        self.settle_notes(now);
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        while self.draining.first().is_some_and(|(at, _)| *at <= now) {
            if let Some((_, spi)) = self.draining.pop_first() {
                self.inbound.remove(&spi);
                self.out.events.push_back(Event::RemoveInbound { spi });
            }
        }
        while let Some(&(at, id)) = self.schedule.first() {
            if at > now {
                break;
            }
            self.schedule.pop_first();
            self.scheduled.remove(&id);
            self.with(now, id, Session::handle_timeout);
            self.settle_notes(now);
        }
    }

    /// What the driver has to know. Drain this before [`Self::poll_transmit`].
    pub fn poll_event(&mut self) -> Option<Event> {
        self.out.events.pop_front()
    }

    /// What is to be sent.
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        self.out.transmits.pop_front()
    }

    /// When to call [`Self::handle_timeout`] next.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let drained = self.draining.first().map(|(at, _)| *at);
        self.schedule.first().map(|(at, _)| *at).into_iter().chain(drained).min()
    }

    /// Who is at the end of this path.
    #[must_use]
    pub fn identity(&self, path: Path) -> Option<&Identity> {
        self.paths.get(&path).and_then(|p| p.up.as_ref())
    }

    /// Is there a peer at the end of this path, with SAs in both directions?
    #[must_use]
    pub fn is_up(&self, path: Path) -> bool {
        self.identity(path).is_some()
    }

    /// All sessions.
    pub fn sessions(&self) -> impl Iterator<Item = SessionView> {
        self.sessions.values().map(view::of)
    }

    /// What happened so far.
    #[must_use]
    pub const fn counters(&self) -> &Counters {
        &self.out.counters
    }

    /// Calls a session, and notes what it tells.
    fn with<R>(
        &mut self,
        now: Instant,
        id: Id,
        call: impl FnOnce(&mut Session, &mut Cx<'_>) -> R,
    ) -> Option<R> {
        let path = self.sessions.get(&id)?.base.path;
        let (expect, generation) = self.standing(path, Some(id));
        let told = self.out.events.len();
        let mut notes = Vec::new();
        let session = self.sessions.get_mut(&id)?;
        let mut cx = Cx {
            now,
            unix: self.unix,
            settings: &self.settings,
            credentials: self.credentials.as_ref(),
            rng: &mut self.rng,
            out: &mut self.out,
            notes: &mut notes,
            met: &self.met,
            spis: &self.inbound,
            expect,
            generation,
        };
        let result = call(session, &mut cx);
        let next = session.base.timers.next();
        self.after(id, next, told, notes);
        Some(result)
    }

    /// Who is expected at the end of a path, and the highest generation of the other sessions established there.
    fn standing(&self, path: Path, except: Option<Id>) -> (Option<String>, Option<u16>) {
        let expect = self.paths.get(&path).and_then(|p| p.expect.clone());
        let others = self.on_path(path).filter(|s| Some(s.base.id) != except && s.live().is_some());
        (expect, others.map(|s| s.base.generation).max())
    }

    /// After a call: timers, SPIs, notes.
    fn after(&mut self, id: Id, next: Option<Instant>, told: usize, notes: Vec<Note>) {
        if let Some(at) = self.scheduled.remove(&id) {
            self.schedule.remove(&(at, id));
        }
        if let Some(at) = next {
            self.schedule.insert((at, id));
            self.scheduled.insert(id, at);
        }
        for event in self.out.events.iter().skip(told) {
            match event {
                Event::AddInbound { keys, .. } => {
                    self.inbound.insert(keys.spi, id);
                }
                Event::RemoveInbound { spi } => {
                    self.inbound.remove(spi);
                }
                _ => {}
            }
        }
        self.notes.extend(notes.into_iter().map(|note| (id, note)));
    }

    /// Asks a session for something.
    fn ask(&mut self, now: Instant, id: Id, job: session::task::Job) {
        self.with(now, id, |session, cx| {
            if let session::State::Established(state) = &mut session.state {
                state.queue(job);
                state.run(&mut session.base, cx);
            }
        });
    }

    /// Sessions on a path.
    fn on_path(&self, path: Path) -> impl Iterator<Item = &Session> {
        let ids = self.paths.get(&path).map(|p| p.sessions.as_slice()).unwrap_or_default();
        ids.iter().filter_map(|id| self.sessions.get(id))
    }

    /// Sessions that are established, and not being closed.
    fn live(&self) -> impl Iterator<Item = &Session> {
        self.sessions.values().filter(|s| s.live().is_some())
    }

    /// Closes sessions with peers that our credentials no longer hold for.
    fn review(&mut self, now: Instant) {
        self.reviewed = now;
        let refused: Vec<(Id, Failure)> = self
            .live()
            .filter_map(|s| {
                let error = self.credentials.still_holds(self.unix, &s.live()?.identity).err()?;
                Some((s.base.id, Failure::Credentials(error.to_string())))
            })
            .collect();
        for (id, failure) in refused {
            self.leave(now, id, failure);
        }
    }
}

//! What probes say of a peer's paths: which carries, which is lost, and how often to ask.

use crate::peer::{ATTEMPT, GRACE, LOST_HUB, Peer, RETURNED, Reach, Verdict};
use crate::probe::{FAST, FORMING, IDLE_DIRECT, IDLE_HUB, LOST, Pace};
use packet::{Instant, Path};
use std::time::Duration;

impl Peer {
    /// What the probes say now; changes the state accordingly.
    pub(crate) fn judge(&mut self, now: Instant) -> Option<Verdict> {
        match self.reach {
            Reach::Listening { .. } => None,
            Reach::Probing { since, until, proven } => {
                let mut usable = self.candidates.iter().filter(|c| c.retires.is_none());
                let waited = proven.is_some_and(|p| now >= p + GRACE);
                let answered = match usable.next() {
                    Some(best) if best.prober.answered_since(since) => Some(best.path),
                    _ if waited => usable.find(|c| c.prober.answered_since(since)).map(|c| c.path),
                    _ => None,
                };
                if let Some(path) = answered {
                    return Some(self.carry(now, path));
                }
                if waited {
                    // What answered is no longer offered.
                    self.reach = Reach::Probing { since, until, proven: None };
                }
                (now >= until).then(|| {
                    self.listen(now);
                    Verdict::Unproven
                })
            }
            Reach::Direct { path, since } => {
                let lost = self.prober(path).is_none_or(|p| p.overdue(now) >= LOST);
                let rank = self.candidates.iter().position(|c| c.path == path).unwrap_or(usize::MAX);
                let recent = since.max(now - ATTEMPT);
                let other = self.candidates.iter().enumerate().find(|(i, c)| {
                    c.retires.is_none()
                        && c.path != path
                        && c.trial.is_some()
                        && c.prober.answered_since(recent)
                        && c.prober.overdue(now) == 0
                        && (lost || *i < rank)
                });
                match other.map(|(_, c)| c.path) {
                    Some(other) => Some(self.carry(now, other)),
                    None if lost => {
                        self.listen(now);
                        Some(Verdict::Lost(path))
                    }
                    None => None,
                }
            }
            Reach::Given { path, alive, .. } if self.hub.is_some() => {
                let prober = self.prober(path)?;
                let (overdue, run) = (prober.overdue(now), prober.run());
                if alive && overdue >= LOST && prober.ever_answered() {
                    self.reach = Reach::Given { path, since: now, alive: false };
                    self.end_run(path);
                    return Some(Verdict::Lost(path));
                }
                if !alive && overdue > 0 {
                    self.end_run(path);
                } else if !alive && run >= RETURNED {
                    self.reach = Reach::Given { path, since: now, alive: true };
                    return Some(Verdict::Back);
                }
                None
            }
            Reach::Given { path, .. } => {
                let silent = self.prober(path).is_some_and(|p| p.overdue(now) >= self.patience());
                silent.then(|| {
                    self.restart_probes();
                    Verdict::Lost(path)
                })
            }
        }
    }

    pub(crate) fn carry(&mut self, now: Instant, path: Path) -> Verdict {
        self.reach = Reach::Direct { path, since: now };
        self.heard = false;
        if let Some(c) = self.candidate(path) {
            (c.trial, c.retires) = (None, None);
        }
        Verdict::Proven(path)
    }

    /// How often a candidate is probed now, if at all.
    pub(crate) fn pace(&self, now: Instant, index: usize) -> Option<Pace> {
        let c = self.candidates.get(index).filter(|c| c.retires.is_none())?;
        match self.reach {
            Reach::Listening { .. } => None,
            Reach::Probing { since, .. } if now.since(since) < Duration::from_secs(1) => {
                Some(Pace::steady(FORMING))
            }
            Reach::Probing { .. } => Some(Pace::steady(FAST)),
            Reach::Direct { path, .. } if c.path == path && self.is_denied(now) => {
                Some(Pace::steady(FORMING))
            }
            Reach::Direct { path, .. } if c.path == path => {
                Some(Pace::eager(if self.in_use(now) { FAST } else { IDLE_DIRECT }))
            }
            Reach::Direct { .. } => c.trial.filter(|until| *until > now).map(|_| Pace::steady(FAST)),
            Reach::Given { path, since, alive } if self.hub.is_some() && c.path == path => {
                let answers = c.prober.ever_answered();
                let new = now.since(since) < ATTEMPT;
                Some(match (alive, answers) {
                    (false, _) => Pace::steady(LOST_HUB),
                    (true, true) => Pace::eager(if self.in_use(now) { FAST } else { IDLE_HUB }),
                    (true, false) => Pace::steady(if new { FAST } else { IDLE_HUB }),
                })
            }
            Reach::Given { path, .. } if c.path != path => None,
            Reach::Given { .. } if self.is_denied(now) => Some(Pace::steady(FORMING)),
            // Once, so that it is known how long an answer takes when it comes to that.
            Reach::Given { .. } if c.prober.is_new() && self.is_our_spoke() => Some(Pace::steady(FAST)),
            Reach::Given { .. } => self.is_doubted(now).then_some(Pace::steady(FAST)),
        }
    }

    pub(crate) fn lost_at(&self, path: Path) -> Instant {
        match self.prober(path) {
            Some(prober) if prober.ever_answered() => prober.overdue_at(LOST),
            _ => Instant::NEVER,
        }
    }

    pub(crate) fn end_run(&mut self, path: Path) {
        if let Some(c) = self.candidate(path) {
            c.prober.end_run();
        }
    }
}

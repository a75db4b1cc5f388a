//! By which gateway to go. Pure.

use packet::Instant;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

/// Silent for so long, a gateway is taken for lost: three questions.
const LOST: Duration = Duration::from_millis(1700);
/// One that was lost answers before its tunnel is up again: it must have answered for so long before others are left for it.
const RETURN: Duration = Duration::from_secs(10);

/// What is known of gateways, by address.
#[derive(Debug, Default)]
pub(super) struct Answers(BTreeMap<IpAddr, Answer>);

#[derive(Clone, Copy, Debug)]
struct Answer {
    last: Instant,
    steady: Instant,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    Silent,
    Back,
    Steady,
}

impl Answers {
    /// Knows exactly these. Whoever is new has to prove itself, unless nobody is gone by yet.
    pub(super) fn know(&mut self, gateways: &[IpAddr], anybody_used: bool, now: Instant) {
        self.0.retain(|gateway, _| gateways.contains(gateway));
        for gateway in gateways {
            let unproven = Answer { last: Instant::ZERO, steady: now + RETURN };
            let trusted = Answer { last: now, steady: now };
            self.0.entry(*gateway).or_insert(if anybody_used { unproven } else { trusted });
        }
    }

    /// Gives one the benefit of the doubt: it was gone by before we were there.
    pub(super) fn trust(&mut self, gateway: IpAddr, now: Instant) {
        if let Some(answer) = self.0.get_mut(&gateway) {
            *answer = Answer { last: now, steady: now };
        }
    }

    /// It answered.
    pub(super) fn heard(&mut self, gateway: IpAddr, now: Instant) {
        if let Some(answer) = self.0.get_mut(&gateway) {
            if now.since(answer.last) > LOST {
                answer.steady = now + RETURN;
            }
            answer.last = now;
        }
    }

    /// Does it answer?
    pub(super) fn is_there(&self, gateway: IpAddr, now: Instant) -> bool {
        self.standing(gateway, now) != Standing::Silent
    }

    /// Which of `order`, the best first, is to be used after `current`. Where nobody answers it stays the same: then it may
    /// be the answers that are kept away.
    pub(super) fn choose(&self, order: &[IpAddr], current: Option<IpAddr>, now: Instant) -> Option<IpAddr> {
        let first = |wanted| order.iter().copied().find(|gateway| self.standing(*gateway, now) == wanted);
        let current = current.filter(|gateway| order.contains(gateway));
        let back = current.filter(|gateway| self.standing(*gateway, now) == Standing::Back);
        first(Standing::Steady)
            .or(back)
            .or_else(|| first(Standing::Back))
            .or(current)
            .or_else(|| order.first().copied())
    }

    fn standing(&self, gateway: IpAddr, now: Instant) -> Standing {
        match self.0.get(&gateway) {
            Some(answer) if now.since(answer.last) > LOST => Standing::Silent,
            Some(answer) if now < answer.steady => Standing::Back,
            Some(_) => Standing::Steady,
            None => Standing::Silent,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));
    const B: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 2));

    fn at(millis: u64) -> Instant {
        Instant::ZERO + Duration::from_secs(1000) + Duration::from_millis(millis)
    }

    /// Both answer every half second within `from..to`, but for `silent`.
    fn answering(answers: &mut Answers, silent: &[IpAddr], from: u64, to: u64) {
        for moment in (from..to).step_by(500) {
            [A, B].into_iter().filter(|g| !silent.contains(g)).for_each(|g| answers.heard(g, at(moment)));
        }
    }

    fn known() -> Answers {
        let mut answers = Answers::default();
        answers.know(&[A, B], false, at(0));
        answers
    }

    #[test]
    fn the_best_is_used_at_once_when_nobody_was_before() {
        assert_eq!(known().choose(&[A, B], None, at(0)), Some(A));
    }

    #[test]
    fn a_lost_one_is_left_within_three_questions_and_gone_back_to_when_it_has_answered_for_a_while() {
        let mut answers = known();
        answering(&mut answers, &[A], 500, 20_000);
        assert_eq!(answers.choose(&[A, B], Some(A), at(1600)), Some(A));
        assert_eq!(answers.choose(&[A, B], Some(A), at(2000)), Some(B));
        answering(&mut answers, &[], 20_000, 29_600);
        assert_eq!(answers.choose(&[A, B], Some(B), at(29_600)), Some(B));
        answering(&mut answers, &[], 29_600, 30_600);
        assert_eq!(answers.choose(&[A, B], Some(B), at(30_600)), Some(A));
    }

    #[test]
    fn one_that_just_came_back_is_better_than_none() {
        let mut answers = known();
        answering(&mut answers, &[A, B], 0, 60_000);
        answers.heard(B, at(60_000));
        assert_eq!(answers.choose(&[A, B], Some(A), at(60_000)), Some(B));
        answers.heard(A, at(60_500));
        assert_eq!(answers.choose(&[A, B], Some(B), at(60_500)), Some(B), "as good: nothing changes");
    }

    #[test]
    fn where_nobody_answers_nothing_changes() {
        let answers = known();
        assert_eq!(answers.choose(&[A, B], Some(B), at(60_000)), Some(B));
        assert_eq!(answers.choose(&[A], Some(B), at(60_000)), Some(A), "but for one that is none any more");
        assert_eq!(answers.choose(&[], Some(B), at(60_000)), None);
    }

    #[test]
    fn another_order_is_followed_at_once_and_a_newcomer_proves_itself_first() {
        let mut answers = Answers::default();
        answers.know(&[B], false, at(0));
        answers.know(&[A, B], true, at(0));
        answering(&mut answers, &[], 0, 9_000);
        assert_eq!(answers.choose(&[A, B], Some(B), at(9_000)), Some(B));
        answering(&mut answers, &[], 9_000, 11_000);
        assert_eq!(answers.choose(&[A, B], Some(B), at(11_000)), Some(A));
        assert_eq!(answers.choose(&[B, A], Some(A), at(11_000)), Some(B));
    }
}

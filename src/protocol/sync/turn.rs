//! The turn of two nodes in one store: which session is kept when both open one at the same time.
//!
//! Two sessions between the same nodes in the same store would do the same work twice. When both
//! sides open one at the same time, the session of the node with the lesser id is kept:
//!
//! ```text
//! lesser id                                 greater id
//! opens a session                           opens a session
//!                  Hello  ->   <-  Hello
//! waits for the answer to its own,          serves the peer's session at once
//! at most SYNC_TIE_MS_MAX
//!                              <-  answer
//! refuses the peer's session                is refused: the peer's session does the same work
//! ```
//! A peer that does not answer in that time is served, so a silent peer does not make its own
//! session wait. Both sessions then run, which costs work and does no harm.

use crate::{id::Author, limits::SYNC_TIE_MS_MAX};

/// One node's view of its turn with one peer in one store.
///
/// The shell keeps one value for each peer and store and calls it in this order:
///
/// 1. For a session of its own: it waits until [`may_open`](Self::may_open), calls
///    [`opened`](Self::opened) before the hello is sent, [`answered`](Self::answered) with every
///    message of the peer in that session, and [`over`](Self::over) when the session has ended,
///    however it ended.
/// 2. For a session of the peer: [`on_peer_opens`](Self::on_peer_opens) when the hello has come. On
///    [`Decision::WaitUntil`] it asks again when the value has changed or the time has come. After
///    [`Decision::Serve`] it calls [`served`](Self::served) when that session has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Turn {
    own: Own,
    // Sessions of the peer that this node serves now. An honest peer has at most one.
    serving: u32,
}

// Progress of the session that this node has opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
enum Own {
    #[default]
    None,
    // The peer has sent nothing in the session yet.
    Opened,
    Answered,
}

/// The fate of a session that the peer has opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Decision {
    /// The shell answers the session.
    Serve,
    /// The shell resets the session's stream as busy: the session that this node opened does the
    /// same work.
    Refuse,
    /// The shell asks again when the turn has changed, and at this time at the latest, ms on the
    /// clock of the caller.
    WaitUntil(u64),
}

impl Turn {
    /// Returns true if this node may open a session: it has none of its own with the peer in the
    /// store, and serves none of the peer's.
    pub fn may_open(&self) -> bool {
        self.own == Own::None && self.serving == 0
    }

    /// Notes that this node opens a session.
    ///
    /// # Panics
    /// When it may not.
    pub fn opened(&mut self) {
        assert!(self.may_open(), "one session at a time: {self:?}");
        self.own = Own::Opened;
    }

    /// Notes that the peer has sent a message in the session that this node opened.
    ///
    /// # Panics
    /// When there is no such session.
    pub fn answered(&mut self) {
        assert_ne!(self.own, Own::None, "this node opened a session");
        self.own = Own::Answered;
    }

    /// Notes that the session that this node opened has ended.
    pub fn over(&mut self) {
        self.own = Own::None;
    }

    /// Notes that a session of the peer that this node served has ended.
    ///
    /// # Panics
    /// When it serves none.
    pub fn served(&mut self) {
        let rest = self.serving.checked_sub(1);
        self.serving = rest.expect("a session of the peer was served");
    }

    /// Decides about a session that `peer` has opened and whose hello came at `came_ms`.
    /// [`Decision::Serve`] is noted: no own session is opened until that one has ended.
    ///
    /// `own` is the id of this node. `came_ms` and `now_ms` are on one clock that never goes back.
    pub fn on_peer_opens(
        &mut self,
        own: &Author,
        peer: &Author,
        came_ms: u64,
        now_ms: u64,
    ) -> Decision {
        let until_ms = came_ms.saturating_add(SYNC_TIE_MS_MAX);
        match self.own {
            Own::Answered => Decision::Refuse,
            // An honest peer serves this session at once, so its answer is on the way.
            Own::Opened if own < peer && now_ms < until_ms => Decision::WaitUntil(until_ms),
            Own::None | Own::Opened => {
                self.serving = self.serving.saturating_add(1);
                Decision::Serve
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    // The ids of the two sides: the lesser first.
    const IDS: [Author; 2] = [Author([1; 32]), Author([2; 32])];
    const CAME_MS: u64 = 7;
    const LATE_MS: u64 = CAME_MS + SYNC_TIE_MS_MAX;

    // A session, as the side that opened it sees it.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
    enum Open {
        NotYet,
        Opened,
        Answered,
        Refused,
        Complete,
    }

    // The same session, as the other side sees it.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
    enum Served {
        NotYet,
        // The hello is on the way.
        Coming,
        // The hello has arrived; the side waits for the answer to its own hello.
        Waiting,
        // The answer is on the way.
        Answering,
        Serving,
        // The refusal is on the way.
        Refusing,
        Refused,
        Done,
    }

    // One node: its session, and the session that it serves.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
    struct Side {
        turn: Turn,
        open: Open,
        served: Served,
    }

    #[derive(Debug, Clone, Copy)]
    enum Event {
        Opens,
        HelloComes,
        AnswerComes,
        RefusalComes,
        OpenEnds,
        ServedEnds,
        TimeIsUp,
    }

    const EVENTS: [Event; 7] = [
        Event::Opens,
        Event::HelloComes,
        Event::AnswerComes,
        Event::RefusalComes,
        Event::OpenEnds,
        Event::ServedEnds,
        Event::TimeIsUp,
    ];

    type World = [Side; 2];

    fn start() -> World {
        [Side {
            turn: Turn::default(),
            open: Open::NotYet,
            served: Served::NotYet,
        }; 2]
    }

    // Returns the world after `event` at side `at`. `None` if the event cannot happen now.
    fn after(world: &World, at: usize, event: Event) -> Option<World> {
        let mut next = *world;
        let [one, two] = &mut next;
        let (side, peer) = if at == 0 { (one, two) } else { (two, one) };
        match (event, side.open, side.served, peer.served) {
            (Event::Opens, Open::NotYet, ..) if side.turn.may_open() => {
                side.open = Open::Opened;
                side.turn.opened();
                peer.served = Served::Coming;
            }
            (Event::HelloComes, _, Served::Coming, _) => decide(side, at, CAME_MS),
            (Event::AnswerComes, Open::Opened, _, Served::Answering) => {
                side.open = Open::Answered;
                side.turn.answered();
                peer.served = Served::Serving;
                again(side, at);
            }
            (Event::RefusalComes, Open::Opened, _, Served::Refusing) => {
                assert!(
                    side.served > Served::Waiting,
                    "a refused side serves the other's session: {world:?}"
                );
                peer.served = Served::Refused;
                end_own(side, at, Open::Refused);
            }
            (Event::OpenEnds, Open::Answered, ..) => end_own(side, at, Open::Complete),
            (Event::ServedEnds, _, Served::Serving, _) => {
                side.served = Served::Done;
                side.turn.served();
            }
            (Event::TimeIsUp, _, Served::Waiting, _) => decide(side, at, LATE_MS),
            _ => return None,
        }
        Some(next)
    }

    fn decide(side: &mut Side, at: usize, now_ms: u64) {
        let decision = side
            .turn
            .on_peer_opens(&IDS[at], &IDS[1 - at], CAME_MS, now_ms);
        side.served = match decision {
            Decision::Serve => Served::Answering,
            Decision::Refuse => Served::Refusing,
            Decision::WaitUntil(until_ms) => {
                assert!(now_ms < until_ms, "a wait that had ended begins again");
                Served::Waiting
            }
        };
    }

    // The turn has changed, so a waiting session is decided again.
    fn again(side: &mut Side, at: usize) {
        if side.served == Served::Waiting {
            decide(side, at, CAME_MS + 1);
        }
    }

    fn end_own(side: &mut Side, at: usize, how: Open) {
        side.open = how;
        side.turn.over();
        again(side, at);
    }

    // Returns all worlds that some order of events can reach. `timely`: peers answer before the
    // time is up.
    fn worlds(timely: bool) -> (BTreeSet<World>, BTreeSet<World>) {
        let (mut all, mut last) = (BTreeSet::new(), BTreeSet::new());
        let mut open = vec![start()];
        while let Some(world) = open.pop() {
            if !all.insert(world) {
                continue;
            }
            let step = |event| [0, 1].map(|at| after(&world, at, event));
            let steps = EVENTS.iter().map(|event| (*event, step(*event)));
            let (late, soon): (Vec<_>, Vec<_>) =
                steps.partition(|(event, _)| matches!(event, Event::TimeIsUp));
            let worlds = |steps: Vec<(Event, [Option<World>; 2])>| {
                let worlds = steps.into_iter().flat_map(|(_, worlds)| worlds);
                worlds.flatten().collect::<Vec<_>>()
            };
            for side in &world {
                let is_decided = side.served != Served::Waiting || side.open == Open::Opened;
                assert!(is_decided, "waits without need: {world:?}");
            }
            let (late, mut soon) = (worlds(late), worlds(soon));
            if timely {
                let waits = soon.is_empty() && !late.is_empty();
                assert!(!waits, "only the time ends a wait: {world:?}");
            } else {
                soon.extend(late);
            }
            if soon.is_empty() {
                last.insert(world);
            }
            open.extend(soon);
        }
        (all, last)
    }

    // True when each side serves a session that is still open at the other side.
    fn both_are_served(world: &World) -> bool {
        let is_served = |[one, other]: [&Side; 2]| {
            matches!(one.open, Open::Opened | Open::Answered)
                && matches!(other.served, Served::Answering | Served::Serving)
        };
        let [lesser, greater] = world;
        is_served([lesser, greater]) && is_served([greater, lesser])
    }

    #[test]
    fn one_session_goes_on_when_peers_answer_in_time() {
        let (all, last) = worlds(true);
        assert!(all.len() > 30, "{} worlds", all.len());
        let both_open = |world: &&World| world.iter().all(|side| side.open == Open::Opened);
        assert!(all.iter().filter(both_open).count() > 3);
        for world in &all {
            assert!(!both_are_served(world), "both are served: {world:?}");
        }
        for world in &last {
            assert!(
                world.iter().any(|side| side.open == Open::Complete),
                "no session was kept: {world:?}"
            );
        }
    }

    #[test]
    fn both_are_never_refused_however_late_answers_are() {
        let (all, last) = worlds(false);
        assert!(all.iter().any(both_are_served), "answers may be late");
        for world in &last {
            let ends = [Open::Complete, Open::Refused];
            assert!(
                world.iter().all(|side| ends.contains(&side.open)),
                "a side is stuck: {world:?}"
            );
            assert!(
                world.iter().any(|side| side.open == Open::Complete),
                "both are refused: {world:?}"
            );
        }
    }

    #[test]
    fn lesser_id_waits_for_its_answer_and_greater_id_serves() {
        let [lesser, greater] = IDS;
        let mut turn = Turn::default();
        let decide =
            |mut turn: Turn, own, peer, now_ms| turn.on_peer_opens(own, peer, CAME_MS, now_ms);
        assert_eq!(decide(turn, &lesser, &greater, CAME_MS), Decision::Serve);
        turn.opened();
        let wait = Decision::WaitUntil(LATE_MS);
        assert_eq!(decide(turn, &lesser, &greater, CAME_MS), wait);
        assert_eq!(decide(turn, &lesser, &greater, LATE_MS - 1), wait);
        assert_eq!(decide(turn, &lesser, &greater, LATE_MS), Decision::Serve);
        assert_eq!(decide(turn, &greater, &lesser, CAME_MS), Decision::Serve);
        turn.answered();
        for now_ms in [CAME_MS, LATE_MS] {
            assert_eq!(decide(turn, &lesser, &greater, now_ms), Decision::Refuse);
            assert_eq!(decide(turn, &greater, &lesser, now_ms), Decision::Refuse);
        }
        turn.over();
        assert_eq!(decide(turn, &lesser, &greater, CAME_MS), Decision::Serve);
    }

    #[test]
    fn no_session_is_opened_while_one_is_served() {
        let [lesser, greater] = IDS;
        let mut turn = Turn::default();
        assert!(turn.may_open());
        turn.opened();
        assert!(!turn.may_open());
        // The greater id has lost: it serves, and its own session is refused.
        let decision = turn.on_peer_opens(&greater, &lesser, CAME_MS, CAME_MS);
        assert_eq!(decision, Decision::Serve);
        turn.over();
        assert!(!turn.may_open(), "the session of the peer goes on");
        turn.served();
        assert!(turn.may_open());
    }
}

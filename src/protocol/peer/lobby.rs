//! The lobby: which strangers may stay connected until they have said hello.
//!
//! Anybody can connect as a stranger, and a stranger that stays silent costs a place. When all
//! places are taken, one of the source with the most guests goes, its oldest: a flood from one
//! source pushes out itself, and others keep their places.

use std::collections::BTreeMap;

use crate::limits::HELLOS_MAX;

/// The strangers that are connected and have not said hello. `S`: where they come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lobby<S> {
    // By number, so oldest first. At most HELLOS_MAX.
    guests: BTreeMap<u64, S>,
    // Number of the next guest.
    next: u64,
}

impl<S> Default for Lobby<S> {
    fn default() -> Self {
        Self {
            guests: BTreeMap::new(),
            next: 0,
        }
    }
}

impl<S: Ord> Lobby<S> {
    /// Lets a guest in. Returns its number, and the number of the guest that must go for it; that
    /// one has left then.
    #[must_use = "the guest that goes must be disconnected"]
    pub fn enter(&mut self, source: S) -> (u64, Option<u64>) {
        let number = self.next;
        self.next = self.next.saturating_add(1);
        self.guests.insert(number, source);
        let goes = (self.guests.len() > HELLOS_MAX).then(|| self.last_to_stay());
        if let Some(goes) = goes {
            self.guests.remove(&goes);
        }
        (number, goes)
    }

    /// Notes that a guest has said hello or has gone. No effect if it left before.
    pub fn leave(&mut self, number: u64) {
        self.guests.remove(&number);
    }

    /// Returns the number of guests.
    pub fn len(&self) -> usize {
        self.guests.len()
    }

    /// Returns whether there is no guest.
    pub fn is_empty(&self) -> bool {
        self.guests.is_empty()
    }

    // The oldest guest of the source with the most guests; of two such sources the one whose oldest
    // guest came first.
    fn last_to_stay(&self) -> u64 {
        let mut counts: BTreeMap<&S, (usize, u64)> = BTreeMap::new();
        for (number, source) in &self.guests {
            let (count, _oldest) = counts.entry(source).or_insert((0, *number));
            *count = count.saturating_add(1);
        }
        let most = counts.values().map(|(count, _)| *count).max();
        let of_most = counts.values().filter(|(count, _)| Some(*count) == most);
        of_most.map(|(_, oldest)| *oldest).min().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn n8_flood_of_one_source_pushes_out_itself_only() {
        let mut lobby = Lobby::default();
        let (honest, _) = lobby.enter("honest");
        for _ in 0..10 * HELLOS_MAX {
            let (_, goes) = lobby.enter("flood");
            assert_ne!(goes, Some(honest));
        }
        assert_eq!(lobby.len(), HELLOS_MAX);
        let (late, goes) = lobby.enter("late");
        assert!(goes.is_some_and(|goes| goes != honest && goes != late));
        lobby.leave(late);
        lobby.leave(late);
        assert_eq!(lobby.len(), HELLOS_MAX - 1);
    }

    #[test]
    fn n8_of_many_sources_the_oldest_guest_goes() {
        let mut lobby = Lobby::default();
        for source in 0..HELLOS_MAX {
            assert_eq!(lobby.enter(source).1, None);
        }
        assert_eq!(lobby.enter(1000).1, Some(0));
        // Two of one source: its oldest goes, though others are older.
        assert_eq!(lobby.enter(5).1, Some(5));
    }

    #[test]
    fn guest_that_leaves_makes_room() {
        let mut lobby = Lobby::default();
        assert!(lobby.is_empty());
        for _ in 0..10 * HELLOS_MAX {
            let (number, goes) = lobby.enter("one");
            assert_eq!(goes, None);
            lobby.leave(number);
        }
        assert!(lobby.is_empty());
    }
}

//! Points in time and counts, as people read them.

use lattice::clock::about;

use crate::cli::{input::time::date_time, output::screen::Screen};

/// Formats a time: its age on a terminal, else the time itself.
pub(crate) fn when(screen: &Screen, ms: u64) -> String {
    if !screen.ages {
        return date_time(ms);
    }
    match (
        screen.now_ms.saturating_sub(ms),
        ms.saturating_sub(screen.now_ms),
    ) {
        (0..1000, 0..1000) => "just now".to_owned(),
        (0, ahead_ms) => format!("in {}", about(ahead_ms)),
        (age_ms, _) => format!("{} ago", about(age_ms)),
    }
}

/// Formats a count with its noun, to whose plural an `s` is added, or `ies` in place of a `y`.
pub(crate) fn count(number: u64, noun: &str) -> String {
    match (number, noun.strip_suffix('y')) {
        (1, _) => format!("1 {noun}"),
        (_, Some(stem)) if !noun.ends_with("ey") => format!("{number} {stem}ies"),
        _many => format!("{number} {noun}s"),
    }
}

/// Formats a number of bytes.
pub(crate) fn bytes(count: u64) -> String {
    indicatif::BinaryBytes(count).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::output::screen::tests::{NOW_MS, pipe, terminal};

    #[test]
    fn terminal_shows_ages_and_a_pipe_times() {
        let shown = |ms| when(&terminal(80, false), ms);
        assert_eq!(shown(NOW_MS - 400), "just now");
        assert_eq!(shown(NOW_MS + 400), "just now");
        assert_eq!(shown(NOW_MS - 30_000), "30 s ago");
        assert_eq!(shown(NOW_MS - 3 * 60_000), "3 min ago");
        assert_eq!(shown(NOW_MS + 2 * 86_400_000), "in 2 days");
        assert_eq!(when(&pipe(), NOW_MS), date_time(NOW_MS));
    }

    #[test]
    fn one_thing_is_not_several() {
        assert_eq!(count(1, "entry"), "1 entry");
        assert_eq!(count(0, "entry"), "0 entries");
        assert_eq!(count(2, "key"), "2 keys");
        assert_eq!(count(2, "dead letter"), "2 dead letters");
    }
}

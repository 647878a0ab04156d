//! The wall clock, read only here, beside the clock that runs since the machine was booted; and
//! durations as people write them.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// A wall clock: the machine's, or a manual one that a test sets. Clones share the time.
#[derive(Debug, Clone)]
pub struct Clock {
    // `None` for the machine's clock.
    manual: Option<Arc<Manual>>,
    // Milliseconds by which the members' clocks are ahead of the steady time here; `UNKNOWN` until it
    // is set.
    members_ahead_ms: Arc<AtomicI64>,
}

#[derive(Debug)]
struct Manual {
    // Set by `set`, `advance` and `jump`.
    ms: AtomicU64,
    // Milliseconds of `ms` that `jump` has added: no time has passed.
    jumped_ms: AtomicI64,
}

impl Default for Clock {
    fn default() -> Self {
        Self {
            manual: None,
            members_ahead_ms: Arc::new(AtomicI64::new(UNKNOWN)),
        }
    }
}

impl Clock {
    /// Returns the machine's clock.
    pub fn system() -> Self {
        Self::default()
    }

    /// Returns a clock that stands at `ms` until it is set.
    pub fn manual(ms: u64) -> Self {
        Self {
            manual: Some(Arc::new(Manual {
                ms: AtomicU64::new(ms),
                jumped_ms: AtomicI64::new(0),
            })),
            ..Self::default()
        }
    }

    /// Sets by how many milliseconds the clocks of the members within reach are ahead of this one,
    /// negative when they are behind; `None`: it is not known. For all clones.
    ///
    /// Their time goes on with the steady time from here on, so a jump of this clock does not move it.
    pub fn set_members_ahead(&self, ms: Option<i64>) {
        let ahead_of_steady = |ms: i64| {
            let now_ms = i64::try_from(self.now_ms()).unwrap_or(i64::MAX);
            let steady_ms = i64::try_from(self.steady_ms()).unwrap_or(i64::MAX);
            let ahead_ms = now_ms.saturating_sub(steady_ms).saturating_add(ms);
            ahead_ms.max(UNKNOWN + 1)
        };
        let ms = ms.map_or(UNKNOWN, ahead_of_steady);
        self.members_ahead_ms.store(ms, Ordering::SeqCst);
    }

    /// Returns the time by the clocks of the members within reach, ms since 1970; `None` when it is
    /// not known.
    pub fn members_ms(&self) -> Option<u64> {
        let ahead_ms = self.members_ahead_ms.load(Ordering::SeqCst);
        (ahead_ms != UNKNOWN).then(|| self.steady_ms().saturating_add_signed(ahead_ms))
    }

    /// Returns milliseconds since some time. It goes on while the machine sleeps, and nobody can set
    /// it.
    pub fn steady_ms(&self) -> u64 {
        self.manual.as_ref().map_or_else(booted_ms, |manual| {
            let jumped_ms = manual.jumped_ms.load(Ordering::SeqCst);
            let ms = manual.ms.load(Ordering::SeqCst);
            ms.saturating_add_signed(jumped_ms.saturating_neg())
        })
    }

    /// Returns milliseconds since 1970; 0 when the clock is set to an earlier time. May go back.
    pub fn now_ms(&self) -> u64 {
        let manual = self.manual.as_ref();
        manual.map_or_else(machine_ms, |manual| manual.ms.load(Ordering::SeqCst))
    }

    /// Sets a manual clock to `ms` since 1970, which may be earlier. No effect on the machine's
    /// clock.
    pub fn set(&self, ms: u64) {
        if let Some(manual) = &self.manual {
            manual.ms.store(ms, Ordering::SeqCst);
        }
    }

    /// Moves a manual clock forward by `ms`. No effect on the machine's clock.
    pub fn advance(&self, ms: u64) {
        if let Some(manual) = &self.manual {
            manual.ms.fetch_add(ms, Ordering::SeqCst);
        }
    }

    /// Sets a manual clock forward by `ms`, or back, without any time having passed. No effect on the
    /// machine's clock.
    pub fn jump(&self, ms: i64) {
        if let Some(manual) = &self.manual {
            manual.jumped_ms.fetch_add(ms, Ordering::SeqCst);
            let jumped_ms = self.now_ms().saturating_add_signed(ms);
            manual.ms.store(jumped_ms, Ordering::SeqCst);
        }
    }
}

// Milliseconds since the machine was booted, with the time that it slept.
fn booted_ms() -> u64 {
    #[cfg(target_os = "linux")]
    let clock = rustix::time::ClockId::Boottime;
    #[cfg(not(target_os = "linux"))]
    let clock = rustix::time::ClockId::Monotonic;
    let since = rustix::time::clock_gettime(clock);
    let seconds = u64::try_from(since.tv_sec).unwrap_or(0);
    seconds.saturating_mul(1000) + u64::try_from(since.tv_nsec / 1_000_000).unwrap_or(0)
}

#[expect(clippy::disallowed_methods, reason = "this is the one place")]
fn machine_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| {
        u64::try_from(since.as_millis()).expect("the year is below 500 million")
    })
}

/// Parses `250ms`, `30s`, `5m`, `2h`, `7d`, `1w`, parts of them (`1.5h`), and several in a row
/// (`1h30m`).
///
/// # Errors
/// The expected form, for people.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let wrong =
        || "expected a number and a unit: 250ms, 30s, 5m, 2h, 1.5h, 7d, 1w, 1h30m".to_owned();
    let mut rest = text;
    let mut total_ms = 0_u64;
    while !rest.is_empty() || total_ms == 0 && text.is_empty() {
        let is_number = |c: char| c.is_ascii_digit() || c == '.';
        let digits = rest.find(|c: char| !is_number(c)).ok_or_else(wrong)?;
        let (number, tail) = rest.split_at(digits);
        let unit = tail
            .find(|c: char| c.is_ascii_digit())
            .unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit);
        let unit_ms = match unit {
            "ms" => 1,
            "s" => 1000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            "w" => 604_800_000,
            _other => return Err(wrong()),
        };
        let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
        let whole = whole.parse::<u64>().map_err(|_no_number| wrong())?;
        if !(1..=FRACTION_DIGITS_MAX).contains(&fraction.len()) {
            return Err(wrong());
        }
        let tenths = (0..fraction.len()).fold(1, |tenths, _digit| tenths * 10);
        let fraction = fraction.parse::<u64>().map_err(|_no_number| wrong())?;
        let part_ms = whole.checked_mul(unit_ms);
        let part_ms = part_ms.and_then(|ms| ms.checked_add(unit_ms * fraction / tenths));
        total_ms = part_ms
            .and_then(|ms| total_ms.checked_add(ms))
            .filter(|ms| *ms <= DURATION_MS_MAX)
            .ok_or_else(|| "longer than 1000 years".to_owned())?;
        rest = tail;
    }
    Ok(Duration::from_millis(total_ms))
}

/// Formats `duration`, to the millisecond, so that `parse_duration` reads it: with the largest unit
/// up to hours that leaves no remainder.
pub fn duration_text(duration: Duration) -> String {
    match duration.as_millis() {
        0 => "0s".to_owned(),
        ms if ms % 3_600_000 == 0 => format!("{}h", ms / 3_600_000),
        ms if ms % 60_000 == 0 => format!("{}m", ms / 60_000),
        ms if ms % 1000 == 0 => format!("{}s", ms / 1000),
        ms => format!("{ms}ms"),
    }
}

/// Formats a time in ms in the largest unit of which it has about two at least, rounded.
pub fn about(ms: u64) -> String {
    let units = [
        (31_536_000_000, "years"),
        (86_400_000, "days"),
        (3_600_000, "h"),
        (60_000, "min"),
    ];
    let rounded = |unit_ms: u64| ms.saturating_add(unit_ms / 2) / unit_ms;
    let largest = units.iter().find(|(unit_ms, _)| rounded(*unit_ms) >= 2);
    let (unit_ms, unit) = largest.unwrap_or(&(1000, "s"));
    format!("{} {unit}", rounded(*unit_ms))
}

const UNKNOWN: i64 = i64::MIN;
/// Digits after the point of a number in a duration.
const FRACTION_DIGITS_MAX: usize = 6;
const DURATION_MS_MAX: u64 = 1000 * 365 * 86_400_000;

/// Returns the first whole second that is not before `ms` (since 1970) as an RFC 3339 time in UTC.
pub fn time_text(ms: u64) -> String {
    let second = second_text(ms.div_ceil(1000));
    format!("{second}Z")
}

/// Returns the time `ms` (since 1970) as an RFC 3339 time in UTC, with milliseconds; `None` for 0, which means
/// never, and for times after the year 9999.
pub fn instant_text(ms: u64) -> Option<String> {
    let is_time = (1..INSTANT_MS_END).contains(&ms);
    is_time.then(|| format!("{}.{:03}Z", second_text(ms / 1000), ms % 1000))
}

// Returns the second (since 1970) as an RFC 3339 time without its zone.
fn second_text(seconds: u64) -> String {
    const DAY: u64 = 86_400;
    let (days, of_day) = (seconds / DAY, seconds % DAY);
    // A cycle of the calendar has 146,097 days and begins on 1 March, so that a leap day ends a year.
    let days = days + 719_468;
    let (cycle, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (month, new_year) = match month {
        0..10 => (month + 3, 0),
        _january => (month - 9, 1),
    };
    let year = cycle * 400 + year + new_year;
    let (hour, minute, second) = (of_day / 3600, of_day / 60 % 60, of_day % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}")
}

/// The end of the last day of which the library that formats times for people knows all hours in all zones.
const INSTANT_MS_END: u64 = 253_402_207_201_000;

#[cfg(test)]
mod tests {
    use super::*;

    /// A clock that was three days ahead was "2 days ahead" a moment later.
    #[test]
    fn about_rounds_to_the_nearest() {
        for (ms, text) in [
            (0, "0 s"),
            (1_499, "1 s"),
            (89_999, "90 s"),
            (90_000, "2 min"),
            (5_399_000, "90 min"),
            (7_260_000, "2 h"),
            (3 * 86_400_000 - 10, "3 days"),
            (u64::MAX, "584942417 years"),
        ] {
            assert_eq!(about(ms), text, "{ms}");
        }
    }

    #[test]
    fn time_is_written_in_utc_and_never_too_early() {
        for (ms, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (1, "1970-01-01T00:00:01Z"),
            (951_782_400_000, "2000-02-29T00:00:00Z"),
            (1_700_000_000_000, "2023-11-14T22:13:20Z"),
            (1_735_689_599_001, "2025-01-01T00:00:00Z"),
            (4_107_542_399_000, "2100-02-28T23:59:59Z"),
            (4_107_542_400_000, "2100-03-01T00:00:00Z"),
        ] {
            assert_eq!(time_text(ms), text, "{ms}");
            let instant = (ms > 0 && ms % 1000 == 0).then(|| text.replace('Z', ".000Z"));
            if instant.is_some() {
                assert_eq!(instant_text(ms), instant, "{ms}");
            }
        }
    }

    #[test]
    fn jump_of_the_clock_moves_no_time_of_the_members() {
        let clock = Clock::manual(1_000_000);
        assert_eq!(clock.members_ms(), None);
        clock.set_members_ahead(Some(-500));
        assert_eq!(clock.members_ms(), Some(999_500));
        clock.advance(1000);
        assert_eq!(clock.members_ms(), Some(1_000_500));
        clock.jump(3_600_000);
        assert_eq!(clock.now_ms(), 4_601_000);
        assert_eq!(clock.members_ms(), Some(1_000_500));
        clock.jump(-3_600_000);
        assert_eq!((clock.now_ms(), clock.steady_ms()), (1_001_000, 1_001_000));
        let machine = Clock::system();
        let before_ms = machine.steady_ms();
        machine.set_members_ahead(Some(0));
        let members_ms = machine.members_ms().unwrap();
        assert!(members_ms.abs_diff(machine.now_ms()) < 10_000);
        assert!(machine.steady_ms() >= before_ms);
    }

    #[test]
    fn durations_are_numbers_with_units() {
        assert_eq!(parse_duration("30s"), Ok(Duration::from_secs(30)));
        assert_eq!(parse_duration("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(parse_duration("1h30m"), Ok(Duration::from_secs(5400)));
        assert_eq!(parse_duration("7d"), Ok(Duration::from_secs(7 * 86_400)));
        assert_eq!(parse_duration("1w"), parse_duration("7d"));
        assert_eq!(parse_duration("1.5h"), Ok(Duration::from_secs(5400)));
        assert_eq!(parse_duration("0.25s"), Ok(Duration::from_millis(250)));
        for wrong in [
            "",
            "30",
            "s",
            "-1s",
            "1.h",
            ".5h",
            "1.2.3s",
            "1 h",
            "99999999999999999999s",
            "9999999d",
        ] {
            assert!(parse_duration(wrong).is_err(), "{wrong:?} was accepted");
        }
    }

    #[test]
    fn a_duration_is_read_as_it_was_written() {
        for text in ["0s", "250ms", "1500ms", "30s", "90m", "2h", "48h"] {
            assert_eq!(duration_text(parse_duration(text).unwrap()), text);
        }
    }
}

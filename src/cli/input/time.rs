//! Parses and prints times and durations for people.

use std::time::Duration;

use jiff::{Timestamp, civil, tz::TimeZone};
pub(crate) use lattice::clock::parse_duration;

/// A point in time that a person named.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum When {
    /// This long before now.
    Ago(Duration),
    /// Milliseconds since 1970.
    At(u64),
}

impl When {
    /// Returns the time in milliseconds since 1970.
    pub(crate) fn at_ms(self, now_ms: u64) -> u64 {
        match self {
            Self::Ago(ago) => now_ms.saturating_sub(millis(ago)),
            Self::At(ms) => ms,
        }
    }
}

/// Parses an age (`2h`), an RFC 3339 time (`2026-11-22T10:00:00Z`), a local time or date
/// (`2026-11-22 10:00`, `2026-11-22`), or milliseconds since 1970.
pub(crate) fn parse_when(text: &str) -> Result<When, String> {
    if let Ok(ago) = parse_duration(text) {
        return Ok(When::Ago(ago));
    }
    // The form that `--json` prints. Eight digits are a date.
    if text.len() >= MS_DIGITS_MIN
        && let Ok(ms) = text.parse::<u64>()
    {
        return Ok(When::At(ms));
    }
    let local = |time: civil::DateTime| time.to_zoned(TimeZone::system()).map(|it| it.timestamp());
    let time = text
        .parse::<Timestamp>()
        .or_else(|_no_offset| text.parse::<civil::DateTime>().and_then(local))
        .or_else(|_no_time| {
            text.parse::<civil::Date>()
                .and_then(|date| local(date.to_datetime(civil::Time::midnight())))
        });
    match time.map(|time| u64::try_from(time.as_millisecond())) {
        Ok(Ok(ms)) => Ok(When::At(ms)),
        Ok(Err(_before_1970)) => Err("the time is before 1970".to_owned()),
        Err(_neither) => Err(
            "expected an age such as 30s, 5m, 2h or 7d, a date, or a time such as \
        2026-01-31T12:00:00Z"
                .to_owned(),
        ),
    }
}

/// Returns `duration` in milliseconds. A result of `parse_duration` always fits.
pub(crate) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Formats a time with its date, in local time.
pub(crate) fn date_time(ms: u64) -> String {
    local(ms, "%Y-%m-%d %H:%M:%S%.3f")
}

/// Formats a time in twelve columns, in local time: with milliseconds if it is today, else with the
/// day.
pub(crate) fn brief(ms: u64, now_ms: u64) -> String {
    let same = |format| local(ms, format) == local(now_ms, format);
    let format = match (same("%F"), same("%Y")) {
        (true, _) => "%H:%M:%S%.3f",
        (false, true) => "%b %d %H:%M",
        (false, false) => "%b %d  %Y",
    };
    local(ms, format)
}

fn local(ms: u64, format: &str) -> String {
    let time = i64::try_from(ms)
        .ok()
        .and_then(|ms| Timestamp::from_millisecond(ms).ok());
    match time {
        Some(time) => time
            .to_zoned(TimeZone::system())
            .strftime(format)
            .to_string(),
        None => format!("{ms} ms"),
    }
}

/// Fewest digits of a number that is read as milliseconds since 1970; such times are after 1973.
const MS_DIGITS_MIN: usize = 12;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::support::mutator::{Corpus, fuzz};

    #[test]
    fn brief_time_has_twelve_columns() {
        let now_ms = 1_800_000_000_000;
        for ago_ms in [0, 86_400_000 * 3, 86_400_000 * 500] {
            assert_eq!(brief(now_ms - ago_ms, now_ms).len(), 12);
        }
    }

    #[test]
    fn age_date_and_milliseconds_are_parsed() {
        assert_eq!(parse_when("2h"), Ok(When::Ago(Duration::from_secs(7200))));
        assert_eq!(parse_when("1970-01-02T00:00:00Z"), Ok(When::At(86_400_000)));
        assert_eq!(
            parse_when("1970-01-02T02:00:00+02:00"),
            Ok(When::At(86_400_000))
        );
        assert!(matches!(parse_when("2026-11-22"), Ok(When::At(_))));
        assert!(matches!(parse_when("2026-11-22 10:00"), Ok(When::At(_))));
        assert_eq!(parse_when("1763837576123"), Ok(When::At(1_763_837_576_123)));
        assert!(matches!(parse_when("20261122"), Ok(When::At(ms)) if ms > 1_700_000_000_000));
        assert!(parse_when("1960-01-01").is_err());
        assert!(parse_when("yesterday").is_err());
        assert_eq!(When::Ago(Duration::from_secs(1)).at_ms(5000), 4000);
    }

    #[test]
    fn t4_l9_any_text_is_a_time_or_a_mistake() {
        let texts = [
            "2h",
            "2026-11-22T10:00:00Z",
            "2026-11-22 10:00",
            "1700000000000",
        ];
        fuzz(&Corpus::new(texts), |input| {
            let text = String::from_utf8_lossy(input);
            let Ok(when) = parse_when(&text) else {
                return false;
            };
            for now_ms in [0, 1_700_000_000_000, u64::MAX] {
                let at_ms = when.at_ms(now_ms);
                assert!(matches!(when, When::At(_)) || at_ms <= now_ms);
                assert!(!brief(at_ms, now_ms).is_empty());
            }
            true
        });
    }
}

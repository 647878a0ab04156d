//! Parses and prints times and durations for people.

use std::time::Duration;

use jiff::{Timestamp, civil, tz::TimeZone};
pub(crate) use lattice::clock::parse_duration;
use lattice::clock::{Clock, about};

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

/// Parses a time in any form that a command prints: an age (`2h`, `2 h ago`), an RFC 3339 time
/// (`2026-11-22T10:00:00Z`), a local time or date (`2026-11-22 10:00`, `2026-11-22`, `Nov 22 10:00`,
/// `10:53:58.557`), milliseconds or seconds since 1970; and `now`, `today`, `yesterday`.
///
/// A time of day, or a day, without a year is the last one before now.
pub(crate) fn parse_when(text: &str) -> Result<When, String> {
    parse_at(text, Clock::system().now_ms())
}

/// Like [`parse_when`], for a time that must have passed.
pub(crate) fn parse_past(text: &str) -> Result<When, String> {
    let now_ms = Clock::system().now_ms();
    let when = parse_at(text, now_ms)?;
    match when.at_ms(now_ms).saturating_sub(now_ms) {
        0 => Ok(when),
        ahead_ms => Err(format!(
            "{} is in the future, {} from now",
            date_time(when.at_ms(now_ms)),
            about(ahead_ms)
        )),
    }
}

fn parse_at(text: &str, now_ms: u64) -> Result<When, String> {
    let text = text.trim();
    if let Some(ago) = parse_age(text) {
        return Ok(When::Ago(ago));
    }
    // The forms that `--json` and other programs print. Eight digits are a date.
    if let Ok(number) = text.parse::<u64>() {
        match text.len() {
            MS_DIGITS_MIN.. => return Ok(When::At(number)),
            SECOND_DIGITS => return Ok(When::At(number * 1000)),
            _date => {}
        }
    }
    let time = text
        .parse::<Timestamp>()
        .ok()
        .or_else(|| timestamp(civil_time(text, now_ms)?));
    match time.map(|time| u64::try_from(time.as_millisecond())) {
        Some(Ok(ms)) => Ok(When::At(ms)),
        Some(Err(_before_1970)) => Err("the time is before 1970".to_owned()),
        None => Err(
            "expected an age such as 30s, 5m, 2h, 1.5h, 7d or 1w; a time such as 10:30, \
            2026-01-31T12:00:00Z or Jan 31 12:00; a date; or yesterday"
                .to_owned(),
        ),
    }
}

// Reads `2h`, and `2 h`, `5 min`, `3 days ago` as `about` prints them.
fn parse_age(text: &str) -> Option<Duration> {
    let text = text.strip_suffix("ago").unwrap_or(text).trim_end();
    if let Ok(age) = parse_duration(text) {
        return Some(age);
    }
    let (number, unit) = text.split_once(' ')?;
    let (number, unit) = match unit {
        "min" => (number, "m"),
        "day" | "days" => (number, "d"),
        "year" | "years" => return parse_duration(&format!("{number}d")).ok()?.checked_mul(365),
        unit => (number, unit),
    };
    parse_duration(&format!("{number}{unit}")).ok()
}

// Reads a local time. Without a day or a year, it is the last such time before now.
fn civil_time(text: &str, now_ms: u64) -> Option<civil::DateTime> {
    let now = i64::try_from(now_ms)
        .ok()
        .and_then(|ms| Timestamp::from_millisecond(ms).ok())?;
    let now = now.to_zoned(TimeZone::system()).datetime();
    let midnight = |date: civil::Date| date.to_datetime(civil::Time::midnight());
    match text {
        "now" => return Some(now),
        "today" => return Some(midnight(now.date())),
        "yesterday" => return Some(midnight(now.date().yesterday().ok()?)),
        _time => {}
    }
    if let Ok(time) = text.parse::<civil::DateTime>() {
        return Some(time);
    }
    if let Ok(date) = text.parse::<civil::Date>() {
        return Some(midnight(date));
    }
    if text.contains(':')
        && let Ok(time) = text.parse::<civil::Time>()
    {
        let today = now.date().to_datetime(time);
        let yesterday = || Some(now.date().yesterday().ok()?.to_datetime(time));
        return if today <= now {
            Some(today)
        } else {
            yesterday()
        };
    }
    if let Ok(date) = civil::Date::strptime("%b %d %Y", text) {
        return Some(midnight(date));
    }
    let of_year = |year: i16| civil::DateTime::strptime("%Y %b %d %H:%M", format!("{year} {text}"));
    let this_year = of_year(now.year()).ok().filter(|time| *time <= now);
    this_year.or_else(|| of_year(now.year() - 1).ok())
}

fn timestamp(time: civil::DateTime) -> Option<Timestamp> {
    Some(time.to_zoned(TimeZone::system()).ok()?.timestamp())
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

/// Formats a time for the name of a file, in UTC; such names sort by time.
pub(crate) fn file_name(ms: u64) -> String {
    let time = i64::try_from(ms).ok();
    let time = time.and_then(|ms| Timestamp::from_millisecond(ms).ok());
    time.map_or_else(
        || ms.to_string(),
        |time| time.strftime("%Y-%m-%dT%H%M%S.%3fZ").to_string(),
    )
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
/// Digits of a number that is read as seconds since 1970; such times are from 2001 to 2286.
const SECOND_DIGITS: usize = 10;

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
        assert_eq!(parse_when("1763837576"), Ok(When::At(1_763_837_576_000)));
        for (age, seconds) in [
            ("1w", 604_800),
            ("1.5h", 5400),
            ("2 h ago", 7200),
            ("5 min", 300),
        ] {
            let ago = When::Ago(Duration::from_secs(seconds));
            assert_eq!(parse_when(age), Ok(ago), "{age}");
        }
        for wrong in [
            "soon",
            "5",
            "1.h",
            ".5h",
            "1.2.3s",
            "99:00",
            "Foo 21 10:00",
            "17638375",
        ] {
            assert!(parse_when(wrong).is_err(), "{wrong}");
        }
        assert_eq!(When::Ago(Duration::from_secs(1)).at_ms(5000), 4000);
    }

    /// `watch` printed `10:53:58.557` and `Nov 21 10:00`, and `--since` took neither.
    #[test]
    fn every_printed_time_can_be_typed() {
        let now_ms = 1_800_000_000_123;
        for ago_ms in [
            0,
            1,
            59_999,
            3_600_000,
            86_400_000 * 3,
            86_400_000 * 300,
            86_400_000 * 500,
        ] {
            let ms = now_ms - ago_ms;
            let typed = |text: &str| parse_at(text, now_ms).map(|when| when.at_ms(now_ms));
            let printed = brief(ms, now_ms);
            let read = typed(&printed).unwrap();
            assert_eq!(brief(read, now_ms), printed);
            assert!(read <= ms && ms - read < 86_400_000, "{printed}");
            assert_eq!(typed(&date_time(ms)), Ok(ms));
            let age = about(ago_ms);
            let read = now_ms - typed(&age).unwrap();
            assert_eq!(about(read), age);
        }
    }

    #[test]
    fn time_without_a_day_is_the_last_one() {
        let now_ms = 1_800_000_000_123;
        let hour = |text| parse_at(text, now_ms).map(|when| now_ms - when.at_ms(now_ms));
        let day_ms = 86_400_000;
        for text in ["00:00", "06:30", "12:00:01.5", "23:59:59", "now", "today"] {
            assert!(hour(text).unwrap() <= day_ms, "{text}");
        }
        assert!((day_ms..=2 * day_ms).contains(&hour("yesterday").unwrap()));
        assert!(parse_past("2h").is_ok() && parse_past("00:00").is_ok());
        let future = parse_past("2999-01-01").unwrap_err();
        assert!(future.contains("is in the future"), "{future}");
    }

    #[test]
    fn t4_l9_any_text_is_a_time_or_a_mistake() {
        let texts = [
            "2h",
            "2026-11-22T10:00:00Z",
            "2026-11-22 10:00",
            "1700000000000",
            "10:53:58.557",
            "Nov 21 10:00",
            "1.5h",
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

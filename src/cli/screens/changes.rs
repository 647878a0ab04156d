//! Changes of keys, as `watch` shows them on a terminal.

use lattice::{clock::time_text, wire::api};
use unicode_width::UnicodeWidthStr as _;

use crate::cli::{
    input::time::brief,
    output::{
        ink::Ink,
        print::{escape, harmless},
        screen::Screen,
        width::{pad, shorten, shorten_middle},
    },
    screens::{heads, names::Names, when::when},
};

/// Draws a change on one line: time, kind, author, key, value. `heads` are all heads of the key in a
/// conflict; without them, their number is shown.
pub(crate) fn line(
    change: &api::Change,
    heads: &[api::Head],
    names: &Names,
    screen: &Screen,
) -> String {
    let entry = change.entry.clone().unwrap_or_default();
    // Nobody writes an expiry: it has the time at which the value expired.
    let expired_ms = change.expires_ms.filter(|_| change.kind == "expire");
    let time = match change.origin.as_str() {
        "initial" => when(screen, entry.wall_ms),
        _later => brief(expired_ms.unwrap_or(entry.wall_ms), screen.now_ms),
    };
    let (ink, kind) = match change.kind.as_str() {
        _any if change.conflict => (Ink::Alarm, "CONFLICT"),
        "put" => (Ink::Good, "put"),
        "delete" => (Ink::Bad, "delete"),
        "expire" => (Ink::Warn, "expire"),
        other => (Ink::Warn, other),
    };
    let author_columns = names.columns();
    let author = shorten(&names.of(&entry.author), author_columns).into_owned();
    let mut value = match (change.conflict, heads.len()) {
        (true, 2..) => heads::values(heads, names),
        (true, _unknown) => {
            let value = change.value.as_ref().map(|value| escape(value));
            format!(
                "({} heads) {}",
                change.heads.len(),
                value.unwrap_or_default()
            )
        }
        (false, _) => change
            .value
            .as_ref()
            .map_or_else(String::new, |value| escape(value).into()),
    };
    let mut key = escape(&change.key).into_owned();
    let late = if change.late { "  (late)" } else { "" };
    let is_narrow = screen
        .columns
        .is_some_and(|columns| columns < NARROW_COLUMNS);
    let mut parts = vec![
        screen.paint(Ink::Dim, &pad(&time, TIME_COLUMNS)),
        screen.paint(ink, &pad(kind, KIND_COLUMNS)),
    ];
    let mut before = TIME_COLUMNS + KIND_COLUMNS + 2 * GAP;
    if !is_narrow {
        let author = pad(&author, author_columns);
        parts.push(screen.paint(Names::ink(&entry.author), &author));
        before += author_columns + GAP;
    }
    let mut key_columns = KEY_COLUMNS;
    if let Some(columns) = screen.columns {
        let room = columns.saturating_sub(before + late.len());
        let beside_value = match value.width() {
            0 => room,
            value => room.saturating_sub(value + GAP).max(room.div_ceil(2)),
        };
        key = shorten_middle(&key, beside_value).into_owned();
        key_columns = key_columns.min(room / 2).max(key.width());
        value = shorten(&value, room.saturating_sub(key_columns + GAP)).into_owned();
    }
    parts.push(match value.is_empty() {
        true => key,
        false => pad(&key, key_columns),
    });
    parts.push(match change.conflict {
        true => screen.paint(Ink::Alarm, &value),
        false => value,
    });
    let line = parts.join("  ");
    format!("{}{}", line.trim_end(), screen.paint(Ink::Warn, late))
}

/// Draws the line that separates the state, or what was missed, from the changes that happen now.
pub(crate) fn live(screen: &Screen) -> String {
    rule("-- live --", Ink::Dim, screen)
}

/// Draws the line of a gap.
pub(crate) fn gap(gap: &api::Gap, screen: &Screen) -> String {
    let text = format!("-- gap: {}; the state follows --", reason(gap));
    rule(&text, Ink::Warn, screen)
}

/// Describes which history is missing.
pub(crate) fn reason(gap: &api::Gap) -> String {
    let reason = harmless(&gap.reason);
    match gap.reach_ms {
        Some(ms) => format!("{reason}; history is whole since {}", time_text(ms)),
        None => reason.into_owned(),
    }
}

// Draws `text` with dashes up to the width. It is not shortened.
fn rule(text: &str, ink: Ink, screen: &Screen) -> String {
    let missing = screen
        .columns
        .unwrap_or(0)
        .saturating_sub(text.chars().count());
    screen.paint(ink, &format!("{text}{}", "-".repeat(missing)))
}

/// Columns of a time, as [`brief`] formats it.
const TIME_COLUMNS: usize = 12;
/// Columns of the longest kind.
const KIND_COLUMNS: usize = 8;
/// Below this width, the author is left out.
const NARROW_COLUMNS: usize = 60;
/// Columns of a key that is not longer, so that most values are aligned.
const KEY_COLUMNS: usize = 16;
/// Columns between two parts.
const GAP: usize = 2;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{
        output::screen::tests::{NOW_MS, everywhere, terminal},
        screens::{
            heads::tests::{entry, head},
            names::tests::three,
        },
    };

    fn change(kind: &str, author: u8, key: &str, value: Option<&str>) -> api::Change {
        api::Change {
            kind: kind.to_owned(),
            key: key.to_owned().into(),
            value: value.map(|value| value.to_owned().into()),
            entry: Some(entry(author, 86_400_000 * 3)),
            origin: "local".to_owned(),
            ..api::Change::default()
        }
    }

    // Draws a change; its time, which depends on the time zone, is not shown.
    fn drawn(change: &api::Change, heads: &[api::Head], screen: &Screen) -> String {
        let line = line(change, heads, &three(), screen);
        let entry = change.entry.as_ref().unwrap();
        let times = [Some(entry.wall_ms), change.expires_ms];
        times.into_iter().flatten().fold(line, |line, ms| {
            line.replace(&brief(ms, NOW_MS), "hh:mm:ss.mmm")
        })
    }

    #[test]
    fn state_and_changes_are_aligned_around_a_line() {
        let state = api::Change {
            origin: "initial".to_owned(),
            ..change("put", 0x67, "/demo/x", Some("merged"))
        };
        let conflict = api::Change {
            conflict: true,
            heads: vec![entry(0x87, 0), entry(0x67, 0)],
            ..change("put", 0x87, "/demo/x", Some("blue"))
        };
        let late = api::Change {
            late: true,
            ..change("put", 0x6e, "/demo/y", Some(&"1,".repeat(80)))
        };
        let expired = api::Change {
            expires_ms: Some(NOW_MS - 86_400_000),
            ..change("expire", 0x6e, "/jobs/7/lease", None)
        };
        let key = "/nodes/f4ba0123456789abcdef0123456789abcdef0123456789abcdef0123456789ab/status";
        let heads = [head(0x87, "blue", true), head(0x67, "red", false)];
        let draw = |screen: &Screen| {
            let plain = |change: &api::Change| drawn(change, &[], screen);
            vec![
                plain(&state),
                live(screen),
                plain(&change("put", 0x6e, "/demo/x", Some("again"))),
                plain(&change("delete", 0x87, "/demo/y", None)),
                drawn(&conflict, &heads, screen),
                plain(&conflict),
                plain(&late),
                plain(&expired),
                plain(&change(
                    "put",
                    0x99,
                    key,
                    Some("{\"name\":\"attic\",\"version\":\"0.1.0\"}"),
                )),
            ]
        };
        insta::assert_snapshot!(everywhere(draw), @r#"
        -- 80 columns
        3 days ago    put       kitchen   /demo/x           merged
        -- live ------------------------------------------------------------------------
        hh:mm:ss.mmm  put       attic     /demo/x           again
        hh:mm:ss.mmm  delete    laptop    /demo/y
        hh:mm:ss.mmm  CONFLICT  laptop    /demo/x           blue | kitchen: red
        hh:mm:ss.mmm  CONFLICT  laptop    /demo/x           (2 heads) blue
        hh:mm:ss.mmm  put       attic     /demo/y           1,1,1,1,1,1,1,1,1,1…  (late)
        hh:mm:ss.mmm  expire    attic     /jobs/7/lease
        hh:mm:ss.mmm  put       99999999  /nodes/f4ba…89ab/status  {"name":"attic","ver…
        -- 120 columns
        3 days ago    put       kitchen   /demo/x           merged
        -- live ----------------------------------------------------------------------------------------------------------------
        hh:mm:ss.mmm  put       attic     /demo/x           again
        hh:mm:ss.mmm  delete    laptop    /demo/y
        hh:mm:ss.mmm  CONFLICT  laptop    /demo/x           blue | kitchen: red
        hh:mm:ss.mmm  CONFLICT  laptop    /demo/x           (2 heads) blue
        hh:mm:ss.mmm  put       attic     /demo/y           1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1…  (late)
        hh:mm:ss.mmm  expire    attic     /jobs/7/lease
        hh:mm:ss.mmm  put       99999999  /nodes/f4ba0123456789abcd…bcdef0123456789ab/status  {"name":"attic","version":"0.1.0"}
        -- 80 columns, in colour
        ^[2m3 days ago  ^[0m  ^[32mput     ^[0m  ^[34mkitchen ^[0m  /demo/x           merged
        ^[2m-- live ------------------------------------------------------------------------^[0m
        ^[2mhh:mm:ss.mmm^[0m  ^[32mput     ^[0m  ^[35mattic   ^[0m  /demo/x           again
        ^[2mhh:mm:ss.mmm^[0m  ^[31mdelete  ^[0m  ^[96mlaptop  ^[0m  /demo/y
        ^[2mhh:mm:ss.mmm^[0m  ^[1m^[31mCONFLICT^[0m  ^[96mlaptop  ^[0m  /demo/x           ^[1m^[31mblue | kitchen: red^[0m
        ^[2mhh:mm:ss.mmm^[0m  ^[1m^[31mCONFLICT^[0m  ^[96mlaptop  ^[0m  /demo/x           ^[1m^[31m(2 heads) blue^[0m
        ^[2mhh:mm:ss.mmm^[0m  ^[32mput     ^[0m  ^[35mattic   ^[0m  /demo/y           1,1,1,1,1,1,1,1,1,1…^[33m  (late)^[0m
        ^[2mhh:mm:ss.mmm^[0m  ^[33mexpire  ^[0m  ^[35mattic   ^[0m  /jobs/7/lease
        ^[2mhh:mm:ss.mmm^[0m  ^[32mput     ^[0m  ^[96m99999999^[0m  /nodes/f4ba…89ab/status  {"name":"attic","ver…
        -- 120 columns, in colour
        ^[2m3 days ago  ^[0m  ^[32mput     ^[0m  ^[34mkitchen ^[0m  /demo/x           merged
        ^[2m-- live ----------------------------------------------------------------------------------------------------------------^[0m
        ^[2mhh:mm:ss.mmm^[0m  ^[32mput     ^[0m  ^[35mattic   ^[0m  /demo/x           again
        ^[2mhh:mm:ss.mmm^[0m  ^[31mdelete  ^[0m  ^[96mlaptop  ^[0m  /demo/y
        ^[2mhh:mm:ss.mmm^[0m  ^[1m^[31mCONFLICT^[0m  ^[96mlaptop  ^[0m  /demo/x           ^[1m^[31mblue | kitchen: red^[0m
        ^[2mhh:mm:ss.mmm^[0m  ^[1m^[31mCONFLICT^[0m  ^[96mlaptop  ^[0m  /demo/x           ^[1m^[31m(2 heads) blue^[0m
        ^[2mhh:mm:ss.mmm^[0m  ^[32mput     ^[0m  ^[35mattic   ^[0m  /demo/y           1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1…^[33m  (late)^[0m
        ^[2mhh:mm:ss.mmm^[0m  ^[33mexpire  ^[0m  ^[35mattic   ^[0m  /jobs/7/lease
        ^[2mhh:mm:ss.mmm^[0m  ^[32mput     ^[0m  ^[96m99999999^[0m  /nodes/f4ba0123456789abcd…bcdef0123456789ab/status  {"name":"attic","version":"0.1.0"}
        "#);
    }

    #[test]
    fn narrow_terminal_shows_key_and_value() {
        let screen = terminal(40, false);
        let draw = |value| drawn(&change("put", 0x6e, "/fit/a", value), &[], &screen);
        assert_eq!(draw(Some("1")), "hh:mm:ss.mmm  put       /fit/a    1");
        let long = "v".repeat(300);
        assert_eq!(
            draw(Some(&long)),
            "hh:mm:ss.mmm  put       /fit/a    vvvvv…"
        );
        assert_eq!(draw(None), "hh:mm:ss.mmm  put       /fit/a");
    }

    #[test]
    fn gap_is_never_shortened() {
        let missing = api::Gap {
            reason: "entries 1 to 400 were removed from the logs of this node, and the cursor names one of them".to_owned(),
            reach_ms: Some(NOW_MS),
        };
        let line = gap(&missing, &terminal(80, false));
        assert!(
            line.ends_with("since 2027-01-15T08:00:00Z; the state follows --"),
            "{line}"
        );
    }
}

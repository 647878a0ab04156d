//! Entries of the past, as `history` and `log` show them.

use lattice::wire::api;

use crate::cli::{
    output::{
        graph::Graph,
        ink::Ink,
        object::by_hook,
        print::escape,
        screen::Screen,
        table::{Cell, Column, Table},
        width::shorten,
    },
    screens::{names::Names, when::when},
};

/// Draws the graph of the entries of a key, newest first, as a table. `older` stands where older entries
/// would, if there are some.
pub(crate) fn history(
    entries: &[api::HistoryEntry],
    older: Option<&str>,
    names: &Names,
    screen: &Screen,
) -> Vec<String> {
    let mut table = Table::new(&[
        Column::Text(""),
        Column::Long("VALUE"),
        Column::Text("BY"),
        Column::Text("WRITTEN"),
        Column::Text("EXPIRES"),
        Column::Text("ENTRY"),
        Column::Long("NOTE"),
    ]);
    let mut graph = Graph::new();
    let bare = |table: &mut Table, line: &str| {
        let rest = [(); 6].map(|()| Cell::default());
        table.row([Cell::from(line)].into_iter().chain(rest));
    };
    for past in entries {
        let entry = past.entry.clone().unwrap_or_default();
        let drawn = graph.draw(&entry.id, &past.parents);
        drawn.joins.iter().for_each(|line| bare(&mut table, line));
        let value = match past.kind.as_str() {
            "put" => escape(&past.value).into_owned().into(),
            kind => Cell::new(Ink::Bad, format!("({kind}d)")),
        };
        let expires = past.expires_ms.map(|ms| when(screen, ms));
        table.row([
            drawn.node.into(),
            value,
            names.cell(&entry.author),
            Cell::new(Ink::Dim, when(screen, entry.wall_ms)),
            Cell::new(Ink::Dim, expires.unwrap_or_default()),
            Cell::new(Ink::Dim, screen.id(&entry.id)),
            note(past),
        ]);
        drawn.splits.iter().for_each(|line| bare(&mut table, line));
    }
    let mut lines = table.draw(screen, 0);
    if let Some(older) = older {
        let text = format!("{}  {older}", graph.loose_ends());
        lines.push(screen.fit(&text, 0).into_owned());
    }
    lines
}

fn note(past: &api::HistoryEntry) -> Cell {
    let hook = by_hook(past.cause.as_ref());
    let (ink, role) = match (past.wins, past.head) {
        (true, _) => (Ink::Good, "wins"),
        (false, true) => (Ink::Alarm, "conflicts"),
        (false, false) => (Ink::Dim, ""),
    };
    Cell::new(ink, format!("{role}{hook}").trim().to_owned())
}

/// Draws a part of a log as a table; only the first part has titles.
pub(crate) fn log(entries: &[api::LogEntry], is_first: bool, screen: &Screen) -> Vec<String> {
    let mut table = Table::new(&[
        Column::Number("SEQ"),
        Column::Text("WRITTEN"),
        Column::Text("ENTRY"),
        Column::Long("NOTE"),
        Column::Long("CHANGES"),
    ]);
    if !is_first {
        table = table.untitled();
    }
    for logged in entries {
        let entry = logged.entry.clone().unwrap_or_default();
        let mut note = match logged.branch {
            0 => String::new(),
            branch => format!("branch {branch} "),
        };
        note.push_str(if logged.atomic { "atomic" } else { "" });
        note.push_str(&by_hook(logged.cause.as_ref()));
        table.row([
            entry.seq.to_string().into(),
            Cell::new(Ink::Dim, when(screen, entry.wall_ms)),
            Cell::new(Ink::Dim, screen.id(&entry.id)),
            note.trim().into(),
            ops(logged).into(),
        ]);
    }
    table.draw(screen, 0)
}

/// Describes the puts and deletes of an entry on one line.
pub(crate) fn ops(logged: &api::LogEntry) -> String {
    let mut ops: Vec<String> = logged
        .ops
        .iter()
        .take(OPS_SHOWN_MAX)
        .map(|op| match op.kind.as_str() {
            "put" => format!(
                "put {}={}",
                escape(&op.key),
                shorten(&escape(&op.value), VALUE_SHOWN_MAX)
            ),
            kind => format!("{kind} {}", escape(&op.key)),
        })
        .collect();
    if logged.ops.len() > OPS_SHOWN_MAX {
        ops.push(format!("and {} more", logged.ops.len() - OPS_SHOWN_MAX));
    }
    ops.join(", ")
}

/// Ops of one entry that are shown to people; `--json` has all.
const OPS_SHOWN_MAX: usize = 8;
/// Columns of a value that are shown to people; `--json` has all.
const VALUE_SHOWN_MAX: usize = 40;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{
        output::screen::tests::everywhere,
        screens::{heads::tests::entry, names::tests::three},
    };

    fn past(author: u8, value: &str, parents: &[u8]) -> api::HistoryEntry {
        api::HistoryEntry {
            entry: Some(entry(author, 720_000)),
            kind: "put".to_owned(),
            value: value.to_owned().into(),
            parents: parents
                .iter()
                .map(|id| vec![id ^ 0x0f; 32].into())
                .collect(),
            ..api::HistoryEntry::default()
        }
    }

    #[test]
    fn history_is_a_graph_beside_a_table() {
        let merged = api::HistoryEntry {
            head: true,
            wins: true,
            ..past(0x6e, "merged", &[0x67, 0x87])
        };
        let by = api::HistoryEntry {
            cause: Some(api::EntryCause {
                consumer: "copy".to_owned(),
                trigger: vec![0xab; 32].into(),
                ..api::EntryCause::default()
            }),
            ..past(0x67, &"red ".repeat(40), &[0x11])
        };
        let entries = [merged, by, past(0x87, "blue", &[0x11])];
        let older = Some("older entries exist, see --limit");
        insta::assert_snapshot!(everywhere(|screen| history(&entries, older, &three(), screen)), @"
        -- 80 columns
             VALUE                  BY       WRITTEN     ENTRY     NOTE
        *    merged                 attic    12 min ago  61616161  wins
        ├─┐
        * │  red red red red red …  kitchen  12 min ago  68686868  by hook copy at abab…
        │ *  blue                   laptop   12 min ago  88888888
        ┊ ┊  older entries exist, see --limit
        -- 120 columns
             VALUE                                                       BY       WRITTEN     ENTRY     NOTE
        *    merged                                                      attic    12 min ago  61616161  wins
        ├─┐
        * │  red red red red red red red red red red red red red red r…  kitchen  12 min ago  68686868  by hook copy at abababab
        │ *  blue                                                        laptop   12 min ago  88888888
        ┊ ┊  older entries exist, see --limit
        -- 80 columns, in colour
             ^[2mVALUE^[0m                  ^[2mBY^[0m       ^[2mWRITTEN^[0m     ^[2mENTRY^[0m     ^[2mNOTE^[0m
        *    merged                 ^[38;5;5mattic^[39m    ^[2m12 min ago^[0m  ^[2m61616161^[0m  ^[38;5;2mwins^[39m
        ├─┐
        * │  red red red red red …  ^[38;5;4mkitchen^[39m  ^[2m12 min ago^[0m  ^[2m68686868^[0m  ^[2mby hook copy at abab…^[0m
        │ *  blue                   ^[38;5;14mlaptop^[39m   ^[2m12 min ago^[0m  ^[2m88888888^[0m
        ┊ ┊  older entries exist, see --limit
        -- 120 columns, in colour
             ^[2mVALUE^[0m                                                       ^[2mBY^[0m       ^[2mWRITTEN^[0m     ^[2mENTRY^[0m     ^[2mNOTE^[0m
        *    merged                                                      ^[38;5;5mattic^[39m    ^[2m12 min ago^[0m  ^[2m61616161^[0m  ^[38;5;2mwins^[39m
        ├─┐
        * │  red red red red red red red red red red red red red red r…  ^[38;5;4mkitchen^[39m  ^[2m12 min ago^[0m  ^[2m68686868^[0m  ^[2mby hook copy at abababab^[0m
        │ *  blue                                                        ^[38;5;14mlaptop^[39m   ^[2m12 min ago^[0m  ^[2m88888888^[0m
        ┊ ┊  older entries exist, see --limit
        ");
    }

    #[test]
    fn log_is_a_table() {
        let op = |kind: &str, key: &str, value: &str| api::LogOp {
            kind: kind.to_owned(),
            key: key.to_owned().into(),
            value: value.to_owned().into(),
            ..api::LogOp::default()
        };
        let one = api::LogEntry {
            entry: Some(entry(0x6e, 3_600_000)),
            ops: vec![op("put", "/demo/x", "merged")],
            ..api::LogEntry::default()
        };
        let batch = api::LogEntry {
            entry: Some(api::EntryRef {
                seq: 12,
                ..entry(0x67, 500)
            }),
            atomic: true,
            ops: (0..12)
                .map(|n| op("delete", &format!("/tmp/{n}"), ""))
                .collect(),
            ..api::LogEntry::default()
        };
        insta::assert_snapshot!(everywhere(|screen| log(&[one.clone(), batch.clone()], true, screen)), @"
        -- 80 columns
        SEQ  WRITTEN     ENTRY     NOTE    CHANGES
          7  60 min ago  61616161          put /demo/x=merged
         12  just now    68686868  atomic  delete /tmp/0, delete /tmp/1, delete /tmp/2,…
        -- 120 columns
        SEQ  WRITTEN     ENTRY     NOTE    CHANGES
          7  60 min ago  61616161          put /demo/x=merged
         12  just now    68686868  atomic  delete /tmp/0, delete /tmp/1, delete /tmp/2, delete /tmp/3, delete /tmp/4, delete /t…
        -- 80 columns, in colour
        ^[2mSEQ^[0m  ^[2mWRITTEN^[0m     ^[2mENTRY^[0m     ^[2mNOTE^[0m    ^[2mCHANGES^[0m
          7  ^[2m60 min ago^[0m  ^[2m61616161^[0m          put /demo/x=merged
         12  ^[2mjust now^[0m    ^[2m68686868^[0m  atomic  delete /tmp/0, delete /tmp/1, delete /tmp/2,…
        -- 120 columns, in colour
        ^[2mSEQ^[0m  ^[2mWRITTEN^[0m     ^[2mENTRY^[0m     ^[2mNOTE^[0m    ^[2mCHANGES^[0m
          7  ^[2m60 min ago^[0m  ^[2m61616161^[0m          put /demo/x=merged
         12  ^[2mjust now^[0m    ^[2m68686868^[0m  atomic  delete /tmp/0, delete /tmp/1, delete /tmp/2, delete /tmp/3, delete /tmp/4, delete /t…
        ");
    }
}

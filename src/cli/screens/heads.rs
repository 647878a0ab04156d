//! The heads of keys, as `heads` and `conflicts` show them.

use lattice::wire::api;

use crate::cli::{
    output::{
        ink::Ink,
        print::escape,
        screen::Screen,
        table::{Cell, Column, Table},
    },
    screens::{names::Names, when::when},
};

/// Draws a table of the heads of one key; a star marks the one that reads return.
pub(crate) fn draw(heads: &[api::Head], names: &Names, screen: &Screen) -> Vec<String> {
    let mut table = Table::new(&[
        Column::Text(""),
        Column::Long("VALUE"),
        Column::Text("BY"),
        Column::Text("WRITTEN"),
        Column::Text("EXPIRES"),
        Column::Text("ENTRY"),
    ]);
    for head in heads {
        table.row(cells(head, names, screen));
    }
    table.draw(screen, 0)
}

/// Draws a table of keys, each with its heads; a star marks the head that reads return.
pub(crate) fn draw_all(
    keys: &[(bytes::Bytes, Vec<api::Head>)],
    names: &Names,
    screen: &Screen,
) -> Vec<String> {
    let mut table = Table::new(&[
        Column::Key("KEY"),
        Column::Text(""),
        Column::Long("VALUE"),
        Column::Text("BY"),
        Column::Text("WRITTEN"),
        Column::Text("EXPIRES"),
        Column::Text("ENTRY"),
    ]);
    for (key, heads) in keys {
        let mut key = Cell::from(escape(key).into_owned());
        for head in heads {
            let rest = cells(head, names, screen);
            table.row([std::mem::take(&mut key)].into_iter().chain(rest));
        }
    }
    table.draw(screen, 0)
}

fn cells(head: &api::Head, names: &Names, screen: &Screen) -> [Cell; 6] {
    let entry = head.entry.clone().unwrap_or_default();
    let expires = match head.expires_ms {
        Some(ms) if head.expired => Cell::new(Ink::Warn, format!("expired {}", when(screen, ms))),
        Some(ms) => Cell::new(Ink::Dim, when(screen, ms)),
        None => Cell::default(),
    };
    [
        Cell::new(Ink::Good, if head.wins { "*" } else { "" }),
        value(head),
        names.cell(&entry.author),
        Cell::new(Ink::Dim, when(screen, entry.wall_ms)),
        expires,
        Cell::new(Ink::Dim, screen.id(&entry.id)),
    ]
}

fn value(head: &api::Head) -> Cell {
    match head.kind.as_str() {
        "put" => escape(&head.value).into_owned().into(),
        kind => Cell::new(Ink::Bad, format!("({kind}d)")),
    }
}

/// Writes the values of several heads on one line, the winner's first: `blue | kitchen: red`.
pub(crate) fn values(heads: &[api::Head], names: &Names) -> String {
    let value = |head: &api::Head| match head.kind.as_str() {
        "put" => escape(&head.value).into_owned(),
        kind => format!("({kind}d)"),
    };
    let mut text = String::new();
    for (at, head) in heads.iter().enumerate() {
        if at > 0 {
            let author = head.entry.as_ref().map(|entry| names.of(&entry.author));
            text.push_str(&format!(" | {}: ", author.unwrap_or_default()));
        }
        text.push_str(&value(head));
    }
    text
}

/// Heads for tests of screens.
#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::cli::{
        output::screen::tests::{NOW_MS, everywhere},
        screens::names::tests::three,
    };

    /// Returns the entry of an author, written that long ago.
    pub(crate) fn entry(author: u8, age_ms: u64) -> api::EntryRef {
        api::EntryRef {
            id: vec![author ^ 0x0f; 32].into(),
            author: vec![author; 32].into(),
            seq: 7,
            wall_ms: NOW_MS - age_ms,
            counter: 0,
        }
    }

    /// Returns the head of an author with a value.
    pub(crate) fn head(author: u8, value: &str, wins: bool) -> api::Head {
        api::Head {
            entry: Some(entry(author, 180_000)),
            kind: "put".to_owned(),
            value: value.to_owned().into(),
            wins,
            ..api::Head::default()
        }
    }

    #[test]
    fn conflicts_are_a_table_with_all_values() {
        let gone = api::Head {
            kind: "delete".to_owned(),
            ..head(0x87, "", false)
        };
        let leased = api::Head {
            expires_ms: Some(NOW_MS - 60_000),
            expired: true,
            ..head(0x6e, "worker-3", false)
        };
        let colours = vec![head(0x87, "blue", true), head(0x67, "red", false)];
        let long = vec![head(0x6e, &"word ".repeat(40), true), gone, leased];
        let keys = [
            (bytes::Bytes::from("/lamp"), colours.clone()),
            (
                bytes::Bytes::from("/a/key/that/is/longer/than/half/of/the/width"),
                long,
            ),
        ];
        insta::assert_snapshot!(everywhere(|screen| draw_all(&keys, &three(), screen)), @"
        -- 80 columns
        KEY               VALUE           BY       WRITTEN    EXPIRES           ENTRY
        /lamp          *  blue            laptop   3 min ago                    88888888
                          red             kitchen  3 min ago                    68686868
        /a/key…/width  *  word word wor…  attic    3 min ago                    61616161
                          (deleted)       laptop   3 min ago                    88888888
                          worker-3        attic    3 min ago  expired 60 s ago  61616161
        -- 120 columns
        KEY                                   VALUE                               BY       WRITTEN    EXPIRES           ENTRY
        /lamp                              *  blue                                laptop   3 min ago                    88888888
                                              red                                 kitchen  3 min ago                    68686868
        /a/key/that/is/l…alf/of/the/width  *  word word word word word word wor…  attic    3 min ago                    61616161
                                              (deleted)                           laptop   3 min ago                    88888888
                                              worker-3                            attic    3 min ago  expired 60 s ago  61616161
        -- 80 columns, in colour
        ^[2mKEY^[0m               ^[2mVALUE^[0m           ^[2mBY^[0m       ^[2mWRITTEN^[0m    ^[2mEXPIRES^[0m           ^[2mENTRY^[0m
        /lamp          ^[38;5;2m*^[39m  blue            ^[38;5;14mlaptop^[39m   ^[2m3 min ago^[0m                    ^[2m88888888^[0m
                          red             ^[38;5;4mkitchen^[39m  ^[2m3 min ago^[0m                    ^[2m68686868^[0m
        /a/key…/width  ^[38;5;2m*^[39m  word word wor…  ^[38;5;5mattic^[39m    ^[2m3 min ago^[0m                    ^[2m61616161^[0m
                          ^[38;5;1m(deleted)^[39m       ^[38;5;14mlaptop^[39m   ^[2m3 min ago^[0m                    ^[2m88888888^[0m
                          worker-3        ^[38;5;5mattic^[39m    ^[2m3 min ago^[0m  ^[38;5;3mexpired 60 s ago^[39m  ^[2m61616161^[0m
        -- 120 columns, in colour
        ^[2mKEY^[0m                                   ^[2mVALUE^[0m                               ^[2mBY^[0m       ^[2mWRITTEN^[0m    ^[2mEXPIRES^[0m           ^[2mENTRY^[0m
        /lamp                              ^[38;5;2m*^[39m  blue                                ^[38;5;14mlaptop^[39m   ^[2m3 min ago^[0m                    ^[2m88888888^[0m
                                              red                                 ^[38;5;4mkitchen^[39m  ^[2m3 min ago^[0m                    ^[2m68686868^[0m
        /a/key/that/is/l…alf/of/the/width  ^[38;5;2m*^[39m  word word word word word word wor…  ^[38;5;5mattic^[39m    ^[2m3 min ago^[0m                    ^[2m61616161^[0m
                                              ^[38;5;1m(deleted)^[39m                           ^[38;5;14mlaptop^[39m   ^[2m3 min ago^[0m                    ^[2m88888888^[0m
                                              worker-3                            ^[38;5;5mattic^[39m    ^[2m3 min ago^[0m  ^[38;5;3mexpired 60 s ago^[39m  ^[2m61616161^[0m
        ");
        insta::assert_snapshot!(everywhere(|screen| draw(&colours, &three(), screen)), @"
        -- 80 columns
           VALUE  BY       WRITTEN    ENTRY
        *  blue   laptop   3 min ago  88888888
           red    kitchen  3 min ago  68686868
        -- 120 columns
           VALUE  BY       WRITTEN    ENTRY
        *  blue   laptop   3 min ago  88888888
           red    kitchen  3 min ago  68686868
        -- 80 columns, in colour
           ^[2mVALUE^[0m  ^[2mBY^[0m       ^[2mWRITTEN^[0m    ^[2mENTRY^[0m
        ^[38;5;2m*^[39m  blue   ^[38;5;14mlaptop^[39m   ^[2m3 min ago^[0m  ^[2m88888888^[0m
           red    ^[38;5;4mkitchen^[39m  ^[2m3 min ago^[0m  ^[2m68686868^[0m
        -- 120 columns, in colour
           ^[2mVALUE^[0m  ^[2mBY^[0m       ^[2mWRITTEN^[0m    ^[2mENTRY^[0m
        ^[38;5;2m*^[39m  blue   ^[38;5;14mlaptop^[39m   ^[2m3 min ago^[0m  ^[2m88888888^[0m
           red    ^[38;5;4mkitchen^[39m  ^[2m3 min ago^[0m  ^[2m68686868^[0m
        ");
        assert_eq!(values(&colours, &three()), "blue | kitchen: red");
        assert_eq!(
            values(&[head(0x87, "blue", true), keys[1].1[1].clone()], &three()),
            "blue | laptop: (deleted)"
        );
    }
}

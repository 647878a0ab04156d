//! Keys with their values, as `list` shows them.

use bytes::Bytes;
use lattice::wire::api;

use crate::cli::{
    output::{
        ink::Ink,
        print::escape,
        screen::Screen,
        table::{Cell, Column, Table},
    },
    screens::{heads, names::Names, when::when},
};

/// A row of a list.
#[derive(Debug)]
pub(crate) enum Row {
    /// A key, and all of its heads if it has several and they were asked for.
    Item(api::Item, Vec<api::Head>),
    /// The beginning that several keys have in common.
    Prefix(Bytes),
}

/// Draws a part of a list as a table; only the first part has titles.
pub(crate) fn draw(
    rows: &[Row],
    names: &Names,
    keys_only: bool,
    is_first: bool,
    screen: &Screen,
) -> Vec<String> {
    let mut table = Table::new(&[
        Column::Key("KEY"),
        Column::Long("VALUE"),
        Column::Text("BY"),
        Column::Text("WRITTEN"),
        Column::Text("EXPIRES"),
    ]);
    if !is_first {
        table = table.untitled();
    }
    for row in rows {
        let (item, heads) = match row {
            Row::Item(item, heads) => (item, heads),
            Row::Prefix(prefix) => {
                let rest = [(); 4].map(|()| Cell::default());
                let key = Cell::new(Ink::Dim, escape(prefix));
                table.row([key].into_iter().chain(rest));
                continue;
            }
        };
        let entry = item.entry.clone().unwrap_or_default();
        let expires = item.expires_ms.map(|ms| when(screen, ms));
        table.row([
            escape(&item.key).into_owned().into(),
            value(item, heads, names, keys_only),
            names.cell(&entry.author),
            Cell::new(Ink::Dim, when(screen, entry.wall_ms)),
            Cell::new(Ink::Dim, expires.unwrap_or_default()),
        ]);
    }
    table.draw(screen, 0)
}

fn value(item: &api::Item, heads: &[api::Head], names: &Names, keys_only: bool) -> Cell {
    match (item.heads, keys_only) {
        (0 | 1, true) => Cell::default(),
        (0 | 1, false) => escape(&item.value).into_owned().into(),
        (several, true) => Cell::new(Ink::Alarm, format!("!conflict ({several} heads)")),
        (several, false) if heads.len() < 2 => {
            let value = escape(&item.value);
            Cell::new(Ink::Alarm, format!("!conflict ({several} heads) {value}"))
        }
        (_several, false) => {
            let values = heads::values(heads, names);
            Cell::new(Ink::Alarm, format!("!conflict {values}"))
        }
    }
}

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

    fn item(key: &str, value: &str, author: u8) -> api::Item {
        api::Item {
            key: key.to_owned().into(),
            value: value.to_owned().into(),
            entry: Some(entry(author, 720_000)),
            heads: 1,
            ..api::Item::default()
        }
    }

    fn rows() -> Vec<Row> {
        let conflict = api::Item {
            heads: 2,
            ..item("/demo/lamp", "blue", 0x87)
        };
        let lease = api::Item {
            expires_ms: Some(NOW_MS + 30_000),
            ..item("/jobs/7/lease", "worker-3", 0x6e)
        };
        let id = "f4ba0123456789abcdef0123456789abcdef0123456789abcdef0123456789ab";
        vec![
            Row::Prefix("/archive/".into()),
            Row::Item(
                conflict,
                vec![head(0x87, "blue", true), head(0x67, "red", false)],
            ),
            Row::Item(item("/demo/x", "merged", 0x67), Vec::new()),
            Row::Item(lease, Vec::new()),
            Row::Item(
                item(
                    &format!("/nodes/{id}/info"),
                    "{\"name\":\"attic\",\"version\":\"0.1.0\",\"os\":\"linux\"}",
                    0x6e,
                ),
                Vec::new(),
            ),
            Row::Item(
                item(&format!("/nodes/{id}/status"), "active", 0x6e),
                Vec::new(),
            ),
        ]
    }

    #[test]
    fn values_and_ends_of_keys_are_visible() {
        let draw = |screen: &Screen| draw(&rows(), &three(), false, true, screen);
        insta::assert_snapshot!(everywhere(draw), @r#"
        -- 80 columns
        KEY                       VALUE                     BY       WRITTEN     EXPIRES
        /archive/
        /demo/lamp                !conflict blue | kitche…  laptop   12 min ago
        /demo/x                   merged                    kitchen  12 min ago
        /jobs/7/lease             worker-3                  attic    12 min ago  in 30 s
        /nodes/f4ba0…6789ab/info  {"name":"attic","versio…  attic    12 min ago
        /nodes/f4ba0…89ab/status  active                    attic    12 min ago
        -- 120 columns
        KEY                                           VALUE                                         BY       WRITTEN     EXPIRES
        /archive/
        /demo/lamp                                    !conflict blue | kitchen: red                 laptop   12 min ago
        /demo/x                                       merged                                        kitchen  12 min ago
        /jobs/7/lease                                 worker-3                                      attic    12 min ago  in 30 s
        /nodes/f4ba0123456789a…cdef0123456789ab/info  {"name":"attic","version":"0.1.0","os":"lin…  attic    12 min ago
        /nodes/f4ba0123456789a…ef0123456789ab/status  active                                        attic    12 min ago
        -- 80 columns, in colour
        ^[2mKEY^[0m                       ^[2mVALUE^[0m                     ^[2mBY^[0m       ^[2mWRITTEN^[0m     ^[2mEXPIRES^[0m
        ^[2m/archive/^[0m
        /demo/lamp                ^[38;5;1m^[1m!conflict blue | kitche…^[0m  ^[38;5;14mlaptop^[39m   ^[2m12 min ago^[0m
        /demo/x                   merged                    ^[38;5;4mkitchen^[39m  ^[2m12 min ago^[0m
        /jobs/7/lease             worker-3                  ^[38;5;5mattic^[39m    ^[2m12 min ago^[0m  ^[2min 30 s^[0m
        /nodes/f4ba0…6789ab/info  {"name":"attic","versio…  ^[38;5;5mattic^[39m    ^[2m12 min ago^[0m
        /nodes/f4ba0…89ab/status  active                    ^[38;5;5mattic^[39m    ^[2m12 min ago^[0m
        -- 120 columns, in colour
        ^[2mKEY^[0m                                           ^[2mVALUE^[0m                                         ^[2mBY^[0m       ^[2mWRITTEN^[0m     ^[2mEXPIRES^[0m
        ^[2m/archive/^[0m
        /demo/lamp                                    ^[38;5;1m^[1m!conflict blue | kitchen: red^[0m                 ^[38;5;14mlaptop^[39m   ^[2m12 min ago^[0m
        /demo/x                                       merged                                        ^[38;5;4mkitchen^[39m  ^[2m12 min ago^[0m
        /jobs/7/lease                                 worker-3                                      ^[38;5;5mattic^[39m    ^[2m12 min ago^[0m  ^[2min 30 s^[0m
        /nodes/f4ba0123456789a…cdef0123456789ab/info  {"name":"attic","version":"0.1.0","os":"lin…  ^[38;5;5mattic^[39m    ^[2m12 min ago^[0m
        /nodes/f4ba0123456789a…ef0123456789ab/status  active                                        ^[38;5;5mattic^[39m    ^[2m12 min ago^[0m
        "#);
    }

    #[test]
    fn keys_alone_have_no_values() {
        let shown = draw(&rows(), &three(), true, false, &terminal(80, false)).join("\n");
        assert!(
            !shown.contains("KEY") && !shown.contains("merged"),
            "{shown}"
        );
        assert!(shown.contains("!conflict (2 heads)"), "{shown}");
    }
}

//! Keys that differ between two times, as `diff` shows them.

use lattice::wire::api;

use crate::cli::output::{
    ink::Ink,
    print::escape,
    screen::Screen,
    table::{Cell, Column, Table},
};

/// Draws a part of the differences as a table; only the first part has titles.
pub(crate) fn draw(
    differences: &[api::Difference],
    keys_only: bool,
    is_first: bool,
    screen: &Screen,
) -> Vec<String> {
    let mut table = Table::new(&[
        Column::Text(""),
        Column::Key("KEY"),
        Column::Long("BEFORE"),
        Column::Long("AFTER"),
    ]);
    if !is_first {
        table = table.untitled();
    }
    for difference in differences {
        let (before, after) = (difference.before.as_ref(), difference.after.as_ref());
        let (ink, mark) = match (before, after) {
            (None, None) => continue,
            (None, Some(_)) => (Ink::Good, "+"),
            (Some(_), None) => (Ink::Bad, "-"),
            (Some(_), Some(_)) => (Ink::Warn, "~"),
        };
        let value = |item: Option<&api::Item>| match item {
            Some(item) if !keys_only => escape(&item.value).into_owned(),
            _none => String::new(),
        };
        let is_same = match (before, after) {
            (Some(before), Some(after)) => !keys_only && before.value == after.value,
            _one => false,
        };
        table.row([
            Cell::new(ink, mark),
            escape(&difference.key).into_owned().into(),
            value(before).into(),
            match is_same {
                true => Cell::new(Ink::Dim, "(written again)"),
                false => value(after).into(),
            },
        ]);
    }
    table.draw(screen, 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::output::screen::tests::{everywhere, terminal};

    fn differences() -> Vec<api::Difference> {
        let item = |value: &str| {
            Some(api::Item {
                value: value.to_owned().into(),
                ..api::Item::default()
            })
        };
        let difference = |key: &str, before, after| api::Difference {
            key: key.to_owned().into(),
            before,
            after,
        };
        vec![
            difference("/config/colour", item("red"), item("blue")),
            difference("/config/same", item("active"), item("active")),
            difference("/packages/curl", None, item(&"8.5.0 ".repeat(30))),
            difference("/packages/wget", item("1.21"), None),
        ]
    }

    #[test]
    fn differences_are_a_table() {
        let draw = |screen: &Screen| draw(&differences(), false, true, screen);
        insta::assert_snapshot!(everywhere(draw), @"
        -- 80 columns
           KEY             BEFORE  AFTER
        ~  /config/colour  red     blue
        ~  /config/same    active  (written again)
        +  /packages/curl          8.5.0 8.5.0 8.5.0 8.5.0 8.5.0 8.5.0 8.5.0 8.5.0 8.5.…
        -  /packages/wget  1.21
        -- 120 columns
           KEY             BEFORE  AFTER
        ~  /config/colour  red     blue
        ~  /config/same    active  (written again)
        +  /packages/curl          8.5.0 8.5.0 8.5.0 8.5.0 8.5.0 8.5.0 8.5.0 8.5.0 8.5.0 8.5.0 8.5.0 8.5.0 8.5.0 8.5.0 8.5.0 8.…
        -  /packages/wget  1.21
        -- 80 columns, in colour
           ^[2mKEY^[0m             ^[2mBEFORE^[0m  ^[2mAFTER^[0m
        ^[38;5;3m~^[39m  /config/colour  red     blue
        ^[38;5;3m~^[39m  /config/same    active  ^[2m(written again)^[0m
        ^[38;5;2m+^[39m  /packages/curl          8.5.0 8.5.0 8.5.0 8.5.0 8.5.0 8.5.0 8.5.0 8.5.0 8.5.…
        ^[38;5;1m-^[39m  /packages/wget  1.21
        -- 120 columns, in colour
           ^[2mKEY^[0m             ^[2mBEFORE^[0m  ^[2mAFTER^[0m
        ^[38;5;3m~^[39m  /config/colour  red     blue
        ^[38;5;3m~^[39m  /config/same    active  ^[2m(written again)^[0m
        ^[38;5;2m+^[39m  /packages/curl          8.5.0 8.5.0 8.5.0 8.5.0 8.5.0 8.5.0 8.5.0 8.5.0 8.5.0 8.5.0 8.5.0 8.5.0 8.5.0 8.5.0 8.5.0 8.…
        ^[38;5;1m-^[39m  /packages/wget  1.21
        ");
    }

    #[test]
    fn keys_alone_have_no_values() {
        let shown = draw(&differences(), true, true, &terminal(80, false)).join("\n");
        assert!(
            !shown.contains("BEFORE") && !shown.contains("active"),
            "{shown}"
        );
    }
}

//! The stores of a node, as `store list` and `status` show them.

use lattice::wire::api;

use crate::cli::{
    output::{
        ink::Ink,
        object::uuid,
        print::harmless,
        screen::Screen,
        table::{Cell, Column, Table},
    },
    screens::when::bytes,
};

/// Draws a table of stores; a star marks the one that commands here use, which `used` is true of. The
/// sizes of stores without a status stay empty.
pub(crate) fn draw(
    stores: &[api::StoreInfo],
    status: &[api::StoreStatus],
    used: impl Fn(&api::StoreInfo) -> bool,
    screen: &Screen,
    indent: usize,
) -> Vec<String> {
    let mut table = Table::new(&[
        Column::Text("STORE"),
        Column::Number("KEYS"),
        Column::Number("ENTRIES"),
        Column::Number("LOG"),
        Column::Number("STATE"),
        Column::Number("WATCHES"),
        Column::Text("ID"),
        Column::Text("NOTE"),
    ]);
    for info in stores {
        let is_it = |it: &&api::StoreStatus| it.info.as_ref().is_some_and(|it| it.id == info.id);
        let sizes = status.iter().find(is_it);
        let size = |text: fn(&api::StoreStatus) -> String| -> Cell {
            sizes.map(text).unwrap_or_default().into()
        };
        let star = if used(info) { " *" } else { "" };
        // A pipe gets what `--store` takes, even for a store without a name.
        let id = uuid(&info.id);
        let id = match screen.ages && !screen.whole_ids {
            true => id.split('-').next().unwrap_or_default().to_owned(),
            false => id,
        };
        table.row([
            format!("{}{star}", name(info)).into(),
            size(|it| it.keys.to_string()),
            size(|it| it.entries.to_string()),
            size(|it| bytes(it.log_bytes)),
            size(|it| bytes(it.state_bytes)),
            Cell::count(Ink::Plain, sizes.map_or(0, |it| it.watchers)),
            Cell::new(Ink::Dim, id),
            if info.private { "private" } else { "" }.into(),
        ]);
    }
    table.draw(screen, indent)
}

/// Returns whether commands use this store, if they take `chosen`: a name, a UUID, or empty for the data
/// store.
pub(crate) fn is_used(chosen: &str, info: &api::StoreInfo) -> bool {
    match chosen {
        "" => info.data,
        chosen => chosen == info.name || chosen == uuid(&info.id),
    }
}

/// Returns the name of a store; the beginning of its UUID if it has none.
pub(crate) fn name(info: &api::StoreInfo) -> String {
    match (info.name.as_str(), info.root) {
        ("", true) => "root".to_owned(),
        ("", false) => uuid(&info.id)
            .split('-')
            .next()
            .unwrap_or_default()
            .to_owned(),
        (name, _) => harmless(name).into_owned(),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::cli::output::screen::tests::{everywhere, pipe};

    /// Returns the status of a store whose id has this byte throughout.
    pub(crate) fn store(digit: u8, name: &str, entries: u64) -> api::StoreStatus {
        api::StoreStatus {
            info: Some(api::StoreInfo {
                id: vec![digit; 16].into(),
                name: name.to_owned(),
                root: name == "root",
                data: name == "data",
                private: name.starts_with("data-"),
            }),
            keys: entries / 2,
            entries,
            log_bytes: entries * 450,
            state_bytes: 188_416,
            ..api::StoreStatus::default()
        }
    }

    #[test]
    fn stores_are_a_table_with_sizes() {
        let watched = api::StoreStatus {
            watchers: 4,
            ..store(0x22, "data", 65)
        };
        let status = [
            watched,
            store(0x11, "root", 9),
            store(0x33, "data-4ae21824", 0),
        ];
        let mut infos: Vec<_> = status.iter().filter_map(|it| it.info.clone()).collect();
        infos.push(api::StoreInfo {
            id: vec![0x44; 16].into(),
            ..api::StoreInfo::default()
        });
        let draw = |screen: &Screen| draw(&infos, &status, |info| info.data, screen, 0);
        insta::assert_snapshot!(everywhere(draw), @"
        -- 80 columns
        STORE          KEYS  ENTRIES        LOG       STATE  WATCHES  ID        NOTE
        data *           32       65  28.56 KiB  184.00 KiB        4  22222222
        root              4        9   3.96 KiB  184.00 KiB           11111111
        data-4ae21824     0        0        0 B  184.00 KiB           33333333  private
        44444444                                                      44444444
        -- 120 columns
        STORE          KEYS  ENTRIES        LOG       STATE  WATCHES  ID        NOTE
        data *           32       65  28.56 KiB  184.00 KiB        4  22222222
        root              4        9   3.96 KiB  184.00 KiB           11111111
        data-4ae21824     0        0        0 B  184.00 KiB           33333333  private
        44444444                                                      44444444
        -- 80 columns, in colour
        ^[2mSTORE^[0m          ^[2mKEYS^[0m  ^[2mENTRIES^[0m        ^[2mLOG^[0m       ^[2mSTATE^[0m  ^[2mWATCHES^[0m  ^[2mID^[0m        ^[2mNOTE^[0m
        data *           32       65  28.56 KiB  184.00 KiB        4  ^[2m22222222^[0m
        root              4        9   3.96 KiB  184.00 KiB           ^[2m11111111^[0m
        data-4ae21824     0        0        0 B  184.00 KiB           ^[2m33333333^[0m  private
        44444444                                                      ^[2m44444444^[0m
        -- 120 columns, in colour
        ^[2mSTORE^[0m          ^[2mKEYS^[0m  ^[2mENTRIES^[0m        ^[2mLOG^[0m       ^[2mSTATE^[0m  ^[2mWATCHES^[0m  ^[2mID^[0m        ^[2mNOTE^[0m
        data *           32       65  28.56 KiB  184.00 KiB        4  ^[2m22222222^[0m
        root              4        9   3.96 KiB  184.00 KiB           ^[2m11111111^[0m
        data-4ae21824     0        0        0 B  184.00 KiB           ^[2m33333333^[0m  private
        44444444                                                      ^[2m44444444^[0m
        ");
        let whole = draw(&pipe()).join("\n");
        assert!(
            whole.contains("44444444-4444-4444-4444-444444444444"),
            "{whole}"
        );
    }
}

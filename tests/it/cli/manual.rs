//! The settings in the manual are those that the program reads.

use std::fs;

use lattice::{
    manual::Page,
    node::{FileConfig, Relay, SocketMode},
};

use super::harness::Home;

/// Returns the blocks of TOML in a page.
fn blocks(page: &str) -> Vec<&'static str> {
    let text = Page::find(page).unwrap().text;
    let blocks = text.split("\n```toml\n").skip(1);
    blocks
        .map(|rest| rest.split("\n```").next().unwrap())
        .collect()
}

#[test]
fn settings_in_the_manual_are_read() {
    let blocks = blocks("configuration");
    assert_eq!(blocks.len(), 1);
    for block in blocks {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("config.toml"), block).unwrap();
        let config = FileConfig::read(dir.path()).unwrap();
        // All settings are in it.
        assert!(config.name.is_some() && config.bind.is_some() && config.metrics.is_some());
        assert_eq!(config.mdns, Some(false));
        assert_eq!(config.socket_mode, Some(SocketMode::Group));
        assert_eq!(config.socket_group, Some("staff".to_owned()));
        assert_eq!(
            config.relay,
            Some(Relay::Url("https://relay.lan".to_owned()))
        );
    }
}

#[test]
fn hooks_in_the_manual_are_read() {
    let home = Home::initialised();
    home.run(&["store", "create", "orders"]).ok();
    let blocks = blocks("hooks");
    assert_eq!(blocks.len(), 1);
    for block in blocks {
        fs::write(home.data().join("hooks.toml"), block).unwrap();
        let list = home.run(&["hook", "list"]).ok();
        assert!(
            list.contains("deploy") && list.contains("/deploy/"),
            "{list}"
        );
        fs::write(home.data().join("hooks.toml"), block.replace("rate", "rat")).unwrap();
        assert_ne!(home.run(&["hook", "list"]).code, 0);
    }
}

#[test]
fn every_block_of_toml_is_toml() {
    for page in lattice::manual::PAGES {
        for block in blocks(page.name) {
            let read = block.parse::<toml::Table>();
            assert!(
                read.is_ok_and(|table| !table.is_empty()),
                "{}: {block}",
                page.name
            );
        }
    }
}

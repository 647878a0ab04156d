//! What the command line says about itself.

use super::harness::Home;

const COMMANDS: &[&[&str]] = &[
    &["init"],
    &["up"],
    &["down"],
    &["put"],
    &["get"],
    &["delete"],
    &["batch"],
    &["list"],
    &["heads"],
    &["history"],
    &["watch"],
    &["status"],
    &["log"],
    &["verify"],
    &["store"],
    &["store", "create"],
    &["store", "list"],
    &["store", "use"],
    &["shell"],
    &["completions"],
    &["man"],
];

#[test]
fn help_lists_the_commands() {
    insta::assert_snapshot!(Home::new().run(&["--help"]).ok(), @"");
}

#[test]
fn short_help_of_watch_names_every_flag() {
    insta::assert_snapshot!(Home::new().run(&["watch", "-h"]).ok(), @"");
}

#[test]
fn short_help_of_put_names_every_flag() {
    insta::assert_snapshot!(Home::new().run(&["put", "-h"]).ok(), @"");
}

#[test]
fn every_command_has_help_with_examples_and_a_page() {
    let home = Home::new();
    for command in COMMANDS {
        let help = home.run(&[*command, &["--help"]].concat()).ok();
        assert!(help.contains("Examples:"), "{command:?} has no examples");
        assert!(help.contains("lattice"), "{command:?}");
        let page = home.run(&[&["man"], *command].concat()).ok();
        assert!(
            page.contains(".SH SYNOPSIS"),
            "{command:?} has no manual page"
        );
    }
    assert!(!home.data().exists(), "help created something");
}

#[test]
fn aliases_are_the_commands() {
    let home = Home::new();
    let aliases = [
        ("serve", "up"),
        ("del", "delete"),
        ("rm", "delete"),
        ("ls", "list"),
        ("subscribe", "watch"),
        ("sub", "watch"),
    ];
    for (alias, command) in aliases {
        assert_eq!(
            home.run(&[alias, "-h"]).ok(),
            home.run(&[command, "-h"]).ok()
        );
    }
}

#[test]
fn completions_are_for_five_shells() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = Home::new().run(&["completions", shell]).ok();
        assert!(script.contains("until-caught-up"), "{shell}");
    }
}

#[test]
fn manual_pages_go_to_a_directory() {
    let home = Home::new();
    let dir = home.path("man1");
    home.run(&["man", "--dir", dir.to_str().unwrap()]).ok();
    for page in ["lattice.1", "lattice-watch.1", "lattice-store-create.1"] {
        assert!(dir.join(page).is_file(), "{page}");
    }
}

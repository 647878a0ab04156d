//! Listing in pages, and like directories.

use super::harness::Home;

fn filled() -> (Home, super::harness::Running) {
    let home = Home::initialised();
    let node = home.up();
    let mut lines: String = (0..1500).map(|n| format!("/p/a/{n:04}\tx\n")).collect();
    lines += "/p/b\tx\n/p/b/\tx\n/p/c/d/e\tx\n/p/c/f\tx\n/p/gone/1\tx\n/p/z\tx\n";
    home.feed(&["put", "--stdin"], lines).ok();
    home.run(&["delete", "/p/gone/1"]).ok();
    (home, node)
}

/// There was `--limit` and no way to the next page.
#[test]
fn pages_make_the_whole_list() {
    let (home, _node) = filled();
    let all = home.run(&["list", "/p/", "--keys-only"]).raw;
    let all: Vec<&str> = all.lines().collect();
    assert_eq!(all.len(), 1505);
    for at in [&[][..], &["--at", "0s"]] {
        let (mut pages, mut after) = (Vec::new(), String::new());
        loop {
            let page = [
                "list",
                "/p/",
                "--keys-only",
                "--limit",
                "400",
                "--after-key",
                &after,
            ];
            let page = home.run(&[&page[..], at].concat()).raw;
            let Some(last) = page.lines().last() else {
                break;
            };
            after = last.to_owned();
            assert!(page.lines().count() <= 400);
            pages.extend(page.lines().map(str::to_owned));
        }
        assert_eq!(pages, all, "{at:?}");
    }
    // A key that is not there is a place, too.
    let after = home
        .run(&["list", "/p/", "--keys-only", "--after-key", "/p/c/e"])
        .ok();
    assert_eq!(after, "/p/c/f\n/p/z\n");
    assert_eq!(home.run(&["list", "/p/", "--after-key", "/q"]).ok(), "");
}

#[test]
fn delimiter_lists_what_keys_have_in_common() {
    let (home, _node) = filled();
    let listed = |arguments: &[&str]| {
        let command = [&["list", "--keys-only", "--delimiter", "/"], arguments].concat();
        home.run(&command).ok().trim_end().to_owned()
    };
    assert_eq!(listed(&["/p/"]), "/p/a/\n/p/b\n/p/b/\n/p/c/\n/p/z");
    assert_eq!(listed(&["/p/c/"]), "/p/c/d/\n/p/c/f");
    assert_eq!(listed(&["/p/", "--limit", "2"]), "/p/a/\n/p/b");
    assert_eq!(
        listed(&["/p/", "--limit", "2", "--after-key", "/p/a/"]),
        "/p/b\n/p/b/"
    );
    // From the middle of a beginning, the rest of it is listed.
    assert_eq!(
        listed(&["/p/", "--limit", "1", "--after-key", "/p/a/0007"]),
        "/p/a/"
    );
    assert_eq!(listed(&["/p/", "--after-key", "/p/c/"]), "/p/z");
    insta::assert_snapshot!(home.run(&["list", "/p/c", "--delimiter", "/", "--json"]), @r#"
    {"type":"prefix","prefix":"/p/c/"}
    exit 0
    "#);
    let past = home.run(&["list", "/p/", "--delimiter", "/", "--at", "1h"]);
    assert_eq!(past.code, 2, "{past}");
}

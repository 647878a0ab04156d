//! `retention` and `prune`: the end of a store's history, as people see it.

use super::{
    harness::Home,
    mesh::{joined, soon},
};

fn filled(home: &Home) {
    for number in 0..30 {
        let (key, value) = (format!("/k/{}", number % 3), number.to_string());
        home.run(&["put", &key, &value]).ok();
    }
}

#[test]
fn history_of_a_store_ends_on_request() {
    let home = Home::initialised();
    filled(&home);
    let shown = home.run(&["retention"]).ok();
    assert!(shown.contains("final    nothing yet"), "{shown}");
    assert!(
        shown.contains("held") && shown.contains("younger than a day"),
        "{shown}"
    );
    let before = home.run(&["retention", "--json"]).json().remove(0);
    assert_eq!(
        (&before["act"], &before["held"][0]["reason"]),
        (&().into(), &"young".into())
    );
    assert_eq!(before["open_bytes"], before["log_bytes"]);

    let tried = home.run(&["prune", "--dry-run", "--json"]).json().remove(0);
    assert_eq!(
        tried["ready_bytes"], before["log_bytes"],
        "none is too young"
    );
    assert_eq!(tried["log_bytes"], before["log_bytes"], "nothing was done");
    let pruned = home.run(&["prune", "--json"]).json().remove(0);
    assert_eq!(
        (&pruned["type"], &pruned["act"]),
        (&"pruned".into(), &1.into())
    );
    assert_eq!(pruned["made_final"], 1);
    // The seal of a clean close is no entry.
    let bytes = |name: &str| pruned[name].as_u64().unwrap();
    assert!(
        bytes("bytes_after") < 200 && bytes("bytes_before") > 1000,
        "{pruned}"
    );
    for number in 27..30 {
        let value = home.run(&["get", &format!("/k/{}", number % 3)]).raw;
        assert_eq!(value, number.to_string());
    }
    let after = home.run(&["retention", "--json"]).json().remove(0);
    assert_eq!((&after["act"], &after["base_keys"]), (&1.into(), &3.into()));
    assert_eq!(home.run(&["verify"]).code, 0);
    // Nothing is left to be done.
    let again = home.run(&["prune", "--json"]).json().remove(0);
    assert_eq!(
        (&again["made_final"], &again["act"]),
        (&().into(), &().into())
    );
    let again = home.run(&["prune"]).ok();
    assert!(again.starts_with("nothing  "), "{again}");

    // Members and stores follow from the root store.
    for command in ["retention", "prune"] {
        let refused = home.run(&["--store", "root", command]);
        assert_eq!(refused.code, 4, "{refused}");
        assert!(refused.stderr.contains("data store"), "{refused}");
    }
}

/// A node that joins gets the rows in place of what was removed.
#[test]
fn node_joins_a_mesh_whose_history_has_ended() {
    let host = Home::initialised();
    filled(&host);
    let node = host.up();
    host.run(&["prune"]).ok();
    host.run(&["put", "/k/3", "after"]).ok();

    let (guest, running) = joined(&host, "writer");
    soon("the guest has everything", || {
        let listed = guest.run(&["list"]);
        listed.code == 0 && listed.raw == host.run(&["list"]).raw
    });
    assert_eq!(guest.run(&["verify"]).code, 0);
    guest.run(&["put", "/k/0", "of the guest"]).ok();
    soon("the host has what the guest wrote", || {
        host.run(&["get", "/k/0"]).raw == "of the guest"
    });
    soon("both have one root", || {
        let root = |home: &Home| home.run(&["root", "--json"]).json().remove(0);
        root(&host)["root"] == root(&guest)["root"]
    });
    // The guest is a writer: the host makes final what both have.
    soon("the history of both ends", || {
        host.run(&["prune"]).code == 0 && {
            let shown = host.run(&["retention", "--json"]).json().remove(0);
            shown["open_bytes"] == 0
        }
    });
    soon("the guest removes it, too", || {
        guest.run(&["prune"]).code == 0
    });
    assert_eq!(guest.run(&["get", "/k/3"]).raw, "after");
    drop((running, node));
}

/// Nobody has to call `prune`.
#[test]
fn history_ends_by_itself_in_a_node_that_runs() {
    let home = Home::initialised();
    let set = home
        .run(&["retention", "set", "--size", "1MiB", "--final-size", "0B"])
        .ok();
    assert!(
        set.contains("1.00 MiB of final entries at most, for 30d"),
        "{set}"
    );
    let value = "x".repeat(100_000);
    for number in 0..25 {
        home.run(&["put", &format!("/k/{}", number % 5), &value])
            .ok();
    }
    // The first look at the store finds all of them, however slow the machine is: the next act would be made
    // a day later.
    let running = home.up();
    let status = || {
        let status = home.run(&["status", "--json"]).json().remove(0);
        let stores = status["stores"].as_array().unwrap().clone();
        stores.into_iter().find(|it| it["name"] == "data").unwrap()
    };
    soon("old entries are gone", || {
        let store = status();
        store["log_bytes"].as_u64().unwrap() < 1_000_000
            && store["history"]["through_ms"].as_u64() > Some(0)
    });
    assert!(status()["history"]["trouble"].is_null());
    let shown = home.run(&["status"]).ok();
    assert!(shown.contains("data: history "), "{shown}");
    for number in 0..5 {
        let key = format!("/k/{number}");
        assert_eq!(home.run(&["get", &key]).raw, value);
    }
    assert_eq!(home.run(&["verify"]).code, 0);
    drop(running);
}

#[test]
fn policy_is_shown_set_and_checked() {
    let home = Home::initialised();
    let policy = |arguments: &[&str]| home.run(arguments).json().remove(0);
    let before = policy(&["retention", "show", "--json"])["policy"].clone();
    assert_eq!(before["size_bytes"], 1 << 30);
    assert_eq!(before["age_ms"], 30 * 86_400_000_u64);
    let set = policy(&[
        "retention",
        "set",
        "--age",
        "7d",
        "--size",
        "2 GB",
        "--json",
    ]);
    assert_eq!(
        (&set["age_ms"], &set["size_bytes"], &set["hold_ms"]),
        (
            &(7 * 86_400_000_u64).into(),
            &2_000_000_000_u64.into(),
            &before["hold_ms"]
        )
    );
    // Members are waited for in any case.
    let set = policy(&[
        "retention",
        "set",
        "--dormant-after",
        "1s",
        "--dormant-size",
        "0B",
        "--json",
    ]);
    assert_eq!(
        (&set["dormant_after_ms"], &set["dormant_bytes"]),
        (&3_600_000.into(), &(16 << 20).into())
    );
    assert_eq!(set["age_ms"], 7 * 86_400_000_u64, "what was set before");
    let mut shown = policy(&["retention", "--json"])["policy"].clone();
    shown["type"] = "retention_policy".into();
    assert_eq!(shown, set);
    for wrong in [
        &["retention", "set"][..],
        &["retention", "set", "--size", "much"],
        &["retention", "set", "--age", "-1"],
        &["retention", "keep"],
    ] {
        let refused = home.run(wrong);
        assert_eq!(refused.code, 2, "{refused}");
    }
}

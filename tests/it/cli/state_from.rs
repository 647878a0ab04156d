//! `repair --state-from`: the state of a member that a user chooses.

use super::{
    harness::Home,
    mesh::{joined, soon},
};

/// The error of a choice that cannot be followed is about that choice, and its hint about that error.
#[test]
fn state_of_a_member_is_taken_once_it_has_a_base() {
    let a = Home::new();
    let _a_node = a.up();
    a.run(&["put", "/k", "1"]).ok();
    let (b, _b_node) = joined(&a, "admin");
    soon("b has the key", || b.run(&["get", "/k"]).raw == "1");
    let choose = ["repair", "--state-from", "admin", "--yes", "--json"];
    insta::assert_snapshot!(a.run(&choose[..4]), @r"
    error: the state of node [short] was not taken: it has no base
    hint: `lattice prune` on that node makes one
    exit 1
    ");
    // The other admin has to acknowledge the act.
    soon("b has a base", || b.run(&["prune"]).code == 0);
    let taken = a.run(&choose).json().remove(0);
    assert_eq!(
        (&taken["type"], &taken["name"], &taken["node_name"]),
        (&"state_taken".into(), &"data".into(), &"admin".into())
    );
    assert_eq!(a.run(&["get", "/k"]).raw, "1");
}

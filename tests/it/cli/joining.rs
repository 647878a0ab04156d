//! Joining and changing the mesh by the command line: what is printed, and what is left behind.

use super::harness::Home;

fn token(host: &Home) -> String {
    host.run(&["invite"]).ok().trim().to_owned()
}

fn peer_named(home: &Home, name: &str) -> Option<serde_json::Value> {
    let peers = home.run(&["peers", "--json"]).json();
    peers.into_iter().find(|peer| peer["name"] == name)
}

#[test]
fn refused_join_leaves_nothing_behind() {
    let a = Home::new();
    let node = a.up();
    let (used, good) = (token(&a), token(&a));
    let (first, b) = (Home::new(), Home::new());
    first.run(&["join", &used]).ok();
    let refused = b.run(&["join", &used]);
    assert_eq!(refused.code, 4, "{refused}");
    assert!(!b.data().exists(), "a refused join makes no node");
    // A directory that was there stays, with what was in it.
    std::fs::create_dir_all(b.data()).unwrap();
    std::fs::write(b.data().join("config.toml"), "name = 'kitchen'\n").unwrap();
    assert_eq!(b.run(&["join", &used]).code, 4);
    let left: Vec<_> = std::fs::read_dir(b.data()).unwrap().collect();
    assert_eq!(left.len(), 1, "{left:?}");
    node.signal(rustix::process::Signal::TERM);
    node.end();
    // The node that invited is gone: the error has its address and the protocol.
    let unreachable = b.run(&["join", &good]);
    assert_eq!(unreachable.code, 5, "{unreachable}");
    assert!(
        unreachable.stderr.contains("; tried UDP 127.0.0.1:"),
        "{unreachable}"
    );
    assert!(unreachable.stderr.contains("still valid"), "{unreachable}");
    assert_eq!(std::fs::read_dir(b.data()).unwrap().count(), 1);
    // The node is back on the same port, or the token is of no use; a new one is good in any case.
    let _node = a.up();
    let shouted = token(&a).to_uppercase();
    let (line, rest) = shouted.split_at(70);
    b.run(&["join", &format!("{line}\n{rest}\n")]).ok();
    assert!(peer_named(&a, "kitchen").is_some());
}

#[test]
fn inviter_can_wait_for_the_joiner() {
    let a = Home::new();
    let _node = a.up();
    let mut waiting = a.start(&["invite", "--wait", "--role", "reader"]);
    let token = waiting.line_with("lattice");
    let b = Home::new();
    b.run(&["join", token.trim(), "--name", "cellar"]).ok();
    waiting.line_with("joined     cellar as reader (node ");
}

#[test]
fn data_of_a_joiner_is_private_unless_it_says_so() {
    let a = Home::new();
    let _node = a.up();
    let joined = |arguments: &[&str]| {
        let b = Home::new();
        b.run(&["init", "--name", "own"]).ok();
        b.run(&["put", "/mine", "1"]).ok();
        let token = token(&a);
        let ran = b.run(&[&["join", &token], arguments].concat());
        assert_eq!(ran.code, 0, "{ran}");
        (b, ran.raw)
    };
    let (b, said) = joined(&[]);
    let line = said.lines().find(|line| line.starts_with("kept ")).unwrap();
    assert!(line.contains("private, as store \"data-"), "{line}");
    // The name is the one that it had.
    assert!(peer_named(&a, "own").is_some());
    let former = line.rsplit(' ').next().unwrap();
    assert_eq!(
        b.run(&["--store", former, "get", "/mine"]).ok(),
        "1",
        "{former}"
    );
    assert_eq!(a.run(&["store", "list"]).raw.lines().count(), 3);
    let (_c, said) = joined(&["--data", "discard"]);
    assert!(said.contains("deleted    your data so far (2 "), "{said}");
    let (_d, said) = joined(&["--data", "share", "--name", "sharer"]);
    assert!(said.contains("shared "), "{said}");
    assert!(peer_named(&a, "sharer").is_some());
    let listed = b.run(&["store", "list"]).raw;
    assert!(listed.contains("  private\n"), "{listed}");
    b.run(&["store", "share", former]).ok();
    assert!(!b.run(&["store", "list"]).raw.contains("  private\n"));
}

#[test]
fn roles_names_and_stores_change() {
    let a = Home::new();
    let _node = a.up();
    let b = Home::new();
    let reader = a.run(&["invite", "--role", "reader"]).ok();
    b.run(&["join", reader.trim(), "--name", "cellar"]).ok();
    let refused = b.run(&["put", "/x", "1"]);
    assert_eq!(refused.code, 4, "{refused}");
    assert!(refused.stderr.contains("lattice peer role"), "{refused}");
    // Nothing that it writes counts, so it cannot leave by itself: the error says what can be done.
    let refused = b.run(&["leave", "--yes"]);
    assert_eq!(refused.code, 4, "{refused}");
    for way_out in ["lattice peer remove ", "lattice init --new-identity"] {
        assert!(refused.stderr.contains(way_out), "{refused}");
    }
    let b_node = b.up();
    a.run(&["peer", "role", "cellar", "writer"]).ok();
    a.run(&["peer", "rename", "cellar", "pantry"]).ok();
    a.run(&["peer", "rename", ".", "attic"]).ok();
    super::mesh::soon("it may write", || b.run(&["put", "/x", "1"]).code == 0);
    super::mesh::soon("it knows the names", || peer_named(&b, "attic").is_some());
    a.run(&["peer", "role", "pantry", "admin"]).ok();
    insta::assert_snapshot!(a.run(&["peer", "role", "pantry", "admin"]), @"
    error: node [short] has the role admin already
    exit 4
    ");
    a.run(&["peer", "dormant", "pantry"]).ok();
    let awaited = a.run(&["peer", "dormant", "pantry", "--back"]).ok();
    assert!(awaited.starts_with("active "), "{awaited}");
    // It is a member already, so a token is not the way to another role.
    let writer = a.run(&["invite"]).ok();
    let again = b.run(&["join", writer.trim()]);
    assert!(again.stderr.contains("lattice peer role"), "{again}");
    let own = a.run(&["peer", "role", "attic", "writer", "--yes"]);
    assert_eq!(own.code, 3, "{own}");
    assert!(own.stderr.contains("another admin can"), "{own}");
    // A lower role is for ever, so it asks.
    let unasked = a.run(&["peer", "role", "pantry", "writer"]);
    assert_eq!(unasked.code, 2, "{unasked}");
    assert!(unasked.stderr.contains("from admin to writer"), "{unasked}");
    a.run(&["peer", "role", "pantry", "writer", "--yes"]).ok();
    let again = a.run(&["peer", "role", "pantry", "admin"]);
    assert_eq!(again.code, 4, "{again}");
    assert!(again.stderr.contains("for ever"), "{again}");
    a.run(&["store", "create", "notes"]).ok();
    a.run(&["store", "rename", "notes", "diary"]).ok();
    super::mesh::soon("it is there", || {
        b.run(&["store", "list"]).raw.contains("diary ")
    });
    let unasked = a.run(&["store", "delete", "diary"]);
    assert_eq!(unasked.code, 2, "{unasked}");
    assert!(unasked.stderr.contains("on all members"), "{unasked}");
    a.run(&["store", "delete", "diary", "--yes"]).ok();
    super::mesh::soon("it is deleted", || {
        !b.run(&["store", "list"]).raw.contains("diary ")
    });
    // It leaves, and says so.
    assert_eq!(b.run(&["leave"]).code, 2);
    let left = b.run(&["leave", "--yes"]).ok();
    assert!(left.starts_with("left     node "), "{left}");
    assert!(b.run(&["status"]).raw.contains("has left the mesh"));
    let refused = b.run(&["put", "/x", "2"]);
    assert_eq!(refused.code, 4, "{refused}");
    super::mesh::soon("the other one knows", || {
        peer_named(&a, "pantry").is_some_and(|peer| peer["role"] == "removed")
    });
    let again = b.run(&["join", &token(&a)]);
    assert_eq!(again.code, 4, "{again}");
    assert!(again.stderr.contains("--new-identity"), "{again}");
    drop(b_node);
}

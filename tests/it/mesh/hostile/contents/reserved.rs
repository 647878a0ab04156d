//! Reserved keys: of others, of invites, of stores.

use super::*;

/// Keys of members, invites and stores that a writer may not write, each put, put for a while and
/// deleted.
pub(super) fn reserved() -> Vec<Script> {
    type Name = fn(&Facts) -> String;
    let keys: [(&'static str, &'static str, Name); 18] = [
        ("M7", "info_of_the_creator", |it| {
            format!("/nodes/{}/info", it.nodes[0])
        }),
        ("M7", "info_of_an_admin", |it| {
            format!("/nodes/{}/info", it.nodes[1])
        }),
        ("M7", "info_of_a_writer", |it| {
            format!("/nodes/{}/info", it.nodes[2])
        }),
        ("M7", "status_of_the_creator", |it| {
            format!("/nodes/{}/status", it.nodes[0])
        }),
        ("M7", "status_of_a_writer", |it| {
            format!("/nodes/{}/status", it.nodes[2])
        }),
        ("M7", "role_of_the_creator", |it| {
            format!("/nodes/{}/role", it.nodes[0])
        }),
        ("M7", "role_of_a_writer", |it| {
            format!("/nodes/{}/role", it.nodes[2])
        }),
        ("M7", "role_of_nobody", |_| {
            format!("/nodes/{}/role", Author([9; 32]))
        }),
        ("M13", "upper_case_node", |it| {
            format!("/nodes/{}/info", it.nodes[2].to_string().to_uppercase())
        }),
        ("M13", "short_node", |it| {
            format!("/nodes/{}/info", it.nodes[2].short())
        }),
        ("M13", "node_without_a_name", |it| {
            format!("/nodes/{}/", it.nodes[2])
        }),
        ("M13", "node_as_a_path", |it| {
            format!("/nodes/../nodes/{}/role", it.nodes[2])
        }),
        ("M8", "open_invite", |it| {
            String::from_utf8(it.invite.to_vec()).unwrap()
        }),
        ("M8", "new_invite", |_| {
            format!("/invites/{}", "ab".repeat(32))
        }),
        ("L4", "name_of_the_root_store", |it| {
            format!("/stores/{}/name", it.store)
        }),
        ("L4", "genesis_of_the_root_store", |it| {
            format!("/stores/{}/genesis", it.store)
        }),
        ("L4", "name_of_no_store", |_| {
            format!("/stores/{}/name", StoreId([9; 16]))
        }),
        ("L4", "store_as_a_path", |_| {
            "/stores/../../etc/passwd".to_owned()
        }),
    ];
    let mut scripts = Vec::new();
    for (row, of, key) in keys {
        for how in ["puts", "puts_for_a_while", "deletes"] {
            scripts.push(script(row, format!("{how}_{of}"), move |pen| {
                let key = Bytes::from(key(pen.facts));
                // A role that counts anywhere; the status that pauses a node.
                let value = if key.ends_with(b"/status") {
                    "dormant"
                } else {
                    "admin"
                };
                let expires_ms = pen.facts.now_ms + 600_000;
                let op = match how {
                    "puts" => op(key.clone(), value, None),
                    "deletes" => Op::Delete { key: key.clone() },
                    _for_a_while => op(key.clone(), value, Some(expires_ms)),
                };
                pen.seize(&key, op);
            }));
        }
    }
    scripts
}

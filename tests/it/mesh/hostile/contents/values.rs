//! Values: keys, values and expiries at the limits.

use super::*;

/// Keys, values and causes at and beyond what anybody expects.
pub(super) fn values() -> Vec<Script> {
    let key = |name: &'static str, key: Vec<u8>| {
        script("B9", name, move |pen: &mut Pen<'_>| {
            let key = Bytes::from(key.clone());
            pen.put(vec![op(key.clone(), "x", None)]);
            pen.holds.push((key, "x".into()));
        })
    };
    let value = |name: &'static str, value: Vec<u8>| {
        script("B9", name, move |pen: &mut Pen<'_>| {
            let key = Bytes::from(format!("/values/{name}"));
            pen.put(vec![op(key.clone(), value.clone(), None)]);
            pen.holds.push((key, value.clone().into()));
        })
    };
    let expires = |name: &'static str, expires_ms: u64| {
        script("L9", name, move |pen: &mut Pen<'_>| {
            let key = format!("/expires/{name}");
            pen.put(vec![op(key, "x", Some(expires_ms))]);
        })
    };
    let cause = |name: &'static str, cause: fn(&Pen<'_>) -> Cause| {
        script("L7", name, move |pen: &mut Pen<'_>| {
            let cause = cause(pen);
            pen.write(
                |header| header.cause = Some(cause),
                vec![put("/caused", name)],
            );
        })
    };
    vec![
        key("longest_key", vec![b'k'; KEY_BYTES_MAX]),
        key("key_of_one_nul", vec![0]),
        key("key_that_is_not_utf8", vec![b'/', 0xff, 0xfe, 0x80]),
        key(
            "key_with_control_characters",
            b"/\x1b[2J\x07\n\r/x".to_vec(),
        ),
        key("key_that_is_a_path", b"../../../etc/passwd".to_vec()),
        key(
            "key_that_is_a_command",
            b"/$(reboot)`reboot`;reboot|&".to_vec(),
        ),
        key("key_like_a_reserved_one", b"/nodes".to_vec()),
        key("key_in_the_wrong_case", b"/Nodes/x/role".to_vec()),
        value("longest_value", vec![b'v'; VALUE_BYTES_MAX]),
        value("empty_value", Vec::new()),
        value("value_of_nuls", vec![0; 4096]),
        value("value_of_deep_brackets", b"[".repeat(100_000)),
        value(
            "value_just_not_inline",
            vec![7; lattice::limits::VALUE_INLINE_BYTES_MAX + 1],
        ),
        expires("before_it_is_written", 1),
        expires("at_once", 0),
        expires("never_at_all", u64::MAX),
        script("N12", "a_thousand_values_that_expire_at_once", |pen| {
            let expires_ms = pen.facts.now_ms + 2000;
            let op = |number| op(format!("/expires/many/{number}"), "x", Some(expires_ms));
            pen.put((0..OPS_MAX).map(op).collect());
        }),
        script("L9", "as_many_ops_as_there_may_be", |pen| {
            let ops = (0..OPS_MAX).map(|number| put(&format!("/ops/{number}"), "x"));
            pen.put(ops.collect());
            pen.holds.push(("/ops/1023".into(), "x".into()));
        }),
        script("L9", "deletes_what_was_never_there", |pen| {
            let ops = (0..OPS_MAX).map(|number| delete(&format!("/never/{number}")));
            pen.put(ops.collect());
        }),
        script("L9", "an_entry_without_ops", |pen| {
            pen.put(vec![]);
        }),
        script("L9", "an_atomic_entry_without_ops", |pen| {
            pen.write(|header| header.atomic = true, vec![]);
        }),
        cause("cause_at_its_limits", |_| Cause {
            consumer: "c".repeat(CAUSE_CONSUMER_BYTES_MAX),
            trigger: EntryId([0xff; 32]),
            position: u32::MAX,
            depth: u32::MAX,
        }),
        cause("cause_of_an_honest_hook", |pen| Cause {
            consumer: "deploy".to_owned(),
            trigger: pen.facts.heads[b"/honest".as_slice()][0].id,
            position: 0,
            depth: 1,
        }),
    ]
}

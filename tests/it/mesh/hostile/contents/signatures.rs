//! Signatures: odd entries and what vouches for them.

use super::*;

/// Signatures that are wrong, and entries that vouch for them.
pub(super) fn signatures() -> Vec<Script> {
    // An odd entry, and one that vouches for it and waits for ever, cited with this seq.
    let waits = |name, cites_odd: Option<u64>| {
        script("B8", name, move |pen: &mut Pen<'_>| {
            pen.put(vec![put("/odd/waits", "x")]);
            pen.bend();
            let odd = pen.log[0].as_parent();
            let cited = match cites_odd {
                Some(seq) => Parent { seq, ..odd },
                None => made_up(1, 1 << 30, pen.facts.nodes[0]),
            };
            pen.write(
                |header| header.parents = vec![cited],
                vec![put("/odd/waits", "y")],
            );
            pen.void.insert("/odd/waits".into());
        })
    };
    vec![
        script("B8", "odd_entry_with_a_voucher", |pen| {
            pen.put(vec![put("/odd/vouched", "x")]);
            pen.bend();
            pen.put(vec![put("/odd/voucher", "x")]);
            pen.holds.push(("/odd/vouched".into(), "x".into()));
        }),
        script("B8", "odd_entry_without_a_voucher", |pen| {
            pen.put(vec![put("/odd/alone", "x")]);
            pen.bend();
            pen.void.insert("/odd/alone".into());
        }),
        script("B8", "odd_run_without_a_voucher", |pen| {
            for number in 0..40 {
                pen.put(vec![put("/odd/run", &number.to_string())]);
                pen.bend();
            }
            pen.void.insert("/odd/run".into());
        }),
        script("B8", "odd_run_longer_than_one_check_reaches", |pen| {
            for number in 0..40 {
                pen.put(vec![put("/odd/long", &number.to_string())]);
                pen.bend();
            }
            pen.put(vec![put("/odd/long", "voucher")]);
            pen.void.insert("/odd/long".into());
        }),
        waits("odd_entry_whose_voucher_waits", None),
        waits("odd_entry_that_its_voucher_cites_falsely", Some(7)),
        script("B8", "odd_entry_whose_voucher_is_far_ahead", |pen| {
            pen.put(vec![put("/odd/held", "x")]);
            pen.bend();
            pen.write(stamped(STAMP_MS_MAX, 0), vec![put("/odd/held", "y")]);
            pen.void.insert("/odd/held".into());
        }),
        script("B8", "odd_entry_with_two_vouchers", |pen| {
            pen.put(vec![put("/odd/two", "x")]);
            pen.bend();
            pen.put(vec![put("/odd/two/a", "x")]);
            pen.back_to(1);
            pen.put(vec![put("/odd/two/b", "x")]);
        }),
        script("B8", "odd_entry_that_leaves", |pen| {
            let me = pen.me();
            pen.put(vec![act(&me, &Act::Remove(Tips::default()))]);
            pen.bend();
            pen.put(vec![put("/odd/left", "x")]);
        }),
        script("B8", "twenty_odd_tips", |pen| {
            pen.put(vec![put("/odd/tips", "shared")]);
            for number in 0..20 {
                pen.back_to(1);
                pen.put(vec![put("/odd/tip", &number.to_string())]);
                pen.bend();
                let ghost = made_up(number, 1 << 30, pen.facts.nodes[0]);
                pen.write(
                    |header| header.parents = vec![ghost],
                    vec![put("/odd/tip", "w")],
                );
            }
            pen.void.insert("/odd/tip".into());
        }),
    ]
}

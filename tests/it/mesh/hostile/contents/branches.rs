//! Branches: forks of one author.

use super::*;

/// Several branches, and many heads of a key.
pub(super) fn branches() -> Vec<Script> {
    let forks = |name: &'static str, at: usize, count: u16| {
        script("B1", name, move |pen: &mut Pen<'_>| {
            for number in 0..3 {
                pen.put(vec![put("/forks/shared", &number.to_string())]);
            }
            for number in 0..count {
                pen.back_to(at);
                let later = u32::from(number) + 1;
                let key = format!("/forks/{}", number % 7);
                pen.write(|header| header.hlc.counter = later, vec![put(&key, name)]);
            }
        })
    };
    vec![
        forks("two_first_entries", 0, 1),
        forks("a_fork_at_the_tip", 2, 1),
        forks("forty_forks_at_one_place", 1, 40),
        script("B3", "a_hundred_forks_spend_the_key", |pen| {
            pen.put(vec![put("/forks/trunk", "x")]);
            for number in 0..=100_u32 {
                pen.back_to(1);
                let write = vec![put("/forks/spent", "x")];
                pen.write(|header| header.hlc.counter = number + 1, write);
            }
            for key in ["/forks/trunk", "/forks/spent"] {
                pen.void.insert(key.into());
            }
        }),
        script("B1", "a_fork_for_each_entry", |pen| {
            for number in 0..20_u32 {
                pen.put(vec![put("/forks/each", &number.to_string())]);
                let length = pen.log.len();
                let kept = pen.log.clone();
                pen.back_to(length - 1);
                pen.write(
                    |header| header.hlc.counter = 5,
                    vec![put("/forks/side", "x")],
                );
                pen.log = kept;
            }
        }),
        script("B1", "a_fork_that_is_closed", |pen| {
            pen.put(vec![put("/forks/closed", "one")]);
            pen.back_to(0);
            let write = vec![put("/forks/closed", "two")];
            let other = pen
                .write(|header| header.hlc.counter = 1, write)
                .as_parent();
            pen.back_to(0);
            pen.put(vec![put("/forks/closed", "one")]);
            pen.write(|header| header.parents = vec![other], vec![]);
        }),
        script("B5", "one_entry_a_hundred_times", |pen| {
            pen.put(vec![put("/again", "x")]);
            pen.given = vec![pen.given[0].clone(); 100];
        }),
        script("B3", "two_thousand_heads_of_one_key", |pen| {
            for number in 0..2000 {
                pen.put(vec![put("/heads/one", &number.to_string())]);
            }
        }),
        script("B3", "heads_of_one_key_on_ten_branches", |pen| {
            for branch in 0..10_u32 {
                pen.back_to(0);
                for number in 0..10 {
                    let value = format!("{branch} {number}");
                    pen.write(
                        |header| header.hlc.counter = branch,
                        vec![put("/heads/branches", &value)],
                    );
                }
            }
        }),
        script("T6", "a_stamp_that_wins_everything", |pen| {
            let near = pen.facts.now_ms + DRIFT_MS_MAX - 60_000;
            pen.write(stamped(near, u32::MAX), vec![put("/honest/lost", "x")]);
        }),
    ]
}

//! Stamps that no clock shows.

use super::*;

/// Stamps that no clock shows.
pub(super) fn stamps() -> Vec<Script> {
    let far = |name: &'static str, wall_ms: fn(u64) -> u64, counter: u32| {
        script("T3", name, move |pen| {
            let at_ms = wall_ms(pen.facts.now_ms);
            pen.write(stamped(at_ms, counter), vec![put("/stamps", name)]);
        })
    };
    vec![
        far("the_last_stamp_of_all", |_| STAMP_MS_MAX, u32::MAX),
        far("the_last_millisecond", |_| STAMP_MS_MAX, 0),
        far("the_year_2500", |_| 16_725_225_600_000, 0),
        far("ten_years_ahead", |now| now + 315_360_000_000, 0),
        far(
            "a_minute_too_far_ahead",
            |now| now + DRIFT_MS_MAX + 60_000,
            0,
        ),
        far(
            "just_not_too_far_ahead",
            |now| now + DRIFT_MS_MAX - 60_000,
            0,
        ),
        far("the_year_1970", |_| 0, 0),
        far("thirty_years_ago", |now| now - 946_080_000_000, 7),
        far("the_last_counter", |now| now, u32::MAX),
        script("T3", "deletes_at_the_end_of_time", |pen| {
            pen.write(stamped(STAMP_MS_MAX, 1), vec![delete("/honest")]);
        }),
        script("T3", "nothing_at_the_end_of_time", |pen| {
            pen.write(stamped(STAMP_MS_MAX, 1), vec![]);
        }),
        script("T3", "data_after_far_ahead_data", |pen| {
            pen.write(stamped(STAMP_MS_MAX, 1), vec![put("/stamps", "far")]);
            pen.write(stamped(STAMP_MS_MAX, 2), vec![put("/stamps", "farther")]);
        }),
        script("T3", "an_act_after_far_ahead_data", |pen| {
            let me = pen.me();
            pen.write(stamped(STAMP_MS_MAX, 1), vec![put("/stamps", "far")]);
            let leave = act(&me, &Act::Remove(Tips::default()));
            pen.write(stamped(STAMP_MS_MAX, 2), vec![leave]);
        }),
        script("T3", "a_grant_to_itself_and_a_leave_at_the_top", |pen| {
            let me = pen.me();
            pen.write(
                stamped(STAMP_MS_MAX, 1),
                vec![act(&me, &Act::Grant(Role::Admin))],
            );
            let leave = act(&me, &Act::Remove(Tips::default()));
            pen.write(stamped(STAMP_MS_MAX, 2), vec![leave]);
        }),
        script("T3", "data_hidden_between_acts_at_the_top", |pen| {
            let me = pen.me();
            let ops = vec![act(&me, &Act::Grant(Role::Admin)), put("/stamps", "far")];
            pen.write(stamped(STAMP_MS_MAX, 1), ops);
        }),
        script("T3", "invites_at_the_top", |pen| {
            pen.void.insert("/invites/top".into());
            pen.write(stamped(STAMP_MS_MAX, 1), vec![put("/invites/top", "x")]);
        }),
        script("T5", "a_stamp_that_goes_back", |pen| {
            pen.put(vec![put("/stamps", "later")]);
            let back = pen.facts.now_ms - 9;
            pen.write(stamped(back, 0), vec![put("/back", "x")]);
            pen.void.insert("/back".into());
        }),
        script("T5", "one_stamp_twice", |pen| {
            let now_ms = pen.facts.now_ms;
            pen.write(stamped(now_ms, 3), vec![put("/stamps", "one")]);
            pen.write(stamped(now_ms, 3), vec![put("/twice", "x")]);
            pen.void.insert("/twice".into());
        }),
    ]
}

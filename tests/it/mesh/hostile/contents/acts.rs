//! Acts: grants, leaves and removals by those who may not make them.

use super::*;

/// Acts without authority, or without sense.
pub(super) fn acts() -> Vec<Script> {
    let by_its_own_grant = |name, acts: fn(&Pen<'_>) -> Vec<(Author, Act)>| {
        script("M7", name, move |pen| {
            let acts = acts(pen);
            // The grant that made it a writer is no authority.
            let own = pen.facts.heads.get(&role_key(&pen.me())).cloned();
            for (node, of_it) in acts {
                pen.void.insert(role_key(&node));
                let own = own.clone().unwrap_or_default();
                pen.write(|header| header.parents = own, vec![act(&node, &of_it)]);
            }
        })
    };
    let remove = || Act::Remove(Tips::default());
    vec![
        by_its_own_grant("makes_itself_an_admin", |pen| {
            vec![(pen.me(), Act::Grant(Role::Admin))]
        }),
        by_its_own_grant("makes_a_friend_a_writer_for_a_friend", |_| {
            let friend = |number| Author([number; 32]);
            vec![
                (friend(1), Act::Grant(Role::Admin)),
                (friend(2), Act::Grant(Role::Writer)),
            ]
        }),
        by_its_own_grant("removes_everybody", |pen| {
            let nodes = pen.facts.nodes.into_iter();
            nodes
                .map(|node| (node, Act::Remove(Tips::default())))
                .collect()
        }),
        by_its_own_grant("removes_an_admin_with_tips", |pen| {
            let tip = |seq| FrontierTip {
                seq,
                id: EntryId([3; 32]),
            };
            let tips = (1..=TIPS_MAX as u64).map(|seq| (pen.facts.store, tip(seq)));
            vec![(pen.facts.nodes[1], Act::Remove(Tips::new(tips).unwrap()))]
        }),
        script("M6", "many_void_acts", move |pen| {
            for number in 0..8_u8 {
                let node = |at: usize| {
                    let seed = blake3::hash(format!("{number} {at}").as_bytes());
                    Author(*seed.as_bytes())
                };
                let ops = (0..OPS_MAX).map(|at| act(&node(at), &Act::Grant(Role::Admin)));
                pen.put(ops.collect());
            }
        }),
        script("M6", "leaves_twice", move |pen| {
            let me = pen.me();
            pen.put(vec![act(&me, &remove())]);
            pen.put(vec![act(&me, &remove())]);
        }),
        script("M4", "leaves_and_writes_on", move |pen| {
            let me = pen.me();
            pen.put(vec![put("/left", "before")]);
            pen.put(vec![act(&me, &remove())]);
            // It may count: of what comes before an admin confirms, the admin names all that it has.
            pen.put(vec![put("/after_leave", "x")]);
        }),
        script("M4", "leaves_naming_what_will_come", |pen| {
            let me = pen.me();
            let far = FrontierTip {
                seq: 1 << 40,
                id: EntryId([4; 32]),
            };
            let tips = Tips::new([(pen.facts.store, far)]).unwrap();
            pen.put(vec![act(&me, &Act::Remove(tips))]);
            pen.put(vec![put("/after_far_leave", "x")]);
        }),
        script("M4", "leaves_on_two_branches", move |pen| {
            let me = pen.me();
            pen.put(vec![put("/branches", "shared")]);
            pen.put(vec![act(&me, &remove())]);
            pen.back_to(1);
            pen.write(|header| header.hlc.counter = 9, vec![act(&me, &remove())]);
        }),
        script("M12", "an_act_for_a_while", |pen| {
            let me = pen.me();
            let expires_ms = pen.facts.now_ms + 600_000;
            pen.put(vec![op(role_key(&me), "admin", Some(expires_ms))]);
        }),
        script("M13", "an_act_in_other_words", |pen| {
            let me = pen.me();
            for word in ["Admin", "admin\n", " admin", "removed\n", "", "root"] {
                pen.put(vec![op(role_key(&me), word.to_owned(), None)]);
            }
        }),
        script("M8", "an_invite_of_its_own", |pen| {
            let invite = Invite {
                role: Role::Admin,
                expires_ms: u64::MAX,
                used: None,
            };
            let key = Invite::key(&[7; 32]);
            pen.void.insert(key.clone());
            pen.put(vec![op(key, invite.encode(), None)]);
        }),
    ]
}

//! Members that keep to the protocol and sign hostile content: each script is the log of one writer.
//!
//! One of three nodes has the logs, and no attacker is there any more. Then all three have the same
//! heads, take writes, restart, hold no strike, and what may not count counts nowhere.

use std::collections::{BTreeMap, BTreeSet};

use lattice::{
    limits::{
        CAUSE_CONSUMER_BYTES_MAX, DRIFT_MS_MAX, KEY_BYTES_MAX, OPS_MAX, PARENTS_MAX, STAMP_MS_MAX,
        STRANGERS_BYTES_MAX, TIPS_MAX, VALUE_BYTES_MAX,
    },
    protocol::{
        entry::{Parent, cause::Cause},
        hlc::Hlc,
        membership::{
            genesis::Genesis,
            invite::Invite,
            role::{Act, Tips, role_key},
        },
    },
    store::List,
};

use super::{stores::listing, *};
use crate::support::model::{delete, put};

/// One hostile log.
pub(super) struct Script {
    pub(super) row: &'static str,
    pub(super) name: String,
    write: Box<dyn Fn(&mut Pen<'_>)>,
}

/// The facts that scripts use: three honest nodes, and what stands in their root store.
struct Facts {
    store: StoreId,
    now_ms: u64,
    // The creator, an admin and a writer.
    nodes: [Author; 3],
    invite: Bytes,
    // Heads of the reserved keys and of honest ones.
    heads: BTreeMap<Bytes, Vec<Parent>>,
}

/// The log of one attacker, who is a writer.
struct Pen<'a> {
    facts: &'a Facts,
    key: Key,
    log: Vec<VerifiedEntry>,
    // Encoded, also entries that do not follow on the log.
    given: Vec<Bytes>,
    // Keys that none of it may change.
    void: BTreeSet<Bytes>,
    // Values that all nodes must have.
    holds: Vec<(Bytes, Bytes)>,
}

impl<'a> Pen<'a> {
    fn new(facts: &'a Facts, number: usize) -> Self {
        let seed = blake3::hash(&number.to_be_bytes());
        Self {
            facts,
            key: Key(ed25519_dalek::SigningKey::from_bytes(seed.as_bytes())),
            log: Vec::new(),
            given: Vec::new(),
            void: BTreeSet::new(),
            holds: Vec::new(),
        }
    }

    fn me(&self) -> Author {
        self.key.author()
    }

    /// Signs the next entry of the log, after `change` of its header.
    fn write(&mut self, change: impl FnOnce(&mut Header), ops: Vec<Op>) -> VerifiedEntry {
        let last = self.log.last();
        let mut header = Header {
            store: self.facts.store,
            seq: last.map_or(1, |last| last.header.seq + 1),
            prev: last.map(|last| last.id),
            atomic: ops.len() > 1,
            ..header(self.facts.now_ms + self.log.len() as u64)
        };
        change(&mut header);
        let newest = header.parents.iter().map(|parent| parent.hlc).max();
        // Honest nodes write on while scripts are prepared.
        if let Some(newest) = newest.filter(|newest| *newest >= header.hlc) {
            header.hlc = newest.next(0).unwrap();
        }
        let entry = sign(&self.key.0, header, ops).unwrap();
        self.given.push(encoded(&entry));
        self.log.push(entry.clone());
        entry
    }

    fn put(&mut self, ops: Vec<Op>) -> VerifiedEntry {
        self.write(|_| {}, ops)
    }

    /// Makes the signature of the newest entry wrong: a later entry may vouch for it.
    fn bend(&mut self) {
        let mut signed = self.log.pop().unwrap().signed.clone();
        signed.signature[3] ^= 1;
        self.given.pop();
        self.given.push(signed.encode().into());
        self.log.push(signed.parse().unwrap().vouched());
    }

    /// Goes back to the entry at `seq`, so that the next one forks.
    fn back_to(&mut self, seq: usize) {
        self.log.truncate(seq);
    }

    /// Tries to change a key that it may not, and cites its heads, so that it would win.
    fn seize(&mut self, key: &Bytes, op: Op) {
        let heads = self.facts.heads.get(key).cloned().unwrap_or_default();
        self.void.insert(key.clone());
        self.write(|header| header.parents = heads, vec![op]);
    }
}

fn script(
    row: &'static str,
    name: impl Into<String>,
    write: impl Fn(&mut Pen<'_>) + 'static,
) -> Script {
    Script {
        row,
        name: name.into(),
        write: Box::new(write),
    }
}

fn act(node: &Author, act: &Act) -> Op {
    Op::Put {
        key: role_key(node),
        value: act.encode(),
        expires_ms: None,
    }
}

fn op(key: impl Into<Bytes>, value: impl Into<Bytes>, expires_ms: Option<u64>) -> Op {
    Op::Put {
        key: key.into(),
        value: value.into(),
        expires_ms,
    }
}

fn stamped(wall_ms: u64, counter: u32) -> impl FnOnce(&mut Header) {
    move |header| header.hlc = Hlc { wall_ms, counter }
}

fn made_up(number: u16, seq: u64, author: Author) -> Parent {
    let mut id = [0xee; 32];
    id[..2].copy_from_slice(&number.to_be_bytes());
    Parent {
        hlc: Hlc {
            wall_ms: u64::from(number),
            counter: 0,
        },
        author,
        id: EntryId(id),
        seq,
    }
}

/// Stamps that no clock shows.
fn stamps() -> Vec<Script> {
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

/// Keys of members, invites and stores that a writer may not write, each put, put for a while and
/// deleted.
fn reserved() -> Vec<Script> {
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

/// Acts without authority, or without sense.
fn acts() -> Vec<Script> {
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

// As many parents as an entry may have.
const PARENTS: u16 = 1024;
const _: () = assert!(PARENTS as usize == PARENTS_MAX);

/// Parents that are not what the entry says, or are not there.
fn references() -> Vec<Script> {
    let lie = |name, bend: fn(&mut Parent)| {
        script("B7", name, move |pen| {
            let mut cited = pen.facts.heads[b"/honest".as_slice()][0];
            bend(&mut cited);
            pen.write(
                |header| header.parents = vec![cited],
                vec![put("/lies", name)],
            );
        })
    };
    vec![
        lie("a_parent_with_another_seq", |it| it.seq += 1),
        lie("a_parent_with_another_stamp", |it| it.hlc.counter += 1),
        lie("a_parent_with_another_author", |it| {
            it.author = Author([8; 32])
        }),
        lie("a_parent_with_another_id", |it| it.id = EntryId([8; 32])),
        lie("a_parent_at_the_last_place", |it| it.seq = u64::MAX),
        script("B7", "its_own_entry_with_another_seq", |pen| {
            let mut cited = pen.put(vec![put("/lies", "own")]).as_parent();
            cited.seq = 9;
            pen.write(
                |header| header.parents = vec![cited],
                vec![put("/lies", "own 2")],
            );
        }),
        script("N3", "a_thousand_parents_of_strangers", |pen| {
            let strange = |number: u16| made_up(number, 1, Author([number.to_be_bytes()[1]; 32]));
            let parents = (1..=PARENTS).map(strange).collect();
            pen.write(
                |header| header.parents = parents,
                vec![put("/lies", "many")],
            );
        }),
        script("N3", "a_thousand_parents_of_the_creator", |pen| {
            let creator = pen.facts.nodes[0];
            let parents = (1..=PARENTS).map(|number| made_up(number, 1, creator));
            let parents = parents.collect();
            pen.write(
                |header| header.parents = parents,
                vec![put("/lies", "ghosts")],
            );
        }),
        script("N3", "a_predecessor_that_never_comes", |pen| {
            let ghost = |header: &mut Header| {
                (header.seq, header.prev) = (7, Some(EntryId([6; 32])));
            };
            pen.write(ghost, vec![put("/orphan", "x")]);
            pen.void.insert("/orphan".into());
        }),
        script("B6", "the_last_seq_of_all", |pen| {
            let last = |header: &mut Header| {
                (header.seq, header.prev) = (u64::MAX, Some(EntryId([6; 32])));
            };
            pen.write(last, vec![put("/orphan", "last")]);
        }),
        script("B6", "a_gap_in_its_seqs", |pen| {
            pen.put(vec![put("/gap", "one")]);
            pen.write(|header| header.seq = 5, vec![put("/gapped", "x")]);
            pen.void.insert("/gapped".into());
        }),
        script("B6", "the_log_of_somebody_else", |pen| {
            let other = pen.facts.heads[b"/honest".as_slice()][0];
            let after = |header: &mut Header| {
                (header.seq, header.prev) = (other.seq + 1, Some(other.id));
            };
            pen.write(after, vec![put("/stolen", "x")]);
            pen.void.insert("/stolen".into());
        }),
        script("B4", "an_entry_of_another_store", |pen| {
            pen.write(
                |header| header.store = StoreId([5; 16]),
                vec![put("/foreign", "x")],
            );
            pen.void.insert("/foreign".into());
        }),
    ]
}

/// Signatures that are wrong, and entries that vouch for them.
fn signatures() -> Vec<Script> {
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

/// Several branches, and many heads of a key.
fn branches() -> Vec<Script> {
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

/// Keys, values and causes at and beyond what anybody expects.
fn values() -> Vec<Script> {
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

/// Stores that nobody needs, and strangers.
fn stores() -> Vec<Script> {
    let genesis = |creator: Author, number: u8| Genesis {
        creator,
        nonce: [number; 32],
    };
    vec![
        script("N8", "a_hundred_stores", move |pen| {
            let me = pen.me();
            let of = |number| listing(&genesis(me, number), "junk");
            pen.put((0..100).flat_map(of).collect());
        }),
        script("L4", "a_store_whose_name_is_a_path", move |pen| {
            pen.put(listing(&genesis(pen.me(), 1), "../../x").to_vec());
        }),
        script("L4", "a_store_whose_name_is_too_long", move |pen| {
            pen.put(listing(&genesis(pen.me(), 1), &"n".repeat(100_000)).to_vec());
        }),
        script("L4", "a_store_of_an_honest_founder", move |pen| {
            let theirs = genesis(pen.facts.nodes[1], 200);
            let name = format!("/stores/{}/name", theirs.store());
            pen.put(listing(&theirs, "theirs").to_vec());
            pen.void.insert(name.into());
        }),
        script("L4", "a_genesis_that_expires", move |pen| {
            let own = genesis(pen.me(), 1);
            let expires_ms = pen.facts.now_ms + 600_000;
            pen.void.insert(own.key());
            pen.put(vec![op(own.key(), own.encode(), Some(expires_ms))]);
        }),
        script("L4", "a_genesis_of_another_key", move |pen| {
            let (one, other) = (genesis(pen.me(), 1), genesis(pen.me(), 2));
            pen.void.insert(one.key());
            pen.put(vec![op(one.key(), other.encode(), None)]);
        }),
        script("M10", "more_entries_of_strangers_than_are_kept", |pen| {
            let value = "s".repeat(900_000);
            let count = STRANGERS_BYTES_MAX / value.len() + 3;
            let (store, now_ms) = (pen.facts.store, pen.facts.now_ms);
            for number in 0..count {
                let seed = blake3::hash(&[b"stranger".as_slice(), &number.to_be_bytes()].concat());
                let key = Key(ed25519_dalek::SigningKey::from_bytes(seed.as_bytes()));
                let entry = key.sign(store, (1, None), now_ms, vec![put("/strangers", &value)]);
                pen.given.push(encoded(&entry));
            }
            pen.void.insert("/strangers".into());
        }),
        script("B10", "every_second_entry_only", |pen| {
            for number in 0..10 {
                pen.put(vec![put("/withheld", &number.to_string())]);
            }
            let kept = pen.given.iter().step_by(2).cloned().collect();
            pen.given = kept;
        }),
    ]
}

/// All scripts, each a log of a writer of its own.
pub(super) fn scripts() -> Vec<Script> {
    let families = [
        stamps(),
        reserved(),
        acts(),
        references(),
        signatures(),
        branches(),
        values(),
        stores(),
    ];
    families.into_iter().flatten().collect()
}

/// The heads of all `keys` and of all that is listed, by key.
async fn heads(peer: &Peer, keys: &BTreeSet<Bytes>) -> BTreeMap<Bytes, Vec<Parent>> {
    let root = peer.node.root();
    let listed = root.list(List {
        prefix: Bytes::new(),
        limit: None,
        keys_only: true,
    });
    let listed = listed.await.unwrap().into_iter().map(|item| item.key);
    let mut heads = BTreeMap::new();
    for key in keys.iter().cloned().chain(listed) {
        if heads.contains_key(&key) {
            continue;
        }
        let of_key = root.heads(&key).await.unwrap();
        let place = |head: &lattice::store::HeadItem| Parent {
            hlc: head.entry.hlc,
            author: head.entry.author,
            id: head.entry.id,
            seq: head.entry.seq,
        };
        let mut places: Vec<Parent> = of_key.iter().map(place).collect();
        places.sort_unstable();
        heads.insert(key, places);
    }
    heads.retain(|_, of_key: &mut Vec<Parent>| !of_key.is_empty());
    heads
}

/// Returns the hashes of the frontiers.
fn hashes(peers: &[Peer]) -> BTreeSet<[u8; 32]> {
    let hashes = peers
        .iter()
        .map(|peer| peer.node.root().frontier().hash().0);
    hashes.collect()
}

/// Waits until all have equal frontiers, and checks that they have equal heads. Returns those.
async fn equal(peers: &[Peer], keys: &BTreeSet<Bytes>) -> BTreeMap<Bytes, Vec<Parent>> {
    loop {
        let before = until("frontiers are equal", async || {
            Some(hashes(peers)).filter(|hashes| hashes.len() == 1)
        })
        .await;
        let mut all = Vec::new();
        for peer in peers {
            all.push(heads(peer, keys).await);
        }
        // Admins confirm leaves meanwhile.
        if hashes(peers) != before {
            continue;
        }
        let first = all.swap_remove(0);
        for other in &all {
            for key in keys.iter().chain(first.keys()).chain(other.keys()) {
                assert_eq!(first.get(key), other.get(key), "heads of {key:?}");
            }
        }
        return first;
    }
}

/// Each writes, all others get it, and no node holds anything against another.
async fn all_write(peers: &[Peer], value: &str) {
    for (at, peer) in peers.iter().enumerate() {
        let key = format!("/alive/{at}");
        peer.node
            .root()
            .put(key.clone(), value.to_owned())
            .await
            .unwrap();
        for other in peers {
            has(&other.node.root(), &key, value).await;
        }
    }
    for (peer, other) in peers
        .iter()
        .flat_map(|one| peers.iter().map(move |two| (one, two)))
    {
        if peer.node.id() != other.node.id() {
            let status = status_at(peer, &other.node.id());
            assert_eq!((status.strikes, status.shut_out), (0, None), "{status:?}");
        }
    }
}

async fn three() -> Vec<Peer> {
    let a = Peer::new("a").await;
    let (b, c) = (Peer::new("b").await, Peer::new("c").await);
    b.join(&a, Role::Admin).await;
    c.join(&a, Role::Writer).await;
    let peers = vec![a, b, c];
    for (at, peer) in peers.iter().enumerate() {
        peer.node
            .root()
            .put("/honest", at.to_string())
            .await
            .unwrap();
        let read = at.to_string();
        for other in &peers {
            has(&other.node.root(), "/honest", &read).await;
        }
    }
    peers
}

/// Gives the logs to the first node while the others are away, and lets these sync.
async fn give(mut peers: Vec<Peer>, logs: impl Iterator<Item = (String, Vec<Bytes>)>) -> Vec<Peer> {
    let mut dirs = Vec::new();
    for peer in peers.drain(1..) {
        dirs.push(peer.stop().await);
    }
    let root = peers[0].node.root();
    for (name, given) in logs {
        eprintln!("{name}");
        for part in given.chunks(64) {
            drop(root.ingest(part.to_vec()).await.unwrap());
        }
    }
    root.settle().await;
    for (dir, name) in dirs.into_iter().zip(["b", "c"]) {
        peers.push(Peer::at(dir, name).await);
    }
    peers
}

async fn facts(peers: &[Peer]) -> Facts {
    let a = &peers[0].node;
    let (secret, _expires_ms) = a.invite(Role::Reader, 600_000).await.unwrap();
    let none = BTreeSet::new();
    Facts {
        store: a.root().id(),
        now_ms: a.clock().now_ms(),
        nodes: [a.id(), peers[1].node.id(), peers[2].node.id()],
        invite: Invite::key(&secret),
        heads: heads(&peers[0], &none).await,
    }
}

/// Makes the authors of `pens` writers.
async fn admit(host: &Peer, pens: impl Iterator<Item = Author>) {
    for author in pens {
        let (secret, _expires_ms) = host.node.invite(Role::Writer, 600_000).await.unwrap();
        host.node.redeem(&secret, author).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn b1_b6_b7_b8_b9_m7_t3_hostile_logs_leave_three_nodes_equal() {
    let peers = three().await;
    let scripts = scripts();
    let mut known = facts(&peers).await;
    let authors = (0..scripts.len()).map(|number| Pen::new(&known, number).me());
    admit(&peers[0], authors.collect::<Vec<_>>().into_iter()).await;
    // With the grants that scripts cite.
    known.heads = heads(&peers[0], &BTreeSet::new()).await;
    let mut pens = Vec::new();
    for (number, script) in scripts.iter().enumerate() {
        let mut pen = Pen::new(&known, number);
        (script.write)(&mut pen);
        pens.push(pen);
    }
    let entries = pens.iter().flat_map(|pen| &pen.log);
    let ops = entries.flat_map(|entry| entry.ops.iter().take(16).map(|op| op.key().clone()));
    let mut keys: BTreeSet<Bytes> = ops.collect();
    keys.extend(pens.iter().flat_map(|pen| pen.void.iter().cloned()));
    let logs = scripts.iter().zip(&pens);
    let logs = logs.map(|(script, pen)| {
        let name = format!("{} {}", script.row, script.name);
        (name, pen.given.clone())
    });
    let mut peers = give(peers, logs).await;

    let check = async |peers: &[Peer], round: &str| {
        eprintln!("{round}");
        let now = equal(peers, &keys).await;
        for (script, pen) in scripts.iter().zip(&pens) {
            for key in &pen.void {
                // A key of two scripts is void for both.
                let before = known.heads.get(key);
                let by_pens = |head: &Parent| pens.iter().any(|pen| pen.me() == head.author);
                let after = now.get(key).filter(|heads| heads.iter().any(by_pens));
                let of_role = key.starts_with(b"/nodes/") && key.ends_with(b"/role");
                assert_eq!(after, None, "{}: {key:?} was {before:?}", script.name);
                assert!(
                    of_role || now.get(key) == before,
                    "{}: {key:?}",
                    script.name
                );
            }
            for (key, value) in &pen.holds {
                for peer in peers {
                    let item = peer.node.root().get(key).await.unwrap();
                    let read = item.map(|item| item.value);
                    assert!(read.as_ref() == Some(value), "{}: {key:?}", script.name);
                }
            }
        }
        all_write(peers, round).await;
    };
    check(&peers, "the attackers are gone").await;
    let members: Vec<_> = known.nodes.iter().collect();
    for peer in &peers {
        for (node, role) in members.iter().zip([Role::Admin, Role::Admin, Role::Writer]) {
            assert_eq!(peer.node.members().role(node), Some(role));
        }
    }
    // Everybody starts again, one after the other: a node is found where another one saw it last.
    for (at, name) in [(1, "b"), (2, "c"), (0, "a")] {
        let peer = peers.remove(at);
        let dir = peer.stop().await;
        peers.insert(at, Peer::at(dir, name).await);
        all_write(&peers, &format!("after a restart of {name}")).await;
    }
    check(&peers, "after a restart").await;
    for peer in peers {
        peer.stop().await;
    }
}

// A writer renames itself and others, makes them dormant, uses up invites and names stores. An admin
// that went by the names removed the wrong node.
#[tokio::test(flavor = "multi_thread")]
async fn m7_writer_renames_nobody_on_any_of_three_nodes() {
    let peers = three().await;
    let known = facts(&peers).await;
    let mut pen = Pen::new(&known, 0);
    admit(&peers[0], [pen.me()].into_iter()).await;
    let [creator, _, kitchen] = known.nodes;
    let key = |node: &Author, name: &str| Bytes::from(format!("/nodes/{node}/{name}"));
    let (me, other) = (
        pen.me(),
        Genesis {
            creator,
            nonce: [3; 32],
        },
    );
    let seized = [
        (key(&kitchen, "info"), "{\"name\":\"intruder\"}"),
        (key(&kitchen, "status"), "dormant"),
        (key(&creator, "status"), "dormant"),
        (known.invite.clone(), "used"),
        (Bytes::from(format!("/stores/{}/name", known.store)), "prod"),
        (
            Bytes::from(format!("/stores/{}/name", other.store())),
            "prod",
        ),
    ];
    for (key, value) in &seized {
        pen.seize(key, op(key.clone(), *value, None));
    }
    // All at once, and its own name, which it may choose.
    let heads = seized
        .iter()
        .flat_map(|(key, _)| known.heads.get(key))
        .flatten();
    let cited: BTreeSet<Parent> = heads.copied().collect();
    let mut ops: Vec<Op> = seized
        .iter()
        .map(|(key, value)| op(key.clone(), *value, None))
        .collect();
    ops.push(op(key(&me, "info"), "{\"name\":\"kitchen\"}", None));
    pen.write(|header| header.parents = cited.into_iter().collect(), ops);
    let keys: BTreeSet<Bytes> = seized.iter().map(|(key, _)| key.clone()).collect();
    let peers = give(peers, [("names".to_owned(), pen.given.clone())].into_iter()).await;
    let now = equal(&peers, &keys).await;
    for key in &keys {
        assert_eq!(now.get(key), known.heads.get(key), "{key:?}");
    }
    assert!(now.contains_key(&key(&me, "info")), "its own name counts");
    all_write(&peers, "still").await;
    // The invite is open, and whom the name meant is removed by its id only.
    peers[0].node.remove(&me).await.unwrap();
    assert_eq!(peers[0].node.members().role(&kitchen), Some(Role::Writer));
    for peer in peers {
        peer.stop().await;
    }
}

// Twenty forks of odd entries whose vouchers wait for ever: the nodes differed, and the honest ones
// shut each other out for passing them on.
#[tokio::test(flavor = "multi_thread")]
async fn b8_n2_twenty_odd_tips_split_nobody_of_three() {
    let peers = three().await;
    let known = facts(&peers).await;
    let odd = scripts()
        .into_iter()
        .find(|it| it.name == "twenty_odd_tips");
    let mut pen = Pen::new(&known, 0);
    admit(&peers[0], [pen.me()].into_iter()).await;
    (odd.unwrap().write)(&mut pen);
    let peers = give(
        peers,
        [("odd tips".to_owned(), pen.given.clone())].into_iter(),
    )
    .await;
    let keys = pen.void.clone();
    let now = equal(&peers, &keys).await;
    assert!(keys.iter().all(|key| !now.contains_key(key)));
    all_write(&peers, "still").await;
    // To a node that is there all the time, as a member relays them.
    let root = peers[1].node.root();
    drop(root.ingest(pen.given.clone()).await.unwrap());
    root.settle().await;
    all_write(&peers, "and again").await;
    equal(&peers, &keys).await;
    for peer in peers {
        peer.stop().await;
    }
}

//! A node that leaves names its last entries, which may not exist: that gains nothing for somebody who
//! has its key afterwards.

use std::collections::BTreeSet;

use lattice::{
    Node, NodeConfig, Store,
    clock::Clock,
    id::{EntryId, StoreId},
    limits::{CLAIMS_WAIT_MS_MAX, FORKS_MAX, TIPS_MAX},
    protocol::{
        entry::VerifiedEntry,
        frontier::FrontierTip,
        intake::Refusal,
        membership::{
            Standing,
            role::{Act, Role, Tips, role_key},
        },
    },
    store::{Authority, Ingested, RefusedEntry, StoreConfig},
};

use crate::{
    entries::acts::{NOW_MS, ROOT, act, config, grant, take_in},
    support::{
        disk::MemDisk,
        model::{AUTHOR_A, AUTHOR_B, author_of, put},
        random::for_each_seed,
        sync::sync,
        writer::Writer,
    },
};

const DATA: StoreId = StoreId([8; 16]);
// A tip that nobody has, above all that its author will ever sign.
const NOWHERE: FrontierTip = FrontierTip {
    seq: 1 << 40,
    id: EntryId([4; 32]),
};

fn leave(tips: impl IntoIterator<Item = (StoreId, FrontierTip)>) -> lattice::protocol::entry::Op {
    act(AUTHOR_B, &Act::Remove(Tips::new(tips).unwrap()))
}

// A root store and a data store of one node.
async fn stores() -> [Store; 2] {
    let root = Store::open(config(&MemDisk::default())).await.unwrap();
    let data = StoreConfig {
        id: DATA,
        root: false,
        authority: Authority::Of(root.members()),
        ..config(&MemDisk::default())
    };
    [root, Store::open(data).await.unwrap()]
}

// Before the tip is here, each branch below it could be the one that leads to it. So the leave lifted
// the bound of forks for good: a file on each node for each 200 bytes that somebody passed on.
#[test]
fn b3_a_leave_that_names_a_tip_nobody_has_lifts_no_bound_of_forks() {
    for_each_seed(1..=6, |random| {
        let mut creator = Writer::new(AUTHOR_A, ROOT);
        let granted = vec![grant(AUTHOR_B, Role::Writer)];
        let granted = creator.write(NOW_MS, granted, BTreeSet::new(), false);
        let ops = vec![leave([(DATA, NOWHERE)])];
        let left = Writer::new(AUTHOR_B, ROOT).write(NOW_MS, ops, BTreeSet::new(), false);
        let mut writer = Writer::new(AUTHOR_B, DATA);
        let ops = vec![put("/trunk", "b")];
        let trunk = writer.write(NOW_MS, ops, BTreeSet::new(), false);
        let branch = |number: usize| {
            let ops = vec![put(&format!("/branch/{number}"), "b")];
            writer
                .clone()
                .write(NOW_MS + 1, ops, BTreeSet::new(), false)
        };
        let mut branches: Vec<VerifiedEntry> = (0..FORKS_MAX + 30).map(branch).collect();
        let runtime = tokio::runtime::Builder::new_multi_thread();
        let runtime = { runtime }.worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(async {
            let mut all = Vec::new();
            for left_at in [0, FORKS_MAX / 2, branches.len()] {
                random.shuffle(&mut branches);
                let [root, data] = stores().await;
                take_in(&root, std::slice::from_ref(&granted)).await;
                take_in(&data, std::slice::from_ref(&trunk)).await;
                for (at, branch) in branches.iter().enumerate() {
                    if at == left_at {
                        take_in(&root, std::slice::from_ref(&left)).await;
                        data.reconsider().await;
                    }
                    take_in(&data, std::slice::from_ref(branch)).await;
                }
                take_in(&root, std::slice::from_ref(&left)).await;
                data.reconsider().await;
                assert!(root.members().borrow().is_removed(&author_of(AUTHOR_B)));
                all.push((root, data));
            }
            for (one, two) in [(0, 1), (1, 2), (0, 2), (0, 1)] {
                sync(&all[one].1, &all[two].1).await;
            }
            let mut hashes = BTreeSet::new();
            for (_root, data) in &all {
                let spent = data.spent().unwrap();
                assert_eq!(spent.tips(&author_of(AUTHOR_B)).len(), FORKS_MAX + 2);
                assert_eq!(data.get(b"/trunk").await.unwrap(), None);
                let more = take_in(data, &branches).await;
                let author = author_of(AUTHOR_B);
                let refused = Ingested::Refused(RefusedEntry::Rules(Refusal::Spent { author }));
                assert!(more.iter().all(|taken| *taken == refused), "{more:?}");
                hashes.insert(data.state_hash().await.unwrap());
            }
            assert_eq!(hashes.len(), 1);
        });
    });
}

// A grant is in the root store, and the data store hears of it a moment later. All branches of the new
// writer came before that: the state went by the new members, and was compared with the old ones, by
// whom nothing of it counted. So nothing of the spent key was taken back, on this node only.
#[tokio::test(flavor = "multi_thread")]
async fn b3_key_that_is_spent_right_after_its_grant_counts_nowhere() {
    let mut creator = Writer::new(AUTHOR_A, ROOT);
    let granted = vec![grant(AUTHOR_B, Role::Writer)];
    let granted = creator.write(NOW_MS, granted, BTreeSet::new(), false);
    let branch = |number: usize| {
        let ops = vec![put(&format!("/branch/{number}"), "b")];
        Writer::new(AUTHOR_B, DATA).write(NOW_MS, ops, BTreeSet::new(), false)
    };
    let branches: Vec<VerifiedEntry> = (0..FORKS_MAX + 2).map(branch).collect();
    for one_by_one in [true, false] {
        let [root, data] = stores().await;
        take_in(&root, std::slice::from_ref(&granted)).await;
        let parts = branches.chunks(if one_by_one { 1 } else { branches.len() });
        for part in parts {
            take_in(&data, part).await;
        }
        assert_eq!(data.spent().unwrap().len(), FORKS_MAX + 2);
        assert!(data.frontier().is_empty());
        assert_eq!(data.get(b"/branch/0").await.unwrap(), None);
        // A removal that comes as fast, of a writer that is not spent.
        let [root, data] = stores().await;
        take_in(&root, std::slice::from_ref(&granted)).await;
        take_in(&data, &branches[..1]).await;
        assert!(data.get(b"/branch/0").await.unwrap().is_some());
        let removal = Act::Remove(Tips::naming([DATA], []).unwrap());
        let mut creator = creator.clone();
        let ops = vec![act(AUTHOR_B, &removal)];
        let removal = creator.write(NOW_MS, ops, BTreeSet::new(), false);
        take_in(&root, &[removal]).await;
        data.reconsider().await;
        assert_eq!(data.get(b"/branch/0").await.unwrap(), None);
    }
}

async fn node() -> (tempfile::TempDir, Clock, Node) {
    let dir = tempfile::tempdir().unwrap();
    let clock = Clock::manual(NOW_MS);
    let mut config = NodeConfig::new(dir.path()).create(true);
    config.clock = clock.clone();
    let node = Node::open(config).await.unwrap();
    let (secret, _expires_ms) = node.invite(Role::Writer, 60_000).await.unwrap();
    node.redeem(&secret, author_of(AUTHOR_B)).await.unwrap();
    (dir, clock, node)
}

// The tips that the newest removal of B names in the data store.
async fn confirmed(node: &Node) -> Option<BTreeSet<FrontierTip>> {
    let heads = node.root().heads(&role_key(&author_of(AUTHOR_B))).await;
    let own = heads.unwrap().into_iter().find(|head| {
        let act = head.value.as_ref().and_then(|value| Act::decode(value));
        head.entry.author == node.id() && matches!(act, Some(Act::Remove(_)))
    });
    let Some(Act::Remove(tips)) = Act::decode(&own?.value.unwrap()) else {
        panic!("it is a removal");
    };
    let data = node.data().id();
    let speaks = tips.speaks_of(&data);
    speaks.then(|| tips.of(&data).collect())
}

// An admin named the tips of a leave again when it confirmed it, those that nobody has, too. So a
// member that had left could write on for ever, and nobody could remove it any more.
#[tokio::test(flavor = "multi_thread")]
async fn m4_a_leave_that_names_a_tip_nobody_has_keeps_no_way_in() {
    let (_dir, clock, node) = node().await;
    let (root, data) = (node.root(), node.data());
    let mut writer = Writer::new(AUTHOR_B, data.id());
    let mut write = |key: &str| writer.write(NOW_MS, vec![put(key, "b")], BTreeSet::new(), false);
    let (before, meanwhile, after) = (write("/before"), write("/meanwhile"), write("/after"));
    take_in(&data, std::slice::from_ref(&before)).await;
    // As many as a value has room for: with one of its own the admin's act had too many.
    let nowhere = (0..TIPS_MAX as u64).map(|more| FrontierTip {
        seq: NOWHERE.seq + more,
        ..NOWHERE
    });
    let ops = vec![leave(nowhere.map(|tip| (data.id(), tip)))];
    let mut leaver = Writer::new(AUTHOR_B, root.id());
    let left = leaver.write(NOW_MS, ops, BTreeSet::new(), false);
    take_in(&root, &[left]).await;
    assert!(node.members().is_removed(&author_of(AUTHOR_B)));

    // They could come yet. In the root store it is confirmed at once, and no more is granted.
    clock.advance(CLAIMS_WAIT_MS_MAX - 1);
    assert!(node.confirm_departures().await.unwrap(), "it waits");
    let author = author_of(AUTHOR_B);
    let removed = Ingested::Refused(RefusedEntry::Rules(Refusal::Removed { author }));
    let ops = vec![put("/after", "b")];
    let late = leaver.write(NOW_MS, ops, BTreeSet::new(), false);
    assert_eq!(
        take_in(&root, &[late]).await,
        std::slice::from_ref(&removed)
    );
    assert_eq!(confirmed(&node).await, None);
    let before = root.frontier();
    assert!(node.confirm_departures().await.unwrap(), "it still waits");
    assert_eq!(root.frontier(), before, "there is nothing to add");
    take_in(&data, std::slice::from_ref(&meanwhile)).await;
    clock.advance(1);
    assert!(!node.confirm_departures().await.unwrap());
    let kept = BTreeSet::from([FrontierTip::of(&meanwhile)]);
    assert_eq!(confirmed(&node).await, Some(kept));
    let taken = take_in(&data, &[after]).await;
    assert_eq!(taken, [removed]);
    assert!(data.get(b"/meanwhile").await.unwrap().is_some());
    assert!(!node.confirm_departures().await.unwrap(), "once");
    node.close().await.unwrap();
}

// The leave is in the root store, which comes first. An admin that confirmed it before the data has come
// would void that.
#[tokio::test(flavor = "multi_thread")]
async fn leave_is_confirmed_when_the_entries_that_it_names_are_here() {
    let (_dir, _clock, node) = node().await;
    let (root, data) = (node.root(), node.data());
    let mut writer = Writer::new(AUTHOR_B, data.id());
    let mut write = |key: &str| writer.write(NOW_MS, vec![put(key, "b")], BTreeSet::new(), false);
    let entries = [write("/1"), write("/2")];
    let last = FrontierTip::of(&entries[1]);
    let ops = vec![leave([(data.id(), last)])];
    let left = Writer::new(AUTHOR_B, root.id()).write(NOW_MS, ops, BTreeSet::new(), false);
    take_in(&root, &[left]).await;
    for entry in &entries {
        assert!(node.confirm_departures().await.unwrap(), "it waits");
        assert_eq!(confirmed(&node).await, None);
        take_in(&data, std::slice::from_ref(entry)).await;
    }
    assert!(!node.confirm_departures().await.unwrap());
    assert_eq!(confirmed(&node).await, Some(BTreeSet::from([last])));
    let standing = node.members().standing(&data.id(), &author_of(AUTHOR_B));
    assert!(matches!(standing, Standing::Through(_)));
    assert!(data.get(b"/2").await.unwrap().is_some());
    node.close().await.unwrap();
}

//! Members that lack entries which were removed at all others get the base that an act of an admin names.

use lattice::{
    Store,
    id::{Seq, StoreId},
    net::{JoinError, JoinEvent, PeerError},
    node::OwnData,
    protocol::{
        anchors_act::{ActBase, AnchorsAct},
        entry::Op,
        membership::role::{Role, role_key},
        placed_act::anchors_key,
    },
    store::WatchEvent,
};

use super::{
    hostile::attacker::{status_at, until},
    *,
};
use crate::support::{
    model::AUTHOR_C,
    watch::next,
    writer::{Writer, heads_of},
};

const KEYS: usize = 300;

/// A node with a store, and an admin elsewhere who publishes acts.
struct Host {
    peer: Peer,
    jobs: Store,
    admin: Writer,
}

impl Host {
    async fn new() -> Self {
        let peer = Peer::new("a").await;
        let jobs = peer.node.create_store("jobs").await.unwrap().id;
        let jobs = peer.node.open_store(&jobs).unwrap();
        let admin = Writer::new(AUTHOR_C, peer.node.root().id());
        let (secret, _expires_ms) = peer.node.invite(Role::Admin, 60_000).await.unwrap();
        peer.node.redeem(&secret, admin.author()).await.unwrap();
        Self { peer, jobs, admin }
    }

    async fn put(&self, value: &str) {
        for n in 0..KEYS {
            let key = format!("/job/{n}");
            self.jobs.put(key, value.to_owned()).await.unwrap();
        }
        self.jobs.put("/big", vec![5; 5000]).await.unwrap();
    }

    /// Removes all entries, as a node does once they are final.
    async fn prune(&self) {
        let pruning = self.jobs.drop_before(self.jobs.frontier()).await.unwrap();
        assert!(pruning.branches > 0);
    }

    /// Publishes the act that names the base.
    async fn name_base(&mut self) {
        let hash = self.jobs.offered_base().unwrap().hash();
        let base = ActBase { hash, keys: 1 };
        let anchors = self.jobs.begins();
        let act = AnchorsAct::new(1, Some(base), 0, anchors, None).unwrap();
        let root = self.peer.node.root();
        let role = role_key(&self.admin.author());
        let grant = heads_of(&root, &[str::from_utf8(&role).unwrap()]).await;
        let op = Op::Put {
            key: anchors_key(&self.jobs.id()),
            value: act.encode(),
            expires_ms: None,
        };
        let entry = self.admin.write(root.now_ms() + 1, vec![op], grant, false);
        let done = root.ingest(vec![entry.signed.encode().into()]).await;
        assert_eq!(done.unwrap().len(), 1);
        self.jobs.reconsider().await;
    }
}

/// Waits until both stores have the same entries, and checks that they have the same state.
async fn equal(one: &Store, other: &Store) {
    until("both have the same entries", async || {
        (one.frontier() == other.frontier()).then_some(())
    })
    .await;
    let hash = one.state_hash().await.unwrap();
    assert_eq!(hash, other.state_hash().await.unwrap());
    assert_eq!(one.verify().await.unwrap().damage, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn node_that_joins_a_mesh_with_removed_entries_has_all_keys() {
    let mut host = Host::new().await;
    host.put("1").await;
    host.prune().await;
    host.put("2").await;
    host.name_base().await;
    let b = Peer::new("b").await;
    let invitation = host.peer.net.invite(Role::Writer, 60_000).await.unwrap();
    let (events, mut steps) = mpsc::channel(10_000);
    let joining = b.net.join(&invitation, OwnData::Shared, &events);
    timeout(SOON, joining).await.unwrap().unwrap();
    drop(events);
    let mut come = None;
    while let Some(step) = steps.recv().await {
        if let JoinEvent::Syncing { base, .. } = step
            && base.bytes_max > 0
        {
            come = Some(base);
        }
    }
    let come = come.expect("the join shows how much of the base has come");
    assert_eq!((come.bytes, come.parts), (come.bytes_max, come.parts_max));
    let jobs = b.node.open_store(&host.jobs.id()).unwrap();
    equal(&jobs, &host.jobs).await;
    assert!(!jobs.begins().is_empty());
    let big = jobs.get(b"/big").await.unwrap().unwrap();
    assert_eq!(big.value, vec![5; 5000]);
    // It goes on as every other member.
    jobs.put("/by/b", "b").await.unwrap();
    has(&host.jobs, "/by/b", "b").await;
    equal(&jobs, &host.jobs).await;
    assert_eq!(status_at(&host.peer, &b.node.id()).strikes, 0);
    b.stop().await;
    host.peer.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn base_comes_once_an_admin_has_named_it() {
    let mut host = Host::new().await;
    host.put("1").await;
    host.prune().await;
    // Other stores do not wait for the base of that one: some of them come after it.
    let mut others = Vec::new();
    for n in 0..8 {
        let id = host
            .peer
            .node
            .create_store(&format!("other-{n}"))
            .await
            .unwrap()
            .id;
        let other = host.peer.node.open_store(&id).unwrap();
        other.put("/here", "1").await.unwrap();
        others.push(other);
    }
    let b = Peer::new("b").await;
    let invitation = host.peer.net.invite(Role::Writer, 60_000).await.unwrap();
    let (events, _steps) = mpsc::channel(1000);
    let joining = b.net.join(&invitation, OwnData::Shared, &events);
    let joined = timeout(SOON, joining).await.unwrap();
    let Err(JoinError::NotSynced {
        why: PeerError::Base { why },
    }) = joined
    else {
        panic!("{joined:?}")
    };
    let why = why.to_string();
    assert!(why.contains("no admin has named the base"), "{why}");
    let jobs = b.node.open_store(&host.jobs.id()).unwrap();
    assert!(jobs.frontier().is_empty() && jobs.begins().is_empty());
    for other in &others {
        let of_b = until("the store is open", async || b.node.open_store(&other.id())).await;
        equal(&of_b, other).await;
    }
    until("the status says it", async || {
        let error = status_at(&b, &host.peer.node.id()).error;
        matches!(error, Some(PeerError::Base { .. })).then_some(())
    })
    .await;
    host.name_base().await;
    equal(&jobs, &host.jobs).await;
    assert_eq!(status_at(&b, &host.peer.node.id()).strikes, 0);
    b.stop().await;
    host.peer.stop().await;
}

// Writes as soon as the store is open, again and again until it is done. Returns the place.
fn write_at_once(node: &lattice::Node, store: StoreId) -> tokio::task::JoinHandle<Seq> {
    let node = node.clone();
    tokio::spawn(async move {
        loop {
            if let Some(jobs) = node.open_store(&store)
                && let Ok(written) = jobs.put("/back", "1").await
            {
                return written.seq;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
}

/// The key of a member is all that is left of its disk, or all but one store. Its entries are in the base and
/// at the others. A write that comes before them would take a place that is taken.
#[tokio::test(flavor = "multi_thread")]
async fn member_whose_disk_died_comes_back_under_its_own_identity() {
    let mut host = Host::new().await;
    host.put("1").await;
    let b = Peer::new("b").await;
    b.join(&host.peer, Role::Writer).await;
    let (store, id) = (host.jobs.id(), b.node.id());
    let jobs = b.node.open_store(&store).unwrap();
    for n in 0..20 {
        jobs.put(format!("/by/b/{n}"), "before").await.unwrap();
    }
    has(&host.jobs, "/by/b/19", "before").await;
    host.prune().await;
    host.name_base().await;
    for n in 0..500 {
        jobs.put(format!("/tail/{n}"), "tail").await.unwrap();
    }
    has(&host.jobs, "/tail/499", "tail").await;
    let mut last = jobs.frontier().seq(&id);
    drop(jobs);
    let dir = b.stop().await;
    let new = tempfile::tempdir().unwrap();
    let key = "identity.key";
    std::fs::copy(dir.path().join(key), new.path().join(key)).unwrap();
    drop(dir);

    let b = Peer::at(new, "b").await;
    assert_eq!(b.node.id(), id);
    let writing = write_at_once(&b.node, store);
    b.join(&host.peer, Role::Writer).await;
    let check = async |b: &Peer, seq: Seq, last: Seq| {
        assert_eq!(seq, last + 1, "it goes on after its last entry");
        let jobs = b.node.open_store(&store).unwrap();
        has(&host.jobs, "/back", "1").await;
        equal(&jobs, &host.jobs).await;
        for (key, value) in [("/by/b/7", "before"), ("/tail/7", "tail"), ("/job/7", "1")] {
            let here = jobs.get(key.as_bytes()).await.unwrap();
            assert_eq!(here.unwrap().value, value, "{key}");
        }
        for forks in [host.jobs.status().await.forks, jobs.status().await.forks] {
            assert!(forks.is_empty(), "{forks:?}");
        }
        jobs.frontier().seq(&id)
    };
    let seq = timeout(SOON, writing).await.unwrap().unwrap();
    last = check(&b, seq, last).await;

    // One store is lost, and the root store is there.
    let dir = b.stop().await;
    let path = dir.path().join("stores").join(store.to_string());
    std::fs::remove_dir_all(path).unwrap();
    let b = Peer::at(dir, "").await;
    let seq = timeout(SOON, write_at_once(&b.node, store)).await;
    check(&b, seq.unwrap().unwrap(), last).await;
    b.stop().await;
    host.peer.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn member_that_was_away_returns_with_what_it_wrote() {
    let mut host = Host::new().await;
    host.put("1").await;
    let b = Peer::new("b").await;
    b.join(&host.peer, Role::Writer).await;
    let jobs = b.node.open_store(&host.jobs.id()).unwrap();
    jobs.put("/by/b", "before").await.unwrap();
    has(&host.jobs, "/by/b", "before").await;
    drop(jobs);
    let dir = b.stop().await;
    host.put("2").await;
    host.prune().await;
    host.name_base().await;
    host.put("3").await;
    // It writes before it meets anybody.
    let node = lattice::Node::open(lattice::NodeConfig::new(dir.path()))
        .await
        .unwrap();
    let jobs = node.open_store(&host.jobs.id()).unwrap();
    for n in 0..50 {
        jobs.put(format!("/away/{n}"), "unsent").await.unwrap();
    }
    jobs.put("/job/7", "unsent").await.unwrap();
    node.close().await.unwrap();
    drop((jobs, node));
    let node = lattice::Node::open(lattice::NodeConfig::new(dir.path()))
        .await
        .unwrap();
    let jobs = node.open_store(&host.jobs.id()).unwrap();
    let mut watch = jobs.watch("/job/");
    while !matches!(next(&mut watch).await, WatchEvent::CaughtUp) {}
    let net = lattice::net::Net::start(node.clone(), loopback());
    let b = Peer { node, net, dir };
    has(&host.jobs, "/away/49", "unsent").await;
    equal(&jobs, &host.jobs).await;
    for store in [&jobs, &host.jobs] {
        for n in 0..50 {
            let key = format!("/away/{n}");
            assert!(store.get(key.as_bytes()).await.unwrap().is_some(), "{key}");
        }
        let heads = store.heads(b"/job/7").await.unwrap();
        assert_eq!(heads.len(), 2, "a conflict");
    }
    host.jobs.put("/job/end", "end").await.unwrap();
    let (mut gaps, mut has_ended, mut caught_up) = (0, false, false);
    while !(has_ended && caught_up) {
        match next(&mut watch).await {
            WatchEvent::Gap { .. } => gaps += 1,
            WatchEvent::Change(change) => has_ended |= change.key == "/job/end",
            WatchEvent::CaughtUp => caught_up = true,
            _other => {}
        }
    }
    assert_eq!(gaps, 1);
    assert_eq!(status_at(&host.peer, &b.node.id()).strikes, 0);
    b.stop().await;
    host.peer.stop().await;
}

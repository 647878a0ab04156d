//! A node with a net on loopback, and how tests wait for what it should see.

use std::time::Duration;

use bytes::Bytes;
use lattice::{
    Node, NodeConfig, Store,
    clock::Clock,
    net::{JoinEvent, Joined, Net, NetConfig},
    node::OwnData,
    protocol::membership::role::Role,
    store::{WatchEvent, WatchOptions},
};
use tempfile::TempDir;
use tokio::{sync::mpsc, time::timeout};
use tokio_stream::StreamExt as _;

/// No step takes this long unless it hangs.
pub(super) const SOON: Duration = Duration::from_secs(30);

/// A node with a net, in a directory of its own.
pub(super) struct Peer {
    pub(super) node: Node,
    pub(super) net: Net,
    pub(super) dir: TempDir,
}

impl Peer {
    pub(super) async fn new(name: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self::at(dir, name).await
    }

    pub(super) async fn at(dir: TempDir, name: &str) -> Self {
        Self::with(dir, name, Clock::system(), loopback()).await
    }

    pub(super) async fn with(dir: TempDir, name: &str, clock: Clock, net: NetConfig) -> Self {
        let mut config = NodeConfig::new(dir.path()).create(true);
        config.name = (!name.is_empty()).then(|| name.to_owned());
        config.clock = clock;
        let node = Node::open(config).await.unwrap();
        let net = Net::start(node.clone(), net);
        Self { node, net, dir }
    }

    pub(super) async fn join(&self, host: &Self, role: Role) -> Joined {
        self.join_with(host, role, OwnData::Shared).await
    }

    pub(super) async fn join_with(&self, host: &Self, role: Role, data: OwnData) -> Joined {
        let invitation = host.net.invite(role, 60_000).await.unwrap();
        let (events, mut told) = mpsc::channel(64);
        let joining = self.net.join(&invitation, data, &events);
        let joined = timeout(SOON, joining).await.unwrap().unwrap();
        drop(events);
        let mut names = Vec::new();
        while let Some(event) = told.recv().await {
            names.push(match event {
                JoinEvent::Contacted { .. } => "contacted",
                JoinEvent::Accepted { .. } => "accepted",
                JoinEvent::Syncing { .. } => continue,
                JoinEvent::Synced { .. } => "synced",
            });
        }
        assert_eq!(names, ["contacted", "accepted", "synced"]);
        joined
    }

    pub(super) async fn stop(self) -> TempDir {
        let Self { node, net, dir } = self;
        net.stop().await;
        node.close().await.unwrap();
        dir
    }

    pub(super) async fn restart(self) -> Self {
        let dir = self.stop().await;
        Self::at(dir, "").await
    }
}

pub(super) fn loopback() -> NetConfig {
    NetConfig {
        bind: Some("127.0.0.1:0".parse().unwrap()),
        mdns: false,
        ..NetConfig::default()
    }
}

/// Waits until `key` has `value` in `store`.
pub(super) async fn has(store: &Store, key: &str, value: &str) {
    let seen = async {
        let mut watch = store.watch_with(WatchOptions {
            prefixes: vec![Bytes::copy_from_slice(key.as_bytes())],
            exact: true,
            ..WatchOptions::default()
        });
        while let Some(event) = watch.next().await {
            if let WatchEvent::Change(change) = event.unwrap()
                && change.value.as_deref() == Some(value.as_bytes())
            {
                return;
            }
        }
        panic!("the watch ended");
    };
    if timeout(SOON, seen).await.is_err() {
        panic!(
            "{key} is not {value} after {SOON:?}: {:?}",
            store.get(key.as_bytes()).await
        );
    }
}

//! Two nodes that can reach each other only over a relay.

use std::net::Ipv4Addr;

use iroh_relay::server::{RelayConfig, Server, ServerConfig};
use lattice::net::{PeerStatus, Relay};

use super::*;

/// A relay on loopback, without TLS.
async fn relay() -> (Server, Relay) {
    let mut config = ServerConfig::default();
    config.relay = Some(RelayConfig::new((Ipv4Addr::LOCALHOST, 0)));
    let server = Server::spawn(config).await.unwrap();
    let url = format!("http://{}", server.http_addr().unwrap());
    (server, Relay::Url(url))
}

impl Peer {
    async fn behind(relay: &Relay, dir: TempDir, bind: &str) -> Self {
        let config = NetConfig {
            bind: Some(bind.parse().unwrap()),
            relay: relay.clone(),
            ..loopback()
        };
        Self::with(dir, bind, Clock::system(), config).await
    }

    async fn new_behind(relay: &Relay, bind: &str) -> Self {
        Self::behind(relay, tempfile::tempdir().unwrap(), bind).await
    }

    /// Joins by a token whose only address is the relay's.
    async fn join_by_relay(&self, host: &Self) {
        let mut invitation = host.net.invite(Role::Writer, 60_000).await.unwrap();
        assert!(invitation.addresses.relay.is_some(), "{invitation:?}");
        invitation.addresses.direct.clear();
        let (events, _told) = mpsc::channel(64);
        let joining = self
            .net
            .join(&invitation, lattice::node::OwnData::Shared, &events);
        timeout(SOON, joining).await.unwrap().unwrap();
    }

    async fn sees(&self, other: &Self, is_so: impl Fn(&PeerStatus) -> bool) {
        let seen = async {
            loop {
                let peers = self.net.peers();
                let found = peers.iter().find(|peer| peer.node == other.node.id());
                if found.is_some_and(&is_so) {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        if timeout(SOON, seen).await.is_err() {
            panic!("{:?}", self.net.peers());
        }
    }
}

async fn meet(a: &Peer, b: &Peer) {
    b.join_by_relay(a).await;
    a.node.root().put("/from", "a").await.unwrap();
    has(&b.node.root(), "/from", "a").await;
    b.node.root().put("/from", "b").await.unwrap();
    has(&a.node.root(), "/from", "b").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn unreachable_nodes_meet_over_the_relay() {
    let (server, relay) = relay().await;
    // Nothing goes from the one address to the other.
    let a = Peer::new_behind(&relay, "127.0.0.1:0").await;
    let b = Peer::new_behind(&relay, "[::1]:0").await;
    meet(&a, &b).await;
    for (peer, other) in [(&a, &b), (&b, &a)] {
        peer.sees(other, |status| status.online && status.relayed)
            .await;
    }
    // By the relay alone, which both have kept.
    let b = Peer::behind(&relay, b.stop().await, "[::1]:0").await;
    a.node.root().put("/after", "restart").await.unwrap();
    has(&b.node.root(), "/after", "restart").await;
    a.stop().await;
    b.stop().await;
    server.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_leave_the_relay_when_they_can() {
    let (server, relay) = relay().await;
    let a = Peer::new_behind(&relay, "127.0.0.1:0").await;
    let b = Peer::new_behind(&relay, "127.0.0.1:0").await;
    meet(&a, &b).await;
    for (peer, other) in [(&a, &b), (&b, &a)] {
        peer.sees(other, |status| {
            status.online && !status.relayed && status.rtt.is_some()
        })
        .await;
    }
    server.shutdown().await.unwrap();
    a.node.root().put("/after", "the relay").await.unwrap();
    has(&b.node.root(), "/after", "the relay").await;
    a.stop().await;
    b.stop().await;
}

//! A node proves its membership to a node that does not know it yet.

use lattice::net::PeerError;

use super::*;

impl Peer {
    /// Tells this node where `other` is, as mDNS would.
    async fn finds(&self, other: &Self) {
        let listening = async {
            loop {
                match other.net.addresses() {
                    Some(addresses) => return addresses,
                    None => tokio::time::sleep(Duration::from_millis(20)).await,
                }
            }
        };
        let addresses = timeout(SOON, listening).await.unwrap();
        self.net.connect(&other.node.id(), addresses).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn member_gets_in_without_its_sponsor() {
    let (a, b, c) = (
        Peer::new("a").await,
        Peer::new("b").await,
        Peer::new("c").await,
    );
    c.join(&a, Role::Writer).await;
    let c = c.stop().await;
    b.join(&a, Role::Writer).await;
    a.node.root().put("/from", "a").await.unwrap();
    has(&b.node.root(), "/from", "a").await;
    a.stop().await;

    // C does not know B, and no node that does is running.
    let c = Peer::at(c, "c").await;
    assert_eq!(c.node.members().get(&b.node.id()), None);
    b.finds(&c).await;
    has(&c.node.root(), "/from", "a").await;
    c.node.root().put("/from", "c").await.unwrap();
    has(&b.node.root(), "/from", "c").await;
    b.node.root().put("/from", "b").await.unwrap();
    has(&c.node.root(), "/from", "b").await;

    // It is named by the root store now, and by nothing else.
    let known = c.node.members();
    assert_eq!(known.role(&b.node.id()), Some(Role::Writer));
    let status = c.net.peers();
    let of_b = status.iter().find(|status| status.node == b.node.id());
    assert!(of_b.is_some_and(|status| status.online && status.strikes == 0));
    b.stop().await;
    c.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whole_chain_of_grants_is_shown() {
    let (a, b, c, d) = (
        Peer::new("a").await,
        Peer::new("b").await,
        Peer::new("c").await,
        Peer::new("d").await,
    );
    c.join(&a, Role::Writer).await;
    let c = c.stop().await;
    b.join(&a, Role::Admin).await;
    a.stop().await;
    d.join(&b, Role::Reader).await;
    b.stop().await;
    let c = Peer::at(c, "c").await;
    d.finds(&c).await;
    c.node.root().put("/from", "c").await.unwrap();
    has(&d.node.root(), "/from", "c").await;
    // Entries of C may arrive before D's grant.
    let named = async {
        while c.node.members().role(&d.node.id()) != Some(Role::Reader) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(SOON, named).await.expect("it is named");
    c.stop().await;
    d.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn m7_removed_member_with_old_grant_is_refused() {
    let (a, b, c) = (
        Peer::new("a").await,
        Peer::new("b").await,
        Peer::new("c").await,
    );
    b.join(&a, Role::Writer).await;
    c.join(&a, Role::Writer).await;
    has(
        &b.node.root(),
        &format!("/nodes/{}/role", c.node.id()),
        "writer",
    )
    .await;
    // C does not receive its removal, and shows its old grant.
    let removed = c.node.id();
    let c = c.stop().await;
    a.node.remove(&removed).await.unwrap();
    let c = Peer::at(c, "c").await;
    c.finds(&a).await;
    let refused = async {
        loop {
            let status = c.net.peers();
            let of_a = status.iter().find(|status| status.node == a.node.id());
            if of_a.is_some_and(|of_a| of_a.error == Some(PeerError::Removed { by: a.node.id() })) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(SOON, refused).await.expect("it is refused");
    a.node.root().put("/after", "removal").await.unwrap();
    has(&b.node.root(), "/after", "removal").await;
    assert!(c.node.root().get(b"/after").await.unwrap().is_none());
    for peer in [a, b, c] {
        peer.stop().await;
    }
}

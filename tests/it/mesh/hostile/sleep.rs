//! A node wakes from sleep. Its peer hangs up each time, so the next dial is far away.

use lattice::{
    clock::Clock,
    limits::{OWN_TIP_STILL, OWN_TIP_WAIT},
};

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn t7_node_dials_at_once_after_sleep() {
    let clock = Clock::manual(1_800_000_000_000);
    let dir = tempfile::tempdir().unwrap();
    let a = Peer::with(dir, "a", clock.clone(), loopback()).await;
    let raw = Raw::new(90).await;
    let (secret, _expires_ms) = a.node.invite(Role::Writer, 60_000).await.unwrap();
    a.node.redeem(&secret, raw.author()).await.unwrap();
    let addresses = lattice::net::Addresses {
        direct: raw.endpoint.addr().ip_addrs().copied().collect(),
        relay: None,
    };
    until("the gate knows the member", async || {
        let connected = a.net.connect(&raw.author(), addresses.clone()).await;
        connected.ok()
    })
    .await;
    let dialled = async |within: Duration| {
        let hung_up = async {
            let connection = raw.endpoint.accept().await.unwrap().await.unwrap();
            connection.close(0_u32.into(), b"");
        };
        timeout(within, hung_up).await.is_ok()
    };
    // Each failure doubles the wait. After the fifth it is 8 s, and at least half of that.
    for _ in 0..5 {
        assert!(dialled(SOON).await);
    }
    assert!(!dialled(Duration::from_secs(1)).await, "it does not wait");
    clock.advance(60_000);
    assert!(dialled(Duration::from_secs(2)).await, "it still waits");
    a.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn n7_silent_member_does_not_hold_own_writes_for_long() {
    let field = Field::new().await;
    let raw = field.member(50, Role::Reader).await;
    let Field { a, b, .. } = field;
    b.stop().await;
    raw.endpoint.close().await;
    // The same key, at an endpoint that knows no old address.
    let raw = Raw::new(50).await;
    let a = a.restart().await;
    until("it listens", async || a.net.addresses()).await;
    // The only member within reach. It answers nothing.
    let connection = until("it is let in", async || raw.connect(&a, SYNC).await).await;
    let began = std::time::Instant::now();
    a.node.root().put("/after", "a start").await.unwrap();
    let waited = began.elapsed();
    println!("the first write waited {waited:?}");
    assert!(
        connection.close_reason().is_none(),
        "it was there all the time"
    );
    let wait_max = OWN_TIP_WAIT + OWN_TIP_STILL + Duration::from_secs(3);
    assert!(waited < wait_max, "{waited:?}");
    a.stop().await;
}

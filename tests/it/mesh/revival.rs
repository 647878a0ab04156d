//! An endpoint that ends by itself, as after a panic in the QUIC stack.

use std::net::UdpSocket;

use super::{hostile::attacker::until, *};

#[tokio::test(flavor = "multi_thread")]
async fn n11_endpoint_that_ends_by_itself_is_bound_again() {
    let (a, b) = (Peer::new("a").await, Peer::new("b").await);
    b.join(&a, Role::Writer).await;
    let (of_a, of_b) = (a.node.data(), b.node.data());
    of_a.put("/k", "before").await.unwrap();
    has(&of_b, "/k", "before").await;
    for round in ["once", "twice"] {
        a.net.lose_endpoint().await;
        of_a.put("/a", round).await.unwrap();
        of_b.put("/b", round).await.unwrap();
        has(&of_b, "/a", round).await;
        has(&of_a, "/b", round).await;
    }
    drop((of_a, of_b));
    // It stays ended once it is stopped.
    let address = *a.net.addresses().unwrap().direct.first().unwrap();
    a.stop().await;
    until("the port is free", async || UdpSocket::bind(address).ok()).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(UdpSocket::bind(address).is_ok());
    b.stop().await;
}

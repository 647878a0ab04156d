//! A port that another program has when a node starts.

use std::net::{SocketAddr, UdpSocket};

use super::{
    hostile::attacker::{Field, status_at, until},
    *,
};

async fn at(dir: TempDir, port: SocketAddr) -> Peer {
    let mut net = loopback();
    net.bind = Some(port);
    Peer::with(dir, "again", Clock::system(), net).await
}

// The node was alone for its whole life, with one line in its log.
#[tokio::test(flavor = "multi_thread")]
async fn port_that_is_taken_is_tried_again() {
    let Field { a, b, .. } = Field::new().await;
    let dir = b.stop().await;
    let taken = UdpSocket::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap();
    let b = at(dir, port).await;
    let trouble = until("it is reported", async || b.net.trouble()).await;
    assert!(trouble.contains(&port.port().to_string()), "{trouble}");
    assert_eq!(b.net.addresses(), None);
    let error = b.net.invite(Role::Writer, 60_000).await.unwrap_err();
    let is_taken = matches!(error, NetError::PortTaken { address } if address == port);
    assert!(is_taken, "{error}");
    // It writes alone meanwhile, and for longer than the first waits take.
    b.node.root().put("/port", "taken").await.unwrap();
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert!(b.net.trouble().is_some());
    assert!(!status_at(&a, &b.node.id()).online);

    drop(taken);
    let free = std::time::Instant::now();
    has(&a.node.root(), "/port", "taken").await;
    let took = free.elapsed();
    println!("in step {took:?} after the port was free");
    assert!(took < Duration::from_secs(5), "{took:?}");
    assert_eq!(b.net.trouble(), None);
    a.stop().await;
    b.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn node_whose_port_stays_taken_stops() {
    let Field { a, b, .. } = Field::new().await;
    let dir = b.stop().await;
    let taken = UdpSocket::bind("127.0.0.1:0").unwrap();
    let b = at(dir, taken.local_addr().unwrap()).await;
    until("it is reported", async || b.net.trouble()).await;
    let stopping = timeout(Duration::from_secs(5), b.stop()).await;
    drop(stopping.unwrap());
    a.stop().await;
}

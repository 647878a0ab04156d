//! Two nodes meet; one writes, and the other watches: `cargo run --example two_nodes`.

#![expect(clippy::print_stdout, reason = "an example prints")]

use std::error::Error;

use lattice::{
    Node, NodeConfig, WatchEvent,
    net::{Net, NetConfig},
    node::OwnData,
    protocol::membership::role::Role,
};
use tokio::sync::mpsc;
use tokio_stream::StreamExt as _;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let dir = std::env::temp_dir().join(format!("lattice-two-nodes-{}", std::process::id()));
    let (a, a_net) = start(&dir.join("a")).await?;
    let (b, b_net) = start(&dir.join("b")).await?;

    // The token is passed on outside Lattice, and is valid once.
    let token = a_net.invite(Role::Writer, 60_000).await?.to_string();
    println!("token    {} characters", token.len());
    let (events, _progress) = mpsc::channel(16);
    let joined = b_net
        .join(&token.parse()?, OwnData::Private, &events)
        .await?;
    println!(
        "joined   as {}, {} entries received",
        joined.role, joined.entries
    );

    let mut watch = b.data().watch("/jobs/");
    a.data().put("/jobs/1", "paint the fence").await?;
    while let Some(event) = watch.next().await {
        if let WatchEvent::Change(change) = event? {
            let value = change.value.clone().unwrap_or_default();
            println!("b sees   {:?} = {value:?}, written by a", change.key);
            assert_eq!(change.entry.author, a.id());
            break;
        }
    }
    for (node, net) in [(a, a_net), (b, b_net)] {
        net.stop().await;
        node.close().await?;
    }
    Ok(std::fs::remove_dir_all(dir)?)
}

async fn start(dir: &std::path::Path) -> Result<(Node, Net), Box<dyn Error>> {
    let node = Node::open(NodeConfig::new(dir).create(true)).await?;
    let config = NetConfig {
        bind: Some("127.0.0.1:0".parse()?),
        mdns: false,
        ..NetConfig::default()
    };
    let net = Net::start(node.clone(), config);
    Ok((node, net))
}

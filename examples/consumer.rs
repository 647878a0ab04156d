//! Makes a durable consumer, takes changes, acknowledges some; a second start goes on with the rest.
//!
//! `cargo run --example consumer`

#![expect(clippy::print_stdout, reason = "an example prints")]

use std::time::Duration;

use lattice::{
    Node, NodeConfig, Store,
    store::consumers::{Consumer, ConsumerOptions, ConsumerStart},
};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let dir = std::env::temp_dir().join(format!("lattice-consumer-{}", std::process::id()));
    let node = Node::open(NodeConfig::new(&dir).create(true)).await?;
    let billing = create(&node.root()).await?;
    for order in 1..=4 {
        let key = format!("/orders/{order}");
        node.root().put(key, "a hammer").await?;
    }

    let done = billing.next().await?;
    println!("{:?}, attempt {}: done", done.change().key, done.attempt());
    done.ack()?;
    let failed = billing.next().await?;
    println!("{:?}: once more, later", failed.change().key);
    failed.nack(Some(Duration::from_millis(50)))?;
    node.close().await?;

    // As after a crash: what was not acknowledged comes again.
    let node = Node::open(NodeConfig::new(&dir)).await?;
    let billing = create(&node.root()).await?;
    for _ in 0..3 {
        let order = billing.next().await?;
        println!("{:?}, attempt {}", order.change().key, order.attempt());
        order.ack()?;
    }
    let status = billing.show().await?;
    println!("{} acknowledged, {} left", status.acked, status.outstanding);
    assert_eq!((status.acked, status.outstanding), (4, 0));

    node.close().await?;
    std::fs::remove_dir_all(&dir)?;
    Ok(())
}

// Made the first time; later it is there already.
async fn create(store: &Store) -> Result<Consumer, Box<dyn std::error::Error>> {
    let consumer = store.consumer("billing");
    let options = ConsumerOptions {
        from: ConsumerStart::Beginning,
        prefixes: vec!["/orders/".into()],
        ..ConsumerOptions::default()
    };
    consumer.create(options).await?;
    Ok(consumer)
}

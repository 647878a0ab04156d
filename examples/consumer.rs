//! A durable consumer: two takers share the work, and one change is given back once.
//!
//! `cargo run --example consumer`

#![expect(clippy::print_stdout, reason = "an example prints")]

use std::time::Duration;

use lattice::{
    Node, NodeConfig,
    store::consumers::{Consumer, ConsumerError, ConsumerOptions, ConsumerStart},
};
use tokio_stream::StreamExt as _;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let dir = std::env::temp_dir().join(format!("lattice-consumer-{}", std::process::id()));
    let node = Node::open(NodeConfig::new(&dir).create(true)).await?;
    let store = node.data();

    let billing = store.consumer("billing");
    billing
        .create(ConsumerOptions {
            from: ConsumerStart::Now,
            prefixes: vec!["/orders/".into()],
            ..ConsumerOptions::default()
        })
        .await?;
    for n in 0..6 {
        store.put(format!("/orders/{n}"), "4 apples").await?;
    }

    let takers = ["first", "second"].map(|name| tokio::spawn(work(name, billing.clone())));
    while billing.show().await?.acked < 6 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let status = billing.show().await?;
    println!("{} done, {} redelivered", status.acked, status.redelivered);

    node.close().await?;
    for taker in takers {
        taker.await??;
    }
    std::fs::remove_dir_all(&dir)?;
    Ok(())
}

async fn work(name: &str, consumer: Consumer) -> Result<(), ConsumerError> {
    let mut deliveries = consumer.deliveries();
    while let Some(delivery) = deliveries.next().await {
        let delivery = match delivery {
            Err(ConsumerError::Closed) => return Ok(()),
            delivery => delivery?,
        };
        let (key, attempt) = (delivery.change().key.clone(), delivery.attempt());
        println!("{name} has {key:?}, attempt {attempt}");
        if key.ends_with(b"3") && attempt == 1 {
            delivery.nack(Some(Duration::from_millis(20)))?;
        } else {
            // Work before this line may be done twice, if the node stops before the ack is durable.
            // `delivery.id().change` is equal at every attempt: a key for idempotent work.
            delivery.ack()?;
        }
    }
    Ok(())
}

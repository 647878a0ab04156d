//! Talks to a running node: writes from many tasks, a watch, and a consumer.
//!
//! `lattice up` in one terminal, and in another one
//! `cargo run --no-default-features --features client --example client`

#![expect(clippy::print_stdout, reason = "an example prints")]

use std::error::Error;

use lattice::{
    ConsumerOptions, WatchEvent, Write,
    calls::Condition,
    client::{Client, ErrorKind, Store},
};
use tokio::task::JoinSet;
use tokio_stream::StreamExt as _;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    // The node that the command line would use; `Client::connect` takes the path of a socket.
    let client = Client::connect_default().await?;
    let store = client.data();

    // The state first, then each change. It goes on when the node is started again.
    let mut watch = store.watch("/example/");
    let jobs = store.consumer("example");
    let options = ConsumerOptions {
        prefixes: vec!["/example/job/".into()],
        ..ConsumerOptions::default()
    };
    jobs.create(&options).await?;

    // Puts in flight together share one stream to the node; each is durable when it returns.
    let mut tasks = JoinSet::new();
    for number in 0..256 {
        let store = store.clone();
        tasks.spawn(async move { store.put(format!("/example/job/{number}"), "build").await });
    }
    while let Some(written) = tasks.join_next().await {
        written??;
    }

    // Only one of several programs gets the lease.
    let lease = Write::put("/example/lease", "me").condition(Condition::Absent);
    match store.write(lease).await {
        Ok(_written) => println!("the lease is mine"),
        Err(error) if error.kind() == ErrorKind::Precondition => println!("{error}"),
        Err(error) => return Err(error.into()),
    }

    let mut seen = 0;
    while seen < 256 {
        match watch.next().await.ok_or("a watch goes on")?? {
            WatchEvent::Change(change) if change.value.is_some() => seen += 1,
            _other => {}
        }
    }
    println!(
        "{seen} changes, through {:?}",
        watch.cursor().map(|it| it.store)
    );

    // A change that is not acknowledged is delivered again, to this program or another.
    for _job in 0..256 {
        let delivery = jobs.next().await?;
        delivery.ack().await?;
    }
    println!("256 jobs done");
    remove(&store).await?;
    jobs.delete().await?;
    Ok(())
}

async fn remove(store: &Store) -> Result<(), Box<dyn Error>> {
    for number in 0..256 {
        store.delete(format!("/example/job/{number}")).await?;
    }
    store.delete("/example/lease").await?;
    Ok(())
}

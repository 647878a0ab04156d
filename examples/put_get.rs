//! Opens a node in a temporary directory, writes, reads, and closes it.
//!
//! `cargo run --example put_get`

#![expect(clippy::print_stdout, reason = "an example prints")]

use lattice::{Node, NodeConfig, protocol::entry::Op, store::List};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let dir = std::env::temp_dir().join(format!("lattice-put-get-{}", std::process::id()));
    let node = Node::open(NodeConfig::new(&dir).create(true)).await?;
    let store = node.data();

    // On return the entry is durable.
    let written = store.put("/greeting", "hello").await?;
    println!(
        "entry {} is number {} of this node's log",
        written.entry, written.seq
    );

    // Several ops in one entry: all of them apply, or none.
    let put = |key: &'static str, value: &'static str| Op::Put {
        key: key.into(),
        value: value.into(),
        expires_ms: None,
    };
    store
        .batch(vec![put("/jobs/1", "build"), put("/jobs/2", "test")])
        .await?;
    store.delete("/jobs/1").await?;

    let item = store.get(b"/greeting").await?.ok_or("just written")?;
    println!("/greeting is {}", String::from_utf8_lossy(&item.value));
    let jobs = store
        .list(List {
            prefix: "/jobs/".into(),
            ..List::default()
        })
        .await?;
    for job in &jobs {
        println!("{:?} is {:?}", job.key, job.value);
    }
    assert_eq!(jobs.len(), 1);

    node.close().await?;
    std::fs::remove_dir_all(&dir)?;
    Ok(())
}

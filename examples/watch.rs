//! Watches a prefix while another task writes, stops, and continues from the cursor.
//!
//! `cargo run --example watch`

#![expect(clippy::print_stdout, reason = "an example prints")]

use lattice::{
    Node, NodeConfig, WatchEvent, WatchOptions,
    store::{Start, Watch},
};
use tokio_stream::StreamExt as _;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let dir = std::env::temp_dir().join(format!("lattice-watch-{}", std::process::id()));
    let node = Node::open(NodeConfig::new(&dir).create(true)).await?;
    let store = node.data();

    let mut watch = store.watch("/sensors/");
    let writer = {
        let store = store.clone();
        tokio::spawn(async move {
            for n in 0..6 {
                store
                    .put(format!("/sensors/{}", n % 3), n.to_string())
                    .await?;
            }
            Ok::<_, lattice::store::WriteError>(())
        })
    };
    print_changes(&mut watch, 2).await?;

    // Any replica of the store can continue from this position, also after a restart.
    let cursor = watch.cursor();
    println!("stopped at {cursor}");
    drop(watch);
    writer.await??;

    let start = Start::After(cursor);
    let options = WatchOptions {
        prefixes: vec!["/sensors/".into()],
        start,
        ..WatchOptions::default()
    };
    print_changes(&mut store.watch_with(options), 4).await?;

    node.close().await?;
    std::fs::remove_dir_all(&dir)?;
    Ok(())
}

async fn print_changes(watch: &mut Watch, count: usize) -> Result<(), Box<dyn std::error::Error>> {
    let mut seen = 0;
    while seen < count {
        if let WatchEvent::Change(change) = watch.next().await.ok_or("the store is open")?? {
            println!("{} {:?} {:?}", change.kind.name(), change.key, change.value);
            seen += 1;
        }
    }
    Ok(())
}

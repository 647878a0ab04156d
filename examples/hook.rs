//! A hook that keeps an index: for each page that is put, it writes the links of the page, once.
//!
//! `cargo run --example hook`

#![expect(clippy::print_stdout, reason = "an example prints")]

use std::{fs, os::unix::fs::PermissionsExt as _, time::Duration};

use lattice::{
    Node, NodeConfig,
    hooks::{Hook, Hooks},
    store::consumers::ConsumerStart,
};

// The printed lines become one entry with the page as its cause. A page without links prints
// nothing.
const INDEX: &str = r#"#!/bin/sh
page=${LATTICE_KEY#/pages/}
grep -o 'to:[a-z]*' | while IFS=: read -r _ target; do
    printf '{"key": "/links/%s/%s", "value": "page"}\n' "$target" "$page"
done
"#;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let dir = std::env::temp_dir().join(format!("lattice-hook-{}", std::process::id()));
    let node = Node::open(NodeConfig::new(dir.join("data")).create(true)).await?;
    let script = dir.join("index.sh");
    fs::write(&script, INDEX)?;
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755))?;

    // A daemon starts its hooks itself; this program has only a node.
    let hooks = Hooks::of(node.clone());
    hooks.start();
    let index = Hook {
        on: "/pages/".to_owned(),
        run: vec![script.display().to_string()],
        writes: true,
        ..Hook::default()
    };
    hooks.add("index", index, ConsumerStart::Now).await?;

    let store = node.data();
    store.put("/pages/a", "see to:b and to:c").await?;
    store.put("/pages/b", "back to:a").await?;
    store.put("/pages/c", "the end").await?;
    while hooks.show("index").await?.health.unwrap_or_default().done < 3 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    for run in hooks.logs("index", 10).await? {
        let (key, ops) = (run.key.unwrap_or_default(), run.ops.unwrap_or(0));
        println!(
            "{key}: {} after {} ms, wrote {ops}",
            run.outcome, run.took_ms
        );
    }
    for link in ["/links/a/b", "/links/b/a", "/links/c/a"] {
        println!("{link}: {}", store.get(link.as_bytes()).await?.is_some());
    }

    hooks.stop().await;
    node.close().await?;
    fs::remove_dir_all(&dir)?;
    Ok(())
}

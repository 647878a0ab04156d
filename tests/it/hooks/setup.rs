//! A node with hooks, in a directory of its own.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use lattice::{
    Node, NodeConfig, Store,
    hooks::{Hook, HookStatus, Hooks, RunRecord, Span},
    store::consumers::ConsumerStart,
};

/// A node with hooks, in a directory of its own.
pub(super) struct Bench {
    pub(super) dir: tempfile::TempDir,
    pub(super) node: Node,
    pub(super) hooks: Hooks,
}

impl Bench {
    /// A node whose hooks run.
    pub(super) async fn new() -> Self {
        let bench = Self::idle().await;
        bench.hooks.start();
        bench
    }

    /// A node whose hooks do not run yet.
    pub(super) async fn idle() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let node = Node::open(NodeConfig::new(dir.path().join("data")).create(true));
        let node = node.await.unwrap();
        let hooks = Hooks::of(node.clone());
        Self { dir, node, hooks }
    }

    pub(super) fn store(&self) -> Store {
        self.node.data()
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Writes a script for `sh` and returns the command. It runs in the bench's directory.
    pub(super) fn script(&self, name: &str, text: &str) -> Vec<String> {
        let path = self.path(name);
        fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        vec![format!("./{name}")]
    }

    /// A hook on `/in/` that runs a script, and does not wait long before it tries again.
    pub(super) fn hook(&self, script: &str) -> Hook {
        let count = fs::read_dir(self.dir.path()).unwrap().count();
        Hook {
            on: "/in/".to_owned(),
            run: self.script(&format!("script-{count}.sh"), script),
            dir: Some(self.dir.path().to_owned()),
            backoff: vec![span(10)],
            ..Hook::default()
        }
    }

    pub(super) async fn add(&self, name: &str, hook: Hook) -> HookStatus {
        let added = self.hooks.add(name, hook, ConsumerStart::Now).await;
        added.unwrap()
    }

    pub(super) async fn put(&self, key: &str, value: &str) {
        let store = self.store();
        store.put(key.to_owned(), value.to_owned()).await.unwrap();
    }

    /// Waits until a hook is as wanted.
    pub(super) async fn until(
        &self,
        name: &str,
        is_so: impl Fn(&HookStatus) -> bool,
    ) -> HookStatus {
        let began = Instant::now();
        loop {
            let status = self.hooks.show(name).await.unwrap();
            if is_so(&status) {
                return status;
            }
            assert!(began.elapsed() < PATIENCE, "{status:#?}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Waits until so many changes were acknowledged or are dead letters, and none is outstanding.
    pub(super) async fn settled(&self, name: &str, changes: u64) -> HookStatus {
        let settled = |status: &HookStatus| {
            let consumer = status.consumer.as_ref().unwrap();
            let dead = u64::try_from(consumer.dead).unwrap();
            consumer.outstanding == 0 && consumer.acked + dead >= changes
        };
        self.until(name, settled).await
    }

    pub(super) async fn logs(&self, name: &str) -> Vec<RunRecord> {
        self.hooks.logs(name, 1000).await.unwrap()
    }

    /// The lines of a file that scripts write.
    pub(super) fn lines(&self, name: &str) -> Vec<String> {
        lines(&self.path(name))
    }
}

pub(super) fn lines(path: &Path) -> Vec<String> {
    let text = fs::read_to_string(path).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

pub(super) fn span(ms: u64) -> Span {
    Span(Duration::from_millis(ms))
}

/// Waits until none of them runs: the sender of a kill does not wait for it.
pub(super) async fn until_dead(pids: &[String]) {
    let began = Instant::now();
    while let Some(pid) = pids.iter().find(|pid| is_alive(pid)) {
        assert!(began.elapsed() < PATIENCE, "{pid} lives on");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

// A process that has ended and was not waited for yet counts as dead.
pub(super) fn is_alive(pid: &str) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat
        .rsplit(") ")
        .next()
        .and_then(|rest| rest.chars().next());
    state.is_some_and(|state| state != 'Z' && state != 'X')
}

/// No step takes this long unless it hangs.
pub(super) const PATIENCE: Duration = Duration::from_secs(25);

//! The hooks of a node: adds, removes and lists hooks, and runs the hooks in `hooks.toml`.

use std::{
    collections::BTreeMap,
    mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::{
    task::JoinHandle,
    time::{Instant, timeout_at},
};

use crate::{
    hooks::{
        engine::{Engine, Runner},
        error::{HooksError, causes},
        file::{HookTable, HooksFile, HooksFileError, Stamp},
        hook::{self, Hook},
        journal::{Journal, LogPlace},
        record::RunRecord,
        rehearsal::Rehearsal,
        run::Work,
        status::{HookList, HookState, HookStatus},
    },
    limits::{HOOK_ACK_WAIT, HOOK_LOG_RUNS_MAX, HOOKS_LOOK_EVERY, HOOKS_STOP_GRACE},
    node::{Node, StoreError},
    protocol::consumer::OnGap,
    store::{
        Start, Store,
        consumers::{
            Consumer, ConsumerChanges, ConsumerError, ConsumerOptions, ConsumerStart,
            ConsumerState, ConsumerStatus,
        },
    },
};

/// The hooks of a node. Cheap to clone; all clones share the same hooks.
///
/// Hooks run between `start` and `stop`. Without `start` they can still be listed and changed, for
/// a node that starts later.
#[derive(Debug, Clone)]
pub struct Hooks(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    node: Node,
    file: HooksFile,
    // Locked for a moment, never across await. Under it, only the state of an engine and the node's
    // list of stores are locked.
    state: Mutex<State>,
    // Held, across await, by every call that changes the file or starts engines. Always taken
    // before `state`.
    changing: tokio::sync::Mutex<()>,
}

#[derive(Debug, Default)]
struct State {
    // The task that follows the file. Set by `start`, taken by `stop` and `abort`.
    watcher: Option<JoinHandle<()>>,
    // Engines that run, by the name of their hook: at most one for each. Added only under
    // `changing`.
    engines: BTreeMap<String, Engine>,
    // Stopped engines whose last runs have not ended. Removed once the runs have ended.
    ending: Vec<Engine>,
    // Stamp of the file that was read last, valid or not. `None`: the file was not read yet.
    seen: Option<Stamp>,
    // Hooks of the last valid file.
    table: HookTable,
    // Mistake in the file that was read last. `None`: the file is valid.
    broken: Option<String>,
    // Reasons why hooks of `table` could not start, by name. A reason is cleared when its hook
    // starts.
    troubles: BTreeMap<String, String>,
}

impl Hooks {
    /// Returns the hooks of `node`. No hook runs yet.
    pub fn of(node: Node) -> Self {
        Self(Arc::new(Inner {
            file: HooksFile::of(node.data_dir()),
            node,
            state: Mutex::default(),
            changing: tokio::sync::Mutex::default(),
        }))
    }

    /// Runs the hooks in `hooks.toml` and follows changes of the file. Must be called inside a
    /// tokio runtime.
    pub fn start(&self) {
        let hooks = self.clone();
        let watcher = tokio::spawn(async move {
            loop {
                hooks.follow().await;
                tokio::time::sleep(HOOKS_LOOK_EVERY).await;
            }
        });
        self.state().watcher = Some(watcher);
    }

    /// Stops all hooks. They take no more changes, and their runs have `HOOKS_STOP_GRACE` to
    /// finish. Runs that have not finished are ended; their changes run again after the next start.
    pub async fn stop(&self) {
        let watcher = self.state().watcher.take();
        if let Some(watcher) = watcher {
            watcher.abort();
            // Waits until the watcher has really ended. The error only reports the abort.
            watcher.await.unwrap_or_default();
        }
        let mut engines = {
            let mut state = self.state();
            let mut engines = mem::take(&mut state.ending);
            engines.extend(mem::take(&mut state.engines).into_values());
            engines
        };
        engines.iter().for_each(Engine::stop);
        let deadline = Instant::now() + HOOKS_STOP_GRACE;
        for engine in &mut engines {
            if timeout_at(deadline, engine.ended()).await.is_err() {
                engine.abort().await;
            }
        }
    }

    /// Ends all hooks and their runs now, without waiting for the end.
    pub fn abort(&self) {
        let mut state = self.state();
        if let Some(watcher) = state.watcher.take() {
            watcher.abort();
        }
        // Dropping an engine ends its runs.
        state.engines.clear();
        state.ending.clear();
    }

    /// Adds a hook, durably. It runs on changes after `from`. A hook that exists with the same
    /// definition is left as it is.
    ///
    /// On return the hook is in `hooks.toml` and has a position; a running node starts it within a
    /// second.
    ///
    /// # Errors
    /// `Hook`, `Exists`, `File`, `Store`, `Consumer`.
    pub async fn add(
        &self,
        name: &str,
        hook: Hook,
        from: ConsumerStart,
    ) -> Result<HookStatus, HooksError> {
        hook.check(name)?;
        {
            let _one = self.0.changing.lock().await;
            let table = self.0.file.read()?;
            match table.get(name) {
                Some(there) if *there == hook => {}
                Some(_other) => {
                    return Err(HooksError::Exists {
                        name: name.to_owned(),
                    });
                }
                None => {
                    let store = self.store_of(&hook)?;
                    let consumer = store.consumer(&Hook::consumer(name));
                    let shown = consumer.show().await;
                    let is_new = matches!(shown, Err(ConsumerError::Unknown { .. }));
                    // Creates the consumer before the hook is in the file, so that a listed hook
                    // misses no change.
                    place(&consumer, &hook, from).await?;
                    if let Err(error) = self.0.file.put(name, &hook) {
                        // Deletes the consumer if this call made it. If the delete also fails, the
                        // hook is listed as `off` and can be removed.
                        if is_new {
                            consumer.delete().await.unwrap_or_default();
                        }
                        return Err(error.into());
                    }
                }
            }
        }
        self.show(name).await
    }

    /// Removes a hook with its consumer, dead letters and log. Its runs are ended, and changes that
    /// have not run never run.
    ///
    /// # Errors
    /// `Unknown`, `File`, `Consumer`.
    pub async fn remove(&self, name: &str) -> Result<(), HooksError> {
        hook::check_name(name)?;
        let _one = self.0.changing.lock().await;
        let mut found = self.0.file.remove(name)?;
        let engine = {
            let mut state = self.state();
            state.table.remove(name);
            state.engines.remove(name)
        };
        if let Some(mut engine) = engine {
            engine.abort().await;
        }
        for consumer in self.consumers(name).await? {
            consumer.delete().await?;
            found = true;
        }
        Journal::of(self.0.node.data_dir(), name).remove();
        match found {
            true => Ok(()),
            false => Err(unknown(name)),
        }
    }

    /// Pauses or resumes a hook, durably. A paused hook gets no changes, even after a restart.
    ///
    /// # Errors
    /// `Unknown`, `Consumer`.
    pub async fn set_paused(&self, name: &str, paused: bool) -> Result<HookStatus, HooksError> {
        let consumers = self.consumers(name).await?;
        if consumers.is_empty() {
            return Err(unknown(name));
        }
        for consumer in consumers {
            match paused {
                true => consumer.pause().await?,
                false => consumer.resume().await?,
            }
        }
        self.show(name).await
    }

    /// Returns the last `count` runs of a hook, the oldest first.
    ///
    /// # Errors
    /// `Unknown`, `Log`.
    pub async fn logs(&self, name: &str, count: usize) -> Result<Vec<RunRecord>, HooksError> {
        Ok(self.logs_after(name, None, count).await?.0)
    }

    /// Returns runs of a hook, the oldest first, and the place after the last of them.
    ///
    /// Without `after`, returns the last `count` runs; with it, the first `count` runs after that
    /// place. `count` is limited to 1 to `HOOK_LOG_RUNS_MAX`.
    ///
    /// # Errors
    /// `Unknown`, `Log`.
    pub async fn logs_after(
        &self,
        name: &str,
        after: Option<LogPlace>,
        count: usize,
    ) -> Result<(Vec<RunRecord>, LogPlace), HooksError> {
        hook::check_name(name)?;
        let count = count.clamp(1, HOOK_LOG_RUNS_MAX);
        let (runs, place) = self.runs(name, after, count).await?;
        // A hook without runs has an empty log; an unknown hook is an error.
        let is_known = || self.state().table.contains_key(name);
        if runs.is_empty() && !is_known() {
            self.show(name).await?;
        }
        Ok((runs, place))
    }

    /// Returns the status of a hook.
    ///
    /// # Errors
    /// `Unknown`, and the errors of `list`.
    pub async fn show(&self, name: &str) -> Result<HookStatus, HooksError> {
        let all = self.list().await?.hooks.into_iter();
        let mut named = all.filter(|hook| hook.name == name);
        named.next().ok_or_else(|| unknown(name))
    }

    /// Returns the status of all hooks: hooks in `hooks.toml`, and hooks that only have a consumer.
    ///
    /// # Errors
    /// `Consumer`, `Log`; and `File` if the hooks are not started. Once the hooks are started, a
    /// mistake in the file is in the list instead.
    pub async fn list(&self) -> Result<HookList, HooksError> {
        if self.is_started() {
            self.follow().await;
        }
        let (table, broken) = match self.is_started() {
            true => {
                let state = self.state();
                (state.table.clone(), state.broken.clone())
            }
            false => (self.0.file.read()?, None),
        };
        let mut places = BTreeMap::new();
        for store in self.0.node.open_stores() {
            for consumer in store.consumers().await? {
                if let Some(name) = Hook::of_consumer(&consumer.name) {
                    let name = name.to_owned();
                    places
                        .entry(name)
                        .or_insert_with(Vec::new)
                        .push((store.id(), consumer));
                }
            }
        }
        let mut names: Vec<&String> = table.keys().chain(places.keys()).collect();
        names.sort();
        names.dedup();
        let mut hooks = Vec::new();
        for name in names {
            let hook = table.get(name);
            let store = hook.and_then(|hook| self.store_of(hook).ok());
            let mut there = places.get(name).into_iter().flatten();
            let consumer = there.find(|(id, _)| store.as_ref().is_none_or(|it| it.id() == *id));
            let consumer = consumer.map(|(_, status)| status.clone());
            hooks.push(self.status(name, hook, consumer).await?);
        }
        Ok(HookList { hooks, broken })
    }

    async fn status(
        &self,
        name: &str,
        hook: Option<&Hook>,
        consumer: Option<ConsumerStatus>,
    ) -> Result<HookStatus, HooksError> {
        let last = self.runs(name, None, 1).await?.0.pop();
        let state = self.state();
        let health = state.engines.get(name).map(|engine| engine.runner.report());
        let trouble = state.troubles.get(name).cloned();
        let trouble = trouble.or_else(|| health.as_ref().and_then(|health| health.trouble.clone()));
        let (is, reason) = match (consumer.as_ref().map(|status| &status.state), trouble) {
            (Some(ConsumerState::Stopped { reason }), _) => (HookState::Stopped, reason.clone()),
            (_, Some(trouble)) => (HookState::Trouble, trouble),
            (Some(ConsumerState::Paused), _) => (HookState::Paused, String::new()),
            _other if hook.is_none() || health.is_none() => (HookState::Off, String::new()),
            (Some(ConsumerState::Waiting { .. }), _) => (
                HookState::Waiting,
                "entries that this node had are missing; peers have to send them".to_owned(),
            ),
            _fine => (HookState::Running, String::new()),
        };
        Ok(HookStatus {
            name: name.to_owned(),
            hook: hook.cloned(),
            state: is,
            reason,
            consumer,
            health,
            last,
        })
    }

    /// Returns a rehearsal of a hook on the changes since `start`; see [`Rehearsal`].
    ///
    /// # Errors
    /// `Unknown`, `File`, `Store`, `Post`.
    pub fn rehearse(&self, name: &str, start: Start, dry: bool) -> Result<Rehearsal, HooksError> {
        let hook = self.0.file.read()?.remove(name);
        let hook = hook.ok_or_else(|| unknown(name))?;
        let store = self.store_of(&hook)?;
        let work = Work::new(name, hook, store, &self.0.node)?;
        Ok(Rehearsal::new(work, start, dry))
    }

    /// Reads the file now if it has changed, instead of at the next check. Returns the mistake in it;
    /// `None` if it is valid.
    pub async fn reload(&self) -> Option<String> {
        self.follow().await;
        self.state().broken.clone()
    }

    // Reads the file if it has changed, and makes the engines that run match the hooks in it.
    async fn follow(&self) {
        let _one = self.0.changing.lock().await;
        let stamp = self.0.file.stamp();
        if self.state().seen != Some(stamp) {
            let read = self.0.file.read();
            let mut state = self.state();
            state.seen = Some(stamp);
            match read {
                Ok(table) => {
                    state.table = table;
                    state.broken = None;
                }
                Err(error) => {
                    let what = match &error {
                        HooksFileError::Untrusted(error) => error.with_remedy(),
                        other => other.to_string(),
                    };
                    tracing::warn!("{what}; the hooks run as before");
                    state.broken = Some(what);
                }
            }
        }
        let table = self.state().table.clone();
        self.end_others(&table);
        for (name, hook) in &table {
            if self.state().engines.contains_key(name) {
                continue;
            }
            let started = self.begin(name, hook).await;
            let mut state = self.state();
            match started {
                Ok(engine) => {
                    state.troubles.remove(name);
                    let before = state.engines.insert(name.clone(), engine);
                    assert!(before.is_none(), "a hook has one engine at a time");
                }
                // The next check tries again. The same reason is logged once.
                Err(error) => {
                    let what = causes(&error);
                    if state.troubles.get(name) != Some(&what) {
                        tracing::warn!(hook = name, "cannot start a hook: {what}");
                        state.troubles.insert(name.clone(), what);
                    }
                }
            }
        }
    }

    // Stops engines whose hook has changed in `table`, is not in it, or has lost its consumer.
    // Their last runs continue with the old definition.
    fn end_others(&self, table: &HookTable) {
        let mut state = self.state();
        let is_same = |name: &String, engine: &mut Engine| {
            let runner = &engine.runner;
            !engine.is_over()
                && table.get(name).is_some_and(|hook| {
                    let store = self.store_of(hook);
                    *hook == runner.work.hook
                        && store.is_ok_and(|store| store.id() == runner.work.store.id())
                })
        };
        let State { engines, .. } = &mut *state;
        let others: Vec<Engine> = engines
            .extract_if(.., |name, engine| !is_same(name, engine))
            .map(|(_, engine)| engine)
            .collect();
        others.iter().for_each(Engine::stop);
        state.ending.extend(others);
        state.ending.retain(|engine| !engine.is_over());
        state.troubles.retain(|name, _| table.contains_key(name));
    }

    fn store_of(&self, hook: &Hook) -> Result<Store, StoreError> {
        self.0.node.store_of_keys(&hook.store, [hook.prefix()])
    }

    async fn begin(&self, name: &str, hook: &Hook) -> Result<Engine, HooksError> {
        let store = self.store_of(hook)?;
        let consumer = store.consumer(&Hook::consumer(name));
        place(&consumer, hook, ConsumerStart::Now).await?;
        let journal = Journal::of(self.0.node.data_dir(), name);
        let work = Work::new(name, hook.clone(), store, &self.0.node)?;
        Ok(Engine::start(Arc::new(Runner::new(work, journal))))
    }

    // Returns the consumers of a hook in all stores: usually one.
    async fn consumers(&self, name: &str) -> Result<Vec<Consumer>, ConsumerError> {
        let mut found = Vec::new();
        for store in self.0.node.open_stores() {
            let consumer = store.consumer(&Hook::consumer(name));
            match consumer.show().await {
                Ok(_status) => found.push(consumer),
                Err(ConsumerError::Unknown { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(found)
    }

    async fn runs(
        &self,
        name: &str,
        after: Option<LogPlace>,
        count: usize,
    ) -> Result<(Vec<RunRecord>, LogPlace), HooksError> {
        let journal = Journal::of(self.0.node.data_dir(), name);
        let reading = tokio::task::spawn_blocking(move || journal.runs(after, count));
        let read = reading.await.map_err(|_stopped| ConsumerError::Closed)?;
        read.map_err(|source| HooksError::Log {
            name: name.to_owned(),
            source,
        })
    }

    fn is_started(&self) -> bool {
        self.state().watcher.is_some()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// Creates the consumer of a hook at `from`. An existing consumer keeps its position and gets the
// prefixes of the hook, and its step at a gap if the hook has one.
async fn place(consumer: &Consumer, hook: &Hook, from: ConsumerStart) -> Result<(), ConsumerError> {
    let created = consumer.create(ConsumerOptions {
        from,
        prefixes: hook.prefixes(),
        ack_wait: HOOK_ACK_WAIT,
        // The hook counts attempts by its settings, which may change while the consumer stays the
        // same.
        max_deliver: None,
        on_gap: hook.on_gap.unwrap_or(OnGap::State),
        ..ConsumerOptions::default()
    });
    match created.await {
        Ok(_status) => Ok(()),
        Err(ConsumerError::Exists { .. }) => {
            let prefixes = Some(hook.prefixes());
            let changes = ConsumerChanges {
                prefixes,
                on_gap: hook.on_gap,
                ..ConsumerChanges::default()
            };
            consumer.set(changes).await
        }
        Err(error) => Err(error),
    }
}

fn unknown(name: &str) -> HooksError {
    HooksError::Unknown {
        name: name.chars().take(80).collect(),
    }
}

//! `lock`: runs a command while this node holds a key.

use std::{
    ffi::OsString,
    os::unix::process::ExitStatusExt as _,
    process::ExitStatus,
    time::{Duration, Instant},
};

use bytes::Bytes;
use clap::Args;
use lattice::{
    api::{client::Client, whole},
    wire::api,
};
use rustix::process::{Pid, Signal, kill_process};
use serde::Serialize;
use tokio::process::{Child, Command};

use crate::cli::{
    command::watch,
    exit::{Exit, Failure},
    input::{
        key::KeyFlags,
        time::{millis, parse_duration},
    },
    output::{json::to_json, print::escape},
    session::Context,
    signals::{self, second_interrupt},
};

/// Run a command while holding a lock, which others wait for
///
/// The lock is a key with a TTL: it is put if it has no value, renewed three times in each TTL while the
/// command runs, and deleted afterwards. Others wait until it is deleted or expires. The exit code is that
/// of the command. If the lock is lost meanwhile, the command gets SIGTERM, 5 s later SIGKILL, and the exit
/// code is 4.
///
/// Among nodes that reach each other, one at a time holds the lock. While nodes are cut off from each other,
/// one on each side may hold it; when they meet, all but one lose it. The same happens if the clocks of two
/// nodes differ by more than the TTL: for the one that is ahead, a lock of the other has expired already. So a
/// lock saves work that is done twice; it does not protect what must never be done twice. For that, use a
/// store with a quorum.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  lattice lock /locks/backup -- ./backup.sh
  lattice lock /locks/deploy --ttl 10s --timeout 1m -- ./deploy.sh     exit 8 if it is not free in a minute
  lattice lock /locks/report --timeout 0s -- ./report.sh               exit 8 at once if another has it")]
pub(crate) struct Lock {
    /// The key; its value is the machine and the process that hold it
    key: OsString,
    #[command(flatten)]
    flags: KeyFlags,
    /// How long the lock outlives a process or a machine that dies; at least 3s
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = parse_duration)]
    ttl: Duration,
    /// Give up after waiting this long, with exit 8 [default: wait without end]
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    timeout: Option<Duration>,
    /// The command and its arguments; it gets LATTICE_LOCK, the key, in its environment
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

impl Lock {
    pub(crate) async fn run(self, context: &mut Context) -> Result<(), Failure> {
        if self.ttl < TTL_MIN {
            let message = format!("--ttl {:?} is too short: at least {TTL_MIN:?}", self.ttl);
            return Err(Failure::usage("bad_ttl", message));
        }
        let mut signal = std::pin::pin!(signals::listen_for_end()?);
        tokio::spawn(second_interrupt());
        let key = self.flags.key(self.key.clone())?;
        let (client, _reconnects) = context.client_to_follow().await?;
        let mut held = Held {
            client,
            store: context.store.clone(),
            name: escape(&key).into_owned(),
            key,
            value: to_json(&Holder::this()).into(),
            ttl: self.ttl,
            head: Bytes::new(),
            until: Instant::now(),
        };
        let taken = tokio::select! {
            taken = held.wait_and_take(self.timeout) => taken,
            () = &mut signal => Err(Failure::interrupted()),
        };
        if let Err(failure) = taken {
            // It may have put the key already. If it cannot delete it, or another has the lock, the TTL ends it.
            if !held.head.is_empty() {
                drop(held.release().await);
            }
            return Err(failure);
        }
        let ran = self.run_command(&mut held, signal).await;
        let released = held.release().await;
        let status = ran?;
        if !released? {
            return Err(held.lost());
        }
        match status.code().map(u8::try_from) {
            Some(Ok(0)) => Ok(()),
            Some(Ok(code)) => Err(Failure::of_program(code)),
            _killed => {
                let signal = status.signal().and_then(|signal| u8::try_from(signal).ok());
                Err(Failure::of_program(
                    signal.map_or(1, |signal| signal.saturating_add(128)),
                ))
            }
        }
    }

    // Runs the command until it ends, and renews the lock meanwhile.
    async fn run_command(
        &self,
        held: &mut Held,
        signal: impl Future<Output = ()>,
    ) -> Result<ExitStatus, Failure> {
        let (program, arguments) = self.command.split_first().expect("clap requires one");
        let mut command = Command::new(program);
        command.args(arguments).kill_on_drop(true);
        command.env("LATTICE_LOCK", key_text(&held.key));
        let mut child = command.spawn().map_err(|error| {
            let program = program.to_string_lossy();
            Failure::new(
                Exit::Usage,
                "command",
                format!("cannot run {program}: {error}"),
            )
        })?;
        let mut signal = std::pin::pin!(signal);
        let mut is_signalled = false;
        loop {
            let renewal = tokio::time::sleep(held.ttl / RENEWALS_PER_TTL);
            tokio::select! {
                status = child.wait() => return status.map_err(|error| wait_failed(&error)),
                () = &mut signal, if !is_signalled => {
                    is_signalled = true;
                    terminate(&child);
                    continue;
                }
                () = renewal => {}
            }
            if held.renew().await.is_break() {
                terminate(&child);
                if tokio::time::timeout(KILL_AFTER, child.wait())
                    .await
                    .is_err()
                {
                    child.kill().await.map_err(|error| wait_failed(&error))?;
                }
                return Err(held.lost());
            }
        }
    }
}

fn wait_failed(error: &std::io::Error) -> Failure {
    Failure::failed(
        "command",
        format!("the command cannot be waited for: {error}"),
    )
}

fn terminate(child: &Child) {
    let pid = child.id().and_then(|id| i32::try_from(id).ok());
    if let Some(pid) = pid.and_then(Pid::from_raw) {
        // An error: it has ended.
        kill_process(pid, Signal::TERM).unwrap_or_default();
    }
}

fn key_text(key: &[u8]) -> OsString {
    use std::os::unix::ffi::OsStringExt as _;
    // A variable cannot have a NUL.
    OsString::from_vec(key.iter().copied().filter(|byte| *byte != 0).collect())
}

/// A lock that this process holds, or waits for.
struct Held {
    client: Client,
    store: String,
    key: Bytes,
    // The key, for messages.
    name: String,
    value: Bytes,
    ttl: Duration,
    // The entry that holds the lock.
    head: Bytes,
    // Without a renewal, it is over then.
    until: Instant,
}

impl Held {
    async fn wait_and_take(&mut self, timeout: Option<Duration>) -> Result<(), Failure> {
        let began = Instant::now();
        let request = api::WatchRequest {
            exact: true,
            start: Some(api::watch_request::Start::Now(true)),
            ..watch::request(self.store.clone(), self.key.clone())
        };
        // From before the first attempt: no release is missed.
        let mut changes = self.client.watch(request).await?.into_inner();
        loop {
            if self.take().await? && self.is_settled().await? {
                return Ok(());
            }
            let left = timeout.map(|timeout| timeout.saturating_sub(began.elapsed()));
            if left.is_some_and(|left| left.is_zero()) {
                return Err(self.not_free(began.elapsed()).await);
            }
            let pause = left.map_or(LOOK_EVERY, |left| left.min(LOOK_EVERY));
            match tokio::time::timeout(pause, changes.message()).await {
                Ok(Ok(None)) => {
                    let what = "the node ended the watch";
                    return Err(Failure::new(Exit::Unavailable, "unavailable", what));
                }
                Ok(Err(status)) => return Err(status.into()),
                Ok(Ok(Some(_))) | Err(_) => {}
            }
        }
    }

    // Puts the key if it has no value.
    async fn take(&mut self) -> Result<bool, Failure> {
        self.put(true).await
    }

    async fn put(&mut self, is_new: bool) -> Result<bool, Failure> {
        let began = Instant::now();
        let request = api::PutRequest {
            store: self.store.clone(),
            key: self.key.clone(),
            value: self.value.clone(),
            ttl_ms: Some(millis(self.ttl)),
            if_absent: is_new,
            if_head: if is_new {
                Bytes::new()
            } else {
                self.head.clone()
            },
        };
        match self.client.put(request).await.map_err(Failure::from) {
            Ok(written) => {
                self.head = written.into_inner().entry;
                self.until = began + self.ttl;
                Ok(true)
            }
            Err(refused) if refused.code == "precondition_failed" => Ok(false),
            Err(failed) => Err(failed),
        }
    }

    // Two nodes may have put the key before they heard of each other. Waits until each member that is
    // connected has what this node wrote, and this node what they wrote: the winner is the same everywhere
    // then. A member that does not answer in time counts as cut off.
    async fn is_settled(&mut self) -> Result<bool, Failure> {
        let settling = async {
            loop {
                let peers = whole::peers(&mut self.client).await?.peers;
                let mut online = peers.iter().filter(|peer| peer.online);
                if online.all(|peer| peer.ahead == Some(0) && peer.behind == Some(0)) {
                    return Ok::<_, Failure>(());
                }
                tokio::time::sleep(SETTLE_LOOK).await;
            }
        };
        if let Ok(settled) = tokio::time::timeout(SETTLE_MAX, settling).await {
            settled?;
        }
        let request = api::GetRequest {
            store: self.store.clone(),
            key: self.key.clone(),
            at_ms: None,
        };
        let item = self.client.get(request).await?.into_inner().item;
        let winner = item.and_then(|item| item.entry).unwrap_or_default();
        Ok(winner.id == self.head)
    }

    // Renews the lock. Breaks when another has it, or when it may have expired.
    async fn renew(&mut self) -> std::ops::ControlFlow<()> {
        match self.put(false).await {
            Ok(true) => std::ops::ControlFlow::Continue(()),
            Ok(false) => std::ops::ControlFlow::Break(()),
            // The node may be back soon.
            Err(_unavailable) if Instant::now() + self.ttl / RENEWALS_PER_TTL < self.until => {
                std::ops::ControlFlow::Continue(())
            }
            Err(_unavailable) => std::ops::ControlFlow::Break(()),
        }
    }

    // Deletes the key. Returns false when another has it.
    async fn release(&mut self) -> Result<bool, Failure> {
        let request = api::DeleteRequest {
            store: self.store.clone(),
            key: self.key.clone(),
            if_head: self.head.clone(),
        };
        match self.client.delete(request).await.map_err(Failure::from) {
            Ok(_deleted) => Ok(true),
            Err(refused) if refused.code == "precondition_failed" => Ok(false),
            Err(failed) => Err(failed),
        }
    }

    fn lost(&self) -> Failure {
        let message = format!(
            "the lock {} was lost: another holds it, or it expired",
            self.name
        );
        Failure::new(Exit::Precondition, "lock_lost", message).hint(
            "nodes that were cut off from each other may hold a lock at the same time; a longer --ttl \
            outlives a node that is away for a while",
        )
    }

    async fn not_free(&mut self, waited: Duration) -> Failure {
        let request = api::GetRequest {
            store: self.store.clone(),
            key: self.key.clone(),
            at_ms: None,
        };
        let item = self.client.get(request).await.ok();
        let item = item.and_then(|reply| reply.into_inner().item);
        // Only for the message: it may be free by now, or the node gone.
        let holder = item.map(|item| format!(": {}", escape(&item.value)));
        let holder = holder.unwrap_or_default();
        let waited = waited.as_secs();
        let message = format!(
            "the lock {} is not free after {waited} s{holder}",
            self.name
        );
        Failure::new(Exit::TimedOut, "lock_held", message)
            .hint("it is free when its holder ends, or at the end of its TTL if that has died")
    }
}

/// The value of a lock.
#[derive(Serialize)]
struct Holder {
    host: String,
    pid: u32,
}

impl Holder {
    fn this() -> Self {
        let host = rustix::system::uname()
            .nodename()
            .to_string_lossy()
            .into_owned();
        Self {
            host,
            pid: std::process::id(),
        }
    }
}

const TTL_MIN: Duration = Duration::from_secs(3);
/// Renewals in the time of the TTL: two may fail.
const RENEWALS_PER_TTL: u32 = 3;
/// Time from SIGTERM to SIGKILL for a command whose lock is lost.
const KILL_AFTER: Duration = Duration::from_secs(5);
/// Time between two looks at the lock if no change of it comes.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// Longest wait for the members that are connected.
const SETTLE_MAX: Duration = Duration::from_secs(5);
const SETTLE_LOOK: Duration = Duration::from_millis(20);

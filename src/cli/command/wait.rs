//! `wait`: waits until the node meets conditions, for scripts.

use std::{
    ffi::OsString,
    time::{Duration, Instant},
};

use bytes::Bytes;
use clap::Args;
use lattice::{
    api::{client::Client, whole},
    wire::api,
};
use serde::Serialize;

use crate::cli::{
    exit::{Exit, Failure},
    input::{
        key::KeyFlags,
        time::{millis, parse_duration},
    },
    output::print::escape,
    session::{self, Context},
};

/// Wait until the node answers and meets the given conditions
///
/// All conditions must hold at the same time. Waits for the node to be started, too, but does not
/// start it.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  lattice up & lattice wait                             until it serves
  lattice wait --peers 2 --caught-up --timeout 1m
  lattice wait --key /jobs/42/done --timeout 10m && lattice get /jobs/42/done")]
pub(crate) struct Wait {
    /// Until this node has every entry of the connected members; at least one must be connected,
    /// unless there are no others
    #[arg(long)]
    caught_up: bool,
    /// Until this many other members are connected
    #[arg(long, value_name = "N")]
    peers: Option<usize>,
    /// Until this key has a value; may be repeated
    #[arg(long = "key", value_name = "KEY")]
    keys: Vec<OsString>,
    #[command(flatten)]
    flags: KeyFlags,
    /// Give up after this long, with exit 8, and report what is missing
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    timeout: Option<Duration>,
}

impl Wait {
    pub(crate) async fn run(self, context: &mut Context) -> Result<(), Failure> {
        let began = Instant::now();
        let keys = self.flags.keys(self.keys.clone())?;
        let mut client = None;
        loop {
            // A node that hangs counts as not running.
            let check = self.check(context, &keys, &mut client);
            let missing = match tokio::time::timeout(CHECK_MAX, check).await {
                Ok(Ok(None)) => break,
                Ok(Ok(Some(missing))) => missing,
                Ok(Err(failure)) if failure.exit == Exit::Unavailable => failure.message,
                Ok(Err(failure)) => return Err(failure),
                Err(_silent) => format!("the node has not answered for {CHECK_MAX:?}"),
            };
            if let Some(timeout) = self.timeout.filter(|it| began.elapsed() >= *it) {
                let message = format!("timed out after {timeout:?}: {missing}");
                return Err(Failure::new(Exit::TimedOut, "timed_out", message));
            }
            tokio::time::sleep(CHECK_INTERVAL).await;
        }
        if context.out.json {
            let waited_ms = millis(began.elapsed());
            let r#type = "ready";
            return context.out.object(&Ready { r#type, waited_ms });
        }
        Ok(())
    }

    // Returns the first condition that does not hold now, or `None` if all hold.
    async fn check(
        &self,
        context: &Context,
        keys: &[Bytes],
        client: &mut Option<Client>,
    ) -> Result<Option<String>, Failure> {
        if client.is_none() {
            *client = session::connect(&context.place).await?;
        }
        let Some(client) = client else {
            let dir = context.place.data_dir.display();
            return Ok(Some(format!("no node is running on {dir}")));
        };
        for key in keys {
            let request = api::GetRequest {
                store: context.store.clone(),
                key: key.clone(),
                at_ms: None,
            };
            if client.get(request).await?.into_inner().item.is_none() {
                return Ok(Some(format!("{} has no value", escape(key))));
            }
        }
        let peers = whole::peers(client).await?.peers;
        Ok(self
            .missing_peers(&peers)
            .or_else(|| self.missing_entries(&peers)))
    }

    fn missing_peers(&self, peers: &[api::Peer]) -> Option<String> {
        let online = peers.iter().filter(|peer| peer.online).count();
        let wanted = self.peers.filter(|wanted| online < *wanted)?;
        let members = if online == 1 {
            "member is"
        } else {
            "members are"
        };
        Some(format!(
            "{online} other {members} connected, and --peers waits for {wanted}"
        ))
    }

    fn missing_entries(&self, peers: &[api::Peer]) -> Option<String> {
        let is_other = |peer: &&api::Peer| peer.role != "removed" && !peer.dormant;
        if !self.caught_up || !peers.iter().any(|peer| is_other(&peer)) {
            return None;
        }
        let mut online = peers.iter().filter(|peer| peer.online).peekable();
        if online.peek().is_none() {
            return Some("no member is connected".to_owned());
        }
        let mut ahead = online.map(|peer| peer.ahead);
        let ahead = ahead.try_fold(0_u64, |sum, ahead| Some(sum.saturating_add(ahead?)));
        match ahead {
            Some(0) => None,
            Some(entries) => Some(format!(
                "{entries} entries of other members are missing here"
            )),
            None => Some("a member has not reported its entries yet".to_owned()),
        }
    }
}

/// The object that `wait --json` prints at its end.
#[derive(Serialize)]
struct Ready {
    r#type: &'static str,
    waited_ms: u64,
}

/// Time between two checks.
const CHECK_INTERVAL: Duration = Duration::from_millis(50);
/// Longest time for one check.
const CHECK_MAX: Duration = Duration::from_secs(5);

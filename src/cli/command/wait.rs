//! `wait`: for scripts, until the node is where they need it.

use std::time::{Duration, Instant};

use clap::Args;
use lattice::{api::client::Client, wire::api};
use serde::Serialize;

use crate::cli::{
    exit::{Exit, Failure},
    input::time::{millis, parse_duration},
    output::print::escape,
    session::{self, Context},
};

/// Wait until the node answers, and for what else is asked
///
/// All of it at one time. Also waits for the node itself to be started; it starts none.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  lattice up & lattice wait                             until it serves
  lattice wait --peers 2 --caught-up --timeout 1m
  lattice wait --key /jobs/42/done --timeout 10m && lattice get /jobs/42/done")]
pub(crate) struct Wait {
    /// Until this node has all that the members it is connected with have; one at least, unless
    /// there are no others
    #[arg(long)]
    caught_up: bool,
    /// Until so many other members are connected
    #[arg(long, value_name = "N")]
    peers: Option<usize>,
    /// Until this key has a value; may come several times
    #[arg(long = "key", value_name = "KEY")]
    keys: Vec<String>,
    /// Give up after this long, with exit 8, and say what is missing
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    timeout: Option<Duration>,
}

impl Wait {
    /// Runs the command.
    pub(crate) async fn run(self, context: &mut Context) -> Result<(), Failure> {
        let began = Instant::now();
        let mut client = None;
        loop {
            // A node that hangs is as one that is not there.
            let look = self.look(context, &mut client);
            let missing = match tokio::time::timeout(LOOK_MAX, look).await {
                Ok(Ok(None)) => break,
                Ok(Ok(Some(missing))) => missing,
                Ok(Err(failure)) if failure.exit == Exit::Unavailable => failure.message,
                Ok(Err(failure)) => return Err(failure),
                Err(_silent) => format!("the node has not answered for {LOOK_MAX:?}"),
            };
            if let Some(timeout) = self.timeout.filter(|it| began.elapsed() >= *it) {
                let message = format!("ended after {timeout:?}: {missing}");
                return Err(Failure::new(Exit::TimedOut, "timed_out", message));
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        if context.out.json {
            let waited_ms = millis(began.elapsed());
            let r#type = "ready";
            return context.out.object(&Ready { r#type, waited_ms });
        }
        Ok(())
    }

    // What is missing now; `None`: nothing.
    async fn look(
        &self,
        context: &Context,
        client: &mut Option<Client>,
    ) -> Result<Option<String>, Failure> {
        if client.is_none() {
            *client = session::connect(&context.place).await?;
        }
        let Some(client) = client else {
            let dir = context.place.data_dir.display();
            return Ok(Some(format!("no node is running on {dir}")));
        };
        for key in &self.keys {
            let request = api::GetRequest {
                store: context.store.clone(),
                key: key.clone().into(),
                at_ms: None,
            };
            if client.get(request).await?.into_inner().item.is_none() {
                return Ok(Some(format!("{} has no value", escape(key.as_bytes()))));
            }
        }
        let peers = client.list_peers(api::ListPeersRequest {}).await?;
        let peers = peers.into_inner().peers;
        Ok(self
            .lacks_peers(&peers)
            .or_else(|| self.lacks_entries(&peers)))
    }

    fn lacks_peers(&self, peers: &[api::Peer]) -> Option<String> {
        let online = peers.iter().filter(|peer| peer.online).count();
        let wanted = self.peers.filter(|wanted| online < *wanted)?;
        Some(format!("{online} of {wanted} members are connected"))
    }

    fn lacks_entries(&self, peers: &[api::Peer]) -> Option<String> {
        let is_other = |peer: &&api::Peer| peer.role != "removed" && !peer.dormant;
        if !self.caught_up || !peers.iter().any(|peer| is_other(&peer)) {
            return None;
        }
        let mut online = peers.iter().filter(|peer| peer.online).peekable();
        if online.peek().is_none() {
            return Some("no member is connected".to_owned());
        }
        let ahead: Option<u64> = online.map(|peer| peer.ahead).sum();
        match ahead {
            Some(0) => None,
            Some(entries) => Some(format!("{entries} entries of other members are not here")),
            None => Some("a member has not said what it has".to_owned()),
        }
    }
}

/// The end of `wait --json`.
#[derive(Serialize)]
struct Ready {
    r#type: &'static str,
    waited_ms: u64,
}

/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// What a look may take.
const LOOK_MAX: Duration = Duration::from_secs(5);

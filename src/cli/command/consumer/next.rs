//! `consumer next`: takes the next changes of a consumer.

use std::{io, time::Duration};

use clap::Args;
use lattice::{api::client::Client, wire::api};
use rustix::fs::FileType;

use crate::cli::{
    command::{
        consumer::{name::Name, object, show::idle},
        watch::line,
    },
    exit::{Exit, Failure},
    input::time::{millis, parse_duration},
    output::{
        object::incomplete,
        print::{Output, stdout_closed},
    },
    reconnect::Backoff,
    session::{Context, Lifetime},
};

/// Take the next changes
///
/// Each line begins with the id that `ack`, `nack`, `term` and `extend` take. Changes taken without
/// --stream are reserved for the caller during the consumer's --ack-wait. With --stream, changes
/// come for as long as this runs, each when the one before is answered (see --prefetch). If it ends
/// or dies, changes that were not acknowledged go to other processes.
///
/// With --ack into a pipe, a change is acknowledged once the process behind the pipe has read its line:
/// if that process dies over its work, the work is not done again. Where it must be, leave --ack out
/// and acknowledge each change when it is done, as in the loop below.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  lattice consumer next billing
  lattice consumer next billing -n 100 --timeout 0s --json
  lattice consumer next billing --stream --ack >> orders.log
  lattice consumer next billing --stream --json | while read -r change; do
    handle \"$change\" && lattice consumer ack billing \"$(jq -r .delivery <<< \"$change\")\"
  done")]
pub(super) struct Next {
    #[command(flatten)]
    name: Name,
    /// Go on until stopped, even if the node disconnects and comes back
    #[arg(long)]
    stream: bool,
    /// Take at most this many changes; with --stream, end after them [default: 1; with --stream, no
    /// limit]
    #[arg(short = 'n', long = "limit", alias = "count", value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    count: Option<u32>,
    /// How long to wait for a change; then exit 8 [default: no limit]
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    timeout: Option<Duration>,
    /// Acknowledge each change once it is printed; into a pipe, once its line was read there
    #[arg(long)]
    ack: bool,
    /// With --stream: changes that may be delivered and not answered at a time
    #[arg(
        long,
        value_name = "N",
        default_value_t = 1,
        requires = "stream",
        value_parser = clap::value_parser!(u32).range(1..)
    )]
    prefetch: u32,
}

impl Next {
    pub(super) async fn run(self, context: &mut Context) -> Result<(), Failure> {
        if self.ack && stdout_is(FileType::Socket) {
            let message = "--ack cannot know when the reader of a socket has taken a line";
            return Err(Failure::usage("ack_into_socket", message).hint(
                "leave --ack out, and run `lattice consumer ack NAME DELIVERY` when a change is done",
            ));
        }
        if !self.stream {
            return self.once(context).await;
        }
        let (client, reconnects) = context.client_to_follow().await?;
        let down = context.down_requested();
        let mut stream = Stream {
            client,
            store: context.store.clone(),
            left: self.count,
            next: self,
            backoff: Backoff::default(),
        };
        tokio::select! {
            result = stream.follow(reconnects, &mut context.out) => result,
            () = stdout_closed() => Err(Failure::pipe_closed()),
            // This process is the node, and `lattice down` asks it to stop.
            () = down => Ok(()),
        }
    }

    async fn once(self, context: &mut Context) -> Result<(), Failure> {
        let mut client = context.client(Lifetime::Short).await?;
        let request = api::NextRequest {
            store: context.store.clone(),
            consumer: self.name.name.clone(),
            count: self.count.unwrap_or(1),
            timeout_ms: self.timeout.map_or(u64::MAX, millis),
        };
        if self.timeout.is_none() {
            note_pause(&mut client, &self.name.request(context), &context.out).await?;
        }
        let deliveries = client.next(request).await?.into_inner().deliveries;
        if deliveries.is_empty() {
            let show = self.name.request(context);
            return Err(no_change(&mut client, show, self.timeout).await);
        }
        for delivery in &deliveries {
            print_delivery(delivery, &mut context.out)?;
        }
        context.out.flush()?;
        if self.ack {
            read_by_reader().await?;
            let ids = deliveries.into_iter().map(|delivery| delivery.id);
            acknowledge(&mut client, &context.store, &self.name, ids.collect(), true).await?;
        }
        Ok(())
    }
}

/// A stream of changes that can go on over several connections.
struct Stream {
    client: Client,
    store: String,
    // Changes that are still to be taken; `None` means no limit.
    left: Option<u32>,
    next: Next,
    backoff: Backoff,
}

impl Stream {
    async fn follow(&mut self, reconnects: bool, out: &mut Output) -> Result<(), Failure> {
        loop {
            match self.connection(out).await {
                Err(failure) if reconnects && failure.exit == Exit::Unavailable => {
                    self.backoff.lost(&failure, out);
                    self.backoff.wait().await;
                }
                ended => return ended,
            }
        }
    }

    // Takes changes until the last one, or until the connection is lost.
    async fn connection(&mut self, out: &mut Output) -> Result<(), Failure> {
        let request = api::ConsumeRequest {
            store: self.store.clone(),
            consumer: self.next.name.name.clone(),
            prefetch: self.next.prefetch,
        };
        let show = api::ConsumerRequest {
            store: self.store.clone(),
            consumer: self.next.name.name.clone(),
        };
        let mut deliveries = self.client.consume(request).await?.into_inner();
        self.backoff.connected(out);
        note_pause(&mut self.client, &show, out).await?;
        loop {
            let next = deliveries.message();
            let next = match self.next.timeout {
                None => next.await?,
                Some(timeout) => match tokio::time::timeout(timeout, next).await {
                    Ok(next) => next?,
                    Err(_elapsed) => {
                        return Err(no_change(&mut self.client, show, self.next.timeout).await);
                    }
                },
            };
            let delivery = next.ok_or_else(|| {
                Failure::new(
                    Exit::Unavailable,
                    "unavailable",
                    "the node ended the stream",
                )
            })?;
            print_delivery(&delivery, out)?;
            out.flush()?;
            self.left = self.left.map(|left| left - 1);
            let is_last = self.left == Some(0);
            if self.next.ack {
                read_by_reader().await?;
                let ids = vec![delivery.id];
                acknowledge(&mut self.client, &self.store, &self.next.name, ids, is_last).await?;
            }
            if is_last {
                return Ok(());
            }
        }
    }
}

async fn acknowledge(
    client: &mut Client,
    store: &str,
    name: &Name,
    deliveries: Vec<String>,
    durable: bool,
) -> Result<(), Failure> {
    let request = api::AnswerRequest {
        store: store.to_owned(),
        consumer: name.name.clone(),
        deliveries,
        durable,
    };
    client.ack(request).await?;
    Ok(())
}

fn print_delivery(delivery: &api::Delivery, out: &mut Output) -> Result<(), Failure> {
    let change = delivery.change.as_ref();
    let change = change.ok_or_else(|| incomplete("a change"))?;
    if out.json {
        return out.object(&object::Delivery::new(delivery, change));
    }
    let id = &delivery.id;
    let columns = out.columns();
    let room = columns.map(|columns| columns.saturating_sub(id.len() + 2));
    out.line(&format!("{id}  {}", line(change, None, room)))
}

// Returns the failure of a call that got no change, with the reason.
async fn no_change(
    client: &mut Client,
    show: api::ConsumerRequest,
    timeout: Option<Duration>,
) -> Failure {
    let mut message = match timeout {
        Some(timeout) if !timeout.is_zero() => format!("no change within {timeout:?}"),
        _now => "no change is available now".to_owned(),
    };
    let status = client
        .show_consumer(show)
        .await
        .map(tonic::Response::into_inner);
    if let Some(why) = status.ok().as_ref().and_then(idle) {
        message = format!("{message}: {why}");
    }
    Failure::new(Exit::TimedOut, "timed_out", message)
}

// Prints a notice if the consumer is paused: a taker then waits until it is resumed.
async fn note_pause(
    client: &mut Client,
    show: &api::ConsumerRequest,
    out: &Output,
) -> Result<(), Failure> {
    let status = client.show_consumer(show.clone()).await?.into_inner();
    if let Some(why) = idle(&status).filter(|_| status.idle == "paused") {
        out.notice("paused", &format!("no change comes now: {why}"));
    }
    Ok(())
}

// Waits until the reader of stdout has read everything that was printed, if stdout is a pipe. Lines in
// a pipe are lost with its reader, so they count as printed only then.
async fn read_by_reader() -> Result<(), Failure> {
    if !stdout_is(FileType::Fifo) {
        return Ok(());
    }
    let drained = async {
        let mut wait = READ_CHECK_MIN;
        while rustix::io::ioctl_fionread(io::stdout())? > 0 {
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(READ_CHECK_MAX);
        }
        Ok::<(), io::Error>(())
    };
    tokio::select! {
        // The reader has gone, and took nothing of what is still in the pipe.
        biased;
        () = stdout_closed() => Err(Failure::pipe_closed()),
        drained = drained => Ok(drained?),
    }
}

fn stdout_is(file_type: FileType) -> bool {
    let stdout = rustix::fs::fstat(io::stdout());
    stdout.is_ok_and(|it| FileType::from_raw_mode(it.st_mode) == file_type)
}

/// Time between two checks whether a pipe was read: at first, and at most.
const READ_CHECK_MIN: Duration = Duration::from_micros(200);
const READ_CHECK_MAX: Duration = Duration::from_millis(10);

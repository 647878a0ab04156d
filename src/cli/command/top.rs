//! `top`: shows the node, its mesh and its changes on a live screen.

use std::time::Duration;

use clap::Args;
use lattice::{
    api::client::Client,
    clock::Clock,
    wire::api::{self, watch_reply::Event, watch_request::Start},
};
use ratatui::Frame;
use tokio::{
    sync::mpsc::{self, Sender},
    task::JoinSet,
    time::{Instant, sleep_until},
};

use crate::cli::{
    command::{
        feed::{Feed, News},
        live::{Live, show},
        status,
    },
    exit::{Exit, Failure},
    input::keys::{Key, Then},
    output::{full_screen, screen::Screen},
    reconnect::Backoff,
    screens::{health::Health, top::Top as Model},
    session::Context,
};

/// Show the node, its mesh and its changes on a live screen
///
/// The first line is the verdict of `lattice status`. Below it are the members with their lag and round-trip
/// time, the stores with their rates, hooks and consumers with their backlog and dead letters, and the last
/// changes of the store. The node is asked every second; changes come at once.
///
/// q, Esc or Ctrl-C leaves the screen, Tab chooses the next panel, the arrows scroll it, and p pauses. With no
/// node running, this process is the node until it ends. If the node disconnects, the screen says so and goes on
/// when the node is back.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  lattice top
  lattice top --store notes         the last changes of another store
  lattice status --json             the same for programs, once
  lattice watch / --json            the changes for programs")]
pub(crate) struct Top {}

/// News for the screen.
#[derive(Debug)]
enum Update {
    Answered(Box<Health>),
    /// The node does not answer, with the reason.
    Away(String),
    Watch(News),
    Failed(Failure),
}

impl From<News> for Update {
    fn from(news: News) -> Self {
        Self::Watch(news)
    }
}

impl Top {
    /// Runs the command until the screen is left.
    pub(crate) async fn run(self, context: &mut Context) -> Result<(), Failure> {
        full_screen::check(&context.out, "top", INSTEAD)?;
        let (client, reconnects) = context.client_to_follow().await?;
        let (sender, mut news) = mpsc::channel(NEWS_WAITING_MAX);
        let feed = Feed {
            client: client.clone(),
            request: api::WatchRequest {
                store: context.store.clone(),
                start: Some(Start::Now(true)),
                latest: true,
                cursors: true,
                ..api::WatchRequest::default()
            },
            reconnects,
            looks_up: false,
        };
        let asked = Asked {
            client,
            store: context.store.clone(),
            reconnects,
            conflicts: Conflicts::default(),
        };
        // Both tasks end when this is dropped.
        let mut tasks = JoinSet::new();
        tasks.spawn(feed.run(sender.clone()));
        tasks.spawn(asked.run(sender));
        let mut live = Shown {
            model: Model::default(),
            clock: Clock::system(),
        };
        show(context, &mut live, &mut news).await
    }
}

/// The screen, with the clock for its rates.
struct Shown {
    model: Model,
    clock: Clock,
}

impl Live for Shown {
    type News = Update;

    fn take(&mut self, news: Update) -> Result<(), Failure> {
        match news {
            Update::Answered(health) => self.model.answered(*health, self.clock.steady_ms()),
            Update::Away(why) | Update::Watch(News::Lost(why)) => self.model.went_away(&why),
            Update::Watch(News::Event(event)) => {
                if let Event::Change(change) = *event {
                    self.model.changed(change);
                }
            }
            // The next answer takes the message away.
            Update::Watch(News::Found) => {}
            Update::Watch(News::Failed(failure)) | Update::Failed(failure) => return Err(failure),
        }
        Ok(())
    }

    fn press(&mut self, key: Key) -> Then {
        self.model.press(key)
    }

    fn tick(&mut self, _now_ms: u64) {}

    fn draw(&mut self, frame: &mut Frame<'_>, screen: &Screen) {
        self.model.draw(frame, screen);
    }
}

/// Asks the node every second.
#[derive(Debug)]
struct Asked {
    client: Client,
    store: String,
    reconnects: bool,
    conflicts: Conflicts,
}

impl Asked {
    // Sends answers until the receiver is closed or the node fails.
    async fn run(mut self, to: Sender<Update>) {
        let mut backoff = Backoff::default();
        loop {
            let next = Instant::now() + REFRESH;
            let update = match self.ask().await {
                Ok(health) => {
                    backoff.succeeded();
                    Update::Answered(Box::new(health))
                }
                Err(lost) if self.reconnects && lost.exit == Exit::Unavailable => {
                    backoff.failed();
                    Update::Away(lost.message)
                }
                Err(failure) => Update::Failed(failure),
            };
            let is_last = matches!(update, Update::Failed(_));
            if to.send(update).await.is_err() || is_last {
                return;
            }
            sleep_until(next).await;
            backoff.wait().await;
        }
    }

    async fn ask(&mut self) -> Result<Health, Failure> {
        let mut health = status::health(&mut self.client, self.store.clone()).await?;
        health.conflicts = self
            .conflicts
            .count(&mut self.client, &health.status)
            .await?;
        Ok(health)
    }
}

/// The number of keys in conflict, as it was counted last.
#[derive(Debug, Default)]
struct Conflicts {
    // `None`: it was never counted.
    counted: Option<Counted>,
}

#[derive(Debug)]
struct Counted {
    at: Instant,
    // Entries of each store.
    entries: Vec<u64>,
    by_store: Option<Vec<(api::StoreInfo, u64)>>,
}

impl Conflicts {
    // Counts, if the stores have other entries than before, and not so often that it keeps the node busy.
    async fn count(
        &mut self,
        client: &mut Client,
        status: &api::StatusReply,
    ) -> Result<Option<Vec<(api::StoreInfo, u64)>>, Failure> {
        let entries: Vec<u64> = status.stores.iter().map(|store| store.entries).collect();
        let keys = status.stores.iter().map(|store| store.keys).sum();
        if let Some(last) = &self.counted
            && (last.entries == entries || last.at.elapsed() < wait(keys))
        {
            return Ok(last.by_store.clone());
        }
        let by_store = status::conflicts(client, status).await?;
        self.counted = Some(Counted {
            at: Instant::now(),
            entries,
            by_store: by_store.clone(),
        });
        Ok(by_store)
    }
}

// Returns the wait between two counts of conflicts among so many keys: counting reads all of them.
fn wait(keys: u64) -> Duration {
    Duration::from_millis(keys / 10)
}

const INSTEAD: &str = "`lattice status --json` and `lattice watch --json` are for programs; \
                       `lattice status` and `lattice watch` print lines";
/// News that wait for the screen. When they are so many, the watch waits, too.
const NEWS_WAITING_MAX: usize = 256;
/// Time between two questions to the node.
const REFRESH: Duration = Duration::from_secs(1);

//! `watch --tree`: shows the live keys on a screen, as a tree of prefixes.

use bytes::Bytes;
use lattice::{
    api::client::Client,
    clock::Clock,
    wire::api::{self, watch_request::Start},
};
use ratatui::Frame;
use tokio::{
    sync::mpsc::{self, Sender},
    task::JoinSet,
};

use crate::cli::{
    command::{
        feed::{Feed, News, beginning},
        live::{Live, show},
    },
    exit::Failure,
    input::keys::{Key, Then},
    output::{full_screen, screen::Screen},
    screens::{
        names::Names,
        tree::{Past, Tree},
    },
    session::Context,
};

/// News for the screen.
#[derive(Debug)]
enum Update {
    Watch(News),
    Names(Names),
    /// The history of a key.
    Past(Box<[u8]>, Past),
}

impl From<News> for Update {
    fn from(news: News) -> Self {
        Self::Watch(news)
    }
}

/// Returns an error if there is no terminal for the screen.
pub(super) fn check(context: &Context) -> Result<(), Failure> {
    full_screen::check(&context.out, "watch --tree", INSTEAD)
}

/// Shows the keys that begin with `prefix` until the screen is left.
pub(super) async fn run(context: &mut Context, prefix: Bytes) -> Result<(), Failure> {
    let (client, reconnects) = context.client_to_follow().await?;
    let (sender, mut news) = mpsc::channel(NEWS_WAITING_MAX);
    let feed = Feed {
        client: client.clone(),
        request: api::WatchRequest {
            store: context.store.clone(),
            prefix: prefix.clone(),
            start: Some(Start::Initial(true)),
            latest: true,
            cursors: true,
            ..api::WatchRequest::default()
        },
        reconnects,
        looks_up: true,
    };
    let mut shown = Shown {
        tree: Tree::new(prefix, KEYS_MAX),
        clock: Clock::system(),
        client,
        store: context.store.clone(),
        sender,
        tasks: JoinSet::new(),
        ticks: 0,
    };
    shown.tasks.spawn(feed.run(shown.sender.clone()));
    show(context, &mut shown, &mut news).await
}

/// The screen, with the tasks that it has started: they end when it is dropped.
struct Shown {
    tree: Tree,
    clock: Clock,
    client: Client,
    store: String,
    sender: Sender<Update>,
    tasks: JoinSet<()>,
    ticks: u64,
}

impl Shown {
    // Asks for the history of a key, if the screen wants one.
    fn ask(&mut self) {
        let Some(key) = self.tree.wanted() else {
            return;
        };
        let (client, sender) = (self.client.clone(), self.sender.clone());
        let request = api::HistoryRequest {
            store: self.store.clone(),
            key: Bytes::copy_from_slice(&key),
            limit: ENTRIES_MAX,
        };
        self.tasks.spawn(async move {
            let past = match past(client, request).await {
                Ok(past) => Past::Known(past),
                Err(failure) => Past::Refused(failure.message),
            };
            // Without a receiver there is no screen any more.
            drop(sender.send(Update::Past(key, past)).await);
        });
    }
}

impl Live for Shown {
    type News = Update;

    fn take(&mut self, news: Update) -> Result<(), Failure> {
        match news {
            Update::Watch(News::Event(event)) => self.tree.take(&event, self.clock.now_ms()),
            Update::Watch(News::Lost(why)) => self.tree.went_away(Some(&why)),
            Update::Watch(News::Found) => self.tree.went_away(None),
            Update::Watch(News::Failed(failure)) => return Err(failure),
            Update::Names(names) => self.tree.name(names),
            Update::Past(key, past) => self.tree.remember(&key, past),
        }
        Ok(())
    }

    fn press(&mut self, key: Key) -> Then {
        let then = self.tree.press(key);
        self.ask();
        then
    }

    fn tick(&mut self, _now_ms: u64) {
        while self.tasks.try_join_next().is_some() {}
        self.ask();
        if self.ticks.is_multiple_of(NAMES_KEPT_TICKS) {
            let (mut client, sender) = (self.client.clone(), self.sender.clone());
            self.tasks.spawn(async move {
                // Without an answer, the names stay as they are.
                if let Ok(names) = Names::fetch(&mut client).await {
                    drop(sender.send(Update::Names(names)).await);
                }
            });
        }
        self.ticks += 1;
    }

    fn draw(&mut self, frame: &mut Frame<'_>, screen: &Screen) {
        self.tree.draw(frame, screen);
    }
}

async fn past(
    mut client: Client,
    request: api::HistoryRequest,
) -> Result<api::HistoryReply, Failure> {
    let mut parts = client.history(request).await?.into_inner();
    let mut all = api::HistoryReply::default();
    while let Some(part) = parts.message().await? {
        let entries = part.entries.into_iter();
        all.entries.extend(entries.map(|mut entry| {
            entry.value = beginning(&entry.value);
            entry
        }));
        all.truncated |= part.truncated;
        all.reach_ms = all.reach_ms.or(part.reach_ms);
    }
    Ok(all)
}

const INSTEAD: &str = "`lattice watch` and `lattice list` print lines, with --json for programs";
/// Keys that are kept. Above it, the first ones are shown, and the title says so.
const KEYS_MAX: usize = 100_000;
/// Entries of a key's history that are shown.
const ENTRIES_MAX: u64 = 200;
/// News that wait for the screen. When they are so many, the watch waits, too.
const NEWS_WAITING_MAX: usize = 256;
/// Seconds for which the names of members are kept.
const NAMES_KEPT_TICKS: u64 = 5;

//! A watch in the background, for a screen: goes on over several connections.

use bytes::Bytes;
use lattice::{
    api::client::Client,
    wire::api::{self, watch_reply::Event, watch_request::Start},
};
use tokio::sync::mpsc::Sender;

use crate::cli::{
    exit::{Exit, Failure},
    output::object::incomplete,
    reconnect::Backoff,
};

/// News of a watch.
#[derive(Debug)]
pub(crate) enum News {
    /// An event, without what it shares with other messages and no screen shows.
    Event(Box<Event>),
    /// The node disconnected, with the reason. The watch goes on once it is back.
    Lost(String),
    /// The node is back.
    Found,
    /// The watch has ended.
    Failed(Failure),
}

/// A watch of a store.
#[derive(Debug)]
pub(crate) struct Feed {
    pub(crate) client: Client,
    /// Its start is moved to each new cursor: the next connection begins there.
    pub(crate) request: api::WatchRequest,
    /// Whether the watch goes on when the node disconnects.
    pub(crate) reconnects: bool,
    /// Whether a `retract`, which has no value, is replaced with a put of the value that the key has now, or
    /// with a delete.
    pub(crate) looks_up: bool,
}

impl Feed {
    /// Sends the news until the receiver is closed or the watch fails.
    pub(crate) async fn run<U: From<News>>(mut self, to: Sender<U>) {
        let mut backoff = Backoff::default();
        let first = self.request.start.clone();
        loop {
            let lost = match self.stream(&to, &mut backoff).await {
                Ok(()) => return,
                Err(lost) if self.reconnects && lost.exit == Exit::Unavailable => lost,
                // The node has lost entries that it had not made durable.
                Err(behind) if behind.code == "cursor_ahead" && self.request.start != first => {
                    self.request.start.clone_from(&first);
                    backoff.failed();
                    continue;
                }
                Err(failure) => return send(&to, News::Failed(failure)).await.unwrap_or_default(),
            };
            if backoff.failed() && send(&to, News::Lost(lost.message)).await.is_none() {
                return;
            }
            backoff.wait().await;
        }
    }

    // Sends events until the receiver is closed; an error if the connection is lost.
    async fn stream<U: From<News>>(
        &mut self,
        to: &Sender<U>,
        backoff: &mut Backoff,
    ) -> Result<(), Failure> {
        let mut replies = self.client.watch(self.request.clone()).await?.into_inner();
        if backoff.succeeded() {
            if send(to, News::Found).await.is_none() {
                return Ok(());
            }
            // The state comes again: a key that is not in it any more is gone.
            if matches!(self.request.start, Some(Start::Initial(_))) {
                let gap = Event::Gap(api::Gap::default());
                if send(to, News::Event(Box::new(gap))).await.is_none() {
                    return Ok(());
                }
            }
        }
        let mut is_filling = matches!(self.request.start, Some(Start::Initial(_)));
        while let Some(reply) = replies.message().await? {
            let mut event = reply.event.ok_or_else(|| incomplete("an event"))?;
            match &mut event {
                Event::Gap(_) => is_filling = true,
                Event::CaughtUp(_) => is_filling = false,
                Event::Change(change) => {
                    if self.looks_up && change.kind == "retract" {
                        self.look_up(change).await?;
                    }
                    shorten(change);
                }
                Event::Progress(_) | Event::Damaged(_) => {}
            }
            // During the state, cursors stay at the position before it.
            if !is_filling && !reply.cursor.is_empty() {
                self.request.start = Some(Start::After(reply.cursor));
            }
            if send(to, News::Event(Box::new(event))).await.is_none() {
                return Ok(());
            }
        }
        let message = "the node ended the watch";
        Err(Failure::new(Exit::Unavailable, "unavailable", message))
    }

    // Makes a change the one that reads show now. The watch waits meanwhile, so that no later change comes
    // before it.
    async fn look_up(&mut self, change: &mut api::Change) -> Result<(), Failure> {
        let request = api::GetRequest {
            store: self.request.store.clone(),
            key: change.key.clone(),
            at_ms: None,
        };
        let Some(item) = self.client.get(request).await?.into_inner().item else {
            "delete".clone_into(&mut change.kind);
            return Ok(());
        };
        "put".clone_into(&mut change.kind);
        change.heads.truncate(item.heads as usize);
        if let Some(winner) = change.heads.first_mut() {
            *winner = item.entry.clone().unwrap_or_default();
        }
        change.entry = item.entry;
        change.value = Some(item.value);
        change.expires_ms = item.expires_ms;
        Ok(())
    }
}

async fn send<U: From<News>>(to: &Sender<U>, news: News) -> Option<()> {
    to.send(U::from(news)).await.ok()
}

// Cuts off what no screen shows, and copies the rest, which would keep the whole message in memory.
fn shorten(change: &mut api::Change) {
    let value = change.value.as_ref();
    change.value = value.map(|value| beginning(value));
    change.key = Bytes::copy_from_slice(&change.key);
    change.entry = change.entry.as_ref().map(copied);
    change.heads = change.heads.iter().map(copied).collect();
    change.previous = None;
    change.gap = None;
}

fn copied(entry: &api::EntryRef) -> api::EntryRef {
    api::EntryRef {
        id: Bytes::copy_from_slice(&entry.id),
        author: Bytes::copy_from_slice(&entry.author),
        ..*entry
    }
}

/// Returns a copy of as much of a value as a screen can show, cut between characters.
pub(crate) fn beginning(value: &[u8]) -> Bytes {
    let mut end = value.len().min(VALUE_BYTES_SHOWN_MAX);
    if end < value.len() {
        let continues = |byte: u8| byte & 0xc0 == 0x80;
        let longest = end.saturating_sub(3);
        while end > longest && continues(value[end]) {
            end -= 1;
        }
    }
    Bytes::copy_from_slice(&value[..end])
}

/// Bytes of a value that are kept for a screen: wider ones are rare.
const VALUE_BYTES_SHOWN_MAX: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn value_is_cut_between_characters() {
        assert_eq!(beginning(b"short"), "short");
        assert_eq!(beginning(b""), "");
        let ascii = "v".repeat(300);
        assert_eq!(beginning(ascii.as_bytes()), ascii[..256]);
        // The characters have three bytes, and one of them begins at 254.
        let wide = format!("vv{}", "日".repeat(100));
        assert_eq!(beginning(wide.as_bytes()), wide[..254]);
        assert_eq!(beginning(&[0x80; 300]).len(), 253, "not UTF-8");
    }
}

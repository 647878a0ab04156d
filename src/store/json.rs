//! Values as JSON, in the caller's types.

use std::{
    marker::PhantomData,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use serde::{Serialize, de::DeserializeOwned};
use tokio_stream::Stream;

use crate::{
    protocol::change::{Change, Kind},
    store::{ReadError, Store, Watch, WatchError, WatchEvent, WriteError, Written},
};

/// Why a value was not read or written as JSON.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JsonError {
    /// The value of the key is not JSON, or not that of the type.
    #[error("the value of {key:?} is not as expected: {source}")]
    Invalid {
        /// The key; bytes that are not UTF-8 are replaced.
        key: String,
        /// The place of the error, and what was expected there.
        source: serde_json::Error,
    },
    /// The value cannot be written as JSON: a map has keys that are no strings, or its type refuses.
    #[error("the value cannot be written as JSON: {0}")]
    Encode(serde_json::Error),
    /// The read failed.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The write failed.
    #[error(transparent)]
    Write(#[from] WriteError),
}

/// One item of a watch of values of type `T`.
#[derive(Debug)]
#[non_exhaustive]
pub enum EventAs<T> {
    /// A key has this value now.
    Value(T, Arc<Change>),
    /// A key has no value any more: it was deleted, or has expired.
    Gone(Arc<Change>),
    /// The value of a key is not that of a `T`. The watch goes on.
    Invalid(JsonError, Arc<Change>),
    /// Any other event of the watch: also a value that was taken back, and changes of a watch of keys
    /// only.
    Other(WatchEvent),
}

/// A stream of the changes of some keys, with values of type `T`. Cancel-safe like [`Watch`], whose methods
/// it has through `as_ref`.
#[derive(Debug)]
pub struct WatchAs<T> {
    watch: Watch,
    value: PhantomData<fn() -> T>,
}

impl Store {
    /// Sets `key` to `value` as JSON; otherwise like [`put`](Self::put).
    ///
    /// # Errors
    /// `Encode`: nothing was written. `Write`.
    pub async fn put_json<T: Serialize + ?Sized>(
        &self,
        key: impl Into<Bytes>,
        value: &T,
    ) -> Result<Written, JsonError> {
        let value = serde_json::to_vec(value).map_err(JsonError::Encode)?;
        Ok(self.put(key, value).await?)
    }

    /// Returns the value of `key`, read as JSON; `None` when it is missing, deleted or expired.
    ///
    /// # Errors
    /// `Invalid`, `Read`.
    pub async fn get_json<T: DeserializeOwned>(&self, key: &[u8]) -> Result<Option<T>, JsonError> {
        let item = self.get(key).await?;
        item.map(|item| parse(key, &item.value)).transpose()
    }
}

impl Watch {
    /// Reads the values of this watch as JSON.
    ///
    /// ```no_run
    /// use lattice::{Node, NodeConfig, store::EventAs};
    /// use serde::{Deserialize, Serialize};
    /// use tokio_stream::StreamExt as _;
    ///
    /// #[derive(Serialize, Deserialize)]
    /// struct Sensor {
    ///     celsius: f64,
    /// }
    ///
    /// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
    /// let node = Node::open(NodeConfig::new("data").create(true)).await?;
    /// let store = node.data();
    /// store.put_json("/sensors/attic", &Sensor { celsius: 21.5 }).await?;
    /// let mut sensors = store.watch("/sensors/").typed::<Sensor>();
    /// while let Some(event) = sensors.next().await {
    ///     if let EventAs::Value(sensor, change) = event? {
    ///         println!("{:?} has {} degrees", change.key, sensor.celsius);
    ///     }
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn typed<T: DeserializeOwned>(self) -> WatchAs<T> {
        WatchAs {
            watch: self,
            value: PhantomData,
        }
    }
}

impl<T> AsRef<Watch> for WatchAs<T> {
    fn as_ref(&self) -> &Watch {
        &self.watch
    }
}

impl<T: DeserializeOwned> Stream for WatchAs<T> {
    type Item = Result<EventAs<T>, WatchError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let event = ready!(Pin::new(&mut self.watch).poll_next(cx));
        Poll::Ready(event.map(|event| Ok(typed(event?))))
    }
}

fn typed<T: DeserializeOwned>(event: WatchEvent) -> EventAs<T> {
    let WatchEvent::Change(change) = event else {
        return EventAs::Other(event);
    };
    match (change.kind, &change.value) {
        (Kind::Put, Some(value)) => match parse(&change.key, value) {
            Ok(value) => EventAs::Value(value, change),
            Err(error) => EventAs::Invalid(error, change),
        },
        (Kind::Delete | Kind::Expire, _) => EventAs::Gone(change),
        _other => EventAs::Other(WatchEvent::Change(change)),
    }
}

fn parse<T: DeserializeOwned>(key: &[u8], value: &[u8]) -> Result<T, JsonError> {
    serde_json::from_slice(value).map_err(|source| JsonError::Invalid {
        key: String::from_utf8_lossy(key).into_owned(),
        source,
    })
}

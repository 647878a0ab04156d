//! Writes of one store, from any number of tasks: alone as a call, together on a stream.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicUsize, Ordering},
};

use tokio::sync::{Semaphore, oneshot};

use crate::{
    calls::{Condition, Written},
    client::{
        error::ApiError,
        lane::{Lane, Outcome},
        messages,
        rpc::Rpc,
    },
    limits::{CLIENT_STREAMS_MAX, CLIENT_WRITES_MAX},
    protocol::entry::Op,
    wire::api,
};

/// The writes of one store. A write that finds no other in flight is a call of its own, which costs least
/// when it is alone; all others share one stream of the API.
#[derive(Debug)]
pub(super) struct Writes {
    rpc: Rpc,
    store: String,
    // Calls of `write` that have not returned.
    in_flight: AtomicUsize,
    // A permit for each write on the stream.
    room: Semaphore,
    // The newest stream, which may have ended. Locked for a moment, never across await. Finished when
    // this is dropped, which ends the task of the stream.
    lane: Mutex<Option<Arc<Lane>>>,
}

impl Writes {
    pub(super) fn new(rpc: Rpc, store: &str) -> Self {
        Self {
            rpc,
            store: store.to_owned(),
            in_flight: AtomicUsize::new(0),
            room: Semaphore::new(CLIENT_WRITES_MAX),
            lane: Mutex::default(),
        }
    }

    /// Writes `op` if `condition` holds. Returns when the write is durable; `None` if there was nothing to
    /// delete.
    ///
    /// Cancel-safe: a dropped call may still write.
    ///
    /// # Errors
    /// `Usage` beyond the limits, before anything is sent; the error of the node, or of the connection.
    pub(super) async fn write(
        &self,
        op: Op,
        condition: Option<Condition>,
    ) -> Result<Option<Written>, ApiError> {
        // A message that is too long would end the stream for all callers.
        op.check()?;
        let alone = self.in_flight.fetch_add(1, Ordering::Relaxed) == 0;
        let _left = Leaving(&self.in_flight);
        if alone && let Some(call) = Call::of(&op, condition) {
            return self.call(call).await;
        }
        self.share(messages::conditional(op, condition)).await
    }

    async fn call(&self, call: Call) -> Result<Option<Written>, ApiError> {
        let mut rpc = self.rpc.clone();
        let store = self.store.clone();
        let written = match call {
            Call::Put(request) => rpc.put(api::PutRequest { store, ..request }).await?,
            Call::Delete(request) => rpc.delete(api::DeleteRequest { store, ..request }).await?,
        };
        messages::written(written.get_ref())
    }

    async fn share(&self, mut op: api::Op) -> Result<Option<Written>, ApiError> {
        let _permit = self.room.acquire().await;
        let mut streams = 1;
        loop {
            let (answer, outcome) = oneshot::channel();
            self.lane().push(op, answer);
            match outcome.await {
                Ok(Outcome::Done(result)) => return result,
                // The stream ended before the write was sent on it.
                Ok(Outcome::Unsent(_op, error)) if streams == CLIENT_STREAMS_MAX => {
                    return Err(error);
                }
                Ok(Outcome::Unsent(unsent, _ended)) => op = *unsent,
                Err(_runtime_ends) => return Err(ApiError::lost("the runtime is shutting down")),
            }
            streams += 1;
        }
    }

    // Returns the stream that is open, or begins one.
    fn lane(&self) -> Arc<Lane> {
        let mut known = self.lane.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(lane) = known.as_ref().filter(|lane| lane.is_open()) {
            return Arc::clone(lane);
        }
        let lane = Lane::begin(self.rpc.clone(), self.store.clone());
        *known = Some(Arc::clone(&lane));
        lane
    }
}

impl Drop for Writes {
    fn drop(&mut self) {
        let lane = self.lane.get_mut().unwrap_or_else(PoisonError::into_inner);
        if let Some(lane) = lane.take() {
            lane.finish();
        }
    }
}

// Counts a write as returned, also when its call is dropped.
struct Leaving<'a>(&'a AtomicUsize);

impl Drop for Leaving<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A write as a call of its own, without its store.
enum Call {
    Put(api::PutRequest),
    Delete(api::DeleteRequest),
}

impl Call {
    /// Returns the call for this write; `None` if only the stream takes such a write.
    fn of(op: &Op, condition: Option<Condition>) -> Option<Self> {
        let (if_absent, if_head) = match condition {
            None => (false, None),
            Some(Condition::Absent) => (true, None),
            Some(Condition::Head(id)) => (false, Some(messages::bytes(&id.0))),
            Some(Condition::Heads(_)) => return None,
        };
        let if_head = if_head.unwrap_or_default();
        match op {
            Op::Put {
                key,
                value,
                expires_ms: None,
            } => Some(Self::Put(api::PutRequest {
                key: key.clone(),
                value: value.clone(),
                if_absent,
                if_head,
                ..api::PutRequest::default()
            })),
            Op::Delete { key } if !if_absent => Some(Self::Delete(api::DeleteRequest {
                key: key.clone(),
                if_head,
                ..api::DeleteRequest::default()
            })),
            Op::Put { .. } | Op::Delete { .. } => None,
        }
    }
}

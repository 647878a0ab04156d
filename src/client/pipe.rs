//! Calls of one kind to one store, from any number of tasks: alone as a call, together on a stream.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicUsize, Ordering},
};

use tokio::sync::{Semaphore, oneshot};

use crate::{
    client::{
        error::ApiError,
        lane::{Lane, Outcome, Traffic},
        rpc::Rpc,
    },
    limits::{CLIENT_CALLS_MAX, CLIENT_STREAMS_MAX},
};

/// The calls of one kind to one store. A call that finds no other in flight goes to the node by itself,
/// which costs least when it is alone; all others share one stream of the API.
#[derive(Debug)]
pub(super) struct Pipe<T: Traffic> {
    rpc: Rpc,
    store: String,
    // Calls that have not returned.
    in_flight: AtomicUsize,
    // A permit for each call on the stream.
    room: Semaphore,
    // The newest stream, which may have ended. Locked for a moment, never across await. Finished when
    // this is dropped, which ends the task of the stream.
    lane: Mutex<Option<Arc<Lane<T>>>>,
}

/// Counts a call as in flight until it is dropped.
#[derive(Debug)]
pub(super) struct Turn<'a> {
    in_flight: &'a AtomicUsize,
    /// True if no other call was in flight when this one began.
    pub(super) is_alone: bool,
}

impl<T: Traffic> Pipe<T> {
    pub(super) fn new(rpc: Rpc, store: &str) -> Self {
        Self {
            rpc,
            store: store.to_owned(),
            in_flight: AtomicUsize::new(0),
            room: Semaphore::new(CLIENT_CALLS_MAX),
            lane: Mutex::default(),
        }
    }

    /// Begins a call. The turn is held until the call returns.
    pub(super) fn begin(&self) -> Turn<'_> {
        let before = self.in_flight.fetch_add(1, Ordering::Relaxed);
        Turn {
            in_flight: &self.in_flight,
            is_alone: before == 0,
        }
    }

    /// Returns the name of the store, and the calls, for a call of its own.
    pub(super) fn alone(&self) -> (String, Rpc) {
        (self.store.clone(), self.rpc.clone())
    }

    /// Makes the call on the stream. A dropped call may still reach the node.
    ///
    /// # Errors
    /// The error of the node, or of the connection.
    pub(super) async fn share(&self, mut request: T::Request) -> Result<T::Result, ApiError> {
        let _permit = self.room.acquire().await;
        let mut streams = 1;
        loop {
            let (caller, outcome) = oneshot::channel();
            self.lane().push(request, caller);
            match outcome.await {
                Ok(Outcome::Done(result)) => return result,
                // The stream ended before the request was sent on it.
                Ok(Outcome::Unsent(_request, error)) if streams == CLIENT_STREAMS_MAX => {
                    return Err(error);
                }
                Ok(Outcome::Unsent(unsent, _ended)) => request = unsent,
                Err(_runtime_ends) => return Err(ApiError::lost("the runtime is shutting down")),
            }
            streams += 1;
        }
    }

    // Returns the stream that is open, or begins one.
    fn lane(&self) -> Arc<Lane<T>> {
        let mut known = self.lane.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(lane) = known.as_ref().filter(|lane| lane.is_open()) {
            return Arc::clone(lane);
        }
        let lane = Lane::begin(self.rpc.clone(), self.store.clone());
        *known = Some(Arc::clone(&lane));
        lane
    }
}

impl<T: Traffic> Drop for Pipe<T> {
    fn drop(&mut self) {
        let lane = self.lane.get_mut().unwrap_or_else(PoisonError::into_inner);
        if let Some(lane) = lane.take() {
            lane.finish();
        }
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

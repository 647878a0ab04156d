//! Pipelined reads: requests in, results out in the order of all keys.

use std::vec;

use bytes::Bytes;
use tokio_util::sync::CancellationToken;
use tonic::{Status, Streaming};

use crate::{
    api::{
        convert,
        error::ApiError,
        paging::{Answers, unfold},
    },
    limits::{ENTRY_BYTES_MAX, GETS_IN_REQUEST_MAX, PAGE_BYTES, REPLY_BYTES_MAX},
    node::Node,
    wire::api,
};

/// Returns the results of `requests`. Reads requests until the client has sent its last one or `ending` is
/// cancelled.
pub(super) fn get_stream(
    node: Node,
    requests: Streaming<api::GetStreamRequest>,
    ending: CancellationToken,
) -> Answers<api::GetStreamReply> {
    let reading = Reading {
        node,
        store: None,
        requests,
        keys: Vec::new().into_iter(),
        ending,
    };
    unfold(reading, |reading| Box::pin(reading.next()))
}

struct Reading {
    node: Node,
    // Set by the first request.
    store: Option<String>,
    requests: Streaming<api::GetStreamRequest>,
    // Keys of the last request that were not read yet.
    keys: vec::IntoIter<Bytes>,
    ending: CancellationToken,
}

impl Reading {
    async fn next(mut self) -> Option<(Result<api::GetStreamReply, Status>, Self)> {
        while self.keys.as_slice().is_empty() {
            let request = tokio::select! {
                request = self.requests.message() => request,
                () = self.ending.cancelled() => Err(ApiError::stopping().into()),
            };
            match request {
                Ok(None) => return None,
                Ok(Some(request)) => {
                    if let Err(error) = self.begin(request) {
                        return Some((Err(error.into()), self));
                    }
                }
                Err(status) => return Some((Err(status), self)),
            }
        }
        let (mut results, mut bytes) = (Vec::with_capacity(self.keys.len()), 0);
        while bytes < PAGE_BYTES
            && let Some(key) = self.keys.next()
        {
            let result = self.get(&key).await;
            bytes += prost::Message::encoded_len(&result);
            results.push(result);
        }
        Some((Ok(api::GetStreamReply { results }), self))
    }

    fn begin(&mut self, request: api::GetStreamRequest) -> Result<(), ApiError> {
        let keys = request.keys.len();
        if keys > GETS_IN_REQUEST_MAX {
            let message = format!(
                "a request of a get stream has {keys} keys; the limit is {GETS_IN_REQUEST_MAX}"
            );
            return Err(ApiError::usage("too_many_keys", message)
                .hint("send several requests: any number may be in flight"));
        }
        if self.store.is_none() {
            self.node.store(&request.store)?;
            self.store = Some(request.store);
        }
        self.keys = request.keys.into_iter();
        Ok(())
    }

    async fn get(&self, key: &Bytes) -> api::GetResult {
        let name = self.store.as_deref().unwrap_or_default();
        let read = async {
            let store = self.node.store_of_keys(name, [key])?;
            Ok::<_, ApiError>(store.get(key).await?)
        };
        match read.await {
            Ok(item) => api::GetResult {
                item: item.map(convert::item),
                failed: None,
            },
            Err(error) => api::GetResult {
                item: None,
                failed: Some(api::ReadFailed {
                    error: Some(error.to_wire()),
                    message: error.message,
                }),
            },
        }
    }
}

const _: () = assert!(PAGE_BYTES + ENTRY_BYTES_MAX < REPLY_BYTES_MAX);

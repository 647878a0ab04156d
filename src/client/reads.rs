//! Reads of the current values of one store, alone or together.

use bytes::Bytes;
use tonic::{Status, Streaming};

use crate::{
    calls::Item,
    client::{
        error::ApiError,
        lane::{Messages, Traffic},
        messages,
        pipe::Pipe,
        rpc::Rpc,
    },
    protocol::entry::check_key,
    wire::api,
};

/// The reads of one store.
#[derive(Debug)]
pub(super) struct Reads(Pipe<Gets>);

/// A stream of reads.
#[derive(Debug)]
struct Gets;

impl Reads {
    pub(super) fn new(rpc: Rpc, store: &str) -> Self {
        Self(Pipe::new(rpc, store))
    }

    /// Returns the value of `key`.
    ///
    /// # Errors
    /// `Usage` beyond the limits, before anything is sent; the error of the node, or of the connection.
    pub(super) async fn get(&self, key: Bytes) -> Result<Option<Item>, ApiError> {
        check_key(&key)?;
        let turn = self.0.begin();
        if !turn.is_alone {
            return self.0.share(key).await;
        }
        let (store, mut rpc) = self.0.alone();
        let at_ms = None;
        let request = api::GetRequest { store, key, at_ms };
        let reply = rpc.get(request).await?.into_inner();
        reply.item.map(messages::item).transpose()
    }
}

impl Traffic for Gets {
    type Request = Bytes;
    type Result = Option<Item>;
    type Message = api::GetStreamRequest;
    type Reply = api::GetStreamReply;

    fn bytes(key: &Bytes) -> usize {
        key.len()
    }

    fn message(store: String, keys: Vec<Bytes>) -> api::GetStreamRequest {
        api::GetStreamRequest { store, keys }
    }

    async fn open(
        mut rpc: Rpc,
        messages: Messages<Self>,
    ) -> Result<Streaming<api::GetStreamReply>, Status> {
        Ok(rpc.get_stream(messages).await?.into_inner())
    }

    fn results(
        reply: api::GetStreamReply,
    ) -> impl Iterator<Item = Result<Option<Item>, ApiError>> + Send {
        reply.results.into_iter().map(|result| match result.failed {
            Some(api::ReadFailed { error, message }) => {
                Err(ApiError::from_wire(api::WriteFailed { error, message }))
            }
            None => result.item.map(messages::item).transpose(),
        })
    }

    fn unanswered(error: ApiError) -> ApiError {
        error
    }
}

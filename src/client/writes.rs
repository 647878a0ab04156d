//! Writes of one store, alone or together.

use tonic::{Status, Streaming};

use crate::{
    calls::{Condition, Written},
    client::{
        error::ApiError,
        lane::{Messages, Traffic},
        messages,
        pipe::Pipe,
        rpc::Rpc,
    },
    protocol::entry::Op,
    wire::api,
};

/// The writes of one store.
#[derive(Debug)]
pub(super) struct Writes(Pipe<Puts>);

/// A stream of writes.
#[derive(Debug)]
struct Puts;

impl Writes {
    pub(super) fn new(rpc: Rpc, store: &str) -> Self {
        Self(Pipe::new(rpc, store))
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
        let turn = self.0.begin();
        if turn.is_alone
            && let Some(call) = Call::of(&op, condition)
        {
            return self.call(call).await;
        }
        self.0.share(messages::conditional(op, condition)).await
    }

    async fn call(&self, call: Call) -> Result<Option<Written>, ApiError> {
        let (store, mut rpc) = self.0.alone();
        let written = match call {
            Call::Put(request) => rpc.put(api::PutRequest { store, ..request }).await,
            Call::Delete(request) => rpc.delete(api::DeleteRequest { store, ..request }).await,
        };
        let written = written.map_err(|status| ApiError::from(status).for_sent_write())?;
        messages::written(written.get_ref())
    }
}

impl Traffic for Puts {
    type Request = api::Op;
    type Result = Option<Written>;
    type Message = api::PutStreamRequest;
    type Reply = api::PutStreamReply;

    fn bytes(op: &api::Op) -> usize {
        op.key.len() + op.value.len()
    }

    fn message(store: String, ops: Vec<api::Op>) -> api::PutStreamRequest {
        api::PutStreamRequest { store, ops }
    }

    async fn open(
        mut rpc: Rpc,
        messages: Messages<Self>,
    ) -> Result<Streaming<api::PutStreamReply>, Status> {
        Ok(rpc.put_stream(messages).await?.into_inner())
    }

    fn results(
        reply: api::PutStreamReply,
    ) -> impl Iterator<Item = Result<Option<Written>, ApiError>> + Send {
        reply
            .results
            .into_iter()
            .map(|result| match (result.failed, result.written) {
                (Some(failed), _) => Err(ApiError::from_wire(failed)),
                (None, Some(written)) => messages::written(&written),
                (None, None) => Err(messages::malformed("a write has no result")),
            })
    }

    fn unanswered(error: ApiError) -> ApiError {
        error.for_sent_write()
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

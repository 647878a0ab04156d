//! The calls of the API, each a line or two onto the library.

use std::{
    path::{Path, PathBuf},
    process,
    sync::Arc,
    time::Duration,
};

use tonic::{Request, Response, Status, Streaming, async_trait};

use crate::{
    api::{
        consumer::{self, Answer},
        convert,
        error::ApiError,
        hook, maintenance, members,
        paging::{self, Answers},
        past,
        put_stream::PutAnswers,
        server::Stop,
        watch::WatchAnswers,
        watches::Watches,
    },
    hooks::Hooks,
    limits::HISTORY_ENTRIES_MAX,
    net::Net,
    node::{Node, StoreInfo},
    protocol::entry::Op,
    store::{List, Store, WriteError, Written, consumers::Consumer},
    wire::api::{self, lattice_server::Lattice},
};

/// Answers the calls to one node. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Service(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    node: Node,
    // `None` for a short command that has the node open.
    net: Option<Net>,
    hooks: Hooks,
    // `None` when the node serves no socket.
    socket: Option<PathBuf>,
    started_ms: u64,
    watches: Watches,
    stop: Stop,
}

type Answered<T> = Result<Response<T>, Status>;

impl Service {
    pub(super) fn new(
        node: Node,
        net: Option<Net>,
        hooks: Hooks,
        socket: Option<PathBuf>,
        watches: Watches,
        stop: Stop,
    ) -> Self {
        let started_ms = node.clock().now_ms();
        Self(Arc::new(Shared {
            node,
            net,
            hooks,
            socket,
            started_ms,
            watches,
            stop,
        }))
    }

    fn store(&self, name: &str) -> Result<Store, ApiError> {
        self.0.node.store(name).map_err(ApiError::from)
    }

    // The store that a request names, or all of them.
    fn asked(&self, name: &str, all: bool) -> Result<Vec<(StoreInfo, Store)>, ApiError> {
        let asked = self.store(name)?.id();
        let stores = self.0.node.stores().into_iter();
        stores
            .filter(|info| all || info.id == asked)
            .map(|info| {
                let store = self.store(&info.id.to_string())?;
                Ok((info, store))
            })
            .collect()
    }

    fn consumer(&self, store: &str, name: &str) -> Result<Consumer, ApiError> {
        Ok(self.store(store)?.consumer(name))
    }

    async fn answer(
        &self,
        request: api::AnswerRequest,
        kind: Answer,
    ) -> Answered<api::AnswerReply> {
        let consumer = self.consumer(&request.store, &request.consumer)?;
        let (deliveries, durable) = (&request.deliveries, request.durable);
        let reply = consumer::answer(&consumer, deliveries, kind, durable).await;
        Ok(Response::new(reply?))
    }

    async fn write(
        &self,
        store: &str,
        op: api::Op,
        if_absent: bool,
        if_head: &[u8],
    ) -> Answered<api::Written> {
        let condition = convert::condition(if_absent, if_head)?;
        let store = self.store(store)?;
        let op = convert::op(op, store.now_ms());
        wrote(store.write(convert::write(op, condition)).await)
    }
}

#[async_trait]
impl Lattice for Service {
    type PutStreamStream = PutAnswers;
    type ListStream = Answers<api::Items>;
    type DiffStream = Answers<api::Differences>;
    type WatchStream = WatchAnswers;
    type ConsumeStream = Answers<api::Delivery>;
    type TestHookStream = Answers<api::HookTest>;
    type LogStream = Answers<api::LogEntry>;
    type JoinStream = Answers<api::JoinProgress>;

    async fn status(&self, _request: Request<api::StatusRequest>) -> Answered<api::StatusReply> {
        let Shared {
            node,
            socket,
            started_ms,
            ..
        } = &*self.0;
        let mut stores = Vec::new();
        for info in node.stores() {
            let store = self.store(&info.id.to_string())?;
            stores.push(convert::store_status(&info, store.status().await));
        }
        let text = |path: &Path| path.to_string_lossy().into_owned();
        Ok(Response::new(api::StatusReply {
            node: convert::bytes(&node.id().0),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            data_dir: text(node.data_dir()),
            socket: socket.as_deref().map(text).unwrap_or_default(),
            pid: process::id(),
            started_ms: *started_ms,
            now_ms: node.clock().now_ms(),
            stores,
        }))
    }

    async fn down(&self, _request: Request<api::DownRequest>) -> Answered<api::DownReply> {
        // Whoever waits for this stops the server, and a server that stops finishes this call.
        self.0.stop.asked.cancel();
        Ok(Response::new(api::DownReply { pid: process::id() }))
    }

    async fn put(&self, request: Request<api::PutRequest>) -> Answered<api::Written> {
        let request = request.into_inner();
        let api::PutRequest {
            store,
            key,
            value,
            ttl_ms,
            if_absent,
            if_head,
        } = request;
        let op = api::Op {
            key,
            delete: false,
            value,
            ttl_ms,
        };
        self.write(&store, op, if_absent, &if_head).await
    }

    async fn delete(&self, request: Request<api::DeleteRequest>) -> Answered<api::Written> {
        let api::DeleteRequest {
            store,
            key,
            if_head,
        } = request.into_inner();
        let op = api::Op {
            key,
            delete: true,
            ..api::Op::default()
        };
        self.write(&store, op, false, &if_head).await
    }

    async fn batch(&self, request: Request<api::BatchRequest>) -> Answered<api::Written> {
        let api::BatchRequest { store, ops } = request.into_inner();
        let store = self.store(&store)?;
        let now_ms = store.now_ms();
        let ops: Vec<Op> = ops.into_iter().map(|op| convert::op(op, now_ms)).collect();
        wrote(store.batch(ops).await)
    }

    async fn put_stream(
        &self,
        request: Request<Streaming<api::PutStreamRequest>>,
    ) -> Answered<PutAnswers> {
        let ending = self.0.stop.ending.clone();
        let answers = PutAnswers::new(self.0.node.clone(), request.into_inner(), ending);
        Ok(Response::new(answers))
    }

    async fn get(&self, request: Request<api::GetRequest>) -> Answered<api::GetReply> {
        let api::GetRequest { store, key, at_ms } = request.into_inner();
        let store = self.store(&store)?;
        let item = match at_ms {
            None => store.get(&key).await.map_err(ApiError::from)?,
            Some(ms) => store.get_at(&key, ms).await.map_err(ApiError::from)?,
        };
        Ok(Response::new(api::GetReply {
            item: item.map(convert::item),
        }))
    }

    async fn list(&self, request: Request<api::ListRequest>) -> Answered<Answers<api::Items>> {
        let api::ListRequest {
            store,
            prefix,
            keys_only,
            limit,
            at_ms,
        } = request.into_inner();
        let options = List {
            prefix,
            limit: bound(limit),
            keys_only,
        };
        let store = self.store(&store)?;
        Ok(Response::new(match at_ms {
            None => paging::list(&store, options),
            Some(ms) => past::list(&store, options, ms),
        }))
    }

    async fn diff(
        &self,
        request: Request<api::DiffRequest>,
    ) -> Answered<Answers<api::Differences>> {
        let api::DiffRequest {
            store,
            prefix,
            keys_only,
            from_ms,
            to_ms,
        } = request.into_inner();
        let store = self.store(&store)?;
        let options = List {
            prefix,
            limit: None,
            keys_only,
        };
        let to_ms = to_ms.unwrap_or_else(|| store.now_ms());
        Ok(Response::new(past::diff(&store, options, from_ms, to_ms)))
    }

    async fn heads(&self, request: Request<api::HeadsRequest>) -> Answered<api::HeadsReply> {
        let api::HeadsRequest { store, key } = request.into_inner();
        let heads = self
            .store(&store)?
            .heads(&key)
            .await
            .map_err(ApiError::from)?;
        let heads = heads.into_iter().map(convert::head).collect();
        Ok(Response::new(api::HeadsReply { heads }))
    }

    async fn history(&self, request: Request<api::HistoryRequest>) -> Answered<api::HistoryReply> {
        let api::HistoryRequest { store, key, limit } = request.into_inner();
        let limit = bound(limit).unwrap_or(HISTORY_ENTRIES_MAX);
        let history = self.store(&store)?.history(&key, limit).await;
        let history = history.map_err(ApiError::from)?;
        Ok(Response::new(convert::history(history)))
    }

    async fn watch(&self, request: Request<api::WatchRequest>) -> Answered<WatchAnswers> {
        let request = request.into_inner();
        let store = self.store(&request.store)?;
        let (watches, ending) = (&self.0.watches, self.0.stop.ending.clone());
        let answers = WatchAnswers::new(store, request, watches, ending)?;
        Ok(Response::new(answers))
    }

    async fn create_consumer(
        &self,
        request: Request<api::CreateConsumerRequest>,
    ) -> Answered<api::ConsumerStatus> {
        let store = self.store(&request.get_ref().store)?;
        let reply = consumer::create(&store, request.into_inner()).await;
        Ok(Response::new(reply?))
    }

    async fn list_consumers(
        &self,
        request: Request<api::ListConsumersRequest>,
    ) -> Answered<api::ListConsumersReply> {
        let store = self.store(&request.get_ref().store)?;
        Ok(Response::new(consumer::list(&store).await?))
    }

    async fn show_consumer(
        &self,
        request: Request<api::ConsumerRequest>,
    ) -> Answered<api::ConsumerStatus> {
        let api::ConsumerRequest { store, consumer } = request.get_ref();
        let consumer = self.consumer(store, consumer)?;
        Ok(Response::new(consumer::show(&consumer).await?))
    }

    async fn pause_consumer(
        &self,
        request: Request<api::ConsumerRequest>,
    ) -> Answered<api::ConsumerStatus> {
        let api::ConsumerRequest { store, consumer } = request.get_ref();
        let consumer = self.consumer(store, consumer)?;
        Ok(Response::new(consumer::set_paused(&consumer, true).await?))
    }

    async fn resume_consumer(
        &self,
        request: Request<api::ConsumerRequest>,
    ) -> Answered<api::ConsumerStatus> {
        let api::ConsumerRequest { store, consumer } = request.get_ref();
        let consumer = self.consumer(store, consumer)?;
        Ok(Response::new(consumer::set_paused(&consumer, false).await?))
    }

    async fn reset_consumer(
        &self,
        request: Request<api::ResetConsumerRequest>,
    ) -> Answered<api::ConsumerStatus> {
        let api::ResetConsumerRequest {
            store,
            consumer,
            from,
        } = request.into_inner();
        let consumer = self.consumer(&store, &consumer)?;
        Ok(Response::new(consumer::reset(&consumer, from).await?))
    }

    async fn delete_consumer(
        &self,
        request: Request<api::ConsumerRequest>,
    ) -> Answered<api::DeleteConsumerReply> {
        let api::ConsumerRequest { store, consumer } = request.get_ref();
        let deleted = self.consumer(store, consumer)?.delete().await;
        deleted.map_err(ApiError::from)?;
        Ok(Response::new(api::DeleteConsumerReply {}))
    }

    async fn next(&self, request: Request<api::NextRequest>) -> Answered<api::NextReply> {
        let request = request.get_ref();
        let consumer = self.consumer(&request.store, &request.consumer)?;
        let reply = consumer::next(&consumer, request, &self.0.stop.ending).await;
        Ok(Response::new(reply?))
    }

    async fn consume(
        &self,
        request: Request<api::ConsumeRequest>,
    ) -> Answered<Answers<api::Delivery>> {
        let api::ConsumeRequest {
            store,
            consumer,
            prefetch,
        } = request.get_ref();
        let consumer = self.consumer(store, consumer)?;
        let ending = self.0.stop.ending.clone();
        Ok(Response::new(consumer::consume(
            consumer, *prefetch, ending,
        )))
    }

    async fn ack(&self, request: Request<api::AnswerRequest>) -> Answered<api::AnswerReply> {
        self.answer(request.into_inner(), Answer::Ack).await
    }

    async fn nack(&self, request: Request<api::NackRequest>) -> Answered<api::AnswerReply> {
        let api::NackRequest {
            store,
            consumer,
            deliveries,
            delay_ms,
            durable,
        } = request.into_inner();
        let request = api::AnswerRequest {
            store,
            consumer,
            deliveries,
            durable,
        };
        let delay = delay_ms.map(Duration::from_millis);
        self.answer(request, Answer::Nack { delay }).await
    }

    async fn term(&self, request: Request<api::AnswerRequest>) -> Answered<api::AnswerReply> {
        self.answer(request.into_inner(), Answer::Term).await
    }

    async fn extend(&self, request: Request<api::AnswerRequest>) -> Answered<api::AnswerReply> {
        self.answer(request.into_inner(), Answer::Extend).await
    }

    async fn list_dead(
        &self,
        request: Request<api::ConsumerRequest>,
    ) -> Answered<api::ListDeadReply> {
        let api::ConsumerRequest { store, consumer } = request.get_ref();
        let consumer = self.consumer(store, consumer)?;
        Ok(Response::new(consumer::list_dead(&consumer).await?))
    }

    async fn retry_dead(&self, request: Request<api::DeadRequest>) -> Answered<api::DeadReply> {
        let request = request.get_ref();
        let consumer = self.consumer(&request.store, &request.consumer)?;
        let retried = consumer.dead_retry(consumer::numbers(request)?).await;
        let count = retried.map_err(ApiError::from)?;
        Ok(Response::new(consumer::dead_reply(count)))
    }

    async fn skip_dead(&self, request: Request<api::DeadRequest>) -> Answered<api::DeadReply> {
        let request = request.get_ref();
        let consumer = self.consumer(&request.store, &request.consumer)?;
        let skipped = consumer.dead_skip(consumer::numbers(request)?).await;
        let count = skipped.map_err(ApiError::from)?;
        Ok(Response::new(consumer::dead_reply(count)))
    }

    async fn add_hook(&self, request: Request<api::AddHookRequest>) -> Answered<api::HookStatus> {
        let added = hook::add(&self.0.hooks, request.into_inner()).await;
        Ok(Response::new(added?))
    }

    async fn list_hooks(
        &self,
        _request: Request<api::ListHooksRequest>,
    ) -> Answered<api::ListHooksReply> {
        Ok(Response::new(hook::list(&self.0.hooks).await?))
    }

    async fn remove_hook(
        &self,
        request: Request<api::HookRequest>,
    ) -> Answered<api::RemoveHookReply> {
        let removed = self.0.hooks.remove(&request.get_ref().hook).await;
        removed.map_err(ApiError::from)?;
        Ok(Response::new(api::RemoveHookReply {}))
    }

    async fn pause_hook(&self, request: Request<api::HookRequest>) -> Answered<api::HookStatus> {
        let paused = hook::set_paused(&self.0.hooks, &request.get_ref().hook, true).await;
        Ok(Response::new(paused?))
    }

    async fn resume_hook(&self, request: Request<api::HookRequest>) -> Answered<api::HookStatus> {
        let resumed = hook::set_paused(&self.0.hooks, &request.get_ref().hook, false).await;
        Ok(Response::new(resumed?))
    }

    async fn hook_log(&self, request: Request<api::HookLogRequest>) -> Answered<api::HookLogReply> {
        let log = hook::log(&self.0.hooks, request.get_ref()).await;
        Ok(Response::new(log?))
    }

    async fn test_hook(
        &self,
        request: Request<api::TestHookRequest>,
    ) -> Answered<Answers<api::HookTest>> {
        let ending = self.0.stop.ending.clone();
        let runs = hook::test(&self.0.hooks, request.get_ref(), ending);
        Ok(Response::new(runs?))
    }

    async fn log(&self, request: Request<api::LogRequest>) -> Answered<Answers<api::LogEntry>> {
        let api::LogRequest {
            store,
            author,
            after,
            limit,
        } = request.into_inner();
        let author = convert::author(&author)?.unwrap_or_else(|| self.0.node.id());
        let limit = (limit > 0).then_some(limit);
        let store = self.store(&store)?;
        Ok(Response::new(paging::log(store, author, after, limit)))
    }

    async fn verify(&self, request: Request<api::VerifyRequest>) -> Answered<api::VerifyReply> {
        let api::VerifyRequest { store, all } = request.into_inner();
        let verified = maintenance::verify(self.asked(&store, all)?).await;
        Ok(Response::new(verified?))
    }

    async fn repair(&self, request: Request<api::RepairRequest>) -> Answered<api::RepairReply> {
        let request = request.into_inner();
        let stores = self.asked(&request.store, request.all)?;
        let repaired = maintenance::repair(stores, request.accept_loss).await;
        Ok(Response::new(repaired?))
    }

    async fn create_store(
        &self,
        request: Request<api::CreateStoreRequest>,
    ) -> Answered<api::StoreInfo> {
        let created = self.0.node.create_store(&request.get_ref().name).await;
        let info = created.map_err(ApiError::from)?;
        Ok(Response::new(convert::store_info(&info)))
    }

    async fn list_stores(
        &self,
        _request: Request<api::ListStoresRequest>,
    ) -> Answered<api::ListStoresReply> {
        let stores = self.0.node.stores();
        let stores = stores.iter().map(convert::store_info).collect();
        Ok(Response::new(api::ListStoresReply { stores }))
    }

    async fn invite(&self, request: Request<api::InviteRequest>) -> Answered<api::InviteReply> {
        let reply = members::invite(self.0.net.as_ref(), request.into_inner()).await;
        Ok(Response::new(reply?))
    }

    async fn join(
        &self,
        request: Request<api::JoinRequest>,
    ) -> Answered<Answers<api::JoinProgress>> {
        let progress = members::join(self.0.net.as_ref(), request.get_ref())?;
        Ok(Response::new(progress))
    }

    async fn list_peers(
        &self,
        _request: Request<api::ListPeersRequest>,
    ) -> Answered<api::ListPeersReply> {
        let peers = members::list(&self.0.node, self.0.net.as_ref()).await;
        Ok(Response::new(peers?))
    }

    async fn who_has(&self, request: Request<api::WhoHasRequest>) -> Answered<api::WhoHasReply> {
        let api::WhoHasRequest { store, key } = request.into_inner();
        let store = self.store(&store)?;
        let Shared { node, net, .. } = &*self.0;
        let reply = members::who_has(node, net.as_ref(), &store, &key).await;
        Ok(Response::new(reply?))
    }

    async fn wait_for(&self, request: Request<api::WaitForRequest>) -> Answered<api::WaitForReply> {
        let store = self.store(&request.get_ref().store)?;
        let reply = members::wait_for(self.0.net.as_ref(), &store, request.get_ref()).await;
        Ok(Response::new(reply?))
    }

    async fn remove_peer(
        &self,
        request: Request<api::RemovePeerRequest>,
    ) -> Answered<api::RemovePeerReply> {
        let node = members::node(&request.get_ref().node)?;
        self.0.node.remove(&node).await.map_err(ApiError::from)?;
        Ok(Response::new(api::RemovePeerReply {}))
    }

    async fn set_dormant(
        &self,
        request: Request<api::SetDormantRequest>,
    ) -> Answered<api::SetDormantReply> {
        let api::SetDormantRequest { node, dormant } = request.into_inner();
        let node = members::node(&node)?;
        let set = self.0.node.set_dormant(&node, dormant).await;
        set.map_err(ApiError::from)?;
        Ok(Response::new(api::SetDormantReply {}))
    }

    async fn dial(&self, request: Request<api::DialRequest>) -> Answered<api::DialReply> {
        members::connect(self.0.net.as_ref(), request.get_ref()).await?;
        Ok(Response::new(api::DialReply {}))
    }
}

fn wrote(written: Result<Written, WriteError>) -> Answered<api::Written> {
    Ok(Response::new(convert::written(
        &written.map_err(ApiError::from)?,
    )))
}

// 0 means no limit.
fn bound(limit: u64) -> Option<usize> {
    (limit > 0).then(|| usize::try_from(limit).unwrap_or(usize::MAX))
}

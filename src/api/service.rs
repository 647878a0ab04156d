//! The list of calls: each finds its store or consumer and leaves the work to the file of its noun.

use std::{path::PathBuf, process, sync::Arc};

use tonic::{Request, Response, Status, Streaming, async_trait};

use crate::{
    api::{
        compare,
        consumer::{self, Answer},
        convert,
        error::ApiError,
        get_stream::get_stream,
        hook, keys, maintenance, members,
        paging::{self, Answers},
        put_stream::PutAnswers,
        retention, root, snapshot,
        stop::Stop,
        stores,
        watch::{self, WatchAnswers},
        watches::Watches,
    },
    hooks::Hooks,
    net::Net,
    node::Node,
    store::{Store, consumers::Consumer},
    wire::api::{self, lattice_server::Lattice},
};

/// Answers the calls to one node. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Service(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    node: Node,
    // `None` in a short command that opened the node itself and has no peers.
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
        Self(Arc::new(Shared {
            started_ms: node.clock().now_ms(),
            node,
            net,
            hooks,
            socket,
            watches,
            stop,
        }))
    }

    fn store(&self, name: &str) -> Result<Store, ApiError> {
        self.0.node.store(name).map_err(ApiError::from)
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
}

#[async_trait]
impl Lattice for Service {
    type StatusStream = Answers<api::StatusReply>;
    type PutStreamStream = PutAnswers;
    type GetStreamStream = Answers<api::GetStreamReply>;
    type ListStream = Answers<api::Items>;
    type DiffStream = Answers<api::Differences>;
    type HeadsStream = Answers<api::HeadsReply>;
    type HistoryStream = Answers<api::HistoryReply>;
    type WatchStream = WatchAnswers;
    type ListConsumersStream = Answers<api::ListConsumersReply>;
    type ConsumeStream = Answers<api::Delivery>;
    type ListHooksStream = Answers<api::ListHooksReply>;
    type TestHookStream = Answers<api::HookTest>;
    type ListDeadStream = Answers<api::ListDeadReply>;
    type ProveStream = Answers<api::ProveReply>;
    type SnapshotStream = Answers<api::SnapshotReply>;
    type CompareStream = Answers<api::CompareReply>;
    type LogStream = Answers<api::LogEntry>;
    type VerifyStream = Answers<api::VerifyReply>;
    type RepairStream = Answers<api::RepairReply>;
    type ListStoresStream = Answers<api::ListStoresReply>;
    type ListPeersStream = Answers<api::ListPeersReply>;
    type JoinStream = Answers<api::JoinProgress>;

    async fn status(
        &self,
        _request: Request<api::StatusRequest>,
    ) -> Answered<Answers<api::StatusReply>> {
        let shared = &*self.0;
        let (net, socket) = (shared.net.as_ref(), shared.socket.as_deref());
        let reply = stores::status(&shared.node, net, socket, shared.started_ms);
        Ok(Response::new(reply.await?))
    }

    async fn down(&self, _request: Request<api::DownRequest>) -> Answered<api::DownReply> {
        // Asks the owner of the server to stop it. The server still finishes this call.
        self.0.stop.asked.cancel();
        Ok(Response::new(api::DownReply { pid: process::id() }))
    }

    async fn put(&self, request: Request<api::PutRequest>) -> Answered<api::Written> {
        let reply = keys::put(&self.0.node, request.into_inner()).await;
        Ok(Response::new(reply?))
    }

    async fn delete(&self, request: Request<api::DeleteRequest>) -> Answered<api::Written> {
        let reply = keys::delete(&self.0.node, request.into_inner()).await;
        Ok(Response::new(reply?))
    }

    async fn batch(&self, request: Request<api::BatchRequest>) -> Answered<api::Written> {
        let reply = keys::batch(&self.0.node, request.into_inner()).await;
        Ok(Response::new(reply?))
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
        let reply = keys::get(&self.0.node, request.into_inner()).await;
        Ok(Response::new(reply?))
    }

    async fn get_stream(
        &self,
        request: Request<Streaming<api::GetStreamRequest>>,
    ) -> Answered<Answers<api::GetStreamReply>> {
        let (node, ending) = (self.0.node.clone(), self.0.stop.ending.clone());
        let answers = get_stream(node, request.into_inner(), ending);
        Ok(Response::new(answers))
    }

    async fn list(&self, request: Request<api::ListRequest>) -> Answered<Answers<api::Items>> {
        let answers = keys::list(&self.0.node, request.into_inner());
        Ok(Response::new(answers?))
    }

    async fn diff(
        &self,
        request: Request<api::DiffRequest>,
    ) -> Answered<Answers<api::Differences>> {
        let answers = keys::diff(&self.0.node, request.into_inner());
        Ok(Response::new(answers?))
    }

    async fn heads(
        &self,
        request: Request<api::HeadsRequest>,
    ) -> Answered<Answers<api::HeadsReply>> {
        let reply = keys::heads(&self.0.node, request.into_inner()).await;
        Ok(Response::new(reply?))
    }

    async fn history(
        &self,
        request: Request<api::HistoryRequest>,
    ) -> Answered<Answers<api::HistoryReply>> {
        let reply = keys::history(&self.0.node, request.into_inner()).await;
        Ok(Response::new(reply?))
    }

    async fn watch(&self, request: Request<api::WatchRequest>) -> Answered<WatchAnswers> {
        let request = request.into_inner();
        let store = watch::store(&self.0.node, &request)?;
        let (watches, ending) = (&self.0.watches, self.0.stop.ending.clone());
        let answers = WatchAnswers::new(store, request, watches, ending)?;
        Ok(Response::new(answers))
    }

    async fn create_consumer(
        &self,
        request: Request<api::CreateConsumerRequest>,
    ) -> Answered<api::ConsumerStatus> {
        let reply = consumer::create(&self.0.node, request.into_inner()).await;
        Ok(Response::new(reply?))
    }

    async fn list_consumers(
        &self,
        request: Request<api::ListConsumersRequest>,
    ) -> Answered<Answers<api::ListConsumersReply>> {
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

    async fn set_consumer(
        &self,
        request: Request<api::SetConsumerRequest>,
    ) -> Answered<api::ConsumerStatus> {
        let request = request.into_inner();
        let consumer = self.consumer(&request.store, &request.consumer)?;
        Ok(Response::new(consumer::set(&consumer, request).await?))
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
        let (request, answer) = consumer::nack(request.into_inner());
        self.answer(request, answer).await
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
    ) -> Answered<Answers<api::ListDeadReply>> {
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
    ) -> Answered<Answers<api::ListHooksReply>> {
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

    async fn root(&self, request: Request<api::RootRequest>) -> Answered<api::RootReply> {
        let Shared { node, net, .. } = &*self.0;
        let reply = root::root(node, net.as_ref(), request.get_ref()).await;
        Ok(Response::new(reply?))
    }

    async fn prove(
        &self,
        request: Request<api::ProveRequest>,
    ) -> Answered<Answers<api::ProveReply>> {
        let Shared { node, net, .. } = &*self.0;
        let reply = root::prove(node, net.as_ref(), request.into_inner()).await;
        Ok(Response::new(reply?))
    }

    async fn snapshot(
        &self,
        request: Request<api::SnapshotRequest>,
    ) -> Answered<Answers<api::SnapshotReply>> {
        let reply = snapshot::snapshot(&self.0.node, request.get_ref()).await;
        Ok(Response::new(reply?))
    }

    async fn compare(
        &self,
        request: Request<api::CompareRequest>,
    ) -> Answered<Answers<api::CompareReply>> {
        let Shared { node, net, .. } = &*self.0;
        let reply = compare::compare(node, net.as_ref(), request.into_inner()).await;
        Ok(Response::new(reply?))
    }

    async fn log(&self, request: Request<api::LogRequest>) -> Answered<Answers<api::LogEntry>> {
        let api::LogRequest {
            store,
            author,
            mut after,
            limit,
            newest,
            signed,
        } = request.into_inner();
        let author = convert::author(&author)?.unwrap_or_else(|| self.0.node.id());
        let mut limit = (limit > 0).then_some(limit);
        let store = self.store(&store)?;
        // An author that has forked has several entries with one number.
        if let Some(entries) = limit.filter(|_| newest) {
            after = after.max(store.newest_seq(author).saturating_sub(entries));
            limit = None;
        }
        Ok(Response::new(paging::log(
            store, author, after, limit, newest, signed,
        )))
    }

    async fn verify(
        &self,
        request: Request<api::VerifyRequest>,
    ) -> Answered<Answers<api::VerifyReply>> {
        let reply = maintenance::verify(&self.0.node, request.get_ref());
        Ok(Response::new(reply?))
    }

    async fn retention(
        &self,
        request: Request<api::RetentionRequest>,
    ) -> Answered<api::RetentionReply> {
        let reply = retention::show(&self.0.node, request.get_ref()).await;
        Ok(Response::new(reply?))
    }

    async fn set_retention(
        &self,
        request: Request<api::SetRetentionRequest>,
    ) -> Answered<api::HistoryPolicy> {
        let reply = retention::set(&self.0.node, request.get_ref()).await;
        Ok(Response::new(reply?))
    }

    async fn prune(&self, request: Request<api::PruneRequest>) -> Answered<api::PruneReply> {
        let reply = retention::prune(&self.0.node, request.get_ref()).await;
        Ok(Response::new(reply?))
    }

    async fn repair(
        &self,
        request: Request<api::RepairRequest>,
    ) -> Answered<Answers<api::RepairReply>> {
        let Shared { node, net, .. } = &*self.0;
        let reply = maintenance::repair(node, net.as_ref(), request.get_ref()).await;
        Ok(Response::new(reply?))
    }

    async fn take_state(
        &self,
        request: Request<api::TakeStateRequest>,
    ) -> Answered<api::TakeStateReply> {
        let Shared { node, net, .. } = &*self.0;
        let reply = maintenance::take_state(node, net.as_ref(), request.get_ref()).await;
        Ok(Response::new(reply?))
    }

    async fn create_store(
        &self,
        request: Request<api::CreateStoreRequest>,
    ) -> Answered<api::StoreInfo> {
        let created = stores::create(&self.0.node, request.get_ref()).await;
        Ok(Response::new(created?))
    }

    async fn rename_store(
        &self,
        request: Request<api::RenameStoreRequest>,
    ) -> Answered<api::StoreInfo> {
        let renamed = stores::rename(&self.0.node, request.get_ref()).await;
        Ok(Response::new(renamed?))
    }

    async fn delete_store(&self, request: Request<api::StoreRequest>) -> Answered<api::StoreInfo> {
        let deleted = stores::delete(&self.0.node, request.get_ref()).await;
        Ok(Response::new(deleted?))
    }

    async fn share_store(&self, request: Request<api::StoreRequest>) -> Answered<api::StoreInfo> {
        let shared = stores::share(&self.0.node, request.get_ref()).await;
        Ok(Response::new(shared?))
    }

    async fn list_stores(
        &self,
        _request: Request<api::ListStoresRequest>,
    ) -> Answered<Answers<api::ListStoresReply>> {
        Ok(Response::new(stores::list(&self.0.node)))
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
    ) -> Answered<Answers<api::ListPeersReply>> {
        let peers = members::list(&self.0.node, self.0.net.as_ref()).await;
        Ok(Response::new(peers?))
    }

    async fn who_has(&self, request: Request<api::WhoHasRequest>) -> Answered<api::WhoHasReply> {
        let api::WhoHasRequest { store, key } = request.into_inner();
        let Shared { node, net, .. } = &*self.0;
        let store = node.store_of_keys(&store, [&key]).map_err(ApiError::from)?;
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

    async fn set_role(&self, request: Request<api::SetRoleRequest>) -> Answered<api::SetRoleReply> {
        members::set_role(&self.0.node, request.get_ref()).await?;
        Ok(Response::new(api::SetRoleReply {}))
    }

    async fn rename_peer(
        &self,
        request: Request<api::RenamePeerRequest>,
    ) -> Answered<api::RenamePeerReply> {
        members::rename(&self.0.node, request.get_ref()).await?;
        Ok(Response::new(api::RenamePeerReply {}))
    }

    async fn leave(&self, _request: Request<api::LeaveRequest>) -> Answered<api::LeaveReply> {
        let left = members::leave(&self.0.node, self.0.net.as_ref()).await;
        Ok(Response::new(left?))
    }

    async fn set_dormant(
        &self,
        request: Request<api::SetDormantRequest>,
    ) -> Answered<api::SetDormantReply> {
        members::set_dormant(&self.0.node, request.get_ref()).await?;
        Ok(Response::new(api::SetDormantReply {}))
    }

    async fn dial(&self, request: Request<api::DialRequest>) -> Answered<api::DialReply> {
        members::connect(self.0.net.as_ref(), request.get_ref()).await?;
        Ok(Response::new(api::DialReply {}))
    }
}

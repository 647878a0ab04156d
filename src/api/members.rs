//! The calls about other nodes: invitations, joins, peers, and copies of an entry on other disks.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio_stream::{StreamExt as _, wrappers::ReceiverStream};

use crate::{
    api::{
        convert,
        error::{
            ApiError, EXIT_FAILED, EXIT_NOT_FOUND, EXIT_PRECONDITION, EXIT_UNAVAILABLE,
            HINT_REMOVED,
        },
        paging::{Answers, parts},
    },
    id::{Author, EntryId},
    limits::INVITE_MS_DEFAULT,
    net::{
        Addresses, BaseRefusal, CompareError, Invitation, InvitationError, JoinError, JoinEvent,
        Net, NetError, PeerError, PeerStatus, TakeStateError,
    },
    node::{FormerRoot, MeshError, Node, NodeInfo, OwnData},
    protocol::{
        frontier::FrontierTip,
        membership::{MembershipError, role::Role},
    },
    store::Store,
    wire::api,
};

/// Answers `Invite`.
pub(super) async fn invite(
    net: Option<&Net>,
    request: api::InviteRequest,
) -> Result<api::InviteReply, ApiError> {
    let role = role(&request.role)?;
    let valid_ms = match request.valid_ms {
        0 => INVITE_MS_DEFAULT,
        valid_ms => valid_ms,
    };
    let invitation = running(net)?.invite(role, valid_ms).await?;
    Ok(api::InviteReply {
        token: invitation.to_string(),
        expires_ms: invitation.expires_ms,
        addresses: text(&invitation.addresses),
    })
}

/// Answers `SetRole`.
pub(super) async fn set_role(node: &Node, request: &api::SetRoleRequest) -> Result<(), ApiError> {
    let (member, role) = (self::node(&request.node)?, role(&request.role)?);
    Ok(node.set_role(&member, role).await?)
}

/// Answers `RenamePeer`.
pub(super) async fn rename(node: &Node, request: &api::RenamePeerRequest) -> Result<(), ApiError> {
    let member = convert::author(&request.node)?.unwrap_or(node.id());
    Ok(node.rename(&member, &request.name).await?)
}

/// Answers `SetDormant`.
pub(super) async fn set_dormant(
    node: &Node,
    request: &api::SetDormantRequest,
) -> Result<(), ApiError> {
    let member = self::node(&request.node)?;
    Ok(node.set_dormant(&member, request.dormant).await?)
}

/// Answers `Leave`.
pub(super) async fn leave(node: &Node, net: Option<&Net>) -> Result<api::LeaveReply, ApiError> {
    let online = || -> BTreeSet<Author> {
        let peers = net.map(Net::peers).unwrap_or_default();
        let online = peers.into_iter().filter(|peer| peer.online);
        online.map(|peer| peer.node).collect()
    };
    // A node that was started for this call has not met anybody yet.
    let until = Instant::now() + LEAVE_WAIT;
    let has_others = node.members().others(node.id()).next().is_some();
    while online().is_empty() && has_others && net.is_some() && Instant::now() < until {
        tokio::time::sleep(LEAVE_LOOK).await;
    }
    let before = online();
    node.leave().await?;
    // A member that knows of it hangs up.
    let until = Instant::now() + LEAVE_WAIT;
    let mut members = 0;
    while members == 0 && !before.is_empty() && Instant::now() < until {
        tokio::time::sleep(LEAVE_LOOK).await;
        members = before.difference(&online()).count();
    }
    Ok(api::LeaveReply {
        members: u32::try_from(members).unwrap_or(u32::MAX),
    })
}

/// Answers `Join`.
pub(super) fn join(
    net: Option<&Net>,
    request: &api::JoinRequest,
) -> Result<Answers<api::JoinProgress>, ApiError> {
    let net = running(net)?;
    let invitation: Invitation = request.token.parse()?;
    let data = match request.data.as_str() {
        "" | "private" => OwnData::Private,
        "share" => OwnData::Shared,
        "discard" => OwnData::Discarded,
        other => {
            let message = format!("{other:?} is not one of private, share and discard");
            return Err(ApiError::usage("bad_data", message));
        }
    };
    let (answers, stream) = mpsc::channel(EVENTS_AHEAD);
    // The join continues when the client disconnects. The `answers` channel closes when the join
    // and its events have ended; the stream then ends. Sends to a disconnected client are ignored.
    let joining = net.clone();
    net.spawn(async move {
        let (events, mut received) = mpsc::channel(EVENTS_AHEAD);
        let forward = answers.clone();
        let forwarding = tokio::spawn(async move {
            while let Some(event) = received.recv().await {
                drop(forward.send(Ok(progress(event))).await);
            }
        });
        let joined = joining.join(&invitation, data, &events).await;
        // Closes the channel, so `forwarding` ends after the last event and the error is sent last.
        drop(events);
        drop(forwarding.await);
        if let Err(error) = joined {
            drop(answers.send(Err(ApiError::from(error).into())).await);
        }
    });
    Ok(Box::pin(ReceiverStream::new(stream).map(|answer| answer)))
}

fn progress(event: JoinEvent) -> api::JoinProgress {
    let step = |step: &str| api::JoinProgress {
        step: step.to_owned(),
        ..api::JoinProgress::default()
    };
    match event {
        JoinEvent::Contacted { node } => api::JoinProgress {
            node: convert::bytes(&node.0),
            ..step("contacted")
        },
        JoinEvent::Accepted { role, former } => api::JoinProgress {
            role: role.to_string(),
            former_private: matches!(former, FormerRoot::Kept { private: true, .. }),
            discarded: match former {
                FormerRoot::Discarded { stores } => stores as u64,
                FormerRoot::Kept { .. } | FormerRoot::Dropped | FormerRoot::Same => 0,
            },
            ..match former {
                FormerRoot::Kept { name, root, .. } => api::JoinProgress {
                    former: name,
                    former_root: root.unwrap_or_default(),
                    ..step("accepted")
                },
                FormerRoot::Dropped | FormerRoot::Same | FormerRoot::Discarded { .. } => {
                    step("accepted")
                }
            }
        },
        JoinEvent::Syncing {
            store,
            entries,
            base,
        } => api::JoinProgress {
            store: convert::bytes(&store.0),
            entries,
            base_bytes: base.bytes,
            base_bytes_max: base.bytes_max,
            ..step("syncing")
        },
        JoinEvent::Synced { entries } => api::JoinProgress {
            entries,
            ..step("synced")
        },
    }
}

/// Answers `ListPeers`: all members and removed members; this node apart from them.
pub(super) async fn list(
    node: &Node,
    net: Option<&Net>,
) -> Result<Answers<api::ListPeersReply>, ApiError> {
    let members = node.members();
    let known = net.map(Net::peers).unwrap_or_default();
    let root = node.root();
    let (mut forked, mut held) = (BTreeSet::new(), BTreeSet::new());
    for store in node.open_stores() {
        let status = store.status().await;
        let forks = status.forks.into_iter().filter(|fork| !fork.closed);
        forked.extend(forks.map(|fork| fork.proof.author));
        held.extend(status.held.iter().map(|held| held.author));
    }
    let (mut peers, mut own) = (Vec::new(), None);
    for (author, _member) in members.iter() {
        let status = known.iter().find(|status| status.node == *author);
        let role = match members.role(author) {
            Some(role) => role.to_string(),
            None if members.is_removed(author) => "removed".to_owned(),
            None if members.is_spent(author) => "spent".to_owned(),
            None => continue,
        };
        let notes = notes_about(&root, author).await?;
        let mut peer = peer(author, role, notes, status, forked.contains(author));
        peer.held = held.contains(author);
        if *author == node.id() {
            peer.online = net.is_some();
            peer.seen_ms = node.clock().now_ms();
            own = Some(peer);
        } else {
            peers.push(peer);
        }
    }
    let addresses = net.and_then(Net::addresses).unwrap_or_default();
    let mut first = Some(api::ListPeersReply {
        peers: Vec::new(),
        addresses: text(&addresses),
        own,
        not_listening: net.and_then(Net::trouble).unwrap_or_default(),
    });
    Ok(parts(peers, move |peers, _last| api::ListPeersReply {
        peers,
        ..first.take().unwrap_or_default()
    }))
}

// Reads what the root store has about a node: its name (empty: unknown), and whether it is dormant.
async fn notes_about(root: &Store, node: &Author) -> Result<(String, bool), ApiError> {
    let info = root.get(&NodeInfo::key(node)).await?;
    let status = root.get(format!("/nodes/{node}/status").as_bytes()).await?;
    let name = info.and_then(|item| NodeInfo::decode(&item.value));
    let dormant = status.is_some_and(|item| item.value.as_ref() == b"dormant");
    Ok((name.unwrap_or_default().name, dormant))
}

fn peer(
    author: &Author,
    role: String,
    (name, dormant): (String, bool),
    status: Option<&PeerStatus>,
    forked: bool,
) -> api::Peer {
    let mut peer = api::Peer {
        node: convert::bytes(&author.0),
        name,
        role,
        dormant,
        forked,
        ..api::Peer::default()
    };
    if let Some(status) = status {
        let micros = |rtt: Duration| u64::try_from(rtt.as_micros()).unwrap_or(u64::MAX);
        peer.online = status.online;
        peer.seen_ms = status.seen_ms;
        peer.behind = status.behind;
        peer.ahead = status.ahead;
        peer.rtt_us = status.rtt.map(micros);
        peer.relayed = status.relayed;
        peer.skew_ms = status.skew_ms;
        peer.diverged = u32::try_from(status.diverged.len()).unwrap_or(u32::MAX);
        peer.strikes = status.strikes;
        peer.error = trouble(status);
        peer.addresses = text(&status.addresses);
    }
    peer
}

// Returns the trouble with a peer in one line; empty if there is no trouble.
fn trouble(status: &PeerStatus) -> String {
    let misbehaved = status.misbehaved.as_deref().unwrap_or_default();
    match (status.shut_out, &status.error) {
        (Some(wait), _) => format!("shut out for {} s: {misbehaved}", wait.as_secs() + 1),
        (None, Some(error)) => error.to_string(),
        (None, None) => misbehaved.to_owned(),
    }
}

/// Answers `WhoHas`.
pub(super) async fn who_has(
    node: &Node,
    net: Option<&Net>,
    store: &Store,
    key: &[u8],
) -> Result<api::WhoHasReply, ApiError> {
    let members = node.members();
    let all = members
        .iter()
        .filter(|(member, _)| members.role(member).is_some());
    let members = u32::try_from(all.count()).unwrap_or(u32::MAX);
    let heads = store.heads(key).await?;
    let Some(winner) = heads.into_iter().find(|head| head.wins) else {
        return Ok(api::WhoHasReply {
            members,
            ..api::WhoHasReply::default()
        });
    };
    let tip = FrontierTip {
        seq: winner.entry.seq,
        id: winner.entry.id,
    };
    let nodes = running(net)?.who_has(store, &winner.entry.author, tip);
    Ok(api::WhoHasReply {
        entry: Some(convert::entry_ref(&winner.entry)),
        nodes: nodes.iter().map(|node| convert::bytes(&node.0)).collect(),
        members,
    })
}

/// Answers `WaitFor`.
pub(super) async fn wait_for(
    net: Option<&Net>,
    store: &Store,
    request: &api::WaitForRequest,
) -> Result<api::WaitForReply, ApiError> {
    let net = running(net)?;
    let author = node(&request.author)?;
    let id = EntryId::from_slice(&request.entry)
        .ok_or_else(|| ApiError::usage("bad_entry", "an entry's id has 32 bytes"))?;
    let tip = FrontierTip {
        seq: request.seq,
        id,
    };
    let wanted = usize::try_from(request.members).unwrap_or(usize::MAX);
    let waiting = net.wait_for(store, &author, tip, wanted);
    // The reply is the number of members at the end, whether or not the wait timed out.
    drop(tokio::time::timeout(Duration::from_millis(request.timeout_ms), waiting).await);
    let members = net.who_has(store, &author, tip).len();
    Ok(api::WaitForReply {
        members: u32::try_from(members).unwrap_or(u32::MAX),
    })
}

/// Answers `Dial`.
pub(super) async fn connect(net: Option<&Net>, request: &api::DialRequest) -> Result<(), ApiError> {
    let node = node(&request.node)?;
    let mut addresses = Addresses::default();
    if !request.address.is_empty() {
        let address = request.address.parse().map_err(|_reason| {
            let given = &request.address;
            ApiError::usage("bad_address", format!("{given:?} is not an address"))
                .hint("an address is IP:PORT, for example 192.0.2.7:4711")
        })?;
        addresses.direct.insert(address);
    }
    Ok(running(net)?.connect(&node, addresses).await?)
}

/// Reads the node that a call is about.
pub(super) fn node(bytes: &Bytes) -> Result<Author, ApiError> {
    convert::author(bytes)?.ok_or_else(|| ApiError::usage("no_node", "the request names no node"))
}

fn role(name: &str) -> Result<Role, ApiError> {
    name.parse()
        .map_err(|error: crate::protocol::membership::role::RoleError| {
            ApiError::usage("bad_role", error.to_string())
        })
}

pub(super) fn running(net: Option<&Net>) -> Result<&Net, ApiError> {
    net.ok_or_else(|| {
        ApiError::new(
            "no_net",
            EXIT_UNAVAILABLE,
            "this needs peers, and no node is running that connects to them",
        )
        .hint("start the node with `lattice up`")
    })
}

fn text(addresses: &Addresses) -> Vec<String> {
    let direct = addresses.direct.iter().map(ToString::to_string);
    let relay = addresses.relay.iter().map(ToString::to_string);
    direct.chain(relay).collect()
}

impl From<InvitationError> for ApiError {
    fn from(error: InvitationError) -> Self {
        Self::usage("bad_invitation", error.to_string())
            .hint("copy the whole token that `lattice invite` printed")
    }
}

impl From<CompareError> for ApiError {
    fn from(error: CompareError) -> Self {
        let message = error.to_string();
        match error {
            CompareError::PrefixTooLong { .. } => Self::usage("prefix_too_long", message),
            CompareError::Net(error) => error.into(),
            CompareError::Peer { why, .. } => of_peer(&why, "compare", message),
        }
    }
}

impl From<TakeStateError> for ApiError {
    fn from(error: TakeStateError) -> Self {
        let message = error.to_string();
        match error {
            TakeStateError::Net(error) => error.into(),
            TakeStateError::Base { why, .. } => {
                Self::new("no_state", EXIT_FAILED, message).hint(remedy(&why))
            }
            TakeStateError::Peer { why, .. } => of_peer(&why, "take_state", message),
        }
    }
}

// The next step of a user whose choice of a state failed.
fn remedy(why: &BaseRefusal) -> &'static str {
    match why {
        BaseRefusal::NoBase => "`lattice prune` on that node makes one",
        BaseRefusal::Busy => {
            "wait until it is here (`lattice status` shows how much has come), then try again"
        }
        BaseRefusal::AskedLast => "try again in a minute",
        BaseRefusal::OtherChosen => "choose one node, and wait until its state is here",
        BaseRefusal::Behind { .. } => {
            "on that node, take the state of this one instead; or run `lattice prune` there, until it has \
             removed those entries, too"
        }
        BaseRefusal::OwnLog { .. } => {
            "`lattice status` shows whether this node's log is cut or forked, and `lattice repair` mends \
             that; if this is an older copy of the node, put the newest one back, or join again with a \
             new identity"
        }
        BaseRefusal::Other { .. } => {
            "`lattice verify`, here and there, shows whether data is damaged"
        }
    }
}

// The error of a question to a peer. `own`: its code if this node failed.
fn of_peer(why: &PeerError, own: &'static str, message: String) -> ApiError {
    match why {
        PeerError::Own { .. } => ApiError::new(own, EXIT_FAILED, message)
            .hint("`lattice verify` lists what is damaged and where"),
        PeerError::Malformed { .. } => ApiError::new("bad_peer", EXIT_FAILED, message)
            .hint("`lattice peers` shows the node, and `lattice peer remove` removes it"),
        _unreached => ApiError::new("no_answer", EXIT_UNAVAILABLE, message)
            .hint("`lattice peers` shows whether it is online"),
    }
}

impl From<NetError> for ApiError {
    fn from(error: NetError) -> Self {
        let message = error.to_string();
        match error {
            NetError::Bind { .. } => Self::new("cannot_bind", EXIT_FAILED, message).hint(
                "check that the address of `--bind` is one of this machine and its port is free",
            ),
            NetError::PortTaken { .. } => Self::new("port_taken", EXIT_UNAVAILABLE, message).hint(
                "stop that program, or give another port with `--bind`; a running node tries \
                     again every few seconds",
            ),
            NetError::BadRelay { .. } => Self::usage("bad_relay", message),
            NetError::Mesh(error) => error.into(),
        }
    }
}

impl From<MeshError> for ApiError {
    fn from(error: MeshError) -> Self {
        let message = error.to_string();
        match error {
            MeshError::Membership(error) => error.into(),
            MeshError::Invite(_) => Self::new("bad_invite", EXIT_PRECONDITION, message),
            MeshError::NotAMember { .. } => Self::new("not_a_member", EXIT_NOT_FOUND, message)
                .hint("`lattice peer list` shows the members"),
            MeshError::TooManyTips(_) => Self::new("too_many_tips", EXIT_FAILED, message),
            MeshError::ReaderLeaves { node } => Self::new("reader", EXIT_PRECONDITION, message)
                .hint(format!(
                    "on an admin: `lattice peer remove {}`; without one, `lattice down` and `lattice \
                     init --new-identity` here end it on this side only",
                    node.short()
                )),
            MeshError::Name(error) => error.into(),
            MeshError::Write(error) => error.into(),
            MeshError::Read(error) => error.into(),
            MeshError::Open(error) => error.into(),
        }
    }
}

impl From<MembershipError> for ApiError {
    fn from(error: MembershipError) -> Self {
        let message = error.to_string();
        match error {
            MembershipError::NotAdmin { .. } => Self::new("not_admin", EXIT_PRECONDITION, message)
                .hint("ask an admin; `lattice peer list` shows the admins"),
            MembershipError::Stranger { .. } => Self::new("not_a_member", EXIT_NOT_FOUND, message)
                .hint("`lattice peer list` shows the members"),
            MembershipError::Removed { .. } => {
                Self::new("removed", EXIT_PRECONDITION, message).hint(HINT_REMOVED)
            }
            MembershipError::Spent { .. } => {
                Self::new("key_spent", EXIT_PRECONDITION, message).hint(HINT_REMOVED)
            }
            MembershipError::HasRole { .. } => Self::new("has_role", EXIT_PRECONDITION, message),
            MembershipError::Lowered { .. } => {
                Self::new("lowered", EXIT_PRECONDITION, message).hint(
                    "on that node: `lattice init --new-identity`, then `lattice join` with a new token; its \
                     data stays",
                )
            }
            MembershipError::LowersItself => Self::new("lowers_itself", EXIT_PRECONDITION, message),
            MembershipError::LastAdmin { .. } => {
                Self::new("last_admin", EXIT_PRECONDITION, message)
                    .hint("invite another admin first: `lattice invite --role admin`")
            }
            MembershipError::Outranked { .. } => Self::new("outranked", EXIT_PRECONDITION, message),
        }
    }
}

impl From<JoinError> for ApiError {
    fn from(error: JoinError) -> Self {
        let message = error.to_string();
        match error {
            JoinError::Removed => Self::new("removed", EXIT_PRECONDITION, message).hint(
                "give this directory a new identity with `lattice init --new-identity`, then join",
            ),
            JoinError::Member => Self::new("member", EXIT_PRECONDITION, message)
                .hint("an admin changes the role of a member: `lattice peer role NODE writer`"),
            JoinError::Own => Self::new("own_invitation", EXIT_PRECONDITION, message)
                .hint("give the token to another node"),
            JoinError::HasMembers { .. } => Self::new("has_members", EXIT_PRECONDITION, message)
                .hint("join with a new data directory: `--data-dir DIR`"),
            JoinError::Unreachable { .. } => Self::new("unreachable", EXIT_UNAVAILABLE, message)
                .hint(
                    "check that it is up, and that firewalls let UDP through to that port; the \
                     token is still valid, but if that node has another address or port by now, \
                     ask for a new one",
                ),
            JoinError::Refused { word, .. } => Self::new(&word, EXIT_PRECONDITION, message)
                .hint("ask for a new token: `lattice invite`"),
            JoinError::NotSynced { .. } => Self::new("not_synced", EXIT_UNAVAILABLE, message)
                .hint("`lattice up` continues the sync"),
            JoinError::Open(error) => error.into(),
            JoinError::Net(error) => error.into(),
        }
    }
}

// Time that members have to hang up on a node that leaves, and time between two looks.
const LEAVE_WAIT: Duration = Duration::from_secs(5);
const LEAVE_LOOK: Duration = Duration::from_millis(20);
/// Largest number of events of a join that wait for the client to read them. When full, the join
/// waits.
const EVENTS_AHEAD: usize = 64;

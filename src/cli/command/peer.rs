//! `peer`, `connect`: show, dial and remove the other members of the mesh.

use std::cmp::Reverse;

use clap::{Args, Subcommand};
use lattice::{api::whole, id::looks_like_id, wire::api};

use crate::cli::{
    exit::{Exit, Failure},
    input::confirm,
    output::{
        health::NOT_LISTENING_HINT,
        json::typed,
        object::{self, hex, short},
        print::harmless,
    },
    screens::{
        peers::{draw, is_gone},
        when::count,
    },
    session::{Context, Lifetime},
};

/// List the other members, change their role or name, remove them, or mark them dormant
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  lattice peer list
  lattice peers --json | jq -r 'select(.online and (.own | not)) | .node'
  lattice peer role kitchen writer
  lattice peer rename 4f5c kitchen
  lattice peer remove 4f5c
  lattice peer dormant 4f5c")]
pub(crate) struct Peer {
    #[command(subcommand)]
    action: PeerAction,
}

#[derive(Debug, Subcommand)]
enum PeerAction {
    /// List the members: this node, then the others, online ones first
    #[command(visible_alias = "ls", after_help = LIST_HELP)]
    List(Peers),
    /// Remove a node from the mesh, for ever
    ///
    /// The entries that it wrote and that this node has remain valid. Later ones do not count. Shows
    /// the id, the name and the role of the node, and asks for confirmation: a member chooses its own
    /// name, and nothing takes a removal back.
    #[command(
        after_help = "Examples:\n  lattice peer remove 4f5c\n  lattice peer remove kitchen --yes"
    )]
    Remove {
        /// Id of the node, the first digits of it, or its name
        node: String,
        /// Do not ask for confirmation; required if stdin is not a terminal
        #[arg(long)]
        yes: bool,
    },
    /// Give a member another role
    ///
    /// A lower role is for ever: no other one gives the rights back. What the node has done with them,
    /// as far as this node has it, goes on counting; later entries or acts of it do not. So this asks
    /// for confirmation, as a removal does.
    #[command(
        after_help = "Examples:\n  lattice peer role kitchen writer\n  lattice peer role kitchen reader --yes"
    )]
    Role {
        /// Id of the node, the first digits of it, or its name
        node: String,
        /// Its new role
        #[arg(value_parser = ["reader", "writer", "admin"])]
        role: String,
        /// Do not ask for confirmation; required for a lower role if stdin is not a terminal
        #[arg(long)]
        yes: bool,
    },
    /// Give a member another name
    ///
    /// Every writer may rename itself, and an admin everybody. A name in config.toml, or a --name,
    /// takes effect again at the next start of that node.
    #[command(
        after_help = "Examples:\n  lattice peer rename 4f5c kitchen\n  lattice peer rename . attic"
    )]
    Rename {
        /// Id of the node, the first digits of it, or its name; `.` is this node
        node: String,
        /// Its new name, up to 64 characters
        name: String,
    },
    /// Mark a member as dormant: nobody waits for it until it is back
    ///
    /// A member that makes no progress becomes dormant by itself (`lattice retention set`), and is waited for
    /// again once it has nearly everything. --back has the members wait for it at once.
    #[command(
        after_help = "Examples:\n  lattice peer dormant 4f5c\n  lattice peer dormant 4f5c --back"
    )]
    Dormant {
        /// Id of the node, the first digits of it, or its name
        node: String,
        /// Mark it as active again
        #[arg(long, alias = "over")]
        back: bool,
    },
}

impl Peer {
    pub(crate) async fn run(self, context: &mut Context) -> Result<(), Failure> {
        match self.action {
            PeerAction::List(peers) => peers.run(context).await,
            PeerAction::Remove { node, yes } => {
                let mut client = context.client(Lifetime::Short).await?;
                let hint = "this is this node itself: see `lattice leave`";
                let peer = find_other(context, &node, hint).await?;
                if !yes {
                    confirm_removal(&peer).await?;
                }
                let request = api::RemovePeerRequest {
                    node: peer.node.clone(),
                };
                client.remove_peer(request).await?;
                print_changed(context, "removed", &peer)
            }
            PeerAction::Role { node, role, yes } => {
                let mut client = context.client(Lifetime::Short).await?;
                let hint = "this is this node itself: another admin can change its role";
                let peer = find_other(context, &node, hint).await?;
                if !yes && is_lower(&role, &peer.role) {
                    confirm_lowering(&peer, &role).await?;
                }
                let request = api::SetRoleRequest {
                    node: peer.node.clone(),
                    role: role.clone(),
                };
                client.set_role(request).await?;
                print_changed(context, "role", &peer)
            }
            PeerAction::Rename { node, name } => {
                let mut client = context.client(Lifetime::Short).await?;
                let peer = match node.as_str() {
                    "." => own(context).await?,
                    other => find(context, other).await?,
                };
                let request = api::RenamePeerRequest {
                    node: peer.node.clone(),
                    name,
                };
                client.rename_peer(request).await?;
                print_changed(context, "renamed", &peer)
            }
            PeerAction::Dormant { node, back } => {
                let mut client = context.client(Lifetime::Short).await?;
                let peer = find(context, &node).await?;
                let request = api::SetDormantRequest {
                    node: peer.node.clone(),
                    dormant: !back,
                };
                client.set_dormant(request).await?;
                print_changed(context, if back { "active" } else { "dormant" }, &peer)
            }
        }
    }
}

// Finds a peer. The error has the hint `of_itself` if this node itself is named.
async fn find_other(
    context: &mut Context,
    named: &str,
    of_itself: &str,
) -> Result<api::Peer, Failure> {
    match find(context, named).await {
        Err(error) if is_own(context, named).await? => Err(error.hint(of_itself)),
        found => found,
    }
}

// Returns whether `named` is this node itself: it is not among its peers.
async fn is_own(context: &mut Context, named: &str) -> Result<bool, Failure> {
    let mut client = context.client(Lifetime::Short).await?;
    let reply = whole::peers(&mut client).await?;
    Ok(!matching(reply.own.into_iter().collect(), named).is_empty())
}

// Returns this node as far as a change of it needs.
async fn own(context: &mut Context) -> Result<api::Peer, Failure> {
    let mut client = context.client(Lifetime::Short).await?;
    let status = whole::status(&mut client).await?;
    Ok(api::Peer {
        node: status.node,
        ..api::Peer::default()
    })
}

async fn confirm_removal(peer: &api::Peer) -> Result<(), Failure> {
    let (node, name) = (hex(&peer.node), harmless(&peer.name));
    let shown = format!("node {node} ({name}, {})", peer.role);
    confirm::require_terminal(&format!("peer remove asks before it removes {shown}"))?;
    let question = format!("remove {shown} for ever?");
    confirm::ask(question, "the node was not removed").await
}

fn is_lower(role: &str, has: &str) -> bool {
    matches!(
        (role, has),
        ("reader", "writer" | "admin") | ("writer", "admin")
    )
}

async fn confirm_lowering(peer: &api::Peer, role: &str) -> Result<(), Failure> {
    let (node, name, has) = (hex(&peer.node), harmless(&peer.name), &peer.role);
    let shown = format!("the role of node {node} ({name}) from {has} to {role}");
    confirm::require_terminal(&format!("peer role asks before it lowers {shown}"))?;
    confirm::ask(
        format!("lower {shown} for ever?"),
        "the role was not changed",
    )
    .await
}

fn print_changed(
    context: &mut Context,
    what: &'static str,
    peer: &api::Peer,
) -> Result<(), Failure> {
    let out = &mut context.out;
    let node = hex(&peer.node);
    if out.json {
        let r#type = format!("peer_{what}");
        return out.object(&object::PeerChanged { r#type, node });
    }
    if out.for_people() && !peer.name.is_empty() {
        let (name, id) = (harmless(&peer.name), out.screen().id(&peer.node));
        return out.line(&format!("{what:<8} {name} ({id})"));
    }
    out.line(&format!("{what:<8} {node}"))
}

/// List the members: the same as `peer list`
#[derive(Debug, Args)]
#[command(after_help = LIST_HELP)]
pub(crate) struct Peers {
    /// Also the nodes that were members and were removed
    #[arg(long)]
    all: bool,
}

impl Peers {
    pub(crate) async fn run(self, context: &mut Context) -> Result<(), Failure> {
        let mut client = context.client(Lifetime::Short).await?;
        let is_running = context.is_connected();
        let api::ListPeersReply {
            mut peers,
            addresses,
            own,
            not_listening,
        } = whole::peers(&mut client).await?;
        sort(&mut peers);
        let out = &mut context.out;
        if !is_running {
            out.notice(
                "no_node",
                "no node is running here, so nothing is known about connections; start it with \
                 `lattice up`",
            );
        }
        if !not_listening.is_empty() {
            out.notice(
                "not_listening",
                &format!("{not_listening}; it tries again; {NOT_LISTENING_HINT}"),
            );
        }
        if out.json {
            let own = own.iter().map(|own| object::Peer::new(own, true));
            let mut all = own.chain(peers.iter().map(|peer| object::Peer::new(peer, false)));
            return all.try_for_each(|peer| out.object(&typed("peer", peer)));
        }
        if peers.is_empty() {
            out.notice(
                "no_peers",
                "this node has no peers; invite one with `lattice invite`",
            );
        }
        let shown: Vec<_> = peers
            .iter()
            .filter(|peer| self.all || !is_gone(peer))
            .collect();
        let lines = draw(own.as_ref(), &shown, &out.screen());
        lines.iter().try_for_each(|line| out.line(line))?;
        // The table comes before what is printed about it.
        out.flush()?;
        let gone = peers.len() - shown.len();
        if gone > 0 {
            let nodes = count(gone as u64, "removed node");
            out.notice("removed", &format!("{nodes} not shown, see --all"));
        }
        if !addresses.is_empty() {
            out.notice(
                "listening",
                &format!("listening on {}", addresses.join(", ")),
            );
        }
        Ok(())
    }
}

// Those online by name, then the others, the last one seen first. So the table keeps its order while they
// stay online.
fn sort(peers: &mut [api::Peer]) {
    peers.sort_by_cached_key(|peer| {
        let seen_ms = if peer.online { 0 } else { peer.seen_ms };
        (
            !peer.online,
            Reverse(seen_ms),
            peer.name.clone(),
            peer.node.clone(),
        )
    });
}

/// Connect to a member now
///
/// The node dials members by itself. This is for an address that it does not know.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  lattice connect 4f5c
  lattice connect kitchen 192.0.2.7:4711")]
pub(crate) struct Connect {
    /// Id of the node, the first digits of it, or its name
    node: String,
    /// Address of the node [default: the last known ones]
    #[arg(value_name = "IP:PORT")]
    address: Option<String>,
}

impl Connect {
    pub(crate) async fn run(self, context: &mut Context) -> Result<(), Failure> {
        let mut client = context.client(Lifetime::Short).await?;
        let peer = find(context, &self.node).await?;
        let request = api::DialRequest {
            node: peer.node.clone(),
            address: self.address.unwrap_or_default(),
        };
        client.dial(request).await?;
        print_changed(context, "dialled", &peer)
    }
}

/// Finds the only peer with this id, beginning of an id, or name. A member chooses its own name: it
/// must not stand for the id of another member.
pub(crate) async fn find(context: &mut Context, named: &str) -> Result<api::Peer, Failure> {
    let mut client = context.client(Lifetime::Short).await?;
    let reply = whole::peers(&mut client).await?;
    let matching = matching(reply.peers, named);
    match &matching[..] {
        [peer] => Ok(peer.clone()),
        [] => Err(Failure::new(
            Exit::NotFound,
            "unknown_node",
            format!("no peer has the id or the name {named:?}"),
        )
        .hint("`lattice peer list` lists the peers")),
        several => {
            let nodes = several.iter().take(NODES_SHOWN_MAX).map(|peer| {
                let name = harmless(&peer.name);
                format!("{} ({name}, {})", short(&peer.node), peer.role)
            });
            let nodes: Vec<String> = nodes.collect();
            let message = format!("{named:?} matches {} nodes", several.len());
            Err(Failure::usage("ambiguous_node", message).hint(format!(
                "give the first digits of the id of one: {}",
                nodes.join(", ")
            )))
        }
    }
}

// Returns the peers that `named` may stand for: the one with exactly this id, or those whose id
// begins so or whose name it is. Removed nodes are only found if no member is.
fn matching(peers: Vec<api::Peer>, named: &str) -> Vec<api::Peer> {
    let digits = named.to_ascii_lowercase();
    let is_meant = |peer: &api::Peer| {
        let id = hex(&peer.node);
        match digits.len() {
            0 => false,
            // A whole id.
            64 => id == digits,
            _fewer => id.starts_with(&digits) || (!looks_like_id(named) && peer.name == named),
        }
    };
    let meant = peers.into_iter().filter(is_meant);
    let (removed, members): (Vec<_>, Vec<_>) = meant.partition(|peer| peer.role == "removed");
    if members.is_empty() { removed } else { members }
}

/// Nodes that an error about an ambiguous name lists.
const NODES_SHOWN_MAX: usize = 5;

const LIST_HELP: &str = "\
A row for each member, this node first, with a star: its name, the first digits of its id (all with -v)
and its role; online, or for how long it has been away; whether the connection is direct or relayed, and
the round-trip time; how many entries it is behind this node or ahead of it. Lines below name each member
that is FORKED, DIVERGED (it signs another state than this node for the same entries; see `lattice
status`), dormant or misbehaved, that has entries held here (they wait for the clock), or whose clock
differs by half a second or more; and the last error of each one that is offline. A member that was
stopped has none. Removed nodes are listed with --all.

With --json: node, name, role, own, online, seen_ms (0: never), behind and ahead (entries; null: not
compared yet), held, rtt_us (null: not connected), relayed, skew_ms, dormant, forked, diverged (number
of stores), strikes, error, addresses.

Examples:
  lattice peer list
  lattice peers --json | jq -r 'select(.behind > 0) | .name'";

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(digit: u8, name: &str, role: &str) -> api::Peer {
        api::Peer {
            node: vec![digit; 32].into(),
            name: name.to_owned(),
            role: role.to_owned(),
            ..api::Peer::default()
        }
    }

    fn found(peers: &[api::Peer], named: &str) -> Vec<u8> {
        let matching = matching(peers.to_vec(), named);
        matching.iter().map(|peer| peer.node[0]).collect()
    }

    /// A member took the id of another one as its name: neither could be removed by the command line.
    #[test]
    fn id_is_never_ambiguous_with_a_name() {
        let kitchen = "11".repeat(32);
        let peers = [
            peer(0x11, "kitchen", "writer"),
            peer(0x22, &kitchen, "writer"),
            peer(0x33, &kitchen[..8], "removed"),
            peer(0x44, "cafe", "writer"),
            peer(0xca, "attic", "writer"),
        ];
        assert_eq!(found(&peers, &kitchen), [0x11]);
        assert_eq!(found(&peers, &kitchen.to_uppercase()), [0x11]);
        assert_eq!(found(&peers, &kitchen[..8]), [0x11]);
        assert_eq!(found(&peers, "kitchen"), [0x11]);
        assert_eq!(found(&peers, &"22".repeat(32)), [0x22]);
        assert_eq!(found(&peers, "cafe"), [0x44]);
        assert_eq!(found(&peers, "ca"), [0xca]);
        assert!(found(&peers, "").is_empty());
    }

    #[test]
    fn removed_node_does_not_take_a_name() {
        let peers = [
            peer(0x11, "kitchen", "removed"),
            peer(0x22, "kitchen", "writer"),
            peer(0x33, "cellar", "removed"),
        ];
        assert_eq!(found(&peers, "kitchen"), [0x22]);
        assert_eq!(found(&peers, "cellar"), [0x33]);
        assert_eq!(found(&peers, &"11".repeat(32)), [0x11]);
        let twins = [peer(0x11, "a", "writer"), peer(0x12, "a", "reader")];
        assert_eq!(found(&twins, "a"), [0x11, 0x12]);
    }

    #[test]
    fn members_that_are_online_are_in_the_order_of_their_names() {
        let peer = |name: &str, online, seen_ms| api::Peer {
            name: name.to_owned(),
            online,
            seen_ms,
            ..api::Peer::default()
        };
        let mut peers = vec![
            peer("away", false, 5),
            peer("laptop", true, 9),
            peer("gone", false, 7),
            peer("kitchen", true, 8),
        ];
        sort(&mut peers);
        let names: Vec<&str> = peers.iter().map(|peer| peer.name.as_str()).collect();
        assert_eq!(names, ["kitchen", "laptop", "gone", "away"]);
    }
}

//! `key show`: where the secret is, and what depends on it.

use clap::Args;
use lattice::{
    api::{error::ApiError, whole},
    node::Node,
    vault::KeyPlace,
    wire::api,
};
use serde::Serialize;

use crate::cli::{exit::Failure, session::Context};

/// Show the node, where the secret of its key is, and which other nodes can do what this one can
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  lattice key show
  lattice key show --json | jq -r .from")]
pub(crate) struct Show {}

/// The key of this node, printed by `key show`.
#[derive(Serialize)]
struct NodeKey {
    /// `node_key`.
    r#type: &'static str,
    node: String,
    /// `file`, `passphrase`, `credential`, `command` or `caller`.
    from: &'static str,
    /// The place, for people.
    place: String,
    /// `admin`, `writer`, `reader`; absent while the node does not run.
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<String>,
    /// Other admins; absent while the node does not run.
    #[serde(skip_serializing_if = "Option::is_none")]
    other_admins: Option<Vec<String>>,
}

impl Show {
    pub(crate) async fn run(self, context: &mut Context) -> Result<(), Failure> {
        let data_dir = &context.place.data_dir;
        let file = Node::key_file(data_dir).map_err(ApiError::from)?;
        // Not opened for this: that could ask for a passphrase, or fail for the reason that is looked for.
        let members = match context.running().await? {
            Some(mut client) => Some(whole::peers(&mut client).await?),
            None => None,
        };
        let own = members.as_ref().and_then(|members| members.own.as_ref());
        let role = own.map(|own| own.role.clone());
        let others = members.iter().flat_map(|members| &members.peers);
        let admins: Vec<&api::Peer> = others.filter(|peer| peer.role == "admin").collect();
        let whole = file.node.to_string();
        let out = &mut context.out;
        if out.json {
            let hex = |peer: &&api::Peer| crate::cli::output::object::hex(&peer.node);
            return out.object(&NodeKey {
                r#type: "node_key",
                node: whole,
                from: file.place.word(),
                place: file.place.to_string(),
                role,
                other_admins: members.is_some().then(|| admins.iter().map(hex).collect()),
            });
        }
        let name = own.map_or_else(String::new, |own| format!("  {}", own.name));
        out.line(&format!("node     {whole}{name}"))?;
        out.line(&format!("secret   {}", file.place))?;
        if let Some(role) = &role {
            let names: Vec<&str> = admins.iter().map(|admin| name_of(admin)).collect();
            let names = match names.is_empty() {
                true => "none".to_owned(),
                false => names.join(", "),
            };
            out.line(&format!("role     {role}"))?;
            out.line(&format!("admins   besides this node: {names}"))?;
        } else {
            out.notice(
                "no_node",
                "no node is running here, so its role and other admins are not shown",
            );
        }
        let is_only_admin = role.as_deref() == Some("admin") && admins.is_empty();
        if is_only_admin && members.is_some_and(|members| !members.peers.is_empty()) {
            out.notice(
                "only_admin",
                "this node is the only admin: without its key nobody can let a node in or remove one; \
                 make another admin with `lattice peer role NODE admin`, or keep `lattice key export` safe",
            );
        }
        if matches!(file.place, KeyPlace::File(_)) {
            out.notice(
                "plain",
                "whoever can read this disk can write as this node; `lattice key move` knows safer places",
            );
        }
        Ok(())
    }
}

fn name_of(peer: &api::Peer) -> &str {
    match peer.name.as_str() {
        "" => "a node without a name",
        name => name,
    }
}

//! `invite`, `join`: make a node a member of the mesh.

use std::{
    collections::BTreeSet, ffi::OsString, fs, io::IsTerminal as _, path::Path, time::Duration,
};

use bytes::Bytes;
use clap::Args;
use indicatif::{HumanBytes, ProgressBar, ProgressStyle};
use lattice::{
    api::{client::Client, error::ApiError, whole},
    net::Invitation,
    node::FileConfig,
    protocol::membership::{invite::Invite as RedeemedInvite, reserved::is_reserved},
    wire::api,
};
use tokio_stream::StreamExt as _;

use crate::cli::{
    command::up,
    exit::{Exit, Failure},
    input::{
        confirm,
        net_flags::NetArgs,
        time::{date_time, millis, parse_duration},
    },
    output::{
        object::{self, hex, not_empty, short, uuid},
        print::harmless,
    },
    session::{Context, Lifetime},
};

/// Invite another node: prints a token for `lattice join`
///
/// Anyone who has the token can use it, once, until it expires. Show it to nobody else.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  lattice invite                    for a node that may write
  lattice invite --role admin       for one that may also invite others
  lattice invite --qr               as a QR code for a camera
  lattice invite --expires 15m --json | jq -r .token")]
pub(crate) struct Invite {
    /// Role of the new member: reader, writer or admin
    #[arg(long, default_value = "writer", value_parser = ["reader", "writer", "admin"])]
    role: String,
    /// How long the token is valid
    #[arg(long, value_name = "DURATION", default_value = "24h", value_parser = parse_duration)]
    expires: Duration,
    /// Also print the token as a QR code
    #[arg(long)]
    qr: bool,
    /// Wait until a node has joined with the token, and print which
    #[arg(long)]
    wait: bool,
}

impl Invite {
    pub(crate) async fn run(self, context: &mut Context) -> Result<(), Failure> {
        let mut client = context.client(Lifetime::Short).await?;
        let valid_ms = millis(self.expires);
        let role = self.role.clone();
        let request = api::InviteRequest { role, valid_ms };
        let api::InviteReply {
            token,
            expires_ms,
            addresses,
        } = client.invite(request).await?.into_inner();
        let out = &mut context.out;
        if addresses.is_empty() {
            out.notice(
                "no_address",
                "this machine has no network address, so the token has none: another node finds \
                 this one only on the same local network, by mDNS",
            );
        }
        if out.json {
            out.object(&object::Invited {
                r#type: "invite",
                token: token.clone(),
                role: self.role,
                expires_ms,
                addresses,
            })?;
        } else {
            if self.qr {
                out.line(&qr_code(&token)?)?;
            }
            // People paste the line on the other machine; scripts want the token alone.
            let (line, how) = match out.for_people() {
                true => (format!("lattice join {token}"), ""),
                false => (token.clone(), "; on the other machine: lattice join TOKEN"),
            };
            out.line(&line)?;
            let expires = date_time(expires_ms);
            out.notice(
                "invite",
                &format!("valid once, for a {}, until {expires}{how}", self.role),
            );
        }
        out.flush()?;
        match self.wait {
            true => wait_for_joiner(context, &mut client, &token, expires_ms).await,
            false => Ok(()),
        }
    }
}

// Waits until the invite is used, and prints the node that has used it.
async fn wait_for_joiner(
    context: &mut Context,
    client: &mut Client,
    token: &str,
    expires_ms: u64,
) -> Result<(), Failure> {
    let invitation: Invitation = token.parse().map_err(ApiError::from)?;
    let key = RedeemedInvite::key(&invitation.secret);
    let used = async {
        loop {
            let request = api::GetRequest {
                key: key.clone(),
                ..api::GetRequest::default()
            };
            let item = client.get(request).await?.into_inner().item;
            let invite = item.and_then(|item| RedeemedInvite::decode(&item.value));
            if let Some((node, role)) = invite.and_then(|it| Some((it.used?, it.role))) {
                return Ok::<_, Failure>((node, role));
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    };
    let left_ms = expires_ms.saturating_sub(lattice::clock::Clock::system().now_ms());
    let used = tokio::time::timeout(Duration::from_millis(left_ms), used).await;
    let (node, role) = used.map_err(|_elapsed| {
        Failure::new(
            Exit::TimedOut,
            "timed_out",
            "nobody has used the token before it expired",
        )
    })??;
    let peers = whole::peers(client).await?.peers;
    let peer = peers
        .into_iter()
        .find(|peer| peer.node == node.0.as_slice());
    let name = peer.map(|peer| peer.name).unwrap_or_default();
    let (node, role) = (node.to_string(), role.to_string());
    let out = &mut context.out;
    if out.json {
        let r#type = "joined";
        return out.object(&object::Joined {
            r#type,
            node,
            name,
            role,
        });
    }
    out.line(&format!(
        "joined     {} as {role} (node {})",
        harmless(&name),
        &node[..8]
    ))
}

// Time between two looks whether an invite was used.
const LOOK_EVERY: Duration = Duration::from_millis(200);

fn qr_code(token: &str) -> Result<String, Failure> {
    // Tokens are read in either case, and a code of capital letters and digits is a third smaller.
    let code = qrcode::QrCode::new(token.to_ascii_uppercase());
    let code = code.map_err(|error| Failure::failed("qr", error.to_string()))?;
    Ok(code.render::<qrcode::render::unicode::Dense1x2>().build())
}

/// Join the mesh of another node, with the token that `lattice invite` printed there
///
/// Creates the node here if there is none. A node that has data of its own keeps it to itself, unless
/// --data says otherwise; on a terminal it asks. A join that is refused changes nothing here.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  lattice join latticeae...
  lattice join - < token.txt
  lattice join TOKEN --data-dir /srv/lattice --name kitchen")]
pub(crate) struct Join {
    /// The token; `-` reads it from stdin
    token: String,
    /// Name of the node [default: the name that it has, or the host's]
    #[arg(long)]
    name: Option<String>,
    /// Fate of the data that is here already: keep it private, share it with all members, or discard it
    ///
    /// Private stores are read and written here as before, and no other node gets them;
    /// `lattice store share` shares one later.
    #[arg(long, value_name = "FATE", value_parser = ["private", "share", "discard"])]
    data: Option<String>,
    #[command(flatten)]
    net: NetArgs,
}

impl Join {
    pub(crate) async fn run(self, context: &mut Context) -> Result<(), Failure> {
        let token = match self.token.as_str() {
            "-" => std::io::read_to_string(std::io::stdin())
                .map_err(|error| Failure::failed("stdin", error.to_string()))?,
            token => token.to_owned(),
        };
        let token = token.trim().to_owned();
        // Checked first, so that a malformed token creates no directory.
        token.parse::<Invitation>().map_err(ApiError::from)?;
        if context.place.exists() {
            let mut client = context.client_with(Lifetime::Long, &self.net).await?;
            let data = match self.data {
                Some(data) => data,
                None => ask_for_data(&mut client).await?,
            };
            if let Some(name) = self.name {
                let node = Bytes::new();
                client
                    .rename_peer(api::RenamePeerRequest { node, name })
                    .await?;
            }
            return follow(context, client, api::JoinRequest { token, data })
                .await
                .1;
        }
        context.place.check_socket()?;
        let before = names_in(&context.place.data_dir);
        let file = FileConfig::read(&context.place.data_dir)?;
        let node = up::open(context, self.name.or_else(|| file.name.clone())).await?;
        let client = context.serve(node, &self.net, file).await?;
        let data = String::new();
        let (accepted, joined) = follow(context, client, api::JoinRequest { token, data }).await;
        if joined.is_err() && !accepted {
            context.close().await?;
            remove_new_node(&context.place.data_dir, before.as_ref());
        }
        joined
    }
}

// Joins, and prints each step. Also returns whether the other node has let this one in.
async fn follow(
    context: &mut Context,
    mut client: Client,
    request: api::JoinRequest,
) -> (bool, Result<(), Failure>) {
    let mut accepted = false;
    let joined = async {
        let mut steps = client.join(request).await?.into_inner();
        let bar = progress_bar();
        while let Some(step) = steps.next().await {
            let step = step?;
            accepted |= step.step == "accepted";
            print_step(context, &bar, &step)?;
        }
        bar.finish_and_clear();
        Ok(())
    };
    let joined = joined.await;
    (accepted, joined)
}

// Returns the names in a directory; `None` if there is none.
fn names_in(dir: &Path) -> Option<BTreeSet<OsString>> {
    let names = fs::read_dir(dir).ok()?;
    Some(names.flatten().map(|entry| entry.file_name()).collect())
}

// Removes the files of a node that was made for a join which was refused: all that were not there
// `before`.
fn remove_new_node(data_dir: &Path, before: Option<&BTreeSet<OsString>>) {
    let removed = match before {
        None => fs::remove_dir_all(data_dir),
        Some(before) => {
            let names = names_in(data_dir).unwrap_or_default();
            let mut new = names.difference(before).map(|name| data_dir.join(name));
            new.try_for_each(|path| match path.is_dir() {
                true => fs::remove_dir_all(path),
                false => fs::remove_file(path),
            })
        }
    };
    if let Err(error) = removed {
        tracing::warn!(%error, "the files of the node that was not let in were not removed");
    }
}

// Asks for the fate of the data that is here, on a terminal and if there is some; else it is private.
async fn ask_for_data(client: &mut Client) -> Result<String, Failure> {
    let private = || Ok("private".to_owned());
    if !std::io::stdin().is_terminal() {
        return private();
    }
    let stores = whole::stores(client).await?;
    let shared = stores.iter().filter(|store| !store.private).count();
    let mut has_keys = false;
    // The root store has keys of the node itself, too.
    for store in ["data", "root"] {
        let request = api::ListRequest {
            store: store.to_owned(),
            prefix: "/".into(),
            keys_only: true,
            ..api::ListRequest::default()
        };
        let mut pages = client.list(request).await?.into_inner();
        while !has_keys && let Some(page) = pages.next().await {
            has_keys = page?.items.iter().any(|item| !is_reserved(&item.key));
        }
    }
    if shared < 3 && !has_keys {
        return private();
    }
    let question = format!(
        "this node has data of its own ({shared} stores). Keep it private, share it with all members of \
         the mesh, or discard it?"
    );
    let answer = confirm::choose(question, "[P]rivate/[s]hare/[d]iscard").await?;
    match answer.to_ascii_lowercase().as_str() {
        "" | "p" | "private" => private(),
        "s" | "share" => Ok("share".to_owned()),
        "d" | "discard" => Ok("discard".to_owned()),
        _other => Err(Failure::new(
            Exit::Failed,
            "not_confirmed",
            "this node has not joined: the answer is not private, share or discard",
        )),
    }
}

fn progress_bar() -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style =
        ProgressStyle::with_template("{spinner} syncing  {human_pos} entries  {per_sec}{msg}");
    let style = style.unwrap_or_else(|_template| ProgressStyle::default_spinner());
    ProgressBar::no_length().with_style(style)
}

fn print_step(
    context: &mut Context,
    bar: &ProgressBar,
    step: &api::JoinProgress,
) -> Result<(), Failure> {
    let out = &mut context.out;
    if out.json {
        out.object(&object::JoinStep::new(step))?;
        return out.flush();
    }
    match step.step.as_str() {
        "contacted" => out.line(&format!("contacted  node {}", short(&step.node)))?,
        "accepted" => {
            out.line(&format!("accepted   as {}", step.role))?;
            let former = &step.former;
            let kept = match step.former_root.as_str() {
                "" => format!("store {former:?}"),
                root => format!("stores {former:?} and {root:?}"),
            };
            if step.discarded > 0 {
                out.line(&format!(
                    "deleted    your data so far ({} stores)",
                    step.discarded
                ))?;
            } else if step.former_private {
                out.line(&format!(
                    "kept       your data so far, private, as {kept}; to give it to all members: \
                     lattice store share {former}"
                ))?;
            } else if !former.is_empty() {
                out.line(&format!(
                    "shared     your data so far with all members, as {kept}"
                ))?;
            }
        }
        "syncing" => {
            bar.set_position(step.entries);
            if step.base_bytes_max > 0 {
                let (here, all) = (step.base_bytes, step.base_bytes_max);
                bar.set_message(format!(
                    "  base {} of {}",
                    HumanBytes(here),
                    HumanBytes(all)
                ));
            }
        }
        "synced" => {
            bar.finish_and_clear();
            out.line(&format!("synced     {} entries", step.entries))?;
            out.line("next       lattice up, and lattice watch /nodes/")?;
        }
        // From a newer node.
        _unknown => {}
    }
    out.flush()
}

impl object::JoinStep {
    fn new(step: &api::JoinProgress) -> Self {
        Self {
            r#type: step.step.clone(),
            node: (!step.node.is_empty()).then(|| hex(&step.node)),
            role: not_empty(&step.role),
            former: not_empty(&step.former),
            former_root: not_empty(&step.former_root),
            former_private: not_empty(&step.former).map(|_name| step.former_private),
            discarded: (step.discarded > 0).then_some(step.discarded),
            store: (!step.store.is_empty()).then(|| uuid(&step.store)),
            entries: matches!(step.step.as_str(), "syncing" | "synced").then_some(step.entries),
        }
    }
}

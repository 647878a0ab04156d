//! `invite`, `join`: make a node a member of the mesh.

use std::{io::IsTerminal as _, time::Duration};

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use lattice::{node::FileConfig, wire::api};
use tokio_stream::StreamExt as _;

use crate::cli::{
    command::up,
    exit::Failure,
    input::{
        net_flags::NetArgs,
        time::{date_time, millis, parse_duration},
    },
    output::object::{self, hex, not_empty, short, uuid},
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
}

impl Invite {
    pub(crate) async fn run(self, context: &mut Context) -> Result<(), Failure> {
        let mut client = context.client(Lifetime::Short).await?;
        let valid_ms = millis(self.expires);
        let role = self.role.clone();
        let request = api::InviteRequest { role, valid_ms };
        let api::InviteReply { token, expires_ms } = client.invite(request).await?.into_inner();
        let out = &mut context.out;
        if out.json {
            return out.object(&object::Invited {
                r#type: "invite",
                token,
                role: self.role,
                expires_ms,
            });
        }
        if self.qr {
            out.line(&qr_code(&token)?)?;
        }
        out.line(&token)?;
        let expires = date_time(expires_ms);
        out.notice(
            "invite",
            &format!(
                "valid once, for a {}, until {expires}; on the other machine: lattice join TOKEN",
                self.role
            ),
        );
        Ok(())
    }
}

fn qr_code(token: &str) -> Result<String, Failure> {
    // Tokens are read in either case, and a code of capital letters and digits is a third smaller.
    let code = qrcode::QrCode::new(token.to_ascii_uppercase());
    let code = code.map_err(|error| Failure::failed("qr", error.to_string()))?;
    Ok(code.render::<qrcode::render::unicode::Dense1x2>().build())
}

/// Join the mesh of another node, with the token that `lattice invite` printed there
///
/// Creates the node here if there is none. A node that already has data keeps it, as another store
/// of the mesh.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  lattice join latticeae...
  lattice join - < token.txt
  lattice join TOKEN --data-dir /srv/lattice --name kitchen")]
pub(crate) struct Join {
    /// The token; `-` reads it from stdin
    token: String,
    /// Name of the node [default: the host's name]
    #[arg(long)]
    name: Option<String>,
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
        token
            .parse::<lattice::net::Invitation>()
            .map_err(lattice::api::error::ApiError::from)?;
        let mut client = if context.place.exists() {
            context.client_with(Lifetime::Long, &self.net).await?
        } else {
            context.place.check_socket()?;
            let file = FileConfig::read(&context.place.data_dir)?;
            let node = up::open(context, self.name.or_else(|| file.name.clone())).await?;
            context.serve(node, self.net.config(file)).await?
        };
        let mut steps = client.join(api::JoinRequest { token }).await?.into_inner();
        let bar = progress_bar();
        while let Some(step) = steps.next().await {
            print_step(context, &bar, &step?)?;
        }
        bar.finish_and_clear();
        Ok(())
    }
}

fn progress_bar() -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{spinner} syncing  {human_pos} entries  {per_sec}");
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
            if !step.former.is_empty() {
                out.line(&format!(
                    "kept       your data so far, as store {:?}; the root store is now the mesh's",
                    step.former
                ))?;
            }
        }
        "syncing" => bar.set_position(step.entries),
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
            store: (!step.store.is_empty()).then(|| uuid(&step.store)),
            entries: matches!(step.step.as_str(), "syncing" | "synced").then_some(step.entries),
        }
    }
}

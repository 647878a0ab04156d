//! `hook list`, `pause`, `resume`, `remove`.

use base64::{Engine as _, prelude::BASE64_STANDARD};
use clap::Args;
use lattice::{api::whole, clock::Clock, wire::api};

use crate::cli::{
    command::hook::{name::Name, object},
    exit::Failure,
    input::time::brief,
    output::print::{escape, harmless},
    session::{Context, Lifetime},
};

/// List the hooks of this node, with the state of each
#[derive(Debug, Args)]
#[command(
    visible_alias = "ls",
    after_help = "\
Examples:
  lattice hook list
  lattice hook list --json | jq -r 'select(.dead > 0) | .hook'"
)]
pub(super) struct List {}

impl List {
    pub(super) async fn run(self, context: &mut Context) -> Result<(), Failure> {
        let mut client = context.client(Lifetime::Short).await?;
        let api::ListHooksReply { hooks, broken } = whole::hooks(&mut client).await?;
        if !broken.is_empty() {
            let text = format!(
                "{}; the hooks of the last valid file are in use",
                harmless(&broken)
            );
            context.out.notice("hooks_file", &text);
        }
        if hooks.is_empty() && !context.out.json {
            context.out.notice(
                "no_hooks",
                "this node has no hooks; add one with `lattice hook add`",
            );
        }
        hooks
            .iter()
            .try_for_each(|hook| print_status(context, hook))
    }
}

/// Start no runs until `resume`, even after a restart of the node
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  lattice hook pause deploy")]
pub(super) struct Pause {
    #[command(flatten)]
    name: Name,
}

impl Pause {
    pub(super) async fn run(self, context: &mut Context) -> Result<(), Failure> {
        let mut client = context.client(Lifetime::Short).await?;
        let reply = client.pause_hook(self.name.request()).await?;
        print_status(context, &reply.into_inner())
    }
}

/// Run the hook again after `pause`, with all changes since then
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  lattice hook resume deploy")]
pub(super) struct Resume {
    #[command(flatten)]
    name: Name,
}

impl Resume {
    pub(super) async fn run(self, context: &mut Context) -> Result<(), Failure> {
        let mut client = context.client(Lifetime::Short).await?;
        let reply = client.resume_hook(self.name.request()).await?;
        print_status(context, &reply.into_inner())
    }
}

/// Remove a hook with its waiting changes, its dead letters and its log
///
/// Its current runs are killed.
#[derive(Debug, Args)]
#[command(
    visible_alias = "rm",
    after_help = "Examples:\n  lattice hook remove deploy"
)]
pub(super) struct Remove {
    #[command(flatten)]
    name: Name,
}

impl Remove {
    pub(super) async fn run(self, context: &mut Context) -> Result<(), Failure> {
        let mut client = context.client(Lifetime::Short).await?;
        client.remove_hook(self.name.request()).await?;
        let (out, hook) = (&mut context.out, &self.name.name);
        if out.json {
            let r#type = "removed";
            return out.object(&object::Removed { r#type, hook });
        }
        out.line(&format!("removed  {}", escape(hook.as_bytes())))
    }
}

/// Prints the status of a hook on one line, and problems on further lines.
pub(super) fn print_status(context: &mut Context, status: &api::HookStatus) -> Result<(), Failure> {
    let out = &mut context.out;
    if out.json {
        return out.object(&object::Status::new(status));
    }
    let consumer = status.consumer.clone().unwrap_or_default();
    out.line(&format!(
        "{:<16} {:<8} {}  done {}, failed {}, running {}, waiting {}, dead {}{}",
        status.hook,
        status.state,
        definition(status),
        status.done,
        status.failed,
        status.running,
        consumer.outstanding.saturating_sub(status.running),
        consumer.dead,
        last(status),
    ))?;
    let dead = format!("`lattice hook dead {}` lists the dead letters", status.hook);
    let notes = [
        status.reason.as_str(),
        status.slowed.as_str(),
        if consumer.dead > 0 { &dead } else { "" },
    ];
    let notes = notes.into_iter().filter(|note| !note.is_empty());
    for note in notes {
        out.line(&format!("{:<16} {}", "", harmless(note)))?;
    }
    Ok(())
}

// Returns the key prefix, the mode and the action.
fn definition(status: &api::HookStatus) -> String {
    let Some(hook) = &status.definition else {
        return "(not in hooks.toml any more)".to_owned();
    };
    let mode = match hook.mode.as_str() {
        "each" => String::new(),
        mode => format!(" ({mode})"),
    };
    let does = match hook.http.as_str() {
        "" => hook.run.join(" "),
        url => format!("POST {url}"),
    };
    let on = match hook.on_base64.as_str() {
        "" => hook.on.clone().into_bytes(),
        base64 => BASE64_STANDARD.decode(base64).unwrap_or_default(),
    };
    format!("{}{mode} -> {}", escape(&on), harmless(&does))
}

// Returns the outcome and the time of the last run.
fn last(status: &api::HookStatus) -> String {
    status.last.as_ref().map_or_else(String::new, |run| {
        let at = brief(run.at_ms, Clock::system().now_ms());
        format!(", last {} {}", run.outcome, at.trim())
    })
}

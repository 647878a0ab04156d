//! `hook list`, and what changes a hook as a whole.

use clap::Args;
use lattice::{clock::Clock, wire::api};

use crate::cli::{
    command::hook::{name::Name, object},
    exit::Failure,
    input::time::brief,
    output::print::escape,
    session::{Context, Lifetime},
};

/// List the hooks of this node, and how each is doing
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
    /// Runs the command.
    pub(super) async fn run(self, context: &mut Context) -> Result<(), Failure> {
        let mut client = context.client(Lifetime::Short).await?;
        let reply = client.list_hooks(api::ListHooksRequest {}).await?;
        let api::ListHooksReply { hooks, broken } = reply.into_inner();
        if !broken.is_empty() {
            let text = format!(
                "{}; the hooks are as they were before",
                escape(broken.as_bytes())
            );
            context.out.notice("hooks_file", &text);
        }
        if hooks.is_empty() && !context.out.json {
            context.out.notice(
                "no_hooks",
                "this node has no hooks; make one with `lattice hook add`",
            );
        }
        hooks.iter().try_for_each(|hook| tell(context, hook))
    }
}

/// Run nothing until `resume`, also after a restart
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  lattice hook pause deploy")]
pub(super) struct Pause {
    #[command(flatten)]
    name: Name,
}

impl Pause {
    /// Runs the command.
    pub(super) async fn run(self, context: &mut Context) -> Result<(), Failure> {
        let mut client = context.client(Lifetime::Short).await?;
        let reply = client.pause_hook(self.name.request()).await?;
        tell(context, &reply.into_inner())
    }
}

/// Go on after `pause`, with all that has happened since
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  lattice hook resume deploy")]
pub(super) struct Resume {
    #[command(flatten)]
    name: Name,
}

impl Resume {
    /// Runs the command.
    pub(super) async fn run(self, context: &mut Context) -> Result<(), Failure> {
        let mut client = context.client(Lifetime::Short).await?;
        let reply = client.resume_hook(self.name.request()).await?;
        tell(context, &reply.into_inner())
    }
}

/// Remove a hook with all it has: what it did not run, its dead letters, its log
///
/// What runs is ended.
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
    /// Runs the command.
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

/// Prints how a hook is, on one line; what needs a person follows on lines of its own.
pub(super) fn tell(context: &mut Context, status: &api::HookStatus) -> Result<(), Failure> {
    let out = &mut context.out;
    if out.json {
        return out.object(&object::Status::new(status));
    }
    let consumer = status.consumer.clone().unwrap_or_default();
    out.line(&format!(
        "{:<16} {:<8} {}  done {}, failed {}, running {}, waiting {}, dead {}{}",
        status.hook,
        status.state,
        what(status),
        status.done,
        status.failed,
        status.running,
        consumer.outstanding.saturating_sub(status.running),
        consumer.dead,
        last(status),
    ))?;
    let dead = format!(
        "`lattice hook dead {}` lists what failed for good",
        status.hook
    );
    let notes = [
        status.reason.as_str(),
        status.slowed.as_str(),
        if consumer.dead > 0 { &dead } else { "" },
    ];
    let notes = notes.into_iter().filter(|note| !note.is_empty());
    for note in notes {
        out.line(&format!("{:<16} {}", "", escape(note.as_bytes())))?;
    }
    Ok(())
}

fn what(status: &api::HookStatus) -> String {
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
    format!(
        "{}{mode} -> {}",
        escape(hook.on.as_bytes()),
        escape(does.as_bytes())
    )
}

fn last(status: &api::HookStatus) -> String {
    status.last.as_ref().map_or_else(String::new, |run| {
        let at = brief(run.at_ms, Clock::system().now_ms());
        format!(", last {} {}", run.outcome, at.trim())
    })
}

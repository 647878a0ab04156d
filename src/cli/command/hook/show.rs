//! `hook list`, `pause`, `resume`, `remove`.

use clap::Args;
use lattice::{api::whole, wire::api};

use crate::cli::{
    command::hook::{name::Name, object},
    exit::Failure,
    output::{
        json::typed,
        print::{escape, harmless},
    },
    screens::hooks,
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
        print_all(context, &hooks.iter().collect::<Vec<_>>())
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
            let r#type = "hook_removed";
            return out.object(&object::Removed { r#type, hook });
        }
        out.line(&format!("removed  {}", escape(hook.as_bytes())))
    }
}

/// Prints the status of one hook.
pub(super) fn print_status(context: &mut Context, status: &api::HookStatus) -> Result<(), Failure> {
    print_all(context, &[status])
}

fn print_all(context: &mut Context, hooks: &[&api::HookStatus]) -> Result<(), Failure> {
    let out = &mut context.out;
    if out.json {
        let mut hooks = hooks.iter().map(|hook| object::Status::new(hook));
        return hooks.try_for_each(|hook| out.object(&typed("hook", hook)));
    }
    let lines = hooks::draw(hooks, &out.screen());
    lines.iter().try_for_each(|line| out.line(line))
}

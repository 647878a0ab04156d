//! Restoring and reading snapshots with a progress bar on a terminal.

use std::io::IsTerminal as _;

use indicatif::{ProgressBar, ProgressStyle};
use lattice::{
    api::error::ApiError,
    node::{Node, NodeConfig, RestoreOptions, Restored},
};

use crate::cli::exit::Failure;

/// Restores a snapshot, with a progress bar on a terminal.
pub(super) async fn restore(
    config: NodeConfig,
    options: RestoreOptions,
) -> Result<Restored, Failure> {
    let bar = progress_bar("restoring");
    let shown = bar.clone();
    let progress = move |read, of| {
        shown.set_length(of);
        shown.set_position(read);
    };
    let restored = Node::restore(config, options, progress).await;
    bar.finish_and_clear();
    restored.map_err(|error| ApiError::from(error).into())
}

/// Returns a bar on stderr that counts bytes; a hidden one if stderr is not a terminal.
pub(super) fn progress_bar(what: &'static str) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{msg} {bar:30} {bytes} of {total_bytes}");
    let style = style.unwrap_or_else(|_template| ProgressStyle::default_bar());
    ProgressBar::new(0).with_style(style).with_message(what)
}

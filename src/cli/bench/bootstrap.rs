//! `bench bootstrap`: measures how long a new member takes to have everything, from a base or from all of
//! history.

use std::{fs, io, path::Path, time::Duration};

use clap::Args;

use crate::cli::{
    bench::{
        error::failed,
        load::Keys,
        memory::mebibytes,
        open::fill_keys,
        report::{Goal, Report},
        scratch::{self, Daemon, Scratch},
        setup::Setup,
        sync::{Joined, join},
    },
    exit::Failure,
};
use lattice::wire::api;

/// Time until a new member has everything: from a member with all its history, and from one that has removed it
#[derive(Debug, Args)]
pub(super) struct Bootstrap {
    #[command(flatten)]
    setup: Setup,
    /// Entries of the history, one put each
    #[arg(long, value_name = "N", default_value_t = 1_000_000)]
    entries: usize,
    /// Keys; each put overwrites one of them at random
    #[arg(long, value_name = "N", default_value_t = 100_000)]
    keys: u64,
}

impl Bootstrap {
    pub(super) fn setup(&self) -> &Setup {
        &self.setup
    }

    pub(super) async fn run(
        self,
        scratch: &Scratch,
        report: &mut Report<'_>,
    ) -> Result<(), Failure> {
        report.case(format!("{} entries over {} keys", self.entries, self.keys))?;
        let (whole, pruned) = (scratch.new_path(), scratch.new_path());
        let node = scratch::open(&whole).await?;
        let keys = Keys::new(0, Some(self.keys));
        fill_keys(&node.data(), keys, self.entries, 1, self.setup.value).await?;
        let live = node.data().status().await.keys;
        scratch::close(node).await?;
        copy(&whole, &pruned).map_err(|error| failed("the node cannot be copied", &error))?;
        let base_bytes = scratch::end_history(&pruned).await?;

        let replayed = self.join(scratch, &whole, live).await?;
        let come = self.join(scratch, &pruned, live).await?;
        report.figure("join with all of history", seconds(replayed), "s")?;
        let goal = seconds_max(self.keys);
        report.against("join from a base", seconds(come), "s", Goal::AtMost(goal))?;
        let ratio = seconds(replayed) / seconds(come);
        report.against("history against base", ratio, "x", Goal::AtLeast(RATIO))?;
        report.against(
            "base, as sent",
            mebibytes(base_bytes),
            "MiB",
            Goal::AtMost(base_max(self.keys)),
        )
    }

    // Joins a new member to the node in `from`. Returns the time from the answer of the node until the
    // member has everything, and checks that it has.
    async fn join(&self, scratch: &Scratch, from: &Path, live: u64) -> Result<Duration, Failure> {
        let daemon = Daemon::start(from).await?;
        let request = api::InviteRequest {
            role: "writer".to_owned(),
            valid_ms: 600_000,
        };
        let token = daemon.connect().await?.invite(request).await?;
        let token = token.into_inner().token;
        let to = scratch.new_path();
        let joiner = to.clone();
        let joining = tokio::task::spawn_blocking(move || join(&joiner, &token)).await;
        let Joined { took, .. } =
            joining.map_err(|panic| failed("the joining node panicked", &panic))??;
        daemon.stop().await?;
        let node = scratch::open(&to).await?;
        let here = node.data().status().await.keys;
        scratch::close(node).await?;
        if here != live {
            let what = format!("the new member has {here} keys, not {live}");
            return Err(Failure::failed("bench", what));
        }
        Ok(took)
    }
}

// Copies a directory that no node has open.
fn copy(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir(to)?;
    fs::set_permissions(to, fs::metadata(from)?.permissions())?;
    for name in fs::read_dir(from)? {
        let name = name?;
        let target = to.join(name.file_name());
        let kind = name.file_type()?;
        if kind.is_dir() {
            copy(&name.path(), &target)?;
        } else if kind.is_file() {
            fs::copy(name.path(), target)?;
        }
    }
    Ok(())
}

fn seconds(time: Duration) -> f64 {
    time.as_secs_f64().max(f64::MIN_POSITIVE)
}

// Goals: a second for 100,000 keys, and six for a million.
fn seconds_max(keys: u64) -> f64 {
    if keys <= 100_000 {
        1.0
    } else {
        6e-6 * keys as f64
    }
}

// Goal, MiB: 32 for 100,000 keys.
fn base_max(keys: u64) -> f64 {
    32.0 * (keys as f64 / 1e5).max(1.0)
}

/// Goal: time of a join with all of history, divided by the time from a base.
const RATIO: f64 = 7.0;

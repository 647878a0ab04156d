//! `bench hooks`: measures the cost of a hook's run besides the process that it starts.

use std::{
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use clap::Args;
use lattice::{
    hooks::{Hook, Hooks, HooksError},
    limits::HOOK_RATE_MAX,
    store::{Write, consumers::ConsumerStart},
};

use crate::cli::{
    bench::{
        error::failed,
        load::value,
        report::{Goal, Report},
        scratch::{self, Scratch},
        setup::{Setup, TURNS},
    },
    exit::Failure,
};

/// Cost of a hook's run besides its process
#[derive(Debug, Args)]
pub(super) struct Runs {
    #[command(flatten)]
    setup: Setup,
    /// Runs in each turn of the hook, and of the process alone
    #[arg(long, value_name = "N", default_value_t = 200)]
    runs: usize,
}

impl Runs {
    pub(super) fn setup(&self) -> &Setup {
        &self.setup
    }

    /// Runs all cases on one store.
    pub(super) async fn run(
        self,
        scratch: &Scratch,
        report: &mut Report<'_>,
    ) -> Result<(), Failure> {
        let node = scratch::open(&scratch.new_path()).await?;
        let hooks = Hooks::of(node.clone());
        hooks.start();
        // One run at a time, so that the total time is the sum of the runs.
        let hook = Hook {
            on: "/run/".to_owned(),
            run: vec![PROGRAM.to_owned()],
            parallel: 1,
            rate: HOOK_RATE_MAX,
            ..Hook::default()
        };
        let added = hooks.add("bench", hook, ConsumerStart::Now).await;
        added.map_err(|error| refused(&error))?;
        report.case(format!("`{PROGRAM}`, one run after the other"))?;
        let value = value(self.setup.value);
        let (mut hooked, mut bare, mut done) = (Duration::ZERO, Duration::ZERO, 0);
        for turn in 0..TURNS {
            bare += processes(self.runs)?;
            let puts = (0..self.runs).map(|run| {
                let key = format!("/run/{turn}/{run}");
                Write::put(key, value.clone())
            });
            let began = Instant::now();
            for written in node.data().write_many(puts.collect()).await {
                written.map_err(|error| failed("a put failed", &error))?;
            }
            done += self.runs as u64;
            loop {
                let status = hooks.show("bench").await.map_err(|error| refused(&error))?;
                let health = status.health.unwrap_or_default();
                if health.failed > 0 {
                    return Err(Failure::failed("bench", format!("{PROGRAM} failed")));
                }
                if health.done >= done {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            hooked += began.elapsed();
        }
        hooks.stop().await;
        scratch::close(node).await?;
        let runs = f64::from(TURNS) * self.runs as f64;
        let (hooked, bare) = (hooked.as_secs_f64() / runs, bare.as_secs_f64() / runs);
        report.figure("run of the hook", hooked * 1e3, "ms")?;
        report.figure("process alone", bare * 1e3, "ms")?;
        let besides = (hooked - bare) * 1e3;
        report.against(
            "run less the process",
            besides,
            "ms",
            Goal::AtMost(BESIDES_MS),
        )
    }
}

// Returns the time of `count` processes, one after the other, with the pipes of a hook's command.
fn processes(count: usize) -> Result<Duration, Failure> {
    let began = Instant::now();
    for _process in 0..count {
        let output = Command::new(PROGRAM)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .output();
        output.map_err(|error| failed("cannot start a process", &error))?;
    }
    Ok(began.elapsed())
}

fn refused(error: &HooksError) -> Failure {
    failed("the hook failed", error)
}

const PROGRAM: &str = "true";
/// Goal: time of a run minus the time of its process.
const BESIDES_MS: f64 = 2.0;

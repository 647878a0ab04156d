//! Flags that all benches have.

use std::{path::PathBuf, time::Duration};

use clap::Args;

/// Flags that all benches have.
#[derive(Debug, Clone, Args)]
pub(super) struct Setup {
    /// Size of each value in bytes
    #[arg(long, value_name = "BYTES", default_value_t = 128)]
    pub(super) value: usize,
    /// Seconds to measure in each case
    #[arg(long, value_name = "S", default_value_t = 5.0, value_parser = seconds)]
    pub(super) secs: f64,
    /// Where to create the temporary directory, on the disk that a node would use [default: the
    /// system's temporary directory]
    #[arg(long, value_name = "DIR")]
    pub(super) dir: Option<PathBuf>,
}

impl Setup {
    /// Returns the time of one turn of the store.
    pub(super) fn turn(&self) -> Duration {
        Duration::from_secs_f64(self.secs / f64::from(TURNS))
    }
}

fn seconds(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(secs) if (0.1..=3600.0).contains(&secs) => Ok(secs),
        _other => Err("expected a number of seconds from 0.1 to 3600".to_owned()),
    }
}

/// Turns of one measurement, in which the store and its disk alternate.
pub(super) const TURNS: u32 = 5;

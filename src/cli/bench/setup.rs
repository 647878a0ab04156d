//! The flags that all benches have.

use std::{path::PathBuf, time::Duration};

use clap::Args;

/// Flags that all of them have.
#[derive(Debug, Clone, Args)]
pub(super) struct Setup {
    /// Bytes of a value
    #[arg(long, value_name = "BYTES", default_value_t = 128)]
    pub(super) value: usize,
    /// Seconds to measure for, each case
    #[arg(long, value_name = "S", default_value_t = 5.0, value_parser = seconds)]
    pub(super) secs: f64,
    /// Where to make the directory; should be the disk that a node would use [default: the
    /// system's directory for temporary files]
    #[arg(long, value_name = "DIR")]
    pub(super) dir: Option<PathBuf>,
}

impl Setup {
    /// Returns the time of one of the turns that store and disk take.
    pub(super) fn turn(&self) -> Duration {
        Duration::from_secs_f64(self.secs / f64::from(TURNS))
    }
}

fn seconds(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(secs) if (0.1..=3600.0).contains(&secs) => Ok(secs),
        _other => Err("a number of seconds from 0.1 to 3600".to_owned()),
    }
}

/// Turns that the store and its disk take in one measurement.
pub(super) const TURNS: u32 = 5;

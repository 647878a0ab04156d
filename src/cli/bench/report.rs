//! Prints the figures of a bench, each with its goal if it has one.

use std::{fmt::Write as _, fs, path::Path, thread};

use serde::Serialize;

use crate::cli::{bench::samples::Samples, exit::Failure, output::print::Output};

/// Prints the figures of one bench.
#[derive(Debug)]
pub(super) struct Report<'a> {
    out: &'a mut Output,
    bench: &'static str,
    case: String,
    // True with `--goals`.
    shows_goals: bool,
}

/// The goal of a figure, for a machine with two cores.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Goal {
    /// The figure should be this or more.
    AtLeast(f64),
    /// The figure should be this or less.
    AtMost(f64),
}

/// The JSON object about the machine.
#[derive(Serialize)]
struct Machine {
    r#type: &'static str,
    version: &'static str,
    cores: usize,
    kernel: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    file_system: Option<String>,
}

/// The JSON object of a figure.
#[derive(Serialize)]
struct Figure<'a> {
    r#type: &'static str,
    bench: &'a str,
    case: &'a str,
    figure: &'a str,
    value: f64,
    unit: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    goal_at_least: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    goal_at_most: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reached: Option<bool>,
}

impl<'a> Report<'a> {
    /// Makes a report and prints the machine. `dir` is on the measured file system. `shows_goals`: whether
    /// people see the goals of figures, too; objects always have them.
    pub(super) fn begin(
        out: &'a mut Output,
        bench: &'static str,
        dir: &Path,
        shows_goals: bool,
    ) -> Result<Self, Failure> {
        let system = rustix::system::uname();
        let text = |name: &std::ffi::CStr| name.to_string_lossy().into_owned();
        let machine = Machine {
            r#type: "machine",
            version: env!("CARGO_PKG_VERSION"),
            cores: thread::available_parallelism().map_or(1, usize::from),
            kernel: format!("{} {}", text(system.sysname()), text(system.release())),
            file_system: file_system(dir),
        };
        if out.json {
            out.object(&machine)?;
        } else {
            out.line(&format!(
                "lattice {} bench {bench}: {} cores, {}, {}",
                machine.version,
                machine.cores,
                machine.kernel,
                machine
                    .file_system
                    .as_deref()
                    .unwrap_or("unknown file system"),
            ))?;
        }
        out.flush()?;
        if matches!(machine.file_system.as_deref(), Some("tmpfs" | "ramfs")) {
            out.notice(
                "no_disk",
                "this file system is in memory, where an fdatasync costs nothing; name a directory on \
                a disk with --dir",
            );
        }
        let case = String::new();
        Ok(Self {
            out,
            bench,
            case,
            shows_goals,
        })
    }

    /// Begins a case, which describes how the next figures are measured.
    pub(super) fn case(&mut self, case: impl Into<String>) -> Result<(), Failure> {
        self.case = case.into();
        if !self.out.json {
            self.out.line(&format!("\n{}", self.case))?;
        }
        self.out.flush()
    }

    /// Prints a notice about this bench on stderr.
    pub(super) fn notice(&self, code: &str, message: &str) {
        self.out.notice(code, message);
    }

    /// Prints a figure that has no goal.
    pub(super) fn figure(&mut self, figure: &str, value: f64, unit: &str) -> Result<(), Failure> {
        self.print(figure, value, unit, None)
    }

    /// Prints a figure next to its goal.
    pub(super) fn against(
        &mut self,
        figure: &str,
        value: f64,
        unit: &str,
        goal: Goal,
    ) -> Result<(), Failure> {
        self.print(figure, value, unit, Some(goal))
    }

    /// Prints the median and the 99th percentile of sorted samples.
    pub(super) fn times(&mut self, what: &str, samples: &Samples) -> Result<(), Failure> {
        self.figure(&format!("{what}, p50"), samples.micros(500), "us")?;
        self.figure(&format!("{what}, p99"), samples.micros(990), "us")
    }

    fn print(
        &mut self,
        figure: &str,
        value: f64,
        unit: &str,
        goal: Option<Goal>,
    ) -> Result<(), Failure> {
        if self.out.json {
            let (goal_at_least, goal_at_most) = match goal {
                None => (None, None),
                Some(Goal::AtLeast(least)) => (Some(least), None),
                Some(Goal::AtMost(most)) => (None, Some(most)),
            };
            self.out.object(&Figure {
                r#type: "figure",
                bench: self.bench,
                case: &self.case,
                figure,
                value,
                unit,
                goal_at_least,
                goal_at_most,
                reached: goal.map(|goal| goal.is_reached(value)),
            })?;
        } else {
            let mut line = format!("  {figure:<36}{:>14} {unit:<16}", number(value));
            if let Some(goal) = goal.filter(|_goal| self.shows_goals) {
                let (sign, limit) = match goal {
                    Goal::AtLeast(least) => (">=", least),
                    Goal::AtMost(most) => ("<=", most),
                };
                let reached = if goal.is_reached(value) {
                    "reached"
                } else {
                    "MISSED"
                };
                write!(line, "goal {sign} {}: {reached}", number(limit))
                    .expect("a string takes every write");
            }
            self.out.line(line.trim_end())?;
        }
        self.out.flush()
    }
}

impl Goal {
    fn is_reached(self, value: f64) -> bool {
        match self {
            Self::AtLeast(least) => value >= least,
            Self::AtMost(most) => value <= most,
        }
    }
}

/// Formats a number with about three significant digits, and commas between thousands.
fn number(value: f64) -> String {
    let decimals = match value.abs() {
        small if small < 10.0 => 2,
        middle if middle < 1000.0 => 1,
        _large => 0,
    };
    let text = format!("{value:.decimals$}");
    let (whole, rest) = text.split_at(text.find('.').unwrap_or(text.len()));
    let mut grouped = String::new();
    for (index, digit) in whole.chars().enumerate() {
        let left = whole.len() - index;
        if index > 0 && left.is_multiple_of(3) && !grouped.ends_with('-') {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped + rest
}

/// Returns the type of the file system of `dir`; `None` if the system does not report it.
fn file_system(dir: &Path) -> Option<String> {
    let dir = dir.canonicalize().ok()?;
    let mounts = fs::read_to_string("/proc/self/mounts").ok()?;
    let mounts = mounts.lines().filter_map(|line| {
        let mut words = line.split_whitespace().skip(1);
        Some((words.next()?, words.next()?))
    });
    mounts
        .filter(|(place, _)| dir.starts_with(place))
        .max_by_key(|(place, _)| place.len())
        .map(|(_, kind)| kind.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_commas_and_few_digits() {
        assert_eq!(number(0.834), "0.83");
        assert_eq!(number(12.34), "12.3");
        assert_eq!(number(999.0), "999.0");
        assert_eq!(number(1234.5), "1,234");
        assert_eq!(number(1_234_567.0), "1,234,567");
        assert_eq!(number(-4.2), "-4.20");
    }

    #[test]
    fn goals_are_inclusive() {
        assert!(Goal::AtLeast(0.8).is_reached(0.8));
        assert!(!Goal::AtMost(1.5).is_reached(1.51));
    }
}

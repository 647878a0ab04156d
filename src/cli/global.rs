//! Flags that every command has.

use std::path::PathBuf;

use clap::Args;

use crate::cli::output::{form::Form, ink::Colour};

/// Flags that every command has.
#[derive(Debug, Clone, Args)]
pub(crate) struct Global {
    /// Data directory of the node [default: the platform's data folder]
    #[arg(
        long,
        global = true,
        help_heading = "Global options",
        value_name = "DIR",
        env = "LATTICE_DATA",
        hide_env_values = true,
        display_order = 100
    )]
    pub(crate) data_dir: Option<PathBuf>,
    /// File with the passphrase of the node's key, if it is sealed with one
    #[arg(
        long,
        global = true,
        help_heading = "Global options",
        value_name = "FILE",
        env = "LATTICE_PASSPHRASE_FILE",
        hide_env_values = true,
        hide = true,
        display_order = 101
    )]
    pub(crate) passphrase_file: Option<PathBuf>,
    /// Store, by name or UUID [default: the choice of `store use` here, else the data store]
    #[arg(
        long,
        global = true,
        help_heading = "Global options",
        value_name = "STORE",
        env = "LATTICE_STORE",
        hide_env_values = true,
        display_order = 101
    )]
    pub(crate) store: Option<String>,
    /// Print a table, JSON, or fields of the JSON: table, json or template='{{key}} {{value}}'
    #[arg(
        short,
        long,
        global = true,
        help_heading = "Global options",
        value_name = "FORMAT",
        conflicts_with = "json",
        display_order = 102
    )]
    pub(crate) output: Option<Form>,
    /// Short for -o json: one object per line; errors are one object on stderr
    #[arg(
        long,
        global = true,
        help_heading = "Global options",
        display_order = 102
    )]
    json: bool,
    /// Colours: auto (none if NO_COLOR is set), always (a pipe gets tables, too) or never
    #[arg(
        long,
        global = true,
        value_enum,
        value_name = "WHEN",
        default_value_t,
        help_heading = "Global options",
        hide_possible_values = true,
        display_order = 103
    )]
    pub(crate) color: Colour,
    /// Print whole ids and cut nothing off; log more to stderr, with -vv and -vvv still more
    #[arg(
        short,
        long,
        global = true,
        action = clap::ArgAction::Count,
        help_heading = "Global options",
        display_order = 104
    )]
    pub(crate) verbose: u8,
}

impl Global {
    /// Returns the form in which data is printed.
    pub(crate) fn form(&self) -> Form {
        match &self.output {
            Some(form) => form.clone(),
            None if self.json => Form::Json,
            None => Form::Auto,
        }
    }
}

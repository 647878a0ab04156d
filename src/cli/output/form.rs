//! The form in which commands print data, as `-o` chooses it.

use std::{str::FromStr, sync::Arc};

use crate::cli::output::template::Template;

/// The form in which commands print data.
#[derive(Debug, Clone, Default)]
pub(crate) enum Form {
    /// Tables on a terminal, plain lines in a pipe.
    #[default]
    Auto,
    /// Tables, also in a pipe.
    Table,
    /// One JSON object per line.
    Json,
    /// Text with fields of the JSON objects.
    Template(Arc<Template>),
}

impl Form {
    /// True if notices and errors are JSON objects, too.
    pub(crate) fn is_json(&self) -> bool {
        matches!(self, Self::Json)
    }
}

impl FromStr for Form {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match (text, text.strip_prefix("template=")) {
            (_, Some(template)) => Ok(Self::Template(Arc::new(Template::parse(template)?))),
            ("table", None) => Ok(Self::Table),
            ("json", None) => Ok(Self::Json),
            _other => Err("expected table, json or template='{{key}} {{value}}'".to_owned()),
        }
    }
}

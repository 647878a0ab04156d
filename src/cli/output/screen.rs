//! The place that text is drawn for: width, colours, and how times and ids are written.

use std::borrow::Cow;

use data_encoding::HEXLOWER;

use crate::cli::output::{ink::Ink, width::shorten};

/// Everything that a drawing function has to know besides its data.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Screen {
    /// Width in columns; `None`: nothing is shortened.
    pub(crate) columns: Option<usize>,
    pub(crate) colour: bool,
    /// True on a terminal: times are ages, such as "3 min ago". False in a pipe: they are exact.
    pub(crate) ages: bool,
    /// The time now, in ms since 1970.
    pub(crate) now_ms: u64,
    /// True with `-v`: ids are whole.
    pub(crate) whole_ids: bool,
}

impl Screen {
    /// Returns `text` in the colour of `ink`, if there are colours.
    pub(crate) fn paint(&self, ink: Ink, text: &str) -> String {
        ink.paint(text, self.colour)
    }

    /// Returns an id in hex digits: the first eight, or all with `-v`.
    pub(crate) fn id(&self, id: &[u8]) -> String {
        HEXLOWER.encode(match self.whole_ids {
            true => id,
            false => id.get(..4).unwrap_or(id),
        })
    }

    /// Shortens `text` to the width, of which `taken` columns are not free.
    pub(crate) fn fit<'a>(&self, text: &'a str, taken: usize) -> Cow<'a, str> {
        match self.columns {
            Some(columns) => shorten(text, columns.saturating_sub(taken)),
            None => text.into(),
        }
    }
}

/// Screens that tests draw on.
#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Time of the tests' screens.
    pub(crate) const NOW_MS: u64 = 1_800_000_000_000;

    /// Returns a terminal of this width, with or without colours.
    pub(crate) fn terminal(columns: usize, colour: bool) -> Screen {
        Screen {
            columns: Some(columns),
            colour,
            ages: true,
            now_ms: NOW_MS,
            whole_ids: false,
        }
    }

    /// Returns a screen as a pipe has it.
    pub(crate) fn pipe() -> Screen {
        Screen {
            columns: None,
            ages: false,
            ..terminal(80, false)
        }
    }

    /// Draws on both widths, with and without colours, one below the other. Escape characters are
    /// shown as `^`.
    pub(crate) fn everywhere(draw: impl Fn(&Screen) -> Vec<String>) -> String {
        let mut all = String::new();
        for (columns, colour) in [(80, false), (120, false), (80, true), (120, true)] {
            let lines = draw(&terminal(columns, colour));
            let with = if colour { ", in colour" } else { "" };
            all.push_str(&format!("-- {columns} columns{with}\n"));
            for line in lines {
                let width = unicode_width::UnicodeWidthStr::width(plain(&line).as_str());
                assert!(width <= columns, "{width} columns: {line:?}");
                assert!(colour || !line.contains('\u{1b}'), "{line:?}");
                all.push_str(&line.replace('\u{1b}', "^"));
                all.push('\n');
            }
        }
        all
    }

    /// Returns `text` without its colours.
    pub(crate) fn plain(text: &str) -> String {
        let mut parts = text.split('\u{1b}');
        let first = parts.next().unwrap_or_default().to_owned();
        parts.fold(first, |text, part| {
            text + part.split_once('m').map_or("", |(_code, rest)| rest)
        })
    }
}

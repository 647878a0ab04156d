//! Colours by meaning, and whether there are any.

use anstyle::{AnsiColor, Color, Effects, Style};
use clap::ValueEnum;

/// When text has colours: the value of `--color`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum Colour {
    /// On a terminal, unless NO_COLOR is set or TERM is `dumb`
    #[default]
    Auto,
    /// Also in a pipe or a file, which then get what a terminal would get
    Always,
    /// Never
    Never,
}

impl Colour {
    /// Returns whether a stream gets colours; `terminal` says whether it is one.
    pub(crate) fn is_on(self, terminal: bool) -> bool {
        let is_refused = std::env::var_os("NO_COLOR").is_some_and(|set| !set.is_empty());
        let is_dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        self.decide(terminal && !is_refused && !is_dumb)
    }

    fn decide(self, may: bool) -> bool {
        match self {
            Self::Auto => may,
            Self::Always => true,
            Self::Never => false,
        }
    }
}

/// The meaning of a piece of text, which decides its colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Ink {
    /// Ordinary text, without a colour.
    #[default]
    Plain,
    /// Titles, times and ids: what is looked at last.
    Dim,
    /// Something is as it should be, or was written.
    Good,
    /// Something was deleted or failed.
    Bad,
    /// Something expired or is slow.
    Warn,
    /// A conflict, or something that a person has to look at.
    Alarm,
    /// An author, by the first byte of its id: each keeps its colour.
    Author(u8),
}

impl Ink {
    /// Returns the style of this meaning on a terminal.
    pub(crate) fn style(self) -> Style {
        let colour = |colour: AnsiColor| Style::new().fg_color(Some(Color::Ansi(colour)));
        match self {
            Self::Plain => Style::new(),
            Self::Dim => Style::new().effects(Effects::DIMMED),
            Self::Good => colour(AnsiColor::Green),
            Self::Bad => colour(AnsiColor::Red),
            Self::Warn => colour(AnsiColor::Yellow),
            Self::Alarm => colour(AnsiColor::Red).effects(Effects::BOLD),
            Self::Author(first) => colour(AUTHORS[usize::from(first) % AUTHORS.len()]),
        }
    }

    /// Returns `text` in the colour of this meaning, or as it is without `colour`.
    pub(crate) fn paint(self, text: &str, colour: bool) -> String {
        if !colour || self == Self::Plain || text.is_empty() {
            return text.to_owned();
        }
        let style = self.style();
        format!("{style}{text}{style:#}")
    }
}

/// Colours of authors: none that a kind of change has.
const AUTHORS: [AnsiColor; 6] = [
    AnsiColor::Cyan,
    AnsiColor::Blue,
    AnsiColor::Magenta,
    AnsiColor::BrightCyan,
    AnsiColor::BrightBlue,
    AnsiColor::BrightMagenta,
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flag_overrides_the_stream() {
        assert!(Colour::Auto.decide(true) && !Colour::Auto.decide(false));
        assert!(Colour::Always.decide(true) && Colour::Always.decide(false));
        assert!(!Colour::Never.decide(true) && !Colour::Never.decide(false));
    }

    #[test]
    fn text_is_painted_only_in_colour() {
        assert_eq!(Ink::Bad.paint("gone", false), "gone");
        assert_eq!(Ink::Bad.paint("gone", true), "\u{1b}[31mgone\u{1b}[0m");
        assert_eq!(Ink::Plain.paint("gone", true), "gone");
        assert_eq!(Ink::Author(0).paint("", true), "");
    }
}

//! Painted lines, as a screen that fills the terminal takes them.

use ratatui::{
    style::{Color, Modifier, Style},
    text::{Line, Span},
};

use crate::cli::output::{ink::Ink, screen::Screen};

/// Returns a line that was painted for a terminal. Its text has no control characters of its own.
pub(crate) fn line(painted: &str) -> Line<'static> {
    let mut style = Style::new();
    let mut spans = Vec::new();
    for (at, piece) in painted.split('\u{1b}').enumerate() {
        let text = match (at, piece.split_once('m')) {
            (1.., Some((codes, text))) if codes.starts_with('[') => {
                style = styled(style, &codes[1..]);
                text
            }
            _text => piece,
        };
        if !text.is_empty() {
            spans.push(Span::styled(text.to_owned(), style));
        }
    }
    Line::from(spans)
}

/// Returns a piece of text in the colour of `ink`, if there are colours.
pub(crate) fn span(ink: Ink, text: impl Into<String>, screen: &Screen) -> Span<'static> {
    let mut line = line(&screen.paint(ink, &text.into()));
    line.spans.pop().unwrap_or_default()
}

// Adds codes such as `1` or `38;5;2` to a style.
fn styled(mut style: Style, codes: &str) -> Style {
    let mut codes = codes.split(';').map(|code| code.parse().unwrap_or(0));
    while let Some(code) = codes.next() {
        style = match code {
            0 => Style::new(),
            1 => style.add_modifier(Modifier::BOLD),
            2 => style.add_modifier(Modifier::DIM),
            30..=37 => style.fg(Color::Indexed(code - 30)),
            90..=97 => style.fg(Color::Indexed(code - 90 + 8)),
            38 if codes.next() == Some(5) => style.fg(Color::Indexed(codes.next().unwrap_or(0))),
            39 => Style { fg: None, ..style },
            _other => style,
        };
    }
    style
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::output::screen::tests::terminal;

    #[test]
    fn painted_text_keeps_its_colours() {
        let red = Style::new().fg(Color::Indexed(1));
        let bold = red.add_modifier(Modifier::BOLD);
        assert_eq!(
            line("a \u{1b}[31mred\u{1b}[0m b").spans,
            [Span::raw("a "), Span::styled("red", red), Span::raw(" b")]
        );
        // The table crate writes other codes.
        assert_eq!(
            line("\u{1b}[38;5;1m\u{1b}[1m2\u{1b}[0m  \u{1b}[38;5;14mx\u{1b}[39my").spans,
            [
                Span::styled("2", bold),
                Span::raw("  "),
                Span::styled("x", Style::new().fg(Color::Indexed(14))),
                Span::raw("y")
            ]
        );
        assert_eq!(line("plain").spans, [Span::raw("plain")]);
        assert_eq!(line("").spans, []);
        for ink in [Ink::Dim, Ink::Good, Ink::Alarm, Ink::Author(3)] {
            let span = span(ink, "x", &terminal(80, true));
            assert_eq!(span.content, "x");
            assert_ne!(span.style, Style::new(), "{ink:?}");
        }
        let uncoloured = span(Ink::Alarm, "x", &terminal(80, false));
        assert_eq!(uncoloured, Span::raw("x"));
    }
}

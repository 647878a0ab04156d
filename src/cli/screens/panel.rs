//! Parts of a screen that fills the terminal: lines under a title, of which a window is shown.

use ratatui::{
    Frame,
    layout::Rect,
    style::{Modifier, Style},
    text::{Line, Span},
};
use unicode_width::UnicodeWidthStr as _;

use crate::cli::output::{ink::Ink, screen::Screen, styled, width::shorten};

/// Painted lines under a title.
#[derive(Debug, Default)]
pub(crate) struct Panel {
    pub(crate) title: String,
    /// Lines that stay at the top: the titles of a table.
    pub(crate) fixed: usize,
    pub(crate) lines: Vec<String>,
    /// Lines below the fixed ones that are scrolled out at the top.
    pub(crate) scrolled: usize,
    /// True if keys act on this panel.
    pub(crate) is_chosen: bool,
}

impl Panel {
    /// Rows for all lines and the title.
    pub(crate) fn rows(&self) -> usize {
        self.lines.len() + 1
    }

    /// Returns how far the panel can be scrolled if it has this many rows.
    pub(crate) fn scrolled_max(&self, rows: usize) -> usize {
        self.rows().saturating_sub(rows.max(self.fixed + 2))
    }

    /// Draws the panel into `area`; nothing if that has no rows.
    pub(crate) fn draw(&self, frame: &mut Frame<'_>, area: Rect, screen: &Screen) {
        let rows = usize::from(area.height);
        if rows == 0 {
            return;
        }
        let scrolled = self.scrolled.min(self.scrolled_max(rows));
        let room = rows.saturating_sub(1 + self.fixed);
        let rest = self.lines.len().saturating_sub(self.fixed);
        let title = match rest > room && room > 0 {
            true => format!(
                "{} ({}-{} of {rest})",
                self.title,
                scrolled + 1,
                scrolled + room
            ),
            false => self.title.clone(),
        };
        frame.render_widget(
            rule(&title, self.is_chosen, area.width, screen),
            row(area, 0),
        );
        let fixed = self.lines.iter().take(self.fixed);
        let window = self.lines.iter().skip(self.fixed + scrolled);
        for (at, line) in fixed.chain(window).take(rows - 1).enumerate() {
            frame.render_widget(styled::line(line), row(area, at + 1));
        }
    }
}

/// Returns the area of one row; an empty one below the end.
pub(crate) fn row(area: Rect, at: usize) -> Rect {
    let offset = u16::try_from(at).unwrap_or(u16::MAX);
    match offset < area.height {
        true => Rect::new(area.x, area.y + offset, area.width, 1),
        false => Rect::new(area.x, area.y, 0, 0),
    }
}

/// Returns a title with a line up to the width; the chosen one is inverted.
pub(crate) fn rule(title: &str, is_chosen: bool, columns: u16, screen: &Screen) -> Line<'static> {
    let columns = usize::from(columns);
    let title = shorten(title, columns.saturating_sub(3)).into_owned();
    let missing = columns.saturating_sub(title.width() + 1);
    let style = match is_chosen {
        true => Style::new().add_modifier(Modifier::REVERSED),
        false => Style::new().add_modifier(Modifier::BOLD),
    };
    Line::from(vec![
        Span::styled(title, style),
        Span::raw(" "),
        styled::span(Ink::Dim, "─".repeat(missing), screen),
    ])
}

/// Divides rows between panels: each gets the rows that it wants, or as many as any other.
pub(crate) fn share(wanted: &[usize], rows: usize) -> Vec<usize> {
    let mut given = vec![0; wanted.len()];
    let mut left = rows;
    while left > 0 {
        let before = left;
        for (given, wanted) in given.iter_mut().zip(wanted) {
            if *given < *wanted && left > 0 {
                *given += 1;
                left -= 1;
            }
        }
        if left == before {
            break;
        }
    }
    given
}

/// Frames for tests of screens.
#[cfg(test)]
pub(crate) mod tests {
    use ratatui::{Terminal, backend::TestBackend};

    use super::*;
    use crate::cli::output::screen::tests::terminal;

    /// Draws on a terminal of this size, and returns its rows without the spaces at their ends.
    pub(crate) fn drawn(columns: u16, rows: u16, draw: impl FnOnce(&mut Frame<'_>)) -> String {
        let mut terminal = Terminal::new(TestBackend::new(columns, rows)).unwrap();
        terminal.draw(draw).unwrap();
        let buffer = terminal.backend().buffer();
        let cells = buffer.content.chunks(usize::from(columns));
        let rows = cells.map(|row| {
            let mut text = String::new();
            let mut hidden = 0;
            for cell in row {
                // The second column of a wide character.
                if hidden == 0 {
                    text.push_str(cell.symbol());
                    hidden = cell.symbol().width().max(1);
                }
                hidden -= 1;
            }
            text.trim_end().to_owned()
        });
        rows.collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn rows_are_shared_evenly() {
        assert_eq!(share(&[3, 2, 100], 20), [3, 2, 15]);
        assert_eq!(share(&[9, 2, 9], 11), [5, 2, 4]);
        assert_eq!(share(&[5, 5], 3), [2, 1]);
        assert_eq!(share(&[1, 1], 9), [1, 1]);
        assert!(share(&[], 9).is_empty());
        assert_eq!(share(&[4], 0), [0]);
    }

    #[test]
    fn window_of_a_panel_follows_its_scroll() {
        let mut panel = Panel {
            title: "members".to_owned(),
            fixed: 1,
            lines: (0..6).map(|number| format!("line {number}")).collect(),
            scrolled: 1,
            is_chosen: true,
        };
        let draw = |panel: &Panel, rows| {
            let screen = terminal(24, false);
            drawn(24, rows, |frame| panel.draw(frame, frame.area(), &screen))
        };
        assert_eq!(
            draw(&panel, 4),
            "members (2-3 of 5) ─────\nline 0\nline 2\nline 3"
        );
        // Scrolled too far: the last lines are shown.
        panel.scrolled = 99;
        assert_eq!(
            draw(&panel, 4),
            "members (4-5 of 5) ─────\nline 0\nline 4\nline 5"
        );
        assert_eq!(panel.scrolled_max(4), 3);
        assert_eq!(panel.scrolled_max(7), 0);
        assert_eq!(draw(&panel, 1), "members ────────────────");
        assert_eq!(
            draw(&panel, 8),
            "members ────────────────\nline 0\nline 1\nline 2\nline 3\nline 4\nline 5\n"
        );
    }
}

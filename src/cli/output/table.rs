//! Draws rows as a table with titles and aligned columns.

use anstyle::{AnsiColor, Effects, Style};
use comfy_table::{
    Attribute, CellAlignment, Color, ColumnConstraint, ContentArrangement, Row, presets::NOTHING,
};
use crossterm::style::force_color_output;
use unicode_width::UnicodeWidthStr as _;

use crate::cli::output::{ink::Ink, screen::Screen, width::shorten_middle};

/// Rows under titles. A column without text in any row is not drawn.
#[derive(Debug)]
pub(crate) struct Table {
    columns: Vec<Column>,
    rows: Vec<Vec<Cell>>,
    has_titles: bool,
}

/// A column: its title, and what becomes of a text that is too wide.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Column {
    /// A short text. It is cut only if the columns of this kind alone are too wide.
    Text(&'static str),
    /// A long text. The end is cut off.
    Long(&'static str),
    /// A key. The middle is cut out: keys often differ only in their ends.
    Key(&'static str),
    /// A number, aligned at its end.
    Number(&'static str),
}

impl Column {
    fn title(self) -> &'static str {
        match self {
            Self::Text(title) | Self::Long(title) | Self::Key(title) | Self::Number(title) => title,
        }
    }
}

/// A piece of text in a table.
#[derive(Debug, Clone, Default)]
pub(crate) struct Cell {
    text: String,
    ink: Ink,
}

impl Cell {
    /// Makes a cell in the colour of `ink`. The text has no control characters.
    pub(crate) fn new(ink: Ink, text: impl Into<String>) -> Self {
        let text = text.into();
        Self { text, ink }
    }

    /// Makes a cell of a count; an empty one for zero.
    pub(crate) fn count(ink: Ink, count: u64) -> Self {
        match count {
            0 => Self::default(),
            count => Self::new(ink, count.to_string()),
        }
    }
}

impl From<&str> for Cell {
    fn from(text: &str) -> Self {
        Self::new(Ink::Plain, text)
    }
}

impl From<String> for Cell {
    fn from(text: String) -> Self {
        Self::new(Ink::Plain, text)
    }
}

impl Table {
    /// Makes a table without rows.
    pub(crate) fn new(columns: &[Column]) -> Self {
        Self {
            columns: columns.to_vec(),
            rows: Vec::new(),
            has_titles: true,
        }
    }

    /// Leaves the titles out, for a table that goes on with another one.
    pub(crate) fn untitled(mut self) -> Self {
        self.has_titles = false;
        self
    }

    /// Adds a row, with a cell for each column.
    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = Cell>) {
        let cells: Vec<Cell> = cells.into_iter().collect();
        assert_eq!(cells.len(), self.columns.len(), "a cell for each column");
        self.rows.push(cells);
    }

    /// Draws the rows, with `indent` spaces before each; no lines if there are no rows.
    pub(crate) fn draw(&self, screen: &Screen, indent: usize) -> Vec<String> {
        if self.rows.is_empty() {
            return Vec::new();
        }
        let has_text = |at: &usize| self.rows.iter().any(|row| !row[*at].text.is_empty());
        let shown: Vec<usize> = (0..self.columns.len()).filter(has_text).collect();
        let width = screen.columns.map(|columns| columns.saturating_sub(indent));
        let mut table = comfy_table::Table::new();
        table.load_style(NOTHING).force_no_tty();
        table.style_text_only();
        // A cell is cut at its width, not at a space. No cell has a newline.
        table.set_delimiter('\n');
        if screen.colour {
            force_color_output(true);
            table.enforce_styling();
        }
        let room = width.map(|width| self.room(&shown, width));
        if let Some(width) = width {
            table.set_content_arrangement(ContentArrangement::Dynamic);
            table.set_width(u16::try_from(width).unwrap_or(u16::MAX));
        }
        let key_columns = room.map(|room| room.key_columns);
        if self.has_titles {
            let titles = shown.iter().map(|at| {
                let title = Cell::new(Ink::Dim, self.columns[*at].title());
                self.cell(*at, &title, None)
            });
            table.set_header(one_line(titles));
        }
        for row in &self.rows {
            let cells = shown
                .iter()
                .map(|at| self.cell(*at, &row[*at], key_columns));
            table.add_row(one_line(cells));
        }
        let last = shown.len().saturating_sub(1);
        for (at, column) in table.column_iter_mut().enumerate() {
            column.set_padding((0, if at == last { 0 } else { GAP }));
            let is_long = matches!(self.columns[shown[at]], Column::Long(_));
            if room.is_some_and(|room| room.is_enough) && !is_long {
                column.set_constraint(ColumnConstraint::ContentWidth);
            }
        }
        let indent = " ".repeat(indent);
        let lines = table.lines();
        lines
            .map(|line| format!("{indent}{}", line.trim_end()))
            .collect()
    }

    // Divides the width between the columns that are drawn.
    fn room(&self, shown: &[usize], width: usize) -> Room {
        let natural = |at: usize| {
            let cells = self.rows.iter().map(|row| row[at].text.width());
            let title = self.has_titles.then(|| self.columns[at].title().width());
            cells.chain(title).max().unwrap_or(0)
        };
        let mut taken = usize::from(GAP) * shown.len().saturating_sub(1);
        let (mut long, mut keys, mut flexible) = (0, 0, 0);
        for at in shown {
            let columns = natural(*at);
            match self.columns[*at] {
                Column::Text(_) | Column::Number(_) => taken += columns,
                Column::Long(_) => long += columns,
                Column::Key(_) => keys += columns,
            }
            flexible += usize::from(matches!(
                self.columns[*at],
                Column::Long(_) | Column::Key(_)
            ));
        }
        let left = width.saturating_sub(taken);
        let wanted = (long + keys).min(flexible * FLEXIBLE_COLUMNS_MIN);
        match taken + wanted <= width {
            true => Room {
                is_enough: true,
                key_columns: left.saturating_sub(long).max(left / 2),
            },
            false => Room {
                is_enough: false,
                key_columns: width / 3,
            },
        }
    }

    fn cell(&self, at: usize, cell: &Cell, key_columns: Option<usize>) -> comfy_table::Cell {
        let text = match (self.columns[at], key_columns) {
            (Column::Key(_), Some(columns)) => shorten_middle(&cell.text, columns),
            _whole => cell.text.as_str().into(),
        };
        let drawn = comfy_table::Cell::new(text).set_alignment(match self.columns[at] {
            Column::Number(_) => CellAlignment::Right,
            Column::Text(_) | Column::Long(_) | Column::Key(_) => CellAlignment::Left,
        });
        match cell.text.is_empty() {
            true => drawn,
            false => styled(drawn, cell.ink.style()),
        }
    }
}

/// How the width of a table is divided.
#[derive(Debug, Clone, Copy)]
struct Room {
    // True if only long texts and keys have to be shortened.
    is_enough: bool,
    // Columns that a key may have.
    key_columns: usize,
}

fn styled(mut cell: comfy_table::Cell, style: Style) -> comfy_table::Cell {
    if let Some(colour) = style.get_fg_color().and_then(colour) {
        cell = cell.fg(colour);
    }
    for (effect, attribute) in [
        (Effects::BOLD, Attribute::Bold),
        (Effects::DIMMED, Attribute::Dim),
    ] {
        if style.get_effects().contains(effect) {
            cell = cell.add_attribute(attribute);
        }
    }
    cell
}

// Returns the name that the table crate has for a colour.
fn colour(colour: anstyle::Color) -> Option<Color> {
    let anstyle::Color::Ansi(colour) = colour else {
        return None;
    };
    Some(match colour {
        AnsiColor::Black => Color::Black,
        AnsiColor::Red => Color::DarkRed,
        AnsiColor::Green => Color::DarkGreen,
        AnsiColor::Yellow => Color::DarkYellow,
        AnsiColor::Blue => Color::DarkBlue,
        AnsiColor::Magenta => Color::DarkMagenta,
        AnsiColor::Cyan => Color::DarkCyan,
        AnsiColor::White => Color::Grey,
        AnsiColor::BrightBlack => Color::DarkGrey,
        AnsiColor::BrightRed => Color::Red,
        AnsiColor::BrightGreen => Color::Green,
        AnsiColor::BrightYellow => Color::Yellow,
        AnsiColor::BrightBlue => Color::Blue,
        AnsiColor::BrightMagenta => Color::Magenta,
        AnsiColor::BrightCyan => Color::Cyan,
        AnsiColor::BrightWhite => Color::White,
    })
}

fn one_line(cells: impl Iterator<Item = comfy_table::Cell>) -> Row {
    let mut row = Row::new();
    row.max_height(1);
    cells.for_each(|cell| {
        row.add_cell(cell);
    });
    row
}

/// Spaces between two columns.
const GAP: u16 = 2;
/// Columns that a long text or a key needs to be of use.
const FLEXIBLE_COLUMNS_MIN: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::output::screen::tests::{everywhere, pipe, terminal};

    fn table() -> Table {
        let mut table = Table::new(&[
            Column::Key("KEY"),
            Column::Number("HEADS"),
            Column::Text("NOTE"),
            Column::Long("VALUE"),
        ]);
        let row = |key: &str, heads, value: &str| {
            let heads = Cell::count(Ink::Alarm, heads);
            [Cell::from(key), heads, Cell::default(), Cell::from(value)]
        };
        table.row(row("/a", 0, "a word and another one"));
        table.row(row(
            "/nodes/f4ba0123456789abcdef0123456789abcdef/status",
            12,
            "active",
        ));
        table.row(row("/日本", 2, &"v ".repeat(80)));
        table
    }

    #[test]
    fn columns_are_aligned_and_fit() {
        insta::assert_snapshot!(everywhere(|screen| table().draw(screen, 0)), @"
        -- 80 columns
        KEY                                  HEADS  VALUE
        /a                                          a word and another one
        /nodes/f4ba012345…6789abcdef/status     12  active
        /日本                                    2  v v v v v v v v v v v v v v v v v v…
        -- 120 columns
        KEY                                                 HEADS  VALUE
        /a                                                         a word and another one
        /nodes/f4ba0123456789abcdef0123456789abcdef/status     12  active
        /日本                                                   2  v v v v v v v v v v v v v v v v v v v v v v v v v v v v v v …
        -- 80 columns, in colour
        ^[2mKEY^[0m                                  ^[2mHEADS^[0m  ^[2mVALUE^[0m
        /a                                          a word and another one
        /nodes/f4ba012345…6789abcdef/status     ^[38;5;1m^[1m12^[0m  active
        /日本                                    ^[38;5;1m^[1m2^[0m  v v v v v v v v v v v v v v v v v v…
        -- 120 columns, in colour
        ^[2mKEY^[0m                                                 ^[2mHEADS^[0m  ^[2mVALUE^[0m
        /a                                                         a word and another one
        /nodes/f4ba0123456789abcdef0123456789abcdef/status     ^[38;5;1m^[1m12^[0m  active
        /日本                                                   ^[38;5;1m^[1m2^[0m  v v v v v v v v v v v v v v v v v v v v v v v v v v v v v v …
        ");
    }

    #[test]
    fn pipe_gets_everything() {
        let lines = table().draw(&pipe(), 0);
        assert!(
            lines[2].contains("0123456789abcdef0123456789abcdef/status"),
            "{lines:?}"
        );
        assert!(lines[3].ends_with(&"v ".repeat(80).trim_end()), "{lines:?}");
    }

    #[test]
    fn narrow_terminal_and_indent_are_kept() {
        for columns in [1, 5, 20, 40] {
            for line in table().untitled().draw(&terminal(columns, false), 2) {
                let width = unicode_width::UnicodeWidthStr::width(line.as_str());
                assert!(width <= columns.max(12), "{columns}: {line:?}");
                assert!(line.starts_with("  "), "{line:?}");
            }
        }
        assert!(Table::new(&[Column::Text("A")]).draw(&pipe(), 0).is_empty());
    }
}

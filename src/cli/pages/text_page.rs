//! Draws a page of the manual as text.

use anstyle::Style as Ansi;
use comfy_table::{ColumnConstraint, ContentArrangement, Width, presets::NOTHING};
use lattice::manual::Page;
use unicode_width::UnicodeWidthStr;

use crate::cli::{
    output::screen::Screen,
    pages::markdown::{Block, Span, Style, Text, parse},
};

/// Returns the lines of a page. Code is indented and keeps its lines; everything else is wrapped.
pub(crate) fn draw(page: &Page, screen: &Screen) -> Vec<String> {
    let width = screen.columns.unwrap_or(COLUMNS_IN_A_PIPE);
    let pen = Pen {
        width: width.min(COLUMNS_MAX),
        colour: screen.colour,
    };
    let mut lines = Vec::new();
    let mut is_item = false;
    for block in parse(page.text) {
        let was_item = std::mem::replace(&mut is_item, matches!(block, Block::Item { .. }));
        // The items of a list stand below each other.
        let is_apart = !(is_item && was_item);
        if is_apart && !lines.is_empty() {
            lines.push(String::new());
        }
        lines.extend(pen.block(&block));
    }
    lines
}

/// How text is drawn.
struct Pen {
    width: usize,
    colour: bool,
}

impl Pen {
    fn block(&self, block: &Block) -> Vec<String> {
        match block {
            Block::Title(text) | Block::Heading(text) => vec![self.bold(&plain(text))],
            Block::Paragraph(text) => self.wrap(text, INDENT, INDENT),
            Block::Item { marker, text } => self.wrap(text, &format!("{INDENT}{marker} "), "    "),
            Block::Code(code) => code.lines().map(code_line).collect(),
            Block::Table(rows) => self.table(rows),
        }
    }

    // Wraps words, with `first` before the first line and `rest` before the others.
    fn wrap(&self, text: &[Span], first: &str, rest: &str) -> Vec<String> {
        let mut lines = Vec::new();
        let mut line = first.to_owned();
        let mut columns = first.width();
        let mut is_empty = true;
        for word in words(text) {
            let room: usize = word.iter().map(|span| span.text.width()).sum();
            if !is_empty && columns + 1 + room > self.width {
                lines.push(std::mem::replace(&mut line, rest.to_owned()));
                columns = rest.width();
                is_empty = true;
            }
            if !is_empty {
                line.push(' ');
                columns += 1;
            }
            for span in word {
                line.push_str(&match span.style {
                    Style::Strong => self.bold(&span.text),
                    Style::Plain | Style::Code | Style::Page => span.text,
                });
            }
            columns += room;
            is_empty = false;
        }
        lines.push(line);
        lines
    }

    // Cells are wrapped. If one of them is, rows are apart by an empty line.
    fn table(&self, rows: &[Vec<Text>]) -> Vec<String> {
        let rows: Vec<Vec<String>> = rows
            .iter()
            .map(|row| row.iter().map(|cell| plain(cell)).collect())
            .collect();
        let columns = rows.first().map_or(0, Vec::len);
        let widest = |at: usize| {
            let cells = rows.iter().filter_map(|row| row.get(at));
            cells.map(|cell| cell.width() + GAP).max().unwrap_or(0)
        };
        let room = self.width.saturating_sub(INDENT.len());
        let is_wrapped = (0..columns).map(widest).sum::<usize>() > room + GAP;
        let mut table = comfy_table::Table::new();
        table.load_style(NOTHING).force_no_tty();
        table.set_content_arrangement(ContentArrangement::Dynamic);
        table.set_width(u16::try_from(room).unwrap_or(u16::MAX));
        for (at, row) in rows.iter().enumerate() {
            if row.iter().all(String::is_empty) {
                continue;
            }
            if is_wrapped && at > 0 {
                table.add_row(vec![""; columns]);
            }
            table.add_row(row);
        }
        let longest_word = |at: usize| {
            let cells = rows.iter().filter_map(|row| row.get(at));
            let words = cells.flat_map(|cell| cell.split(' ').map(UnicodeWidthStr::width));
            words.max().unwrap_or(0).min(WORD_COLUMNS_MAX) + GAP
        };
        let fits = (0..columns).map(longest_word).sum::<usize>() <= room;
        for (at, column) in table.column_iter_mut().enumerate() {
            let gap = if at + 1 == columns { 0 } else { GAP };
            column.set_padding((0, u16::try_from(gap).unwrap_or(u16::MAX)));
            if fits {
                let least = u16::try_from(longest_word(at)).unwrap_or(u16::MAX);
                column.set_constraint(ColumnConstraint::LowerBoundary(Width::Fixed(least)));
            }
        }
        let lines = table.lines();
        let lines = lines.map(|line| format!("{INDENT}{line}").trim_end().to_owned());
        let mut lines: Vec<String> = lines.collect();
        if lines.first().is_some_and(String::is_empty) {
            lines.remove(0);
        }
        lines
    }

    fn bold(&self, text: &str) -> String {
        let bold = Ansi::new().bold();
        match self.colour {
            true => format!("{bold}{text}{bold:#}"),
            false => text.to_owned(),
        }
    }
}

fn code_line(line: &str) -> String {
    match line.is_empty() {
        true => String::new(),
        false => format!("{INDENT}    {line}"),
    }
}

// Returns the words of a text. A word has several spans where the style changes inside it.
fn words(text: &[Span]) -> Vec<Vec<Span>> {
    let mut words: Vec<Vec<Span>> = Vec::new();
    let mut is_open = false;
    for span in text {
        for (at, part) in shown(span).split(' ').enumerate() {
            is_open &= at == 0;
            if part.is_empty() {
                continue;
            }
            if !is_open {
                words.push(Vec::new());
            }
            is_open = true;
            if let Some(word) = words.last_mut() {
                word.push(Span {
                    style: span.style,
                    text: part.to_owned(),
                });
            }
        }
    }
    words
}

fn plain(text: &[Span]) -> String {
    text.iter().map(shown).collect()
}

// Code keeps its marks, so that a command ends where it ends.
fn shown(span: &Span) -> String {
    match span.style {
        Style::Plain | Style::Strong => span.text.clone(),
        Style::Code => format!("`{}`", span.text),
        Style::Page => format!("`lattice help {}`", span.text),
    }
}

/// Columns of a page in a pipe.
const COLUMNS_IN_A_PIPE: usize = 80;
/// Columns that a page has at most: longer lines are hard to read.
const COLUMNS_MAX: usize = 100;
/// Spaces between two columns of a table.
const GAP: usize = 2;
/// Columns of a word that a column of a table has room for.
const WORD_COLUMNS_MAX: usize = 16;
/// Indent of everything but titles and headings.
const INDENT: &str = "  ";

#[cfg(test)]
mod tests {
    use lattice::manual::PAGES;

    use super::*;
    use crate::cli::output::screen::tests::{pipe, plain as without_colour, terminal};

    const PAGE: &str = "# Title\n\nA sentence about the page.\n\n## Part\n\n\
        Some **strong** words, `lattice put /a b`, and a page: [mesh]. They are wrapped.\n\n\
        - one item, which is long enough to be wrapped\n- another\n\n\
        ```sh\nlattice put   /a b\n\nlattice get /a   # as it is, however long this line may be\n```\n\n\
        | name | means |\n|---|---|\n| `x` | a cell with several words in it |\n| `y` | short |\n\n\
        | | |\n|---|---|\n| a | b |\n\n[mesh]: mesh.md\n";

    fn page() -> Page {
        let mut page = PAGES[0];
        page.text = PAGE;
        page
    }

    #[test]
    fn page_is_drawn_as_text() {
        let mut drawn = draw(&page(), &terminal(40, false)).join("\n");
        drawn.push_str("\n-- in colour\n");
        drawn.push_str(
            &draw(&page(), &terminal(40, true))
                .join("\n")
                .replace('\u{1b}', "^"),
        );
        insta::assert_snapshot!(drawn, @"
        Title

          A sentence about the page.

        Part

          Some strong words, `lattice put /a b`,
          and a page: `lattice help mesh`. They
          are wrapped.

          - one item, which is long enough to be
            wrapped
          - another

              lattice put   /a b

              lattice get /a   # as it is, however long this line may be

          name  means
          `x`   a cell with several words in it
          `y`   short

          a  b
        -- in colour
        ^[1mTitle^[0m

          A sentence about the page.

        ^[1mPart^[0m

          Some ^[1mstrong^[0m words, `lattice put /a b`,
          and a page: `lattice help mesh`. They
          are wrapped.

          - one item, which is long enough to be
            wrapped
          - another

              lattice put   /a b

              lattice get /a   # as it is, however long this line may be

          name  means
          `x`   a cell with several words in it
          `y`   short

          a  b
        ");
    }

    #[test]
    fn every_page_fits_its_width() {
        for page in PAGES {
            let code: Vec<String> = page.text.lines().map(code_line).collect();
            for columns in [60, 80, 100, 160] {
                for line in draw(page, &terminal(columns, true)) {
                    let line = without_colour(&line);
                    let fits = line.width() <= columns.min(COLUMNS_MAX);
                    assert!(fits || code.contains(&line), "{}: {line:?}", page.name);
                }
            }
            assert_eq!(draw(page, &pipe()), draw(page, &terminal(80, false)));
        }
    }
}

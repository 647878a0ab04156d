//! Reads the Markdown of the manual into blocks: headings, paragraphs, items, code and tables.

use pulldown_cmark::{Event, HeadingLevel, Options, Parser, Tag, TagEnd};

/// A part of a page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Block {
    /// The title of the page, which comes first.
    Title(Text),
    Heading(Text),
    Paragraph(Text),
    /// An item of a list, with `-` or its number before it.
    Item {
        marker: String,
        text: Text,
    },
    /// Lines that are printed as they are.
    Code(String),
    /// Rows of cells. The first row has the titles, which may all be empty.
    Table(Vec<Vec<Text>>),
}

/// Text of one paragraph or cell, on one line.
pub(super) type Text = Vec<Span>;

/// A piece of text in one style.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) style: Style,
    pub(super) text: String,
}

/// The style of a piece of text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Style {
    Plain,
    Strong,
    Code,
    /// The name of another page of the manual.
    Page,
}

/// Reads a page.
pub(super) fn parse(markdown: &str) -> Vec<Block> {
    let mut reader = Reader::default();
    for event in Parser::new_ext(markdown, Options::ENABLE_TABLES) {
        reader.read(event);
    }
    reader.blocks
}

#[derive(Debug, Default)]
struct Reader {
    blocks: Vec<Block>,
    // Text of the paragraph, heading, item or cell that was begun.
    text: Text,
    // Markers of the next item, for each list that was begun: a number, or none.
    lists: Vec<Option<u64>>,
    // The marker of the item that was begun and has no text yet.
    marker: Option<String>,
    // Lines of the code that was begun.
    code: Option<String>,
    rows: Vec<Vec<Text>>,
    is_strong: bool,
    // The text before the link that was begun, and the page that the link leads to.
    link: Option<(Text, String)>,
}

impl Reader {
    fn read(&mut self, event: Event<'_>) {
        match event {
            Event::Start(tag) => self.begin(tag),
            Event::End(tag) => self.end(tag),
            Event::Code(text) => self.push(Style::Code, &text),
            Event::SoftBreak | Event::HardBreak => self.push(Style::Plain, " "),
            Event::Text(text) => match &mut self.code {
                Some(code) => code.push_str(&text),
                None => self.push(self.style(), &text),
            },
            _not_in_the_manual => {}
        }
    }

    fn begin(&mut self, tag: Tag<'_>) {
        match tag {
            Tag::List(first) => self.lists.push(first),
            Tag::Item => {
                self.marker = Some(match self.lists.last_mut() {
                    Some(Some(number)) => {
                        *number += 1;
                        format!("{}.", *number - 1)
                    }
                    _unnumbered => "-".to_owned(),
                });
            }
            Tag::CodeBlock(_) => self.code = Some(String::new()),
            Tag::Strong => self.is_strong = true,
            Tag::Link { dest_url, .. } => {
                if let Some(page) = dest_url.strip_suffix(".md") {
                    self.link = Some((self.take(), page.to_owned()));
                }
            }
            Tag::Table(_) => self.rows.clear(),
            Tag::TableHead | Tag::TableRow => self.rows.push(Vec::new()),
            _no_block => {}
        }
    }

    fn end(&mut self, tag: TagEnd) {
        match tag {
            TagEnd::Heading(level) => {
                let text = self.take();
                self.blocks.push(match level {
                    HeadingLevel::H1 => Block::Title(text),
                    _lower => Block::Heading(text),
                });
            }
            TagEnd::Paragraph | TagEnd::Item => self.end_text(),
            TagEnd::List(_) => drop(self.lists.pop()),
            TagEnd::CodeBlock => {
                self.blocks.extend(
                    self.code
                        .take()
                        .map(|code| Block::Code(code.trim_end().to_owned())),
                );
            }
            TagEnd::Strong => self.is_strong = false,
            TagEnd::Link => self.end_link(),
            TagEnd::TableCell => {
                let cell = self.take();
                if let Some(row) = self.rows.last_mut() {
                    row.push(cell);
                }
            }
            TagEnd::Table => self
                .blocks
                .push(Block::Table(std::mem::take(&mut self.rows))),
            _no_block => {}
        }
    }

    // A tight item has text without a paragraph, a loose one has a paragraph in it.
    fn end_text(&mut self) {
        let text = self.take();
        if text.is_empty() {
            return;
        }
        self.blocks.push(match self.marker.take() {
            Some(marker) => Block::Item { marker, text },
            None => Block::Paragraph(text),
        });
    }

    // A link whose text is the name of its page is that name. Another text stays before the name.
    fn end_link(&mut self) {
        let Some((before, page)) = self.link.take() else {
            return;
        };
        let linked = std::mem::replace(&mut self.text, before);
        if matches!(linked.as_slice(), [span] if span.text == page) {
            self.push(Style::Page, &page);
            return;
        }
        for span in linked {
            self.push(span.style, &span.text);
        }
        self.push(Style::Plain, " (");
        self.push(Style::Page, &page);
        self.push(Style::Plain, ")");
    }

    fn style(&self) -> Style {
        match self.is_strong {
            true => Style::Strong,
            false => Style::Plain,
        }
    }

    fn push(&mut self, style: Style, text: &str) {
        match self.text.last_mut() {
            Some(last) if last.style == style && style != Style::Code => last.text.push_str(text),
            _other => self.text.push(Span {
                style,
                text: text.to_owned(),
            }),
        }
    }

    fn take(&mut self) -> Text {
        std::mem::take(&mut self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(style: Style, text: &str) -> Span {
        Span {
            style,
            text: text.to_owned(),
        }
    }

    #[test]
    fn blocks_and_spans_are_read() {
        let page =
            "# A *b*\n\nOne\nline, `c d` and **e**.\n\n1. x\n2. y\n\n- z\n\n```sh\nput  a\n```\n";
        let plain = |text: &str| vec![span(Style::Plain, text)];
        let item = |marker: &str, text: &str| Block::Item {
            marker: marker.to_owned(),
            text: plain(text),
        };
        let expected = [
            Block::Title(plain("A b")),
            Block::Paragraph(vec![
                span(Style::Plain, "One line, "),
                span(Style::Code, "c d"),
                span(Style::Plain, " and "),
                span(Style::Strong, "e"),
                span(Style::Plain, "."),
            ]),
            item("1.", "x"),
            item("2.", "y"),
            item("-", "z"),
            Block::Code("put  a".to_owned()),
        ];
        assert_eq!(parse(page), expected);
    }

    #[test]
    fn links_name_their_page() {
        let page = "See [mesh], [the past][past] and [a](https://example.org).\n\n\
                    [mesh]: mesh.md\n[past]: past.md\n";
        let expected = vec![
            span(Style::Plain, "See "),
            span(Style::Page, "mesh"),
            span(Style::Plain, ", the past ("),
            span(Style::Page, "past"),
            span(Style::Plain, ") and a."),
        ];
        assert_eq!(parse(page), [Block::Paragraph(expected)]);
    }

    #[test]
    fn tables_have_a_row_of_titles() {
        let page = "| a | b |\n|---|---|\n| `x\\|y` | z |\n";
        let rows = vec![
            vec![vec![span(Style::Plain, "a")], vec![span(Style::Plain, "b")]],
            vec![
                vec![span(Style::Code, "x|y")],
                vec![span(Style::Plain, "z")],
            ],
        ];
        assert_eq!(parse(page), [Block::Table(rows)]);
    }
}

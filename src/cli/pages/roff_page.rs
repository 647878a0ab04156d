//! Writes a page of the manual as a manual page of section 7, for `man`.

use lattice::manual::Page;
use roff::{Inline, Roff, bold, roman};

use crate::cli::pages::markdown::{Block, Span, Style, Text, parse};

/// Returns the page as roff. Its tables need the preprocessor tbl, which the first line asks for.
pub(crate) fn write(page: &Page) -> String {
    let mut roff = Roff::new();
    let name = format!("lattice-{}", page.name);
    let version = format!("lattice {}", env!("CARGO_PKG_VERSION"));
    roff.control(
        "TH",
        [&name.to_uppercase(), SECTION, " ", &version, "Lattice"],
    );
    // No hyphens and no wide spaces inside commands.
    roff.control("nh", []).control("ad", ["l"]);
    roff.control("SH", ["NAME"]);
    roff.text([roman(format!("{name} - {}", page.summary))]);
    roff.control("SH", ["DESCRIPTION"]);
    for block in parse(page.text) {
        write_block(&mut roff, &block);
    }
    format!("{TBL}{}", roff.render())
}

fn write_block(roff: &mut Roff, block: &Block) {
    match block {
        // It is in the NAME.
        Block::Title(_) => {}
        Block::Heading(text) => {
            roff.control("SH", []).text(inlines(text));
        }
        Block::Paragraph(text) => {
            roff.control("PP", []).text(inlines(text));
        }
        Block::Item { marker, text } => {
            roff.control("IP", [marker.as_str(), "4"])
                .text(inlines(text));
        }
        Block::Code(code) => {
            roff.control("PP", [])
                .control("RS", ["4"])
                .control("nf", []);
            for line in code.lines() {
                roff.text([roman(line)]);
            }
            roff.control("fi", []).control("RE", []);
        }
        Block::Table(rows) => write_table(roff, rows),
    }
}

fn write_table(roff: &mut Roff, rows: &[Vec<Text>]) {
    let columns = rows.first().map_or(0, Vec::len);
    let format = vec!["l"; columns.saturating_sub(1)].join(" ");
    roff.control("PP", []).control("TS", []);
    roff.text([roman(format!("{format} lx."))]);
    let rows = rows
        .iter()
        .filter(|row| row.iter().any(|cell| !cell.is_empty()));
    for row in rows {
        // T{ and T} enclose a cell of several lines.
        roff.text([roman("T{")]);
        for (at, cell) in row.iter().enumerate() {
            roff.text(inlines(cell));
            let next = if at + 1 == row.len() { "T}" } else { "T}\tT{" };
            roff.text([roman(next)]);
        }
    }
    roff.control("TE", []);
}

fn inlines(text: &[Span]) -> Vec<Inline> {
    text.iter().map(inline).collect()
}

fn inline(span: &Span) -> Inline {
    match span.style {
        Style::Plain => roman(&span.text),
        Style::Strong | Style::Code => bold(&span.text),
        Style::Page => bold(format!("lattice-{}({SECTION})", span.text)),
    }
}

/// The section of the manual for overviews and conventions.
const SECTION: &str = "7";
/// Asks `man` for the preprocessor of tables.
const TBL: &str = "'\\\" t\n";

#[cfg(test)]
mod tests {
    use lattice::manual::PAGES;

    use super::*;

    #[test]
    fn page_is_written_as_roff() {
        let mut page = PAGES[0];
        page.text = "# Title\n\nA `put --ttl 3s`, see [mesh].\n\n## Part\n\n- one\n\n\
            ```sh\n.dot 'x'\n\nlattice get\n```\n\n| a | b |\n|---|---|\n| .c | **d** |\n\n\
            [mesh]: mesh.md\n";
        insta::assert_snapshot!(write(&page), @r#"
        '\" t
        .ie \n(.g .ds Aq \(aq
        .el .ds Aq '
        .TH LATTICE-START 7 " " "lattice 0.1.0" Lattice
        .nh
        .ad l
        .SH NAME
        lattice\-start \- first node, data directory, real data
        .SH DESCRIPTION
        .PP
        A \fBput \-\-ttl 3s\fR, see \fBlattice\-mesh(7)\fR.
        .SH
        Part
        .IP - 4
        one
        .PP
        .RS 4
        .nf
        \&.dot \*(Aqx\*(Aq

        lattice get
        .fi
        .RE
        .PP
        .TS
        l lx.
        T{
        a
        T}	T{
        b
        T}
        T{
        \&.c
        T}	T{
        \fBd\fR
        T}
        .TE
        "#);
    }
}

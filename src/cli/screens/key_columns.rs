//! Live keys on lines: key, value, author and age, each in columns of its own.

use ratatui::{
    style::{Modifier, Style},
    text::Line,
};

use crate::cli::{
    output::{
        ink::Ink,
        print::escape,
        screen::Screen,
        styled,
        width::{pad, shorten, shorten_middle},
    },
    screens::{live_keys::Row, names::Names, when::when},
};

/// How the width is divided. 0: the column is left out.
#[derive(Debug, Clone, Copy)]
pub(super) struct KeyColumns {
    key: usize,
    value: usize,
    author: usize,
    age: usize,
}

impl KeyColumns {
    /// Divides a width. Unlike those of a table, the columns do not move when values change.
    pub(super) fn new(width: usize, names: &Names) -> Self {
        let if_wide = |columns, from| if width >= from { columns } else { 0 };
        let age = if_wide(AGE_COLUMNS, WITH_AGE_COLUMNS);
        let author = if_wide(names.columns(), WITH_AUTHOR_COLUMNS);
        let gaps = [age, author].iter().filter(|columns| **columns > 0).count();
        let rest = width.saturating_sub(age + author + gaps * GAP);
        let key = (rest * 2 / 5).max(rest.min(4));
        Self {
            key,
            value: rest.saturating_sub(key + GAP),
            author,
            age,
        }
    }

    /// Draws the titles.
    pub(super) fn titles(&self, screen: &Screen) -> Line<'static> {
        self.join(["KEY", "VALUE", "BY", "WRITTEN"], [Ink::Dim; 4], screen)
    }

    /// Draws a key, of which `name` is shown. A change of the last second is bold.
    pub(super) fn line(
        &self,
        name: &[u8],
        live: &Row,
        names: &Names,
        screen: &Screen,
    ) -> Line<'static> {
        let is_new = screen.now_ms.saturating_sub(live.changed_ms) < NEW_MS;
        let name = escape(name);
        let value = match live.heads {
            0 | 1 => escape(&live.value).into_owned(),
            _several => format!("CONFLICT {}", escape(&live.value)),
        };
        let value_ink = match (live.heads > 1, is_new) {
            (true, _) => Ink::Alarm,
            (false, true) => Ink::Good,
            (false, false) => Ink::Plain,
        };
        let texts = [
            &*shorten_middle(&name, self.key),
            &value,
            &names.of(&live.author),
            &when(screen, live.wall_ms),
        ];
        let inks = [Ink::Plain, value_ink, Names::ink(&live.author), Ink::Dim];
        let line = self.join(texts, inks, screen);
        match is_new {
            true => line.style(Style::new().add_modifier(Modifier::BOLD)),
            false => line,
        }
    }

    // Pads texts to their columns, with gaps between the columns that are not left out.
    fn join(&self, texts: [&str; 4], inks: [Ink; 4], screen: &Screen) -> Line<'static> {
        let columns = [self.key, self.value, self.author, self.age];
        let cells = columns.into_iter().zip(texts).zip(inks);
        let shown = cells.filter(|((columns, _), _)| *columns > 0).enumerate();
        Line::from_iter(shown.map(|(at, ((columns, text), ink))| {
            let gap = " ".repeat(if at > 0 { GAP } else { 0 });
            let text = gap + &pad(&shorten(text, columns), columns);
            styled::span(ink, text, screen)
        }))
    }
}

/// Columns of an age.
const AGE_COLUMNS: usize = 11;
/// Columns between two columns of text.
const GAP: usize = 2;
/// Widths from which on there are authors, and ages.
const WITH_AUTHOR_COLUMNS: usize = 34;
const WITH_AGE_COLUMNS: usize = 46;
/// Time for which a change is highlighted.
const NEW_MS: u64 = 1000;

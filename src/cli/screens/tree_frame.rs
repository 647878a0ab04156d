//! Draws the screen of `watch --tree`: prefixes on the left, the keys below the chosen one on the right.

use std::borrow::Cow;

use ratatui::{
    Frame,
    layout::{Position, Rect},
    style::{Modifier, Style},
    text::{Line, Span},
};
use unicode_width::UnicodeWidthStr as _;

use crate::cli::{
    output::{
        ink::Ink,
        print::{escape, harmless},
        screen::Screen,
        styled,
        width::{pad, shorten, shorten_middle},
    },
    screens::{
        key_columns::KeyColumns,
        names::Names,
        panel::{Panel, row},
        past,
        prefixes::Branch,
        tree::{History, Past, Side, Tree},
    },
};

impl Tree {
    /// Draws the screen.
    pub(crate) fn draw(&mut self, frame: &mut Frame<'_>, screen: &Screen) {
        let area = frame.area();
        let screen = &Screen {
            columns: Some(usize::from(area.width)),
            ages: true,
            ..*screen
        };
        frame.render_widget(styled::line(&self.title(screen)), row(area, 0));
        let rows = area.height.saturating_sub(2);
        self.page_rows = usize::from(rows.saturating_sub(1)).max(1);
        let body = Rect {
            y: area.y + 1.min(area.height),
            height: rows,
            ..area
        };
        if let Some(history) = &mut self.history {
            draw_history(history, &self.names, frame, body, screen);
        } else if rows > 0 {
            let left = (area.width / 3).clamp(LEFT_COLUMNS_MIN, LEFT_COLUMNS_MAX);
            let width = left.min(area.width);
            let (branches, chosen) = self.branches();
            self.draw_prefixes(&branches, chosen, frame, Rect { width, ..body }, screen);
            // A line between the sides, with a space around it.
            let x = area.x + width + 1;
            let width = area.width.saturating_sub(width + 3);
            if width > 0 {
                for at in 0..usize::from(rows) {
                    let line = row(
                        Rect {
                            x,
                            width: 1,
                            ..body
                        },
                        at,
                    );
                    frame.render_widget(Line::from(styled::span(Ink::Dim, "│", screen)), line);
                }
                let right = Rect {
                    x: x + 2,
                    width,
                    ..body
                };
                self.draw_keys(&branches[chosen].prefix, frame, right, screen);
            }
        }
        if area.height > 1 {
            self.draw_last_line(frame, row(area, usize::from(area.height) - 1), screen);
        }
    }

    // The number of keys, and whether they are live.
    fn title(&self, screen: &Screen) -> String {
        let number = grouped(self.keys.len());
        let keys = match (self.keys.is_cut(), self.keys.len()) {
            (true, _) => format!("first {number} keys"),
            (false, 1) => "1 key".to_owned(),
            (false, _) => format!("{number} keys"),
        };
        let under = match self.root.is_empty() {
            true => String::new(),
            false => format!(" under {}", shorten_middle(&escape(&self.root), 40)),
        };
        let matching = match self.filter.is_empty() {
            true => String::new(),
            false => {
                let matching = self.keys.prefixes().keys();
                let filter = harmless(&self.filter);
                format!(", {matching} matching \"{}\"", shorten(&filter, 30))
            }
        };
        let (ink, state) = match (&self.away, self.keys.is_filling()) {
            (Some(why), _) => (Ink::Alarm, format!("AWAY: {why}; waiting for the node")),
            (None, true) => (Ink::Warn, "reading the state".to_owned()),
            (None, false) => (Ink::Good, "live".to_owned()),
        };
        let text = format!("{keys}{under}{matching}, ");
        let state = screen.fit(&state, text.width()).into_owned();
        format!("{text}{}", screen.paint(ink, &state))
    }

    fn draw_prefixes(
        &self,
        branches: &[Branch],
        chosen: usize,
        frame: &mut Frame<'_>,
        area: Rect,
        screen: &Screen,
    ) {
        let title = pad("PREFIX", usize::from(area.width).saturating_sub(4)) + "KEYS";
        frame.render_widget(
            Line::from(styled::span(Ink::Dim, title, screen)),
            row(area, 0),
        );
        let rows = usize::from(area.height).saturating_sub(1);
        let first = first_shown(chosen, branches.len(), rows);
        for (at, branch) in branches.iter().enumerate().skip(first).take(rows) {
            let text = branch_text(branch, usize::from(area.width));
            let style = match (at == chosen, self.side) {
                (true, Side::Prefixes) => Style::new().add_modifier(Modifier::REVERSED),
                (true, Side::Keys) => Style::new().add_modifier(Modifier::BOLD),
                (false, _) => Style::new(),
            };
            let line = Line::from(Span::styled(text, style));
            frame.render_widget(line, row(area, at - first + 1));
        }
    }

    fn draw_keys(&self, prefix: &[u8], frame: &mut Frame<'_>, area: Rect, screen: &Screen) {
        let columns = KeyColumns::new(usize::from(area.width), &self.names);
        frame.render_widget(columns.titles(screen), row(area, 0));
        let Some((chosen, _)) = self.key_below(prefix) else {
            let text = match self.keys.is_filling() {
                true => "",
                false => "no keys",
            };
            frame.render_widget(
                Line::from(styled::span(Ink::Dim, text, screen)),
                row(area, 1),
            );
            return;
        };
        let rows = usize::from(area.height).saturating_sub(1);
        let first = first_shown(chosen, self.keys.below(prefix).count(), rows);
        let keys = self.keys.below(prefix).enumerate();
        for (at, (key, live)) in keys.skip(first).take(rows) {
            let name = match &key[prefix.len()..] {
                [] => key,
                rest => rest,
            };
            let mut line = columns.line(name, live, &self.names, screen);
            if at == chosen && self.side == Side::Keys {
                line = line.style(Style::new().add_modifier(Modifier::REVERSED));
            }
            frame.render_widget(line, row(area, at - first + 1));
        }
    }

    // The filter while it is typed, else the keys that act.
    fn draw_last_line(&self, frame: &mut Frame<'_>, area: Rect, screen: &Screen) {
        if self.is_typing {
            let text = format!("/{}", harmless(&self.filter));
            let columns = usize::from(area.width).saturating_sub(1);
            let text = shorten(&text, columns);
            let at = u16::try_from(text.width()).unwrap_or(u16::MAX);
            frame.render_widget(Line::from(text.into_owned()), area);
            frame.set_cursor_position(Position::new(area.x.saturating_add(at), area.y));
            return;
        }
        let keys = match (&self.history, self.side) {
            (Some(_), _) => " Esc back  \u{2191}\u{2193} scroll  q leave",
            (None, Side::Prefixes) => {
                " q leave  \u{2191}\u{2193} move  Enter open, close  Tab keys  / filter"
            }
            (None, Side::Keys) => {
                " q leave  \u{2191}\u{2193} move  Enter history  Tab prefixes  / filter"
            }
        };
        frame.render_widget(Line::from(styled::span(Ink::Dim, keys, screen)), area);
    }
}

fn draw_history(
    history: &mut History,
    names: &Names,
    frame: &mut Frame<'_>,
    area: Rect,
    screen: &Screen,
) {
    let lines = match &history.past {
        Past::Unknown => vec!["reading the history".to_owned()],
        Past::Refused(why) => vec![screen.paint(Ink::Bad, &screen.fit(&harmless(why), 0))],
        Past::Known(past) if past.entries.is_empty() => vec!["no entry has written it".to_owned()],
        Past::Known(past) => {
            let older = match (past.reach_ms, past.truncated) {
                (Some(_), _) => Some("older entries were removed here"),
                (None, true) => Some("older entries exist: see `lattice history`"),
                (None, false) => None,
            };
            past::history(&past.entries, older, names, screen)
        }
    };
    let mut panel = Panel {
        title: format!("history of {}", escape(&history.key)),
        fixed: usize::from(lines.len() > 1),
        lines,
        scrolled: 0,
        is_chosen: false,
    };
    history.scrolled = history
        .scrolled
        .min(panel.scrolled_max(usize::from(area.height)));
    panel.scrolled = history.scrolled;
    panel.draw(frame, area, screen);
}

fn branch_text(branch: &Branch, columns: usize) -> String {
    let mark = match (branch.depth, branch.has_below, branch.is_open) {
        (0, _, _) => "",
        (_, false, _) => "  ",
        (_, true, true) => "\u{25be} ",
        (_, true, false) => "\u{25b8} ",
    };
    let name = match branch.prefix.get(branch.above..) {
        None | Some([]) => Cow::Borrowed("all"),
        Some(name) => escape(name),
    };
    let indent = "  ".repeat(branch.depth.saturating_sub(1).min(INDENT_MAX));
    let keys = branch.keys.to_string();
    let room = columns.saturating_sub(indent.len() + mark.width() + keys.len() + 1);
    let name = format!("{indent}{mark}{}", shorten_middle(&name, room));
    format!("{}{keys}", pad(&name, columns.saturating_sub(keys.len())))
}

// Returns the first of `count` lines that is shown, so that the chosen one is in the middle if there are lines
// on both sides.
fn first_shown(chosen: usize, count: usize, rows: usize) -> usize {
    let last = count.saturating_sub(rows);
    chosen.saturating_sub(rows / 2).min(last)
}

// Writes a number with commas.
fn grouped(number: usize) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Columns of the left side.
const LEFT_COLUMNS_MIN: u16 = 16;
const LEFT_COLUMNS_MAX: u16 = 40;
/// Deeper prefixes are not indented further.
const INDENT_MAX: usize = 8;

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use lattice::wire::api::{self, watch_reply::Event};

    use super::*;
    use crate::cli::{
        input::keys::Key,
        output::screen::tests::{NOW_MS, terminal},
        screens::{
            live_keys::tests::{live, put},
            names::tests::three,
            panel::tests::drawn,
        },
    };

    fn tree() -> Tree {
        let mut tree = Tree::new(Bytes::new(), 100);
        tree.name(three());
        for (key, value) in [
            ("/config/colour", "blue"),
            (
                "/jobs/1/state",
                "running since yesterday, on a machine that is far away",
            ),
            ("/jobs/2/state", "done"),
            ("/lamp", "on"),
            ("/raw/\u{1b}[2J", "\u{1b}]0;title\u{7}"),
        ] {
            tree.take(&Event::Change(put(key, value, 0x67, 1)), NOW_MS);
        }
        tree.take(&Event::CaughtUp(api::CaughtUp::default()), NOW_MS);
        let mut conflict = put("/lamp", "off", 0x87, 2);
        conflict.heads.push(api::EntryRef::default());
        tree.take(&live(conflict), NOW_MS - 5000);
        tree.take(&live(put("/jobs/2/state", "failed", 0x6e, 3)), NOW_MS - 400);
        tree
    }

    fn shown(tree: &mut Tree, columns: u16, rows: u16) -> String {
        let screen = terminal(columns.into(), false);
        drawn(columns, rows, |frame| tree.draw(frame, &screen))
    }

    #[test]
    fn tree_at_80_by_24() {
        let mut tree = tree();
        tree.press(Key::Down);
        tree.press(Key::Down);
        tree.press(Key::Enter);
        insta::assert_snapshot!(shown(&mut tree, 80, 24), @"
        5 keys, live
        PREFIX                KEYS │ KEY          VALUE            BY        WRITTEN
        all                      5 │ 1/state      running since …  kitchen   3 min ago
          /config/               1 │ 2/state      failed           attic     3 min ago
        ▾ /jobs/                 2 │
            1/                   1 │
            2/                   1 │
          /raw/                  1 │
                                   │
                                   │
                                   │
                                   │
                                   │
                                   │
                                   │
                                   │
                                   │
                                   │
                                   │
                                   │
                                   │
                                   │
                                   │
         q leave  ↑↓ move  Enter open, close  Tab keys  / filter
        ");
    }

    #[test]
    fn tree_at_120_by_40() {
        insta::assert_snapshot!(shown(&mut tree(), 120, 40), @r"
        5 keys, live
        PREFIX                              KEYS │ KEY                    VALUE                            BY        WRITTEN
        all                                    5 │ /config/colour         blue                             kitchen   3 min ago
          /config/                             1 │ /jobs/1/state          running since yesterday, on a …  kitchen   3 min ago
        ▸ /jobs/                               2 │ /jobs/2/state          failed                           attic     3 min ago
          /raw/                                1 │ /lamp                  CONFLICT off                     laptop    3 min ago
                                                 │ /raw/\x1b[2J           \x1b]0;title\x07                 kitchen   3 min ago
                                                 │
                                                 │
                                                 │
                                                 │
                                                 │
                                                 │
                                                 │
                                                 │
                                                 │
                                                 │
                                                 │
                                                 │
                                                 │
                                                 │
                                                 │
                                                 │
                                                 │
                                                 │
                                                 │
                                                 │
                                                 │
                                                 │
                                                 │
                                                 │
                                                 │
                                                 │
                                                 │
                                                 │
                                                 │
                                                 │
                                                 │
                                                 │
         q leave  ↑↓ move  Enter open, close  Tab keys  / filter
        ");
    }

    #[test]
    fn filter_is_typed_on_the_last_line() {
        let mut tree = tree();
        for key in [Key::Char('/'), Key::Char('l'), Key::Char('A')] {
            tree.press(key);
        }
        insta::assert_snapshot!(shown(&mut tree, 80, 8), @r#"
        5 keys, 1 matching "lA", live
        PREFIX                KEYS │ KEY          VALUE            BY        WRITTEN
        all                      1 │ /lamp        CONFLICT off     laptop    3 min ago
                                   │
                                   │
                                   │
                                   │
        /lA
        "#);
    }

    #[test]
    fn history_fills_the_screen() {
        let mut tree = tree();
        tree.press(Key::Tab);
        tree.press(Key::End);
        tree.press(Key::Up);
        tree.press(Key::Enter);
        assert!(shown(&mut tree, 80, 8).contains("reading the history"));
        let entry = |number: u8, value: &str, parents: Vec<Bytes>| api::HistoryEntry {
            entry: put("/lamp", "", 0x67, number).entry,
            kind: "put".to_owned(),
            value: value.to_owned().into(),
            parents,
            ..api::HistoryEntry::default()
        };
        let newest = entry(2, "off\u{1b}[31m", vec![vec![1; 32].into()]);
        let past = api::HistoryReply {
            entries: vec![newest, entry(1, "on", Vec::new())],
            truncated: true,
            reach_ms: None,
        };
        tree.remember(b"/lamp", Past::Known(past));
        insta::assert_snapshot!(shown(&mut tree, 80, 8), @r"
        5 keys, live
        history of /lamp ───────────────────────────────────────────────────────────────
           VALUE        BY       WRITTEN    ENTRY
        *  off\x1b[31m  kitchen  3 min ago  02020202
        *  on           kitchen  3 min ago  01010101
          older entries exist: see `lattice history`

         Esc back  ↑↓ scroll  q leave
        ");
        tree.remember(b"/lamp", Past::Refused("the node is \u{7}busy".to_owned()));
        let refused = shown(&mut tree, 80, 8);
        assert!(refused.contains("the node is \\x07busy"), "{refused}");
    }

    #[test]
    fn title_says_what_is_missing() {
        let mut tree = Tree::new(Bytes::from("/jobs/"), 1000);
        let title = |tree: &mut Tree| shown(tree, 80, 3).lines().next().unwrap().to_owned();
        assert_eq!(title(&mut tree), "0 keys under /jobs/, reading the state");
        for number in 0..1200 {
            let key = format!("/jobs/{number:04}");
            tree.take(&Event::Change(put(&key, "v", 0x67, 1)), NOW_MS);
        }
        tree.take(&Event::CaughtUp(api::CaughtUp::default()), NOW_MS);
        assert_eq!(title(&mut tree), "first 1,000 keys under /jobs/, live");
        tree.went_away(Some("no node\u{1b}[2J"));
        assert_eq!(
            title(&mut tree),
            "first 1,000 keys under /jobs/, AWAY: no node\\x1b[2J; waiting for the node"
        );
        tree.went_away(None);
        assert_eq!(title(&mut tree), "first 1,000 keys under /jobs/, live");
        assert_eq!(grouped(7), "7");
        assert_eq!(grouped(1_234_567), "1,234,567");
    }

    #[test]
    fn change_is_highlighted_for_a_second_and_the_chosen_line_inverted() {
        let mut tree = tree();
        tree.press(Key::Tab);
        let mut terminal_80 =
            ratatui::Terminal::new(ratatui::backend::TestBackend::new(80, 10)).unwrap();
        let mut modifiers = |tree: &mut Tree, now_ms: u64| {
            let screen = Screen {
                now_ms,
                ..terminal(80, false)
            };
            let frame = terminal_80.draw(|frame| tree.draw(frame, &screen)).unwrap();
            (2..7)
                .map(|y| frame.buffer[(30, y)].modifier)
                .collect::<Vec<_>>()
        };
        let (none, new) = (Modifier::empty(), Modifier::BOLD);
        assert_eq!(
            modifiers(&mut tree, NOW_MS),
            [Modifier::REVERSED, none, new, none, none]
        );
        assert_eq!(
            modifiers(&mut tree, NOW_MS + 600),
            [Modifier::REVERSED, none, none, none, none]
        );
    }

    #[test]
    fn any_size_is_drawn() {
        for (columns, rows) in [
            (1, 1),
            (1, 2),
            (3, 3),
            (20, 5),
            (40, 2),
            (60, 9),
            (400, 100),
        ] {
            let mut tree = tree();
            for key in [
                Key::Down,
                Key::Tab,
                Key::End,
                Key::Enter,
                Key::End,
                Key::Escape,
                Key::Char('/'),
            ] {
                tree.press(key);
                shown(&mut tree, columns, rows);
            }
        }
    }
}

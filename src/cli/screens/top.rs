//! The live screen of `top`: members, stores, hooks, consumers and the last changes of a node.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use lattice::wire::api;
use ratatui::{Frame, layout::Rect};

use crate::cli::{
    input::keys::{Key, Then},
    output::{
        ink::Ink,
        print::harmless,
        screen::Screen,
        styled,
        table::{Cell, Column, Table},
    },
    screens::{
        changes, consumers,
        health::Health,
        hooks,
        names::Names,
        panel::{Panel, row, share},
        peers::{self, is_gone},
        rate::Rate,
        stores,
        when::bytes,
    },
};

/// Everything that the screen shows, and which part of it.
#[derive(Debug, Default)]
pub(crate) struct Top {
    live: Data,
    // The data when the screen was paused; `None` while it is not.
    frozen: Option<Box<Data>>,
    // Why the node is away; `None` while it answers.
    away: Option<String>,
    chosen: Part,
    // Lines that are scrolled out; `draw` takes back what is too much.
    scrolled: BTreeMap<Part, usize>,
}

/// All that is known of the node.
#[derive(Debug, Clone, Default)]
struct Data {
    // `None` until the node has answered.
    health: Option<Health>,
    names: Names,
    // Entries and bytes of the logs of each store, by the store's id.
    growth: BTreeMap<Bytes, (Rate, Rate)>,
    // Changes of the store that commands use.
    changed: Rate,
    changes_seen: u64,
    // The newest first; at most `CHANGES_MAX`.
    changes: VecDeque<api::Change>,
}

/// A panel of the screen, in the order from top to bottom.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
enum Part {
    Members,
    Stores,
    Hooks,
    Consumers,
    #[default]
    Changes,
}

impl Top {
    /// Takes the answers of the node. `at_ms`: the time by a clock that never goes back.
    pub(crate) fn answered(&mut self, health: Health, at_ms: u64) {
        let data = &mut self.live;
        data.names = health.names();
        let mut known = std::mem::take(&mut data.growth);
        for store in &health.status.stores {
            let id = id(store.info.as_ref());
            let (mut entries, mut bytes) = known.remove(&id).unwrap_or_default();
            entries.note(at_ms, store.entries);
            bytes.note(at_ms, store.log_bytes);
            data.growth.insert(id, (entries, bytes));
        }
        data.changed.note(at_ms, data.changes_seen);
        data.health = Some(health);
        self.away = None;
    }

    /// Takes a change, of which the value may be cut.
    pub(crate) fn changed(&mut self, change: api::Change) {
        let data = &mut self.live;
        data.changes_seen += 1;
        data.changes.push_front(change);
        data.changes.truncate(CHANGES_MAX);
    }

    /// Notes that the node does not answer.
    pub(crate) fn went_away(&mut self, why: &str) {
        self.away = Some(harmless(why).into_owned());
    }

    /// Acts on a key.
    pub(crate) fn press(&mut self, key: Key) -> Then {
        match key {
            Key::Char('q') | Key::Escape | Key::Interrupt => return Then::Leave,
            Key::Suspend => return Then::Suspend,
            Key::Redraw => return Then::Redraw,
            Key::Char('p') => {
                self.frozen = match self.frozen {
                    None => Some(Box::new(self.live.clone())),
                    Some(_) => None,
                };
            }
            Key::Tab | Key::Right => self.choose(1),
            Key::BackTab | Key::Left => self.choose(-1),
            Key::Up | Key::Char('k') => self.scroll(-1),
            Key::Down | Key::Char('j') => self.scroll(1),
            Key::PageUp => self.scroll(-PAGE_LINES),
            Key::PageDown => self.scroll(PAGE_LINES),
            Key::Home => self.scroll(isize::MIN),
            Key::End => self.scroll(isize::MAX),
            Key::Char(_) | Key::Enter | Key::Backspace => {}
        }
        Then::Stay
    }

    fn data(&self) -> &Data {
        self.frozen.as_deref().unwrap_or(&self.live)
    }

    // Chooses the panel after or before the chosen one, among those that are shown.
    fn choose(&mut self, step: isize) {
        let shown = self.data().parts();
        let at = shown.iter().position(|part| *part == self.chosen);
        let count = shown.len().cast_signed();
        let next = (at.unwrap_or(0).cast_signed() + step).rem_euclid(count);
        self.chosen = shown[next.unsigned_abs()];
    }

    fn scroll(&mut self, lines: isize) {
        let scrolled = self.scrolled.entry(self.chosen).or_default();
        *scrolled = scrolled.saturating_add_signed(lines);
    }

    /// Draws the screen.
    pub(crate) fn draw(&mut self, frame: &mut Frame<'_>, screen: &Screen) {
        let area = frame.area();
        let screen = &Screen {
            columns: Some(usize::from(area.width)),
            ages: true,
            ..*screen
        };
        let mut summary = self.summary(screen);
        summary.truncate(usize::from(area.height));
        for (at, line) in summary.iter().enumerate() {
            frame.render_widget(styled::line(line), row(area, at));
        }
        let rows = usize::from(area.height).saturating_sub(summary.len() + 1);
        let data = self.data();
        let parts = data.parts();
        let mut panels: Vec<Panel> = parts.iter().map(|part| data.panel(*part, screen)).collect();
        let shares = shares(&panels, rows);
        let mut top = summary.len();
        for ((panel, part), rows) in panels.iter_mut().zip(&parts).zip(shares) {
            let scrolled = self.scrolled.entry(*part).or_default();
            *scrolled = (*scrolled).min(panel.scrolled_max(rows));
            panel.scrolled = *scrolled;
            panel.is_chosen = *part == self.chosen;
            panel.draw(frame, rows_of(area, top, rows), screen);
            top += rows;
        }
        let keys = " q leave  Tab next panel  \u{2191}\u{2193} scroll  p pause";
        let keys = match self.frozen {
            None => screen.paint(Ink::Dim, keys),
            Some(_) => screen.paint(Ink::Warn, " PAUSED  p go on  q leave"),
        };
        let last = usize::from(area.height).saturating_sub(1);
        if last >= summary.len() {
            frame.render_widget(styled::line(&keys), row(area, last));
        }
    }

    // The verdict, or that the node is away.
    fn summary(&self, screen: &Screen) -> Vec<String> {
        let mut lines = match &self.data().health {
            Some(health) => health.summary(MATTERS_MAX, screen),
            None => vec!["waiting for the node".to_owned()],
        };
        if let Some(why) = &self.away {
            let line = format!("AWAY: {why}; waiting for the node");
            lines[0] = screen.paint(Ink::Alarm, &screen.fit(&line, 0));
        }
        lines
    }
}

impl Data {
    // Returns the panels that have content.
    fn parts(&self) -> Vec<Part> {
        let mut parts = vec![Part::Changes];
        if let Some(health) = &self.health {
            parts.extend([Part::Members, Part::Stores]);
            parts.extend((!health.hooks.is_empty()).then_some(Part::Hooks));
            let has_consumers = health.consumers.iter().any(|(_, all)| !all.is_empty());
            parts.extend(has_consumers.then_some(Part::Consumers));
        }
        parts.sort();
        parts
    }

    fn panel(&self, part: Part, screen: &Screen) -> Panel {
        let unknown = Health::default();
        let health = self.health.as_ref().unwrap_or(&unknown);
        let (title, fixed, lines) = match part {
            Part::Members => ("members".to_owned(), 1, members(&health.members, screen)),
            Part::Stores => ("stores".to_owned(), 1, self.stores(health, screen)),
            Part::Hooks => {
                let hooks: Vec<_> = health.hooks.iter().collect();
                ("hooks".to_owned(), 1, hooks::table(&hooks, screen))
            }
            Part::Consumers => ("consumers".to_owned(), 0, consumers_of(health, screen)),
            Part::Changes => self.last_changes(health, screen),
        };
        Panel {
            title,
            fixed,
            lines,
            ..Panel::default()
        }
    }

    fn stores(&self, health: &Health, screen: &Screen) -> Vec<String> {
        let mut table = Table::new(&[
            Column::Text("STORE"),
            Column::Number("KEYS"),
            Column::Number("ENTRIES"),
            Column::Number("ENTRIES/S"),
            Column::Number("CHANGES/S"),
            Column::Number("LOG"),
            Column::Number("LOG/S"),
            Column::Number("WATCHES"),
        ]);
        for store in &health.status.stores {
            let info = store.info.clone().unwrap_or_default();
            let is_used = stores::is_used(&health.store, &info);
            let star = if is_used { " *" } else { "" };
            let growth = self.growth.get(&info.id).cloned().unwrap_or_default();
            let changed = match is_used {
                true => self.changed.text(),
                false => String::new(),
            };
            table.row([
                format!("{}{star}", stores::name(&info)).into(),
                store.keys.to_string().into(),
                store.entries.to_string().into(),
                growth.0.text().into(),
                changed.into(),
                bytes(store.log_bytes).into(),
                growth.1.per_second().map(bytes).unwrap_or_default().into(),
                Cell::count(Ink::Plain, store.watchers),
            ]);
        }
        table.draw(screen, 0)
    }

    fn last_changes(&self, health: &Health, screen: &Screen) -> (String, usize, Vec<String>) {
        let mut infos = health
            .status
            .stores
            .iter()
            .filter_map(|it| it.info.as_ref());
        let used = infos.find(|info| stores::is_used(&health.store, info));
        let name = used.map(|info| format!(" in {}", stores::name(info)));
        let title = format!("last changes{}", name.unwrap_or_default());
        let line = |change| changes::line(change, &[], &self.names, screen);
        let mut lines: Vec<String> = self.changes.iter().map(line).collect();
        if lines.is_empty() {
            lines.push(screen.paint(Ink::Dim, "none since this screen began"));
        }
        (title, 0, lines)
    }
}

fn members(members: &api::ListPeersReply, screen: &Screen) -> Vec<String> {
    let mut shown: Vec<&api::Peer> = members.peers.iter().filter(|peer| !is_gone(peer)).collect();
    // Unlike their order by the last time that they were heard of, this one seldom changes.
    shown.sort_by_key(|peer| (!peer.online, &peer.name, &peer.node));
    peers::draw(members.own.as_ref(), &shown, screen)
}

// Draws the consumers of each store that has some; those of another store than the used one below its name.
fn consumers_of(health: &Health, screen: &Screen) -> Vec<String> {
    let mut all: Vec<_> = health
        .consumers
        .iter()
        .filter(|(_, all)| !all.is_empty())
        .collect();
    let is_other = |info: &api::StoreInfo| !stores::is_used(&health.store, info);
    all.sort_by_key(|(info, _)| is_other(info));
    let mut lines = Vec::new();
    for (info, consumers) in all {
        if is_other(info) {
            lines.push(screen.paint(Ink::Dim, &format!("in {}:", stores::name(info))));
        }
        lines.extend(consumers::table(consumers, screen));
    }
    lines
}

// Divides rows between panels. The last one, which has no end, gets few of them and what is left.
fn shares(panels: &[Panel], rows: usize) -> Vec<usize> {
    let mut wanted: Vec<usize> = panels.iter().map(Panel::rows).collect();
    if let Some(last) = wanted.last_mut() {
        *last = CHANGES_ROWS_MIN;
    }
    let mut shares = share(&wanted, rows);
    let left = rows - shares.iter().sum::<usize>();
    if let Some(last) = shares.last_mut() {
        *last += left;
    }
    shares
}

fn id(info: Option<&api::StoreInfo>) -> Bytes {
    info.map(|info| info.id.clone()).unwrap_or_default()
}

// Returns so many rows of an area.
fn rows_of(area: Rect, top: usize, rows: usize) -> Rect {
    let to_u16 = |count: usize| u16::try_from(count).unwrap_or(u16::MAX);
    let top = to_u16(top).min(area.height);
    Rect {
        y: area.y + top,
        height: to_u16(rows).min(area.height - top),
        ..area
    }
}

/// Changes that are kept. Each has up to some KiB.
const CHANGES_MAX: usize = 200;
/// Rows of the last changes, with their title, if the other panels need the rest.
const CHANGES_ROWS_MIN: usize = 3;
/// Matters to look at that are shown below the verdict.
const MATTERS_MAX: usize = 3;
/// Lines by which a page is scrolled.
const PAGE_LINES: isize = 10;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{
        output::screen::tests::{NOW_MS, terminal},
        screens::{
            health::tests::three, hooks::tests::hook, panel::tests::drawn, stores::tests::store,
        },
    };

    fn change(number: u64, key: &str, value: &str) -> api::Change {
        api::Change {
            kind: "put".to_owned(),
            key: key.to_owned().into(),
            value: Some(value.to_owned().into()),
            origin: "local".to_owned(),
            entry: Some(api::EntryRef {
                author: vec![0x67; 32].into(),
                wall_ms: NOW_MS - 60_000 + number,
                ..api::EntryRef::default()
            }),
            ..api::Change::default()
        }
    }

    fn busy() -> Top {
        let mut top = Top::default();
        let mut health = three();
        health.hooks = vec![hook("deploy", 1)];
        health.consumers = vec![(
            store(0x22, "data", 0).info.unwrap(),
            vec![api::ConsumerStatus {
                consumer: "billing".to_owned(),
                state: "running".to_owned(),
                prefixes: vec!["/orders/".into()],
                backlog_entries: 1200,
                dead: 2,
                ..api::ConsumerStatus::default()
            }],
        )];
        health.members.peers[0].rtt_us = Some(840);
        health.members.peers[1].behind = Some(3);
        top.answered(health.clone(), 1000);
        top.changed(change(1, "/lamp", "on"));
        top.changed(change(2, "/bad/\u{1b}[31m", "\u{1b}]0;x\u{7} and more"));
        health.status.stores[0].entries += 34;
        health.status.stores[0].log_bytes += 4096;
        top.answered(health, 2000);
        top
    }

    fn shown(top: &mut Top, columns: u16, rows: u16) -> String {
        let screen = terminal(columns.into(), false);
        drawn(columns, rows, |frame| top.draw(frame, &screen))
    }

    #[test]
    fn busy_node_at_80_by_24() {
        insta::assert_snapshot!(shown(&mut busy(), 80, 24), @r"
        WARNING: 3 of 3 online, 1 not in step, 3 dead letters
        attic (6e6e6e6e), admin, up 31 min, lattice 0.1.0, process 4711
          ! laptop is 3 entries behind
          ! hook deploy: 1 dead letter: lattice hook dead deploy
          ! consumer billing: 2 dead letters: lattice consumer dead billing
        members ────────────────────────────────────────────────────────────────────────
        NAME     ID        ROLE    STATE      PATH       RTT  ENTRIES
        attic *  6e6e6e6e  admin   this node
        kitchen  67676767  writer  online     direct  0.8 ms  in step
        laptop   87878787  writer  online                     3 behind
        stores ─────────────────────────────────────────────────────────────────────────
        STORE   KEYS  ENTRIES  ENTRIES/S  CHANGES/S        LOG     LOG/S
        data *    32       99         34        2.0  32.56 KiB  4.00 KiB
        root       4        9          0              3.96 KiB       0 B
        hooks ──────────────────────────────────────────────────────────────────────────
        HOOK    STATE    KEYS      RUNS            DONE  FAILED  DEAD  LAST
        deploy  running  /deploy/  ./deploy.sh -v    12       2     1  dead 3 min ago
        consumers ──────────────────────────────────────────────────────────────────────
        CONSUMER  STATE    KEYS      BACKLOG  DEAD  SEEN
        billing   running  /orders/     1200     2  never
        last changes in data ───────────────────────────────────────────────────────────
        07:59:00.002  put       kitchen   /bad/\x1b[31m     \x1b]0;x\x07 and more
        07:59:00.001  put       kitchen   /lamp             on
         q leave  Tab next panel  ↑↓ scroll  p pause
        ");
    }

    #[test]
    fn busy_node_at_120_by_40() {
        insta::assert_snapshot!(shown(&mut busy(), 120, 40), @r"
        WARNING: 3 of 3 online, 1 not in step, 3 dead letters
        attic (6e6e6e6e), admin, up 31 min, lattice 0.1.0, process 4711
          ! laptop is 3 entries behind
          ! hook deploy: 1 dead letter: lattice hook dead deploy
          ! consumer billing: 2 dead letters: lattice consumer dead billing
        members ────────────────────────────────────────────────────────────────────────────────────────────────────────────────
        NAME     ID        ROLE    STATE      PATH       RTT  ENTRIES
        attic *  6e6e6e6e  admin   this node
        kitchen  67676767  writer  online     direct  0.8 ms  in step
        laptop   87878787  writer  online                     3 behind
        stores ─────────────────────────────────────────────────────────────────────────────────────────────────────────────────
        STORE   KEYS  ENTRIES  ENTRIES/S  CHANGES/S        LOG     LOG/S
        data *    32       99         34        2.0  32.56 KiB  4.00 KiB
        root       4        9          0              3.96 KiB       0 B
        hooks ──────────────────────────────────────────────────────────────────────────────────────────────────────────────────
        HOOK    STATE    KEYS      RUNS            DONE  FAILED  DEAD  LAST
        deploy  running  /deploy/  ./deploy.sh -v    12       2     1  dead 3 min ago
        consumers ──────────────────────────────────────────────────────────────────────────────────────────────────────────────
        CONSUMER  STATE    KEYS      BACKLOG  DEAD  SEEN
        billing   running  /orders/     1200     2  never
        last changes in data ───────────────────────────────────────────────────────────────────────────────────────────────────
        07:59:00.002  put       kitchen   /bad/\x1b[31m     \x1b]0;x\x07 and more
        07:59:00.001  put       kitchen   /lamp             on
















         q leave  Tab next panel  ↑↓ scroll  p pause
        ");
    }

    #[test]
    fn nothing_is_known_before_the_first_answer() {
        insta::assert_snapshot!(shown(&mut Top::default(), 80, 6), @"
        waiting for the node
        last changes ───────────────────────────────────────────────────────────────────
        none since this screen began


         q leave  Tab next panel  ↑↓ scroll  p pause
        ");
    }

    #[test]
    fn absence_of_the_node_takes_the_place_of_the_verdict() {
        let mut top = busy();
        top.went_away("the node at \u{1b}[2Jsock does not answer");
        let text = shown(&mut top, 80, 24);
        assert!(
            text.starts_with(
                "AWAY: the node at \\x1b[2Jsock does not answer; waiting for the node\n"
            ),
            "{text}"
        );
        assert!(text.contains("kitchen"), "{text}");
        top.answered(three(), 3000);
        assert!(shown(&mut top, 80, 24).starts_with("OK: 3 of 3 online"));
    }

    #[test]
    fn keys_choose_a_panel_and_scroll_it() {
        let mut top = busy();
        for number in 0..300 {
            top.changed(change(number, &format!("/k/{number}"), "v"));
        }
        assert!(
            shown(&mut top, 80, 24).contains("(1-2 of 200)"),
            "{}",
            shown(&mut top, 80, 24)
        );
        assert_eq!(top.press(Key::Down), Then::Stay);
        assert!(shown(&mut top, 80, 24).contains("(2-3 of 200)"));
        top.press(Key::End);
        assert!(shown(&mut top, 80, 24).contains("(199-200 of 200)"));
        // The end was not passed, so one step back is seen.
        top.press(Key::Up);
        assert!(shown(&mut top, 80, 24).contains("(198-199 of 200)"));
        top.press(Key::Home);
        assert!(shown(&mut top, 80, 24).contains("(1-2 of 200)"));
        assert_eq!(top.chosen, Part::Changes);
        let order = [Part::Members, Part::Stores, Part::Hooks, Part::Consumers];
        for part in order {
            top.press(Key::Tab);
            assert_eq!(top.chosen, part);
        }
        top.press(Key::BackTab);
        assert_eq!(top.chosen, Part::Hooks);
        for key in [Key::Char('q'), Key::Escape, Key::Interrupt] {
            assert_eq!(top.press(key), Then::Leave);
        }
        assert_eq!(top.press(Key::Suspend), Then::Suspend);
    }

    #[test]
    fn paused_screen_stands_still_and_loses_nothing() {
        let mut top = busy();
        let before = shown(&mut top, 80, 24);
        top.press(Key::Char('p'));
        top.changed(change(9, "/later", "v"));
        top.answered(three(), 3000);
        let paused = shown(&mut top, 80, 24);
        let without_keys = |text: &str| text.rsplit_once('\n').unwrap().0.to_owned();
        assert_eq!(without_keys(&paused), without_keys(&before));
        assert!(paused.contains("PAUSED"));
        top.press(Key::Char('p'));
        assert!(shown(&mut top, 80, 24).contains("/later"));
    }

    #[test]
    fn any_size_is_drawn() {
        for (columns, rows) in [(1, 1), (2, 3), (10, 5), (40, 10), (300, 100)] {
            let mut top = busy();
            for key in [Key::Tab, Key::End, Key::Char('p')] {
                top.press(key);
                shown(&mut top, columns, rows);
            }
        }
    }
}

//! Matters that a person should know of a member or a store, for the verdict of `status`.

use std::cmp::Reverse;

use lattice::wire::api;

use crate::cli::{
    input::time::date_time,
    output::{
        ink::Ink,
        object::short,
        print::harmless,
        screen::Screen,
        table::{Cell, Column, Table},
    },
    screens::{
        names::Names,
        peers::{is_gone, out_of_step},
        stores,
        when::{bytes, count},
    },
};

/// How bad a matter is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Level {
    /// Good to know.
    Note,
    /// A person should look at it; nothing is lost.
    Warning,
    /// The node cannot do its work, or data is in danger.
    Problem,
}

/// A matter that is below the verdict, and is counted for it.
#[derive(Debug)]
pub(super) struct Matter {
    pub(super) level: Level,
    /// The matter, in words.
    pub(super) text: String,
}

impl Matter {
    /// Draws the matter on a line, with a mark if a person should look at it.
    pub(super) fn draw(&self, screen: &Screen) -> String {
        let (ink, mark) = match self.level {
            Level::Note => (Ink::Plain, ' '),
            Level::Warning => (Ink::Warn, '!'),
            Level::Problem => (Ink::Alarm, '!'),
        };
        screen.paint(ink, &format!("  {mark} {}", self.text))
    }
}

/// Returns what is not as it should be with another node.
pub(super) fn of_a_peer(peer: &api::Peer, names: &Names) -> Option<Matter> {
    let name = names.of(&peer.node);
    let (level, text) = match peer {
        gone if is_gone(gone) => return None,
        peer if peer.forked => (
            Level::Problem,
            "has forked its log: lattice status --json".to_owned(),
        ),
        peer if peer.strikes > 0 => (
            Level::Warning,
            "sent messages that no honest node sends".to_owned(),
        ),
        peer if peer.online => (Level::Warning, out_of_step(peer)?),
        _away => return None,
    };
    let text = format!("{name} {text}");
    Some(Matter { level, text })
}

/// Lists what there is to know of a store.
pub(super) fn of_a_store(store: &api::StoreStatus, names: &Names) -> Vec<Matter> {
    let name = store.info.as_ref().map(stores::name).unwrap_or_default();
    let mut all = Vec::new();
    let mut add = |level, text: String| {
        let text = format!("{name}: {text}");
        all.push(Matter { level, text });
    };
    if !store.poisoned.is_empty() {
        add(
            Level::Problem,
            format!("writes are refused: {}", harmless(&store.poisoned)),
        );
    }
    for damage in &store.damage {
        add(Level::Problem, format!("damaged: {}", harmless(damage)));
    }
    for fork in &store.forks {
        let (level, text) = of_a_fork(fork, names);
        add(level, text);
    }
    if store.more_forks > 0 {
        add(Level::Problem, format!("{} more forks", store.more_forks));
    }
    for diverged in &store.diverged {
        add(Level::Problem, of_a_divergence(diverged, names));
    }
    if store.held_entries > 0 {
        let entries = count(store.held_entries, "entry");
        let of = store.held.first().map(|held| {
            let (author, due) = (names.of(&held.author), date_time(held.due_ms));
            format!("; the first is of {author}, until {due}")
        });
        let of = of.unwrap_or_default();
        let text =
            format!("{entries} stamped more than 1 h ahead of the clock here wait for it{of}");
        add(Level::Warning, text);
    }
    if store.pending_entries > 0 {
        let (entries, size) = (
            count(store.pending_entries, "entry"),
            bytes(store.pending_bytes),
        );
        add(
            Level::Note,
            format!("{entries} ({size}) waiting for missing entries"),
        );
    }
    if store.void_acts > 0 {
        let changes = count(store.void_acts, "membership change");
        add(
            Level::Note,
            format!("{changes} without effect: the authors may not make them"),
        );
    }
    for mended in &store.recovered {
        add(
            Level::Note,
            format!("repaired when opened: {}", harmless(mended)),
        );
    }
    if let Some(history) = &store.history {
        if !history.trouble.is_empty() {
            add(
                Level::Warning,
                format!("history does not end: {}", harmless(&history.trouble)),
            );
        }
        if history.final_bytes + history.open_bytes > 0 || !history.awaited.is_empty() {
            add(Level::Note, of_history(history, names));
        }
    }
    all
}

fn of_a_fork(fork: &api::Fork, names: &Names) -> (Level, String) {
    let entries: Vec<String> = fork.entries.iter().map(|id| short(id)).collect();
    let (level, is) = match fork {
        fork if fork.spent => (
            Level::Problem,
            "it has more than 64 forks, so nothing that it wrote here counts",
        ),
        fork if fork.closed => (Level::Note, "the fork is closed"),
        _open => (Level::Problem, "the fork is open"),
    };
    let text = format!(
        "{} signed two entries with number {}: {}; {is}",
        names.of(&fork.author),
        fork.seq,
        entries.join(" and "),
    );
    (level, text)
}

fn of_a_divergence(diverged: &api::Divergence, names: &Names) -> String {
    let members = |number: u32| count(number.into(), "member");
    format!(
        "{0} says that its state differs from the state here, with the same entries: {1} signed the \
         state here, {2} signed that of {0}. `lattice verify` on both nodes shows whose state does \
         not follow from its log; without its state.db that node builds it again when it starts. If both \
         follow, `lattice repair --state-from NODE` takes that of the other one",
        names.of(&diverged.node),
        members(diverged.with_here),
        members(diverged.with_there),
    )
}

fn of_history(history: &api::StoreHistory, names: &Names) -> String {
    let (done, open) = (bytes(history.final_bytes), bytes(history.open_bytes));
    let awaited = match &history.awaited[..] {
        [] => String::new(),
        [node] => format!(", waits for {}", names.of(node)),
        [node, rest @ ..] => format!(", waits for {} and {} more", names.of(node), rest.len()),
    };
    format!("history {done} final, {open} not yet{awaited}")
}

/// Draws the authors of a store, those with most room in the logs first.
pub(super) fn authors(store: &api::StoreStatus, names: &Names, screen: &Screen) -> Vec<String> {
    let name = store.info.as_ref().map(stores::name).unwrap_or_default();
    let mut table = Table::new(&[
        Column::Text("AUTHOR"),
        Column::Text("ID"),
        Column::Number("SEQ"),
        Column::Number("LOG"),
        Column::Text("NEWEST ENTRY"),
    ]);
    let mut tips: Vec<_> = store.applied.iter().collect();
    tips.sort_by_key(|tip| Reverse(tip.log_bytes));
    for tip in tips.into_iter().take(AUTHORS_SHOWN_MAX) {
        table.row([
            names.cell(&tip.author),
            Cell::new(Ink::Dim, screen.id(&tip.author)),
            tip.seq.to_string().into(),
            bytes(tip.log_bytes).into(),
            Cell::new(Ink::Dim, screen.id(&tip.id)),
        ]);
    }
    let mut lines = vec![format!("  authors in {name}")];
    lines.extend(table.draw(screen, 4));
    let not_shown = store.applied.len().saturating_sub(AUTHORS_SHOWN_MAX) as u64;
    match store.more_authors.saturating_add(not_shown) {
        0 => {}
        more => lines.push(format!("    and {more} more")),
    }
    lines
}

/// Authors of a store that are shown to people; `--json` has all.
const AUTHORS_SHOWN_MAX: usize = 16;

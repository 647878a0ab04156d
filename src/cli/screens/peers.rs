//! The members, as `peer list` shows them.

use lattice::{clock::about, wire::api};

use crate::cli::{
    input::time::date_time,
    output::{
        ink::Ink,
        print::harmless,
        screen::Screen,
        table::{Cell, Column, Table},
    },
    screens::{names::Names, when::count},
};

/// Draws a table of the members: this node first, then `peers` in their order, with the last errors of
/// those that are offline below it.
pub(crate) fn draw(own: Option<&api::Peer>, peers: &[&api::Peer], screen: &Screen) -> Vec<String> {
    let names = Names::new(own.into_iter().chain(peers.iter().copied()));
    let mut table = Table::new(&[
        Column::Text("NAME"),
        Column::Text("ID"),
        Column::Text("ROLE"),
        Column::Text("STATE"),
        Column::Text("PATH"),
        Column::Number("RTT"),
        Column::Text("ENTRIES"),
    ]);
    let nodes = own.into_iter().map(|own| (own, true));
    for (peer, is_own) in nodes.chain(peers.iter().map(|peer| (*peer, false))) {
        let name = match (peer.name.as_str(), is_own) {
            ("", true) => "*".to_owned(),
            ("", false) => String::new(),
            (_, true) => format!("{} *", harmless(&peer.name)),
            (_, false) => harmless(&peer.name).into_owned(),
        };
        let path = match peer.rtt_us {
            None => "",
            Some(_) if peer.relayed => "relayed",
            Some(_) => "direct",
        };
        let rtt = peer
            .rtt_us
            .map(|us| format!("{}.{} ms", us / 1000, us % 1000 / 100));
        table.row([
            Cell::new(Names::ink(&peer.node), name),
            Cell::new(Ink::Dim, screen.id(&peer.node)),
            peer.role.as_str().into(),
            state(peer, is_own, screen),
            path.into(),
            rtt.unwrap_or_default().into(),
            if is_own { Cell::default() } else { step(peer) },
        ]);
    }
    let mut lines = table.draw(screen, 0);
    for peer in own.into_iter().chain(peers.iter().copied()) {
        let (ink, marks) = marks(peer);
        if !marks.is_empty() {
            let text = format!("  ! {}: {marks}", names.of(&peer.node));
            lines.push(screen.paint(ink, &screen.fit(&text, 0)));
        }
        if !peer.error.is_empty() && !peer.online {
            let text = format!("  ! {}: {}", names.of(&peer.node), harmless(&peer.error));
            lines.push(screen.paint(Ink::Warn, &screen.fit(&text, 0)));
        }
    }
    lines
}

/// True for a node that was a member and is none any more.
pub(crate) fn is_gone(peer: &api::Peer) -> bool {
    matches!(peer.role.as_str(), "removed" | "spent")
}

fn state(peer: &api::Peer, is_own: bool, screen: &Screen) -> Cell {
    match (peer.online, peer.seen_ms) {
        _own if is_own => "this node".into(),
        (true, _) => Cell::new(Ink::Good, "online"),
        // This node does not look for it.
        _gone if is_gone(peer) => Cell::default(),
        (false, 0) => Cell::new(Ink::Warn, "never seen"),
        (false, seen_ms) if screen.ages => {
            let away = about(screen.now_ms.saturating_sub(seen_ms));
            Cell::new(Ink::Warn, format!("away {away}"))
        }
        (false, seen_ms) => format!("seen {}", date_time(seen_ms)).into(),
    }
}

// Describes whose entries are missing where.
fn step(peer: &api::Peer) -> Cell {
    if is_gone(peer) && !peer.online {
        return Cell::default();
    }
    match (peer.behind, peer.ahead.unwrap_or(0)) {
        (None, _) => Cell::new(Ink::Dim, "not compared"),
        (Some(0), 0) if !peer.held => Cell::new(Ink::Good, "in step"),
        (Some(0), 0) => Cell::default(),
        (Some(behind), 0) => Cell::new(Ink::Warn, format!("{behind} behind")),
        (Some(0), ahead) => Cell::new(Ink::Warn, format!("{ahead} ahead")),
        (Some(behind), ahead) => Cell::new(Ink::Warn, format!("{behind} behind, {ahead} ahead")),
    }
}

/// Describes how far `peer` is from this node, in a sentence about it; `None` if they are in step.
pub(crate) fn out_of_step(peer: &api::Peer) -> Option<String> {
    match (peer.behind, peer.ahead.unwrap_or(0)) {
        (None, _) => Some("was not compared yet".to_owned()),
        (Some(0), 0) if peer.held => Some("has entries that wait for the clock here".to_owned()),
        (Some(0), 0) => None,
        (Some(0), ahead) => Some(format!("is {} ahead", count(ahead, "entry"))),
        (Some(behind), 0) => Some(format!("is {} behind", count(behind, "entry"))),
        (Some(behind), ahead) => Some(format!(
            "is {} behind and {ahead} ahead",
            count(behind, "entry")
        )),
    }
}

// By how much a clock differs from the one here, in the unit that a person would use; empty for less
// than half a second.
fn clock(peer: &api::Peer) -> String {
    let ms = peer.skew_ms;
    let direction = if ms < 0 { "behind" } else { "ahead" };
    match ms.unsigned_abs() {
        _unknown if peer.seen_ms == 0 => String::new(),
        0..500 => String::new(),
        500..10_000 => format!("clock {ms:+} ms"),
        more => format!("clock {} {direction}", about(more)),
    }
}

fn marks(peer: &api::Peer) -> (Ink, String) {
    let clock = clock(peer);
    let is_off = !clock.is_empty();
    let marks = [
        (peer.forked, "FORKED"),
        (peer.diverged > 0, "DIVERGED"),
        (peer.strikes > 0, "misbehaved"),
        (peer.held, "entries held here: stamped more than 1 h ahead"),
        (peer.dormant, "dormant"),
        (is_off, &clock),
    ];
    let ink = match peer.forked || peer.diverged > 0 {
        true => Ink::Alarm,
        false => Ink::Warn,
    };
    let set = marks.iter().filter(|(set, _)| *set);
    let set: Vec<&str> = set.map(|(_, mark)| *mark).collect();
    (ink, set.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{
        output::screen::tests::{NOW_MS, everywhere, pipe},
        screens::names::tests::node,
    };

    fn online(behind: Option<u64>, ahead: Option<u64>) -> api::Peer {
        api::Peer {
            online: true,
            seen_ms: NOW_MS,
            behind,
            ahead,
            rtt_us: Some(840),
            ..node(0x67, "kitchen", "writer")
        }
    }

    #[test]
    fn members_are_a_table() {
        let own = node(0x6e, "attic", "admin");
        let kitchen = online(Some(0), Some(0));
        let laptop = api::Peer {
            seen_ms: NOW_MS - 12 * 60_000,
            behind: Some(3),
            error:
                "connecting to 192.0.2.7:4711 timed out, and so did the three addresses before it"
                    .to_owned(),
            skew_ms: -3_600_000 * 5,
            ..node(0x87, "laptop", "writer")
        };
        let new = node(0x99, "", "reader");
        let forked = api::Peer {
            forked: true,
            dormant: true,
            relayed: true,
            rtt_us: Some(61_250),
            ..online(Some(1), Some(2))
        };
        let peers = [&kitchen, &laptop, &new, &forked];
        insta::assert_snapshot!(everywhere(|screen| draw(Some(&own), &peers, screen)), @"
        -- 80 columns
        NAME     ID        ROLE    STATE        PATH         RTT  ENTRIES
        attic *  6e6e6e6e  admin   this node
        kitchen  67676767  writer  online       direct    0.8 ms  in step
        laptop   87878787  writer  away 12 min                    3 behind
                 99999999  reader  never seen                     not compared
        kitchen  67676767  writer  online       relayed  61.2 ms  1 behind, 2 ahead
          ! laptop: clock 5 h behind
          ! laptop: connecting to 192.0.2.7:4711 timed out, and so did the three addres…
          ! kitchen/67676767: FORKED, dormant
        -- 120 columns
        NAME     ID        ROLE    STATE        PATH         RTT  ENTRIES
        attic *  6e6e6e6e  admin   this node
        kitchen  67676767  writer  online       direct    0.8 ms  in step
        laptop   87878787  writer  away 12 min                    3 behind
                 99999999  reader  never seen                     not compared
        kitchen  67676767  writer  online       relayed  61.2 ms  1 behind, 2 ahead
          ! laptop: clock 5 h behind
          ! laptop: connecting to 192.0.2.7:4711 timed out, and so did the three addresses before it
          ! kitchen/67676767: FORKED, dormant
        -- 80 columns, in colour
        ^[2mNAME^[0m     ^[2mID^[0m        ^[2mROLE^[0m    ^[2mSTATE^[0m        ^[2mPATH^[0m         ^[2mRTT^[0m  ^[2mENTRIES^[0m
        ^[38;5;5mattic *^[39m  ^[2m6e6e6e6e^[0m  admin   this node
        ^[38;5;4mkitchen^[39m  ^[2m67676767^[0m  writer  ^[38;5;2monline^[39m       direct    0.8 ms  ^[38;5;2min step^[39m
        ^[38;5;14mlaptop^[39m   ^[2m87878787^[0m  writer  ^[38;5;3maway 12 min^[39m                    ^[38;5;3m3 behind^[39m
                 ^[2m99999999^[0m  reader  ^[38;5;3mnever seen^[39m                     ^[2mnot compared^[0m
        ^[38;5;4mkitchen^[39m  ^[2m67676767^[0m  writer  ^[38;5;2monline^[39m       relayed  61.2 ms  ^[38;5;3m1 behind, 2 ahead^[39m
        ^[33m  ! laptop: clock 5 h behind^[0m
        ^[33m  ! laptop: connecting to 192.0.2.7:4711 timed out, and so did the three addres…^[0m
        ^[1m^[31m  ! kitchen/67676767: FORKED, dormant^[0m
        -- 120 columns, in colour
        ^[2mNAME^[0m     ^[2mID^[0m        ^[2mROLE^[0m    ^[2mSTATE^[0m        ^[2mPATH^[0m         ^[2mRTT^[0m  ^[2mENTRIES^[0m
        ^[38;5;5mattic *^[39m  ^[2m6e6e6e6e^[0m  admin   this node
        ^[38;5;4mkitchen^[39m  ^[2m67676767^[0m  writer  ^[38;5;2monline^[39m       direct    0.8 ms  ^[38;5;2min step^[39m
        ^[38;5;14mlaptop^[39m   ^[2m87878787^[0m  writer  ^[38;5;3maway 12 min^[39m                    ^[38;5;3m3 behind^[39m
                 ^[2m99999999^[0m  reader  ^[38;5;3mnever seen^[39m                     ^[2mnot compared^[0m
        ^[38;5;4mkitchen^[39m  ^[2m67676767^[0m  writer  ^[38;5;2monline^[39m       relayed  61.2 ms  ^[38;5;3m1 behind, 2 ahead^[39m
        ^[33m  ! laptop: clock 5 h behind^[0m
        ^[33m  ! laptop: connecting to 192.0.2.7:4711 timed out, and so did the three addresses before it^[0m
        ^[1m^[31m  ! kitchen/67676767: FORKED, dormant^[0m
        ");
    }

    #[test]
    fn in_step_is_shown_only_if_neither_lacks_entries() {
        let shown = |behind, ahead, held| {
            let peer = api::Peer {
                held,
                ..online(behind, ahead)
            };
            let lines = draw(None, &[&peer], &pipe())[1..].join("\n");
            let ends = lines.split_once("ms").unwrap().1.trim().to_owned();
            let sentence = out_of_step(&peer).unwrap_or_default();
            (ends, sentence)
        };
        let pair = |ends: &str, sentence: &str| (ends.to_owned(), sentence.to_owned());
        let yet = pair("not compared", "was not compared yet");
        assert_eq!(shown(None, None, false), yet);
        assert_eq!(shown(Some(0), Some(0), false), pair("in step", ""));
        assert_eq!(
            shown(Some(1), Some(0), false),
            pair("1 behind", "is 1 entry behind")
        );
        assert_eq!(
            shown(Some(0), Some(2), false),
            pair("2 ahead", "is 2 entries ahead")
        );
        let both = pair("3 behind, 1 ahead", "is 3 entries behind and 1 ahead");
        assert_eq!(shown(Some(3), Some(1), false), both);
        for ahead in [Some(0), Some(1)] {
            let (held, sentence) = shown(Some(0), ahead, true);
            assert!(!held.contains("in step") && !sentence.is_empty(), "{held}");
            assert!(held.contains("held"), "{held}");
        }
    }

    #[test]
    fn clock_skew_is_in_words_above_ten_seconds() {
        let skew = |skew_ms| {
            clock(&api::Peer {
                skew_ms,
                ..online(None, None)
            })
        };
        assert_eq!(skew(-499), "");
        assert_eq!(skew(-500), "clock -500 ms");
        assert_eq!(skew(9_999), "clock +9999 ms");
        assert_eq!(skew(3 * 86_400_000), "clock 3 days ahead");
        assert_eq!(skew(-2 * 3_600_000), "clock 2 h behind");
    }

    /// "never seen  not compared yet" was shown of a node that was here a moment ago.
    #[test]
    fn removed_node_is_shown_as_such() {
        let gone = node(0x33, "cellar", "removed");
        let lines = draw(None, &[&gone], &pipe());
        assert_eq!(lines[1], "cellar  33333333  removed");
    }
}

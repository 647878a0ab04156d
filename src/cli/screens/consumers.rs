//! The consumers of a store, as `consumer list` shows them.

use lattice::wire::api;

use crate::cli::{
    output::{
        ink::Ink,
        print::{escape, harmless},
        screen::Screen,
        table::{Cell, Column, Table},
    },
    screens::{
        hooks::state_ink,
        when::{count, when},
    },
};

/// Draws a table of consumers, with what a person has to look at below it.
pub(crate) fn draw(consumers: &[api::ConsumerStatus], screen: &Screen) -> Vec<String> {
    let mut lines = table(consumers, screen);
    for text in consumers.iter().flat_map(|it| troubles(it, "")) {
        let line = format!("  ! {text}");
        lines.push(screen.paint(Ink::Warn, &screen.fit(&line, 0)));
    }
    lines
}

/// Draws a table of consumers.
pub(crate) fn table(consumers: &[api::ConsumerStatus], screen: &Screen) -> Vec<String> {
    let mut table = Table::new(&[
        Column::Text("CONSUMER"),
        Column::Text("STATE"),
        Column::Key("KEYS"),
        Column::Number("BACKLOG"),
        Column::Number("OUTSTANDING"),
        Column::Number("IN FLIGHT"),
        Column::Number("DEAD"),
        Column::Text("SEEN"),
    ]);
    for status in consumers {
        table.row([
            status.consumer.as_str().into(),
            Cell::new(state_ink(&status.state), status.state.as_str()),
            prefixes(status).into(),
            // Zero is news here: the consumer has read everything.
            status.backlog_entries.to_string().into(),
            Cell::count(Ink::Plain, status.outstanding),
            Cell::count(Ink::Plain, status.in_flight),
            Cell::count(Ink::Alarm, status.dead),
            match status.last_seen_ms {
                0 => Cell::new(Ink::Dim, "never"),
                ms => Cell::new(Ink::Dim, when(screen, ms)),
            },
        ]);
    }
    table.draw(screen, 0)
}

/// Describes what a person has to look at, a text for each matter, which begins with the consumer's
/// name. `store` is the end of a command about the consumer.
pub(crate) fn troubles(status: &api::ConsumerStatus, store: &str) -> Vec<String> {
    let name = &status.consumer;
    let mut texts = Vec::new();
    if status.dead > 0 {
        let letters = count(status.dead, "dead letter");
        texts.push(format!(
            "{name}: {letters}: lattice consumer dead {name}{store}"
        ));
    }
    if !status.reason.is_empty() {
        texts.push(format!("{name}: {}", harmless(&status.reason)));
    }
    texts
}

/// Returns the prefixes of the keys of a consumer.
pub(crate) fn prefixes(status: &api::ConsumerStatus) -> String {
    if status.prefixes.is_empty() {
        return "all".to_owned();
    }
    let prefixes: Vec<_> = status.prefixes.iter().map(|key| escape(key)).collect();
    prefixes.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::output::screen::tests::{NOW_MS, everywhere};

    #[test]
    fn consumers_are_a_table() {
        let quiet = api::ConsumerStatus {
            consumer: "audit".to_owned(),
            state: "paused".to_owned(),
            ..api::ConsumerStatus::default()
        };
        let billing = api::ConsumerStatus {
            consumer: "billing".to_owned(),
            state: "running".to_owned(),
            prefixes: vec!["/orders/".into(), "/refunds/of/the/european/branch/".into()],
            backlog_entries: 1200,
            outstanding: 40,
            in_flight: 8,
            redelivered: 3,
            dead: 2,
            last_seen_ms: NOW_MS - 4_000,
            ..api::ConsumerStatus::default()
        };
        let stuck = api::ConsumerStatus {
            consumer: "index".to_owned(),
            state: "stopped".to_owned(),
            reason: "entries that it needs were removed".to_owned(),
            prefixes: vec!["/pages/".into()],
            ..api::ConsumerStatus::default()
        };
        let all = [quiet, billing, stuck];
        insta::assert_snapshot!(everywhere(|screen| draw(&all, screen)), @"
        -- 80 columns
        CONSUMER  STATE    KEYS           BACKLOG  OUTSTANDING  IN FLIGHT  DEAD  SEEN
        audit     paused   all                  0                                never
        billing   running  /order…ranch/     1200           40          8     2  4 s ago
        index     stopped  /pages/              0                                never
          ! billing: 2 dead letters: lattice consumer dead billing
          ! index: entries that it needs were removed
        -- 120 columns
        CONSUMER  STATE    KEYS                                       BACKLOG  OUTSTANDING  IN FLIGHT  DEAD  SEEN
        audit     paused   all                                              0                                never
        billing   running  /orders/ /refunds/of/the/european/branch/     1200           40          8     2  4 s ago
        index     stopped  /pages/                                          0                                never
          ! billing: 2 dead letters: lattice consumer dead billing
          ! index: entries that it needs were removed
        -- 80 columns, in colour
        ^[2mCONSUMER^[0m  ^[2mSTATE^[0m    ^[2mKEYS^[0m           ^[2mBACKLOG^[0m  ^[2mOUTSTANDING^[0m  ^[2mIN FLIGHT^[0m  ^[2mDEAD^[0m  ^[2mSEEN^[0m
        audit     ^[38;5;3mpaused^[39m   all                  0                                ^[2mnever^[0m
        billing   ^[38;5;2mrunning^[39m  /order…ranch/     1200           40          8     ^[38;5;1m^[1m2^[0m  ^[2m4 s ago^[0m
        index     ^[38;5;1m^[1mstopped^[0m  /pages/              0                                ^[2mnever^[0m
        ^[33m  ! billing: 2 dead letters: lattice consumer dead billing^[0m
        ^[33m  ! index: entries that it needs were removed^[0m
        -- 120 columns, in colour
        ^[2mCONSUMER^[0m  ^[2mSTATE^[0m    ^[2mKEYS^[0m                                       ^[2mBACKLOG^[0m  ^[2mOUTSTANDING^[0m  ^[2mIN FLIGHT^[0m  ^[2mDEAD^[0m  ^[2mSEEN^[0m
        audit     ^[38;5;3mpaused^[39m   all                                              0                                ^[2mnever^[0m
        billing   ^[38;5;2mrunning^[39m  /orders/ /refunds/of/the/european/branch/     1200           40          8     ^[38;5;1m^[1m2^[0m  ^[2m4 s ago^[0m
        index     ^[38;5;1m^[1mstopped^[0m  /pages/                                          0                                ^[2mnever^[0m
        ^[33m  ! billing: 2 dead letters: lattice consumer dead billing^[0m
        ^[33m  ! index: entries that it needs were removed^[0m
        ");
    }
}

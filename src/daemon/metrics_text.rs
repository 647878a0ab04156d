//! The text of `/metrics`: families of samples, each with its help text.

use std::{collections::BTreeMap, fmt::Write as _};

use crate::{
    api::watches::{WatchLag, Watches},
    log::{SYNC_BOUNDS, SyncTimes},
    net::{Net, PeerStatus},
    node::{HistorySummary, Node},
    store::{
        StoreStatus,
        consumers::{ConsumerState, ConsumerStatus},
    },
};

/// Samples by family. The text has the families in the order of their first samples.
#[derive(Debug, Default)]
struct Text {
    families: Vec<&'static str>,
    samples: BTreeMap<&'static str, String>,
}

/// Returns the metrics of the node, its stores, watches, consumers and peers.
pub(super) async fn text(node: &Node, net: &Net, watches: &Watches, started_ms: u64) -> String {
    let mut text = Text::default();
    text.gauge(
        "lattice_build_info",
        "Version and id of the node; always 1.",
        &[
            ("version", env!("CARGO_PKG_VERSION")),
            ("node", &node.id().to_string()),
        ],
        1,
    );
    text.gauge(
        "process_start_time_seconds",
        "Time at which the node started, in seconds since 1970.",
        &[],
        Ms(started_ms),
    );
    let lags = watches.lags();
    let (listed, rest) = lags.split_at(lags.len().min(WATCHES_LISTED_MAX));
    for info in node.stores() {
        let Some(store) = node.open_store(&info.id) else {
            continue;
        };
        let id = info.id.to_string();
        let labels = [("store", info.name.as_str()), ("store_id", &id)];
        text.store(&labels, &store.status().await);
        text.gauge(
            "lattice_diverged_members",
            "Members that have signed another state than that of this node, for the same entries.",
            &labels,
            net.divergences(&info.id).len(),
        );
        if let Some(history) = node.history(&info.id) {
            text.history(&labels, &history);
        }
        let is_here = |lag: &&WatchLag| lag.store == info.id;
        for lag in listed.iter().filter(is_here) {
            text.watch(&labels, lag);
        }
        let rest = rest.iter().filter(is_here);
        text.gauge(
            "lattice_watch_lag_entries_unlisted",
            "Sum of lattice_watch_lag_entries for the watches beyond the first 1,000 of the node.",
            &labels,
            rest.map(|lag| lag.entries).fold(0, u64::saturating_add),
        );
        let consumers = store.consumers().await;
        text.gauge(
            "lattice_consumers_readable",
            "1 if the durable consumers of the store can be read, otherwise 0.",
            &labels,
            u8::from(consumers.is_ok()),
        );
        for consumer in consumers.unwrap_or_default() {
            text.consumer(&labels, &consumer);
        }
    }
    let members = node.members().iter().count();
    text.gauge(
        "lattice_members",
        "Nodes that were ever members, including this one.",
        &[],
        members,
    );
    for peer in net.peers() {
        text.peer(&peer);
    }
    text.done()
}

impl Text {
    fn history(&mut self, labels: &[(&str, &str)], history: &HistorySummary) {
        self.gauge(
            "lattice_history_final_bytes",
            "Bytes of the logs that are final, and can be removed.",
            labels,
            history.final_bytes,
        );
        self.gauge(
            "lattice_history_open_bytes",
            "Bytes of the logs that are not final yet.",
            labels,
            history.open_bytes,
        );
        self.gauge(
            "lattice_history_final_time_seconds",
            "Time of the newest act that made entries final, in seconds since 1970; 0: there is none.",
            labels,
            Ms(history.through_ms),
        );
        self.gauge(
            "lattice_history_awaited_members",
            "Members that have not acknowledged entries, which could be final else.",
            labels,
            history.awaited.len(),
        );
        self.gauge(
            "lattice_history_trouble",
            "1 if entries could not be made final or removed because of an error, otherwise 0.",
            labels,
            u8::from(history.trouble.is_some()),
        );
    }

    fn store(&mut self, labels: &[(&str, &str)], status: &StoreStatus) {
        self.counter(
            "lattice_entries_applied_total",
            "Entries applied, of all authors.",
            labels,
            status.entries,
        );
        self.gauge(
            "lattice_keys",
            "Keys ever written, including deleted ones.",
            labels,
            status.keys,
        );
        self.gauge(
            "lattice_log_bytes",
            "Bytes of all logs.",
            labels,
            status.log_bytes,
        );
        self.gauge(
            "lattice_state_bytes",
            "Bytes of the state file.",
            labels,
            status.state_bytes,
        );
        self.gauge(
            "lattice_pending_entries",
            "Entries that wait for their prev or a parent.",
            labels,
            status.pending_entries,
        );
        self.gauge(
            "lattice_pending_bytes",
            "Bytes of the entries that wait for their prev or a parent.",
            labels,
            status.pending_bytes,
        );
        self.gauge(
            "lattice_held_entries",
            "Entries stamped too far in the future, which wait for the clock.",
            labels,
            status.held_entries,
        );
        let forks = status.forks.iter().filter(|fork| !fork.closed).count();
        self.gauge(
            "lattice_open_forks",
            "Authors whose log has several open branches.",
            labels,
            forks,
        );
        self.gauge(
            "lattice_damaged_places",
            "Places in the logs that cannot be read.",
            labels,
            status.damage.len(),
        );
        self.gauge(
            "lattice_writes_refused",
            "1 if the store refuses writes, otherwise 0; `lattice status` shows the reason.",
            labels,
            u8::from(status.poisoned.is_some()),
        );
        self.gauge(
            "lattice_watchers",
            "Open watches of the store.",
            labels,
            status.watchers,
        );
        self.syncs(labels, &status.syncs);
    }

    fn syncs(&mut self, labels: &[(&str, &str)], times: &SyncTimes) {
        const NAME: &str = "lattice_fsync_seconds";
        let what = "Time that the disk took to make entries durable.";
        let mut total = 0;
        for (index, count) in times.counts.iter().enumerate() {
            total += count;
            let bound = SYNC_BOUNDS
                .get(index)
                .map_or("+Inf".to_owned(), |bound| bound.as_secs_f64().to_string());
            let labels = [labels, &[("le", &bound)]].concat();
            self.sample(NAME, "histogram", what, "_bucket", &labels, total);
        }
        self.sample(
            NAME,
            "histogram",
            what,
            "_sum",
            labels,
            times.sum.as_secs_f64(),
        );
        self.sample(NAME, "histogram", what, "_count", labels, total);
    }

    fn watch(&mut self, labels: &[(&str, &str)], lag: &WatchLag) {
        let number = lag.watch.to_string();
        let own = [("watch", number.as_str()), ("prefix", &lag.on)];
        self.gauge(
            "lattice_watch_lag_entries",
            "Published entries that a client's watch has not delivered yet.",
            &[labels, &own].concat(),
            lag.entries,
        );
    }

    fn consumer(&mut self, labels: &[(&str, &str)], status: &ConsumerStatus) {
        let labels = &[labels, &[("consumer", status.name.as_str())]].concat();
        let running = matches!(status.state, ConsumerState::Running);
        self.gauge(
            "lattice_consumer_running",
            "1 if the consumer runs; 0 if it is paused, waits for history, or has stopped.",
            labels,
            u8::from(running),
        );
        self.gauge(
            "lattice_consumer_backlog_entries",
            "Entries of the store that the consumer has not read yet.",
            labels,
            status.backlog_entries,
        );
        self.gauge(
            "lattice_consumer_outstanding",
            "Changes that the consumer has read and that are not finished.",
            labels,
            status.outstanding,
        );
        self.gauge(
            "lattice_consumer_in_flight",
            "Outstanding changes that takers have now.",
            labels,
            status.in_flight,
        );
        self.gauge(
            "lattice_consumer_dead_letters",
            "Dead letters: changes that no taker could finish.",
            labels,
            status.dead,
        );
        self.counter(
            "lattice_consumer_acked_total",
            "Changes acknowledged.",
            labels,
            status.acked,
        );
        self.counter(
            "lattice_consumer_redelivered_total",
            "Attempts after the first one of a change.",
            labels,
            status.redelivered,
        );
        if let Some(ms) = status.last_seen_ms {
            self.gauge(
                "lattice_consumer_seen_seconds",
                "Time at which a change was last taken or answered, in seconds since 1970.",
                labels,
                Ms(ms),
            );
        }
    }

    fn peer(&mut self, peer: &PeerStatus) {
        let node = peer.node.to_string();
        let labels = &[("peer", node.as_str())];
        self.gauge(
            "lattice_peer_online",
            "1 if there is a connection to this member, otherwise 0.",
            labels,
            u8::from(peer.online),
        );
        self.gauge(
            "lattice_peer_seen_seconds",
            "Time of the last contact with the peer, in seconds since 1970; 0: never.",
            labels,
            Ms(peer.seen_ms),
        );
        if let Some(behind) = peer.behind {
            self.gauge(
                "lattice_peer_behind_entries",
                "Entries of this node that the peer has not reported as durable.",
                labels,
                behind,
            );
        }
        if let Some(rtt) = peer.rtt {
            self.gauge(
                "lattice_peer_rtt_seconds",
                "Round-trip time of the path to the peer.",
                labels,
                rtt.as_secs_f64(),
            );
        }
        if peer.online {
            self.gauge(
                "lattice_peer_relayed",
                "1 if the path to the peer goes through a relay, otherwise 0.",
                labels,
                u8::from(peer.relayed),
            );
            let skew = std::time::Duration::from_millis(peer.skew_ms.unsigned_abs());
            let skew = skew.as_secs_f64() * if peer.skew_ms < 0 { -1.0 } else { 1.0 };
            self.gauge(
                "lattice_peer_clock_skew_seconds",
                "Time by which the peer's clock is ahead of this node's clock.",
                labels,
                skew,
            );
        }
        self.gauge(
            "lattice_peer_strikes",
            "Messages of the peer that no honest node sends.",
            labels,
            peer.strikes,
        );
    }

    fn gauge(
        &mut self,
        name: &'static str,
        what: &str,
        labels: &[(&str, &str)],
        value: impl ToString,
    ) {
        self.sample(name, "gauge", what, "", labels, value);
    }

    fn counter(
        &mut self,
        name: &'static str,
        what: &str,
        labels: &[(&str, &str)],
        value: impl ToString,
    ) {
        self.sample(name, "counter", what, "", labels, value);
    }

    fn sample(
        &mut self,
        name: &'static str,
        kind: &str,
        what: &str,
        suffix: &str,
        labels: &[(&str, &str)],
        value: impl ToString,
    ) {
        let families = &mut self.families;
        let lines = self.samples.entry(name).or_insert_with(|| {
            families.push(name);
            format!("# HELP {name} {what}\n# TYPE {name} {kind}\n")
        });
        let labels: Vec<_> = labels
            .iter()
            .map(|(label, of)| format!("{label}=\"{}\"", escape(of)))
            .collect();
        let labels = match labels.as_slice() {
            [] => String::new(),
            some => format!("{{{}}}", some.join(",")),
        };
        writeln!(lines, "{name}{suffix}{labels} {}", value.to_string()).unwrap_or_default();
    }

    fn done(self) -> String {
        let families = self.families.iter();
        families
            .filter_map(|name| self.samples.get(name).map(String::as_str))
            .collect()
    }
}

/// Milliseconds, shown in seconds.
struct Ms(u64);

impl std::fmt::Display for Ms {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{:03}", self.0 / 1000, self.0 % 1000)
    }
}

/// Largest number of watches with their own series; the oldest watches of the node have one.
/// Prometheus keeps every series that it has seen, so the number is bounded.
const WATCHES_LISTED_MAX: usize = 1000;

fn escape(text: &str) -> String {
    text.replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
}

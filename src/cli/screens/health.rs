//! The health of a node, as `status` shows it: a verdict, the reasons for it, and the stores.

use std::cmp::Reverse;

use lattice::{
    clock::about,
    limits::{STORES_OF_LISTER_MAX, STORES_SHARED_MAX},
    wire::api,
};

use crate::cli::{
    input::time::date_time,
    output::{health::NOT_LISTENING_HINT, ink::Ink, print::harmless, screen::Screen},
    screens::{
        consumers, hooks,
        matters::{self, Level, Matter},
        names::Names,
        peers::{is_gone, out_of_step},
        stores,
        when::count,
    },
};

/// Everything that the verdict follows from.
#[derive(Debug, Clone, Default)]
pub(crate) struct Health {
    pub(crate) status: api::StatusReply,
    pub(crate) members: api::ListPeersReply,
    pub(crate) hooks: Vec<api::HookStatus>,
    /// Consumers that are not those of hooks, by store.
    pub(crate) consumers: Vec<(api::StoreInfo, Vec<api::ConsumerStatus>)>,
    /// Number of keys with several heads, by store; `None`: there are too many keys to look at each.
    pub(crate) conflicts: Option<Vec<(api::StoreInfo, u64)>>,
    /// False if the node was opened for this command.
    pub(crate) is_running: bool,
    /// Store that commands use: a name, a UUID, or empty for the data store.
    pub(crate) store: String,
}

impl Health {
    /// Draws the verdict, the node, the matters to look at, and the stores. With `-v` also the authors.
    pub(crate) fn draw(&self, screen: &Screen) -> Vec<String> {
        let names = self.names();
        let matters = self.matters(&names);
        let mut lines = vec![self.verdict(&matters, screen), self.node(&names, screen)];
        lines.push(format!("data    {}", self.status.data_dir));
        if self.is_running {
            lines.push(format!("socket  {}", self.status.socket));
        }
        // Not shortened: the end is often what to do.
        lines.extend(matters.iter().map(|matter| matter.draw(screen)));
        let stores = &self.status.stores;
        let infos: Vec<api::StoreInfo> = stores.iter().filter_map(|it| it.info.clone()).collect();
        let used = |info: &api::StoreInfo| stores::is_used(&self.store, info);
        lines.extend(stores::draw(&infos, stores, used, screen, 2));
        if screen.whole_ids {
            stores
                .iter()
                .for_each(|store| lines.extend(matters::authors(store, &names, screen)));
        }
        lines
    }

    /// Draws the verdict and the node for a screen with little room, and the matters to look at: so many of
    /// them at most.
    pub(crate) fn summary(&self, matters_max: usize, screen: &Screen) -> Vec<String> {
        let names = self.names();
        let mut matters = self.matters(&names);
        let verdict = self.verdict(&matters, screen);
        let mut lines = vec![verdict, self.node(&names, screen)];
        matters.retain(|matter| matter.level > Level::Note);
        let shown = match matters.len() > matters_max {
            true => matters_max.saturating_sub(1),
            false => matters.len(),
        };
        lines.extend(matters[..shown].iter().map(|matter| matter.draw(screen)));
        if shown < matters.len() {
            let more = matters.len() - shown;
            let line = format!("  ! and {more} more: lattice status");
            lines.push(screen.paint(Ink::Warn, &line));
        }
        lines
    }

    /// Returns the names of the members.
    pub(crate) fn names(&self) -> Names {
        Names::new(self.members.own.iter().chain(&self.members.peers))
    }

    // Draws the line that sums up everything.
    fn verdict(&self, matters: &[Matter], screen: &Screen) -> String {
        let worst = matters.iter().map(|matter| matter.level).max();
        let (ink, word) = match worst.unwrap_or(Level::Note) {
            Level::Note if self.is_running => (Ink::Good, "OK"),
            Level::Note => (Ink::Dim, "STOPPED"),
            Level::Warning => (Ink::Warn, "WARNING"),
            Level::Problem => (Ink::Alarm, "PROBLEM"),
        };
        format!("{}: {}", screen.paint(ink, word), self.sum())
    }

    // Sums up in one line: members, step, conflicts, dead letters.
    fn sum(&self) -> String {
        let others: Vec<&api::Peer> = self
            .members
            .peers
            .iter()
            .filter(|it| !is_gone(it))
            .collect();
        let online: Vec<&&api::Peer> = others.iter().filter(|peer| peer.online).collect();
        let mut parts = Vec::new();
        if !self.is_running {
            parts.push("no node is running here".to_owned());
        } else if others.is_empty() {
            parts.push("no other members".to_owned());
        } else {
            let (online, all) = (online.len() + 1, others.len() + 1);
            parts.push(format!("{online} of {all} online"));
        }
        match online
            .iter()
            .filter(|peer| out_of_step(peer).is_some())
            .count()
        {
            _none if online.is_empty() => {}
            0 => parts.push("in step".to_owned()),
            several => parts.push(format!("{several} not in step")),
        }
        let dead = self.dead();
        let conflicts = self.conflicts.as_ref();
        match conflicts.map(|stores| stores.iter().map(|(_, count)| count).sum()) {
            None => {}
            // Good news make room for bad ones: the line has 80 columns.
            Some(0) if dead.is_some() => {}
            Some(0) => parts.push("no conflicts".to_owned()),
            Some(conflicts) => parts.push(count(conflicts, "conflict")),
        }
        let Some((letters, command)) = dead else {
            return parts.join(", ");
        };
        parts.push(letters);
        let text = parts.join(", ");
        match command {
            Some(command) if text.len() + command.len() < VERDICT_COLUMNS_MAX => {
                format!("{text}: {command}")
            }
            _elsewhere => text,
        }
    }

    // Counts dead letters; with the command that lists them if they are all in one place.
    fn dead(&self) -> Option<(String, Option<String>)> {
        let of_hooks = self.hooks.iter().map(|hook| {
            let dead = hook.consumer.as_ref().map_or(0, |it| it.dead);
            (dead, format!("lattice hook dead {}", hook.hook))
        });
        let of_consumers = self.consumers.iter().flat_map(|(info, consumers)| {
            let store = self.in_store(info);
            consumers.iter().map(move |it| {
                let command = format!("lattice consumer dead {}{store}", it.consumer);
                (it.dead, command)
            })
        });
        let places: Vec<(u64, String)> = of_hooks
            .chain(of_consumers)
            .filter(|(dead, _)| *dead > 0)
            .collect();
        let sum = places.iter().map(|(dead, _)| dead).sum();
        let letters = count(sum, "dead letter");
        match &places[..] {
            [] => None,
            [(_, command)] => Some((letters, Some(command.clone()))),
            _several => Some((letters, None)),
        }
    }

    // Returns the flag that a command about the store needs, with a space before it.
    fn in_store(&self, info: &api::StoreInfo) -> String {
        match stores::is_used(&self.store, info) {
            true => String::new(),
            false => format!(" --store {}", stores::name(info)),
        }
    }

    fn node(&self, names: &Names, screen: &Screen) -> String {
        let status = &self.status;
        let own = self.members.own.clone().unwrap_or_default();
        let name = names.with_id(&status.node, screen);
        let role = match own.role.as_str() {
            "" => String::new(),
            role => format!(", {role}"),
        };
        let version = &status.version;
        if !self.is_running {
            return format!("{name}{role}, lattice {version}; start it with `lattice up`");
        }
        let up = match screen.ages {
            true => format!(
                "up {}",
                about(screen.now_ms.saturating_sub(status.started_ms))
            ),
            false => format!("up since {}", date_time(status.started_ms)),
        };
        format!(
            "{name}{role}, {up}, lattice {version}, process {}",
            status.pid
        )
    }

    // Lists what is not as it should be, the worst first.
    fn matters(&self, names: &Names) -> Vec<Matter> {
        let mut all = self.of_the_node(names);
        all.extend(
            self.members
                .peers
                .iter()
                .filter_map(|peer| matters::of_a_peer(peer, names)),
        );
        let warning = |text| Matter {
            level: Level::Warning,
            text,
        };
        for (info, conflicts) in self.conflicts.iter().flatten() {
            if *conflicts > 0 {
                let (name, conflicts) = (stores::name(info), count(*conflicts, "conflict"));
                let store = self.in_store(info);
                all.push(warning(format!(
                    "{name}: {conflicts}: lattice conflicts{store}"
                )));
            }
        }
        let hooks = self.hooks.iter().flat_map(hooks::troubles);
        all.extend(hooks.map(|text| warning(format!("hook {text}"))));
        for (info, consumers) in &self.consumers {
            let store = self.in_store(info);
            let texts = consumers
                .iter()
                .flat_map(|it| consumers::troubles(it, &store));
            all.extend(texts.map(|text| warning(format!("consumer {text}"))));
        }
        for store in &self.status.stores {
            all.extend(matters::of_a_store(store, names));
        }
        all.sort_by_key(|matter| Reverse(matter.level));
        all
    }

    fn of_the_node(&self, names: &Names) -> Vec<Matter> {
        let status = &self.status;
        let mut all = Vec::new();
        let mut add = |level, text| all.push(Matter { level, text });
        if status.removed_by == status.node && !status.node.is_empty() {
            let text = "this node has left the mesh: its writes are refused";
            add(Level::Problem, text.to_owned());
        } else if !status.removed_by.is_empty() {
            let by = names.of(&status.removed_by);
            let text = format!("{by} has removed this node from the mesh: its writes are refused");
            add(Level::Problem, text);
        }
        if !status.not_listening.is_empty() {
            let reason = harmless(&status.not_listening);
            let text = format!("{reason}; it tries again; {NOT_LISTENING_HINT}");
            add(Level::Problem, text);
        }
        let unopened = status.unopened.clone().unwrap_or_default();
        let limited = unopened.of_lister.saturating_add(unopened.in_all);
        if limited > 0 {
            let text = format!(
                "{limited} listed stores are not open here: {STORES_OF_LISTER_MAX} of one other \
                 node are opened, {STORES_SHARED_MAX} in all"
            );
            add(Level::Warning, text);
        }
        if unopened.failed > 0 {
            let (failed, error) = (unopened.failed, harmless(&unopened.error));
            let text = format!("{failed} listed stores cannot be opened: {error}");
            add(Level::Problem, text);
        }
        all
    }
}

/// Columns of a verdict with a command in it, so that it fits on a line with the word before it.
const VERDICT_COLUMNS_MAX: usize = 70;

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::cli::{
        output::screen::tests::{NOW_MS, everywhere, plain, terminal},
        screens::{hooks::tests::hook, names::tests::node, stores::tests::store},
    };

    /// Returns the health of attic, which is in step with kitchen and laptop.
    pub(crate) fn three() -> Health {
        let online = |digit, name| api::Peer {
            online: true,
            seen_ms: NOW_MS,
            behind: Some(0),
            ahead: Some(0),
            ..node(digit, name, "writer")
        };
        Health {
            status: api::StatusReply {
                node: vec![0x6e; 32].into(),
                version: "0.1.0".to_owned(),
                data_dir: "/srv/lattice".to_owned(),
                socket: "/srv/lattice/run/sock".to_owned(),
                pid: 4711,
                started_ms: NOW_MS - 31 * 60_000,
                stores: vec![store(0x22, "data", 65), store(0x11, "root", 9)],
                ..api::StatusReply::default()
            },
            members: api::ListPeersReply {
                own: Some(node(0x6e, "attic", "admin")),
                peers: vec![online(0x67, "kitchen"), online(0x87, "laptop")],
                ..api::ListPeersReply::default()
            },
            conflicts: Some(Vec::new()),
            is_running: true,
            ..Health::default()
        }
    }

    // Returns so many conflicts of the data store, and one less of the root store.
    fn conflicts(number: u64) -> Vec<(api::StoreInfo, u64)> {
        let data = store(0x22, "data", 65).info.unwrap();
        let root = store(0x11, "root", 9).info.unwrap();
        vec![(data, number), (root, number - 1)]
    }

    fn verdict(change: impl Fn(&mut Health)) -> String {
        let mut health = three();
        change(&mut health);
        plain(&health.draw(&terminal(80, true))[0])
    }

    #[test]
    fn sound_mesh_is_one_short_screen() {
        insta::assert_snapshot!(everywhere(|screen| three().draw(screen)), @"
        -- 80 columns
        OK: 3 of 3 online, in step, no conflicts
        attic (6e6e6e6e), admin, up 31 min, lattice 0.1.0, process 4711
        data    /srv/lattice
        socket  /srv/lattice/run/sock
          STORE   KEYS  ENTRIES        LOG       STATE  ID
          data *    32       65  28.56 KiB  184.00 KiB  22222222
          root       4        9   3.96 KiB  184.00 KiB  11111111
        -- 120 columns
        OK: 3 of 3 online, in step, no conflicts
        attic (6e6e6e6e), admin, up 31 min, lattice 0.1.0, process 4711
        data    /srv/lattice
        socket  /srv/lattice/run/sock
          STORE   KEYS  ENTRIES        LOG       STATE  ID
          data *    32       65  28.56 KiB  184.00 KiB  22222222
          root       4        9   3.96 KiB  184.00 KiB  11111111
        -- 80 columns, in colour
        ^[32mOK^[0m: 3 of 3 online, in step, no conflicts
        ^[35mattic^[0m (6e6e6e6e), admin, up 31 min, lattice 0.1.0, process 4711
        data    /srv/lattice
        socket  /srv/lattice/run/sock
          ^[2mSTORE^[0m   ^[2mKEYS^[0m  ^[2mENTRIES^[0m        ^[2mLOG^[0m       ^[2mSTATE^[0m  ^[2mID^[0m
          data *    32       65  28.56 KiB  184.00 KiB  ^[2m22222222^[0m
          root       4        9   3.96 KiB  184.00 KiB  ^[2m11111111^[0m
        -- 120 columns, in colour
        ^[32mOK^[0m: 3 of 3 online, in step, no conflicts
        ^[35mattic^[0m (6e6e6e6e), admin, up 31 min, lattice 0.1.0, process 4711
        data    /srv/lattice
        socket  /srv/lattice/run/sock
          ^[2mSTORE^[0m   ^[2mKEYS^[0m  ^[2mENTRIES^[0m        ^[2mLOG^[0m       ^[2mSTATE^[0m  ^[2mID^[0m
          data *    32       65  28.56 KiB  184.00 KiB  ^[2m22222222^[0m
          root       4        9   3.96 KiB  184.00 KiB  ^[2m11111111^[0m
        ");
    }

    #[test]
    fn matters_stand_below_the_verdict_the_worst_first() {
        let mut health = three();
        health.hooks = vec![hook("deploy", 1)];
        health.members.peers[1].online = false;
        health.members.peers[0].behind = Some(3);
        health.conflicts = Some(conflicts(2));
        let store = &mut health.status.stores[0];
        store.history = Some(api::StoreHistory {
            final_bytes: 12_000,
            open_bytes: 17_000,
            awaited: vec![vec![0x87; 32].into()],
            ..api::StoreHistory::default()
        });
        store.damage = vec!["entry 4 of its log".to_owned()];
        insta::assert_snapshot!(everywhere(|screen| health.draw(screen)), @"
        -- 80 columns
        PROBLEM: 2 of 3 online, 1 not in step, 3 conflicts, 1 dead letter
        attic (6e6e6e6e), admin, up 31 min, lattice 0.1.0, process 4711
        data    /srv/lattice
        socket  /srv/lattice/run/sock
          ! data: damaged: entry 4 of its log
          ! kitchen is 3 entries behind
          ! data: 2 conflicts: lattice conflicts
          ! root: 1 conflict: lattice conflicts --store root
          ! hook deploy: 1 dead letter: lattice hook dead deploy
            data: history 11.72 KiB final, 16.60 KiB not yet, waits for laptop
          STORE   KEYS  ENTRIES        LOG       STATE  ID
          data *    32       65  28.56 KiB  184.00 KiB  22222222
          root       4        9   3.96 KiB  184.00 KiB  11111111
        -- 120 columns
        PROBLEM: 2 of 3 online, 1 not in step, 3 conflicts, 1 dead letter
        attic (6e6e6e6e), admin, up 31 min, lattice 0.1.0, process 4711
        data    /srv/lattice
        socket  /srv/lattice/run/sock
          ! data: damaged: entry 4 of its log
          ! kitchen is 3 entries behind
          ! data: 2 conflicts: lattice conflicts
          ! root: 1 conflict: lattice conflicts --store root
          ! hook deploy: 1 dead letter: lattice hook dead deploy
            data: history 11.72 KiB final, 16.60 KiB not yet, waits for laptop
          STORE   KEYS  ENTRIES        LOG       STATE  ID
          data *    32       65  28.56 KiB  184.00 KiB  22222222
          root       4        9   3.96 KiB  184.00 KiB  11111111
        -- 80 columns, in colour
        ^[1m^[31mPROBLEM^[0m: 2 of 3 online, 1 not in step, 3 conflicts, 1 dead letter
        ^[35mattic^[0m (6e6e6e6e), admin, up 31 min, lattice 0.1.0, process 4711
        data    /srv/lattice
        socket  /srv/lattice/run/sock
        ^[1m^[31m  ! data: damaged: entry 4 of its log^[0m
        ^[33m  ! kitchen is 3 entries behind^[0m
        ^[33m  ! data: 2 conflicts: lattice conflicts^[0m
        ^[33m  ! root: 1 conflict: lattice conflicts --store root^[0m
        ^[33m  ! hook deploy: 1 dead letter: lattice hook dead deploy^[0m
            data: history 11.72 KiB final, 16.60 KiB not yet, waits for laptop
          ^[2mSTORE^[0m   ^[2mKEYS^[0m  ^[2mENTRIES^[0m        ^[2mLOG^[0m       ^[2mSTATE^[0m  ^[2mID^[0m
          data *    32       65  28.56 KiB  184.00 KiB  ^[2m22222222^[0m
          root       4        9   3.96 KiB  184.00 KiB  ^[2m11111111^[0m
        -- 120 columns, in colour
        ^[1m^[31mPROBLEM^[0m: 2 of 3 online, 1 not in step, 3 conflicts, 1 dead letter
        ^[35mattic^[0m (6e6e6e6e), admin, up 31 min, lattice 0.1.0, process 4711
        data    /srv/lattice
        socket  /srv/lattice/run/sock
        ^[1m^[31m  ! data: damaged: entry 4 of its log^[0m
        ^[33m  ! kitchen is 3 entries behind^[0m
        ^[33m  ! data: 2 conflicts: lattice conflicts^[0m
        ^[33m  ! root: 1 conflict: lattice conflicts --store root^[0m
        ^[33m  ! hook deploy: 1 dead letter: lattice hook dead deploy^[0m
            data: history 11.72 KiB final, 16.60 KiB not yet, waits for laptop
          ^[2mSTORE^[0m   ^[2mKEYS^[0m  ^[2mENTRIES^[0m        ^[2mLOG^[0m       ^[2mSTATE^[0m  ^[2mID^[0m
          data *    32       65  28.56 KiB  184.00 KiB  ^[2m22222222^[0m
          root       4        9   3.96 KiB  184.00 KiB  ^[2m11111111^[0m
        ");
    }

    #[test]
    fn verdict_is_the_worst_that_is_so() {
        assert_eq!(verdict(|_| ()), "OK: 3 of 3 online, in step, no conflicts");
        let hooks = |health: &mut Health| health.hooks = vec![hook("deploy", 1)];
        assert_eq!(
            verdict(hooks),
            "WARNING: 3 of 3 online, in step, 1 dead letter: lattice hook dead deploy"
        );
        let away = |health: &mut Health| {
            health.members.peers[0].online = false;
            health.members.peers[0].behind = Some(7);
        };
        // A machine that is away is behind, and that is not a fault.
        assert_eq!(verdict(away), "OK: 2 of 3 online, in step, no conflicts");
        let behind = |health: &mut Health| health.members.peers[0].behind = Some(7);
        assert_eq!(
            verdict(behind),
            "WARNING: 3 of 3 online, 1 not in step, no conflicts"
        );
        let uncompared = |health: &mut Health| health.members.peers[0].behind = None;
        assert!(verdict(uncompared).starts_with("WARNING: "));
        let gone = |health: &mut Health| health.members.peers[0].role = "removed".to_owned();
        assert_eq!(verdict(gone), "OK: 2 of 2 online, in step, no conflicts");
        let unknown = |health: &mut Health| health.conflicts = None;
        assert_eq!(verdict(unknown), "OK: 3 of 3 online, in step");
        let several = |health: &mut Health| health.conflicts = Some(conflicts(2));
        assert_eq!(
            verdict(several),
            "WARNING: 3 of 3 online, in step, 3 conflicts"
        );
        let alone = |health: &mut Health| health.members.peers.clear();
        assert_eq!(verdict(alone), "OK: no other members, no conflicts");
        let stopped = |health: &mut Health| {
            health.is_running = false;
            health
                .members
                .peers
                .iter_mut()
                .for_each(|peer| peer.online = false);
        };
        assert_eq!(
            verdict(stopped),
            "STOPPED: no node is running here, no conflicts"
        );
        let poisoned = |health: &mut Health| health.status.stores[1].poisoned = "fsync".to_owned();
        assert!(verdict(poisoned).starts_with("PROBLEM: "));
        let removed = |health: &mut Health| health.status.removed_by = vec![0x67; 32].into();
        assert!(verdict(removed).starts_with("PROBLEM: "));
    }
}

//! Opening a store: state and logs brought together, whatever state they are in.

use std::{
    collections::VecDeque,
    io,
    path::Path,
    sync::{Arc, OnceLock, atomic::AtomicBool},
    time::{Duration, Instant},
};

use crate::{
    bus::Bus,
    disk,
    id::Author,
    log::{self, Begins, Logs, Recovered},
    protocol::{
        intake::{Intake, IntakeLimits},
        standings::Standings,
    },
    state::{Bases, State, StateError},
    store::{
        OpenError, Shared, StoreConfig, outbox,
        shared::{BaseReader, base_dir, published},
        writer::{
            health::Health, install, marks::Marks, membership::Membership, mending::Mending,
            notes::Notes, rebuild::Sources, sweep::Sweep, writer::Writer,
        },
    },
};

/// Opens a store. `runtime`: where watches read files.
///
/// # Errors
/// The file system refuses; a log is not authentic, or belongs to another store.
pub(in crate::store) fn open(
    config: StoreConfig,
    runtime: tokio::runtime::Handle,
) -> Result<(Shared, Writer), OpenError> {
    let io = |source| OpenError::Io {
        path: config.dir.clone(),
        source,
    };
    config.disk.create_dir(&config.dir).map_err(io)?;
    let mut membership = Membership::new(&config.authority, config.id);
    let Opened {
        logs,
        found,
        mut state,
        marks,
        counted_by,
        mut recovered,
        bases,
    } = open_both(&config, &mut membership)?;
    for (file, bytes) in &found.torn {
        let line =
            format!("{bytes} bytes at the end of {file} were never acknowledged and are cut");
        tracing::warn!(store = %config.id, line);
        recovered.push(line);
    }
    for damage in &found.damage {
        tracing::error!(store = %config.id, %damage);
    }
    // Expiries that came due meanwhile are reported by replays only. A time after now is that of a
    // clock that was wrong.
    state.set_expired_through(config.clock.now_ms());
    state.show();
    let branches = logs.reader().all();
    let points = branches
        .iter()
        .filter_map(|branch| branch.index_from(0).last().copied());
    let arrived_ms = points.map(|point| point.arrived_ms).max().unwrap_or(0);
    let published = published(&state.reader().view());
    let published_version = published.version;
    let shared = Shared {
        id: config.id,
        author: Author(config.key.verifying_key().to_bytes()),
        root: config.root,
        reserves_keys: Arc::new(AtomicBool::new(config.root)),
        clock: config.clock.clone(),
        log: logs.reader().clone(),
        state: state.reader().clone(),
        base: BaseReader::default(),
        folding: Arc::default(),
        taking: Arc::default(),
        named: std::sync::Mutex::default(),
        choice: std::sync::Mutex::default(),
        chosen: std::sync::Mutex::default(),
        damaged_parts: std::sync::Mutex::default(),
        come: std::sync::Mutex::default(),
        bus: Bus::new(config.bus_batches, published),
        fresh: outbox::channel(),
        members: membership.watch(),
        finality: membership.watch_finality(),
        anyone: membership.is_anyone(),
        pauses: tokio::sync::watch::Sender::new(0),
        turned_away: tokio::sync::watch::Sender::new(None),
        restored: OnceLock::new(),
        tree_turn: Arc::default(),
        settled: std::sync::Mutex::default(),
        disk: Arc::clone(&config.disk),
        dir: config.dir.clone(),
        runtime,
    };
    shared.base.show(bases);
    let mut cuts = found.lost_tails;
    cuts.retain(|cut| cut.author == shared.author);
    let mut writer = Writer {
        clock: config.clock.clone(),
        bus: shared.bus.clone(),
        fresh: shared.fresh.clone(),
        mending: Mending::new(config.id, found.damage),
        intake: Intake::new(config.root, IntakeLimits::default()),
        again: VecDeque::new(),
        config,
        logs,
        state,
        membership,
        base: shared.base.clone(),
        reserves_keys: Arc::clone(&shared.reserves_keys),
        counted_by,
        marks,
        health: Health::Well,
        sweep: Sweep::default(),
        arrived_ms,
        next_expiry_ms: None,
        cuts,
        recovered,
        flushed_at: Instant::now(),
        rebuilt_at: None,
        gap: None,
        committed_in: Duration::ZERO,
        published_version,
    };
    writer.recount();
    writer.find_next_expiry();
    // Readers are refused from the first on what acts took in earlier runs.
    writer.find_collections();
    Ok((shared, writer))
}

// Logs and state, one in step with the other.
struct Opened {
    logs: Logs,
    found: Recovered,
    state: State,
    marks: Marks,
    // The members and spent keys by which the state counts.
    counted_by: Standings,
    recovered: Vec<String>,
    bases: Bases,
}

// A log of another author whose end is not authentic is set aside, and everything else opens: peers
// have what of it is.
fn open_both(config: &StoreConfig, membership: &mut Membership) -> Result<Opened, OpenError> {
    install::finish(config, read_bases(config)?.newest.as_deref())?;
    let mut aside = Vec::new();
    loop {
        match try_open_both(config, membership) {
            Err(OpenError::NotAuthentic {
                author,
                file,
                source,
            }) if author.0 != config.key.verifying_key().to_bytes() => {
                let name = set_aside(config, &file)?;
                let line = format!("{file} is not authentic ({source}) and is kept as {name}");
                tracing::error!(store = %config.id, line);
                aside.push(line);
            }
            Ok(mut opened) => {
                opened.recovered.append(&mut aside);
                return Ok(opened);
            }
            Err(error) => return Err(error),
        }
    }
}

// Renames a log so that it is no log any more. Returns its new name.
fn set_aside(config: &StoreConfig, file: &str) -> Result<String, OpenError> {
    let dir = config.dir.join("logs");
    let io = |source| OpenError::Io {
        path: dir.join(file),
        source,
    };
    log::set_aside(config.disk.as_ref(), &dir, file).map_err(io)
}

fn try_open_both(config: &StoreConfig, membership: &mut Membership) -> Result<Opened, OpenError> {
    let reason = match open_with_state(config, membership)? {
        Ok(opened) => return Ok(opened),
        Err(reason) => reason,
    };
    let bases = read_bases(config)?;
    if let Some(pruned) = begins(config)?.pruned()
        && bases.newest.is_none()
    {
        // Nothing is written: a copy of the files may be put back.
        let what = reason;
        return Err(OpenError::StateLost { what, pruned });
    }
    let (logs, mut found) = Logs::open(&config.disk, &config.files, &config.dir.join("logs"), &[])?;
    let mut recovered = Vec::new();
    if !logs.reader().all().is_empty() {
        tracing::warn!(store = %config.id, reason, "building the state from the log");
        recovered.push(format!("the state was built again from the log: {reason}"));
    }
    let mut marks = Marks::default();
    let state = Sources {
        config,
        logs: &logs,
        marks: &mut marks,
        membership,
        base: bases.newest.as_ref(),
        damage: &mut found.damage,
    }
    .build()?;
    Ok(Opened {
        logs,
        found,
        state,
        marks,
        counted_by: membership.standings(),
        recovered,
        bases,
    })
}

// The inner error says why the state file is of no use.
fn open_with_state(
    config: &StoreConfig,
    membership: &mut Membership,
) -> Result<Result<Opened, String>, OpenError> {
    let path = config.dir.join("state.db");
    let begins = begins(config)?;
    if !begins.is_empty() && is_missing(config, &path)? {
        return Ok(Err("its file is missing".to_owned()));
    }
    let (mut state, stored) = match State::open(Arc::clone(&config.disk), &path, config.id) {
        Ok(opened) => opened,
        Err(StateError::Damaged { what }) => return Ok(Err(what)),
        Err(error) => return Err(error.into()),
    };
    let Some(mut notes) = Notes::read(&stored.notes) else {
        return Ok(Err("its notes are not readable".to_owned()));
    };
    for mark in notes.marks.values_mut() {
        mark.shorten(&begins);
    }
    let mut marks = Marks::new(&notes.marks);
    if stored.outdated {
        return Ok(Err("an earlier version of Lattice wrote it".to_owned()));
    }
    let bases = read_bases(config)?;
    if stored.frontier.is_empty() && bases.newest.is_some() {
        return Ok(Err("it does not have the rows of the base yet".to_owned()));
    }
    let known: Vec<_> = notes.marks.into_values().collect();
    let (logs, mut found) = Logs::open(
        &config.disk,
        &config.files,
        &config.dir.join("logs"),
        &known,
    )?;
    if let Some(base) = &bases.newest {
        let file = config.disk.open(&path, disk::Open::Existing);
        let file_bytes = file.and_then(|file| file.len()).map_err(StateError::from)?;
        let rows_bytes = base
            .manifest()
            .bytes()
            .saturating_add(logs.reader().bytes());
        if is_oversized(file_bytes, rows_bytes) {
            let mib = |bytes: u64| bytes >> 20;
            return Ok(Err(format!(
                "its file has {} MiB, and what is in it at most {} MiB",
                mib(file_bytes),
                mib(rows_bytes)
            )));
        }
    }
    let mut recovered = Vec::new();
    // It is empty and was there: the node died before its first flush.
    let fills = stored.frontier.is_empty() && !logs.reader().all().is_empty();
    if fills && stored.created {
        tracing::warn!(store = %config.id, "state.db is missing: building it from the log");
        recovered.push("the state was built again from the log: its file was missing".to_owned());
    }
    let mut sources = Sources {
        config,
        logs: &logs,
        marks: &mut marks,
        membership,
        base: bases.newest.as_ref(),
        damage: &mut found.damage,
    };
    sources.check_tips(&known)?;
    sources
        .membership
        .load(&logs, &notes.acts, &notes.founding)?;
    sources.membership.join_anchors(logs.reader())?;
    // The root store may have got a removal, or an anchors act, after this store was closed.
    for (author, tip) in stored.frontier.iter() {
        if sources.membership.is_cut(&author, tip, logs.reader())? {
            return Ok(Err(
                "it has entries of a removed node, of a spent key, or of a void branch, that do not count"
                    .to_owned(),
            ));
        }
    }
    if sources.counts_again(&stored.frontier)? {
        return Ok(Err(
            "entries count now that did not when it was written: an act has made them final"
                .to_owned(),
        ));
    }
    // The members by which the state in the file counts: a removal may be in what is replayed.
    let mut counted_by = sources.membership.standings();
    if stored.lacks && (begins.is_empty() || sources.check_base()?.is_ok()) {
        // The entries may be back by now. If not, the build meets the damage, and its place is known.
        let what = "it lacks entries that could not be read";
        tracing::warn!(store = %config.id, what, "building the state from the log");
        recovered.push(format!("the state was built again from the log: {what}"));
        drop(state);
        state = sources.build()?;
        counted_by = sources.membership.standings();
    } else {
        if fills {
            state.fill();
        }
        if let Err(what) = sources.replay(&mut state, &stored.frontier)? {
            return Ok(Err(what));
        }
        if stored.lacks {
            // It cannot be built again, so it goes on lacking them.
            state.lack(true);
        }
        state.filled();
        if fills {
            counted_by = sources.membership.standings();
        }
    }
    // One that cannot be read is of no use.
    let bases = match sources.base {
        Some(_usable) => bases.clone(),
        None => Bases::default(),
    };
    Ok(Ok(Opened {
        logs,
        found,
        state,
        marks,
        counted_by,
        recovered,
        bases,
    }))
}

// A base that is damaged is not used: the state has its rows, as long as that is there.
fn read_bases(config: &StoreConfig) -> Result<Bases, OpenError> {
    match Bases::open(config.disk.as_ref(), &base_dir(&config.dir), config.id) {
        Ok(bases) => Ok(bases),
        Err(StateError::Damaged { what }) => {
            tracing::error!(store = %config.id, what, "the base cannot be used");
            Ok(Bases::default())
        }
        Err(error) => Err(error.into()),
    }
}

// Whether a state file is much larger than its rows need, which the base and the logs have. The file never
// becomes smaller while it is open.
fn is_oversized(file_bytes: u64, rows_bytes: u64) -> bool {
    let usual = rows_bytes.saturating_mul(STATE_FILE_TIMES);
    file_bytes > usual.saturating_add(STATE_FILE_SLACK_BYTES)
}

// A state file that was written in the order of the puts has up to 2.5 times the bytes of its rows.
const STATE_FILE_TIMES: u64 = 3;
// Less is not worth a start that takes longer.
const STATE_FILE_SLACK_BYTES: u64 = 64 << 20;

fn begins(config: &StoreConfig) -> Result<Begins, OpenError> {
    Ok(Begins::read(
        config.disk.as_ref(),
        &config.dir.join("logs"),
    )?)
}

fn is_missing(config: &StoreConfig, path: &Path) -> Result<bool, OpenError> {
    match config.disk.open(path, disk::Open::Existing) {
        Ok(_there) => Ok(false),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
        Err(source) => Err(OpenError::Io {
            path: path.to_owned(),
            source,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn state_file_is_built_again_when_most_of_it_is_free() {
        const MIB: u64 = 1 << 20;
        for (file_mib, rows_mib, is) in [
            (0, 0, false),
            (64, 0, false),
            (65, 0, true),
            (364, 100, false),
            (365, 100, true),
            (u64::MAX >> 20, u64::MAX >> 20, false),
        ] {
            let found = is_oversized(file_mib * MIB, rows_mib * MIB);
            assert_eq!(found, is, "{file_mib} MiB for {rows_mib} MiB of rows");
        }
    }
}

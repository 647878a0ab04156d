//! Building `meta.db` again from the logs.
//!
//! A root store lists stores, itself among them, each with the genesis from which its id is derived.
//! So the logs of a root store prove that the node has it and who founded it. A wrong root store
//! would be worse than none: the rule below gives one only if no other is possible.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use crate::{
    disk::Disk,
    id::{Author, StoreId},
    log::{LogError, survey},
    node::{
        data_dir::{STORES_DIR, store_ids},
        error::OpenError,
        meta::row::Row,
        private,
        store_name::{check_name, former_name, name_of_id},
    },
    protocol::{
        entry::{Op, Order},
        membership::genesis::Genesis,
    },
};

/// The rows of the new file.
pub(super) struct Rebuilt {
    pub(super) rows: Vec<Row>,
    /// The outcome, for people.
    pub(super) line: String,
}

/// The stores that the logs of one store list.
#[derive(Debug, Default)]
struct Listing {
    genesis: BTreeMap<StoreId, Genesis>,
    // The newest put or delete of each name; `None` for a delete or a name that is not text.
    names: BTreeMap<StoreId, (Order, Option<String>)>,
    authors: BTreeSet<Author>,
}

/// Returns the rows of the stores in the directory, read from their logs. `author` is the node's own key.
/// Moves a damaged file out of the way.
///
/// # Errors
/// `RootUnknown`; `Io`, `Unusable` when a log cannot be read.
pub(super) fn rebuild(
    disk: &Arc<dyn Disk>,
    data_dir: &Path,
    path: &Path,
    damage: &str,
    author: &Author,
) -> Result<Rebuilt, OpenError> {
    let ids = store_ids(disk.as_ref(), data_dir)?;
    let (mut listings, mut private) = (BTreeMap::new(), BTreeMap::new());
    for id in &ids {
        let dir = data_dir.join(STORES_DIR).join(id.to_string());
        let listing = listing(disk.as_ref(), &dir.join("logs"), &ids)?;
        match private::root_of(disk.as_ref(), &dir, id)? {
            Some(under) => drop(private.insert(*id, (under, listing))),
            None => drop(listings.insert(*id, listing)),
        }
    }
    let root = root(&listings).map_err(|unclear| OpenError::RootUnknown {
        path: path.to_owned(),
        what: damage.to_owned(),
        unclear,
    })?;
    let mut rows = rows(&listings, root);
    add_private(&mut rows, &private, author);
    let kept = keep_damaged(disk.as_ref(), path)?;
    let mut line = format!(
        "meta.db was built again from the logs, with root store {root}, {} stores in all: {damage}",
        rows.len()
    );
    if let Some(kept) = kept {
        let kept = kept.file_name().unwrap_or_default().to_string_lossy();
        line.push_str(&format!(" (the old file is kept as {kept})"));
    }
    Ok(Rebuilt { rows, line })
}

// Reads what the logs in `dir` say about the stores `ids`.
fn listing(disk: &dyn Disk, dir: &Path, ids: &[StoreId]) -> Result<Listing, OpenError> {
    let mut listing = Listing::default();
    let read = survey(disk, dir, |entry| {
        listing.authors.insert(entry.author());
        for op in &entry.ops {
            listing.note(op, entry.order(), ids);
        }
    });
    read.map_err(|error| match error {
        LogError::Io { file, source }
        | LogError::NoDescriptor { file, source }
        | LogError::Full { file, source } => OpenError::Io {
            path: dir.join(file),
            source,
        },
        LogError::Damaged(damage) => OpenError::Unusable {
            path: dir.join(&damage.file),
            what: damage.to_string(),
        },
        LogError::Begins { what } => OpenError::Unusable {
            path: dir.to_owned(),
            what,
        },
    })?;
    Ok(listing)
}

impl Listing {
    fn note(&mut self, op: &Op, order: Order, ids: &[StoreId]) {
        let Some((id, field)) = store_key(op.key()).filter(|(id, _)| ids.contains(id)) else {
            return;
        };
        match (field, op) {
            ("genesis", Op::Put { key, value, .. }) => {
                self.genesis
                    .extend(Genesis::decode(key, value).map(|genesis| (id, genesis)));
            }
            ("name", op) => {
                let name = match op {
                    Op::Put { value, .. } => str::from_utf8(value).ok().map(str::to_owned),
                    Op::Delete { .. } => None,
                };
                let newest = self.names.get(&id).map(|(newest, _)| *newest);
                if newest.is_none_or(|newest| newest < order) {
                    self.names.insert(id, (order, name));
                }
            }
            _other => {}
        }
    }
}

// Splits `/stores/{id}/{field}`.
fn store_key(key: &[u8]) -> Option<(StoreId, &str)> {
    let rest = str::from_utf8(key).ok()?.strip_prefix("/stores/")?;
    let (id, field) = rest.split_once('/')?;
    Some((id.parse().ok()?, field))
}

/// Returns the store whose logs list every store of the directory, itself included, if no other
/// store that lists itself lists it. The data store that belongs to it is as good as listed.
///
/// A member may write any genesis into any store: so it can make a store of its own list all others,
/// and leave the answer open. It cannot make that store the root store, because the true root store
/// lists it.
///
/// # Errors
/// The stores that leave it open: those that the best store does not list, or else all that list
/// themselves.
fn root(listings: &BTreeMap<StoreId, Listing>) -> Result<StoreId, Vec<StoreId>> {
    let lists = |store: &StoreId, other: &StoreId| {
        let genesis = &listings[store].genesis;
        let of_itself = genesis.get(store).map(|genesis| genesis.data().store());
        genesis.contains_key(other) || of_itself == Some(*other)
    };
    let unlisted = |store: &StoreId| -> Vec<StoreId> {
        let ids = listings.keys().copied();
        ids.filter(|id| !lists(store, id)).collect()
    };
    let ids = listings.keys().copied();
    let candidates: Vec<StoreId> = ids.filter(|id| lists(id, id)).collect();
    let Some(best) = candidates.iter().min_by_key(|id| unlisted(id).len()) else {
        return Err(listings.keys().copied().collect());
    };
    let unlisted = unlisted(best);
    if !unlisted.is_empty() {
        return Err(unlisted);
    }
    let is_listed = |other: &StoreId| other != best && lists(other, best);
    match candidates.iter().any(is_listed) {
        true => Err(candidates),
        false => Ok(*best),
    }
}

fn rows(listings: &BTreeMap<StoreId, Listing>, root: StoreId) -> Vec<Row> {
    let listing = &listings[&root];
    // The root store lists itself: else it would not be taken for it.
    let of_root = listing.genesis.get(&root);
    let mut rows: Vec<Row> = of_root.map(Row::of_data).into_iter().collect();
    for (id, genesis) in &listing.genesis {
        if rows.iter().any(|row| row.id == *id) {
            continue;
        }
        let named = listing.names.get(id).and_then(|(_, name)| name.clone());
        let is_free = |name: &String| {
            name != "root" && check_name(name).is_ok() && rows.iter().all(|row| row.name != *name)
        };
        let name = match *id == root {
            true => "root".to_owned(),
            false => named
                .filter(is_free)
                .or_else(|| Some(name_of_id(id)).filter(is_free))
                .unwrap_or_else(|| format!("store-{id}")),
        };
        rows.push(Row {
            id: *id,
            name,
            root: *id == root,
            genesis: *genesis,
        });
    }
    rows
}

// Adds the rows of private stores. The root store that they belong to lists them, if it is here. The id
// of a data store follows from that root store and its founder: this node, unless that root store is here
// or the founder wrote in the data store.
fn add_private(
    rows: &mut Vec<Row>,
    private: &BTreeMap<StoreId, (StoreId, Listing)>,
    author: &Author,
) {
    for (id, (under, own)) in private {
        let root = private.get(under).map(|(_, listing)| listing);
        let of_root = root.and_then(|root| root.genesis.get(under));
        let founders = own.authors.iter().chain([author]);
        let founders = founders.chain(of_root.map(|genesis| &genesis.creator));
        let mut of_data = founders.map(|it| Genesis::of_data(*it, under));
        let of_data = of_data.find(|genesis| genesis.store() == *id);
        let listed = root.and_then(|root| root.genesis.get(id).copied());
        let Some(genesis) = of_data.or(listed) else {
            continue;
        };
        let named = root.and_then(|root| root.names.get(id)?.1.clone());
        let is_free = |name: &str| {
            name != "root" && check_name(name).is_ok() && rows.iter().all(|row| row.name != name)
        };
        let name = match (id == under, of_data) {
            (true, _) => former_name("root", id, is_free),
            (false, Some(_)) => former_name("data", id, is_free),
            (false, None) => named
                .filter(|name| is_free(name))
                .unwrap_or_else(|| format!("private-{id}")),
        };
        rows.push(Row {
            id: *id,
            name,
            root: false,
            genesis,
        });
    }
}

// Renames a damaged file, and returns its new path; `None` when there is no file.
fn keep_damaged(disk: &dyn Disk, path: &Path) -> Result<Option<PathBuf>, OpenError> {
    let kept = path.with_extension("db.damaged");
    match disk.rename(path, &kept) {
        Ok(()) => Ok(Some(kept)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(OpenError::refused(path, source)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        id::{Author, EntryId},
        protocol::hlc::Hlc,
    };

    fn genesis(n: u8) -> Genesis {
        Genesis {
            creator: Author([n; 32]),
            nonce: [n; 32],
        }
    }

    fn id(n: u8) -> StoreId {
        genesis(n).store()
    }

    // For each store the stores that its logs list.
    fn found(stores: &[(u8, &[u8])]) -> Result<StoreId, Vec<StoreId>> {
        let listings = stores.iter().map(|(store, listed)| {
            let genesis = listed.iter().map(|n| (id(*n), genesis(*n))).collect();
            let listing = Listing {
                genesis,
                ..Listing::default()
            };
            (id(*store), listing)
        });
        root(&listings.collect())
    }

    #[test]
    fn root_lists_itself_and_all_others() {
        assert_eq!(found(&[(1, &[1])]), Ok(id(1)));
        assert_eq!(found(&[(1, &[1, 2, 3]), (2, &[]), (3, &[])]), Ok(id(1)));
        // The root store before a join is listed by the root store of the mesh.
        assert_eq!(found(&[(1, &[1, 3]), (2, &[1, 2, 3]), (3, &[])]), Ok(id(2)));
        // A member wrote the genesis of its own store into that store.
        assert_eq!(found(&[(1, &[1, 2]), (2, &[2])]), Ok(id(1)));
        // Nothing lists the data store.
        let one = Listing {
            genesis: BTreeMap::from([(id(1), genesis(1))]),
            ..Listing::default()
        };
        let data = genesis(1).data().store();
        let with_data = BTreeMap::from([(id(1), one), (data, Listing::default())]);
        assert_eq!(root(&with_data), Ok(id(1)));
    }

    #[test]
    fn unclear_root_is_an_error_that_names_the_stores() {
        assert_eq!(found(&[(1, &[])]), Err(vec![id(1)]));
        // The root store of the mesh has not come yet.
        assert_eq!(found(&[(1, &[1]), (2, &[])]), Err(vec![id(2)]));
        // A reader cannot list the root store that it had before.
        assert!(found(&[(1, &[1]), (2, &[2])]).is_err());
        // A member wrote the genesis of the root store into a store of its own.
        let both = found(&[(1, &[1, 2]), (2, &[1, 2])]).unwrap_err();
        assert_eq!(both.len(), 2);
        // A member made its store list all stores, also one that the root store does not list.
        let both = found(&[(1, &[1, 2]), (2, &[1, 2, 3]), (3, &[3])]).unwrap_err();
        assert_eq!(both.len(), 3);
    }

    #[test]
    fn private_data_store_is_known_without_its_root_store() {
        let data = genesis(1).data();
        let wrote = |n: u8| Listing {
            authors: BTreeSet::from([Author([9; 32]), Author([n; 32])]),
            ..Listing::default()
        };
        let found = |n: u8, own: u8| {
            let mut rows = Vec::new();
            let private = BTreeMap::from([(data.store(), (id(1), wrote(n)))]);
            add_private(&mut rows, &private, &Author([own; 32]));
            rows.pop()
        };
        let row = found(1, 3).unwrap();
        assert_eq!(found(2, 1).as_ref(), Some(&row), "it is this node's");
        assert_eq!((row.id, row.genesis), (data.store(), data));
        assert_eq!(row.name, format!("data-{}", &data.store().to_string()[..8]));
        assert_eq!(found(2, 3), None, "its founder is not known");
    }

    #[test]
    fn newest_valid_name_counts() {
        let order = |wall_ms| Order {
            hlc: Hlc::new(wall_ms, 0).unwrap(),
            author: Author([1; 32]),
            id: EntryId([1; 32]),
        };
        let ids = [id(1), id(2), id(3), id(4)];
        let mut listing = Listing::default();
        let mut note = |n: u8, field: &str, value: bytes::Bytes, wall_ms| {
            let op = Op::Put {
                key: format!("/stores/{}/{field}", id(n)).into(),
                value,
                expires_ms: None,
            };
            listing.note(&op, order(wall_ms), &ids);
        };
        for n in 1..=4 {
            note(n, "genesis", genesis(n).encode(), 1);
        }
        note(5, "genesis", genesis(5).encode(), 1);
        note(2, "genesis", genesis(3).encode(), 2);
        note(2, "name", "jobs".into(), 3);
        note(2, "name", "older".into(), 2);
        note(3, "name", "../up".into(), 3);
        note(4, "name", "root".into(), 3);
        note(4, "name", "data".into(), 2);
        let rows = rows(&BTreeMap::from([(id(1), listing)]), id(1));
        let name = |n: u8| {
            rows.iter()
                .find(|row| row.id == id(n))
                .map(|row| row.name.as_str())
        };
        assert_eq!(rows.len(), 5, "a store without a directory gets no row");
        assert!(rows.contains(&Row::of_data(&genesis(1))));
        assert_eq!((name(1), name(2)), (Some("root"), Some("jobs")));
        assert_eq!(name(3), Some(name_of_id(&id(3)).as_str()));
        assert_eq!(name(4), Some(name_of_id(&id(4)).as_str()));
    }
}

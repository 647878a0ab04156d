//! The tables of the state file. A table's name carries the version of its rows; `row.rs` has their
//! bytes.
//!
//! The table of the frontier has the version of the whole file. So an earlier build finds no frontier
//! in a later file, and reads the logs from the start.

use redb::TableDefinition;

pub(super) const HEADS: &str = "heads-v2";
pub(super) const EXPIRY: &str = "expiry-v2";
pub(super) const NOTES: &str = "notes-v1";
pub(super) const CAUSES: &str = "causes-v1";
pub(super) const FACTS: &str = "facts-v1";
pub(super) const META: &str = "meta-v3";
// Tables that earlier builds wrote. A file that has one of them is built again: version 1 has no
// hashes of big values, version 2 no facts.
pub(super) const OF_EARLIER_BUILDS: [&str; 2] = ["meta-v1", "meta-v2"];
pub(super) const HEADS_TABLE: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new(HEADS);
pub(super) const EXPIRY_TABLE: TableDefinition<'_, (u64, &[u8]), ()> = TableDefinition::new(EXPIRY);
pub(super) const NOTES_TABLE: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new(NOTES);
pub(super) const CAUSES_TABLE: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new(CAUSES);
pub(super) const FACTS_TABLE: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new(FACTS);
pub(super) const META_TABLE: TableDefinition<'_, &str, &[u8]> = TableDefinition::new(META);

// Keys of the meta table. The row of `FRONTIER` holds the counts, and the frontier of the entries
// from which the other rows were computed.
pub(super) const FRONTIER: &str = "frontier";
// Present while some entries that the frontier leads back to are missing from the rows.
pub(super) const LACKS: &str = "lacks";

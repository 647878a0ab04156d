//! The tables of the state file.

use redb::TableDefinition;

// Table names carry the version of their rows.
pub(super) const HEADS: &str = "heads-v1";
pub(super) const EXPIRY: &str = "expiry-v1";
pub(super) const NOTES: &str = "notes-v1";
pub(super) const CAUSES: &str = "causes-v1";
pub(super) const META: &str = "meta-v1";
pub(super) const HEADS_TABLE: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new(HEADS);
pub(super) const EXPIRY_TABLE: TableDefinition<'_, (u64, &[u8]), ()> = TableDefinition::new(EXPIRY);
pub(super) const NOTES_TABLE: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new(NOTES);
pub(super) const CAUSES_TABLE: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new(CAUSES);
pub(super) const META_TABLE: TableDefinition<'_, &str, &[u8]> = TableDefinition::new(META);
pub(super) const FRONTIER: &str = "frontier";
// There, where the state lacks some of what its frontier leads back to.
pub(super) const LACKS: &str = "lacks";

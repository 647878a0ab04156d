//! A state file that was changed behind the back of its node.

use std::path::Path;

use lattice::{id::StoreId, state::row};
use redb::ReadableTable as _;

/// Changes the values of some keys in the state file of a node that is stopped, and leaves the log as
/// it is.
pub fn change_state(data_dir: &Path, store: &StoreId, keys: &[String]) {
    let dir = data_dir.join("stores").join(store.to_string());
    let db = redb::Database::open(dir.join("state.db")).unwrap();
    let heads: redb::TableDefinition<'_, &[u8], &[u8]> = redb::TableDefinition::new("heads-v2");
    let write = db.begin_write().unwrap();
    {
        let mut table = write.open_table(heads).unwrap();
        for key in keys.iter().map(String::as_bytes) {
            let stored = table.get(key).unwrap().unwrap().value().to_vec();
            let mut body = row::unseal("heads-v2", key, &stored).unwrap().to_vec();
            // The value stands at the end.
            *body.last_mut().unwrap() ^= 1;
            let row = row::seal("heads-v2", key, body);
            table.insert(key, row.as_slice()).unwrap();
        }
    }
    write.commit().unwrap();
    drop(db);
    std::fs::remove_file(dir.join("state.sums")).unwrap();
}

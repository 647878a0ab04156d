//! Settings of a store without a node and without membership.

use std::{path::PathBuf, sync::Arc};

use lattice::{
    clock::Clock,
    disk::Disk,
    id::StoreId,
    log::LogFiles,
    store::{Authority, StoreConfig},
};

use super::model::key_of;

/// Returns the settings of a store in `/store` on `disk`, to which anyone may write.
///
/// `secret` is the key of the node that has it. Its channels are short, so that readers fall behind
/// soon.
pub fn config(
    id: StoreId,
    secret: [u8; 32],
    clock: &Clock,
    disk: impl Disk + 'static,
) -> StoreConfig {
    StoreConfig {
        id,
        dir: PathBuf::from("/store"),
        key: Arc::new(key_of(secret)),
        clock: clock.clone(),
        disk: Arc::new(disk),
        files: LogFiles::default(),
        bus_batches: 2,
        root: false,
        authority: Authority::Anyone,
        lease: None,
    }
}

//! Members that keep to the protocol and sign hostile content: each script is the log of one writer.
//!
//! One of three nodes has the logs, and no attacker is there any more. Then all three have the same
//! heads, take writes, restart, hold no strike, and what may not count counts nowhere.

mod acts;
mod branches;
mod floods;
mod nodes;
mod pen;
mod references;
mod reserved;
mod signatures;
mod stamps;
mod stores;
mod three;
mod values;

use std::collections::{BTreeMap, BTreeSet};

use lattice::{
    limits::{
        CAUSE_CONSUMER_BYTES_MAX, DRIFT_MS_MAX, KEY_BYTES_MAX, OPS_MAX, PARENTS_MAX, STAMP_MS_MAX,
        STRANGERS_BYTES_MAX, TIPS_MAX, VALUE_BYTES_MAX,
    },
    protocol::{
        entry::{Parent, cause::Cause},
        hlc::Hlc,
        membership::{
            genesis::Genesis,
            invite::Invite,
            role::{Act, Tips, role_key},
        },
    },
    store::List,
};

use super::{stores::listing, *};
use crate::support::model::{delete, put};

use nodes::*;
use pen::*;

/// All scripts, each a log of a writer of its own.
pub(super) fn scripts() -> Vec<Script> {
    let families = [
        stamps::stamps(),
        reserved::reserved(),
        acts::acts(),
        references::references(),
        signatures::signatures(),
        branches::branches(),
        values::values(),
        stores::stores(),
    ];
    families.into_iter().flatten().collect()
}

//! The id of a delivery, which a taker sends with its answer.

use std::{fmt, str::FromStr};

use data_encoding::HEXLOWER_PERMISSIVE as HEX;

use crate::{id::IdError, protocol::consumer::change_ref::ChangeId};

/// Names one attempt at a change; a taker sends it with its answer. Printed as
/// `<change>.<attempt>`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeliveryId {
    /// Change that is delivered.
    pub change: ChangeId,
    /// Number of the attempt, from 1.
    pub attempt: u32,
}

impl fmt::Display for DeliveryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.change, self.attempt)
    }
}

impl FromStr for DeliveryId {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        let read = || {
            let (change, attempt) = text.split_once('.')?;
            let change = HEX.decode(change.as_bytes()).ok()?;
            Some(Self {
                change: ChangeId(change.try_into().ok()?),
                attempt: attempt.parse().ok().filter(|attempt| *attempt > 0)?,
            })
        };
        read().ok_or_else(|| IdError::new(text, "a delivery (32 hex digits, a point, a number)"))
    }
}

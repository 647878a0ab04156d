//! Health: whether the store takes writes.

use crate::{log::LogError, protocol::entry::VerifiedEntry, state::StateError, store::WriteError};

/// Whether the store takes writes, and if not, why.
#[derive(Debug, Clone)]
pub(super) enum Health {
    /// It takes writes.
    Well,
    /// The state file could not be written or built. It is built again every `RETRY_EVERY`; when
    /// that works, the store is well again.
    StateFailed(StateError),
    /// A write to a log failed in a way that leaves open what is on disk. Opening the store again is
    /// the only way on.
    Poisoned {
        /// The failure.
        reason: String,
    },
}

impl Health {
    /// Changes to `next`, unless the store is poisoned: that is for ever. Returns what was before.
    pub(super) fn set(&mut self, next: Self) -> Self {
        if self.is_poisoned() {
            return self.clone();
        }
        std::mem::replace(self, next)
    }

    /// Returns whether only opening the store again helps.
    pub(super) fn is_poisoned(&self) -> bool {
        matches!(self, Self::Poisoned { .. })
    }

    /// Returns why the state file cannot be used, if so.
    pub(super) fn state_error(&self) -> Option<&StateError> {
        match self {
            Self::StateFailed(error) => Some(error),
            Self::Well | Self::Poisoned { .. } => None,
        }
    }

    /// Returns an error unless the store takes writes.
    pub(super) fn check_writable(&self) -> Result<(), WriteError> {
        match self {
            Self::Well => Ok(()),
            Self::StateFailed(error) => Err(error.clone().into()),
            Self::Poisoned { reason } => Err(WriteError::Poisoned {
                reason: reason.clone(),
            }),
        }
    }
}

/// Why a whole group cannot be written.
#[derive(Debug)]
pub(super) enum WriteFailure {
    /// The state must be built again first; nothing was written.
    State(StateError),
    /// The callers get this error.
    Refused(WriteError),
    /// Of these entries the own signature is wrong, and nothing in the group vouches for them. Nothing
    /// was written: they are set aside, and the group is made again.
    Unvouched(Vec<VerifiedEntry>),
}

impl WriteFailure {
    /// Returns the failure for a log that could not be read: nothing is wrong with writing.
    pub(super) fn unreadable(error: LogError) -> Self {
        Self::Refused(WriteError::Read(error.into()))
    }
}

impl From<WriteError> for WriteFailure {
    fn from(error: WriteError) -> Self {
        Self::Refused(error)
    }
}

impl From<StateError> for WriteFailure {
    fn from(error: StateError) -> Self {
        Self::State(error)
    }
}

impl From<WriteFailure> for WriteError {
    fn from(failure: WriteFailure) -> Self {
        match failure {
            WriteFailure::Refused(error) => error,
            WriteFailure::State(error) => error.into(),
            WriteFailure::Unvouched(_) => unreachable!("the group was made again"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failed() -> Health {
        Health::StateFailed(StateError::Damaged {
            what: "a row".to_owned(),
        })
    }

    #[test]
    fn a_failed_state_gets_well_and_a_poisoned_store_does_not() {
        let mut health = Health::Well;
        assert!(health.check_writable().is_ok());
        assert!(matches!(health.set(failed()), Health::Well));
        assert!(health.state_error().is_some() && health.check_writable().is_err());
        assert!(matches!(health.set(Health::Well), Health::StateFailed(_)));
        assert!(health.check_writable().is_ok());
        let reason = "no fsync".to_owned();
        drop(health.set(Health::Poisoned { reason }));
        for next in [Health::Well, failed()] {
            assert!(matches!(health.set(next), Health::Poisoned { .. }));
            assert!(health.is_poisoned());
            let refused = health.check_writable();
            assert!(
                matches!(refused, Err(WriteError::Poisoned { reason }) if reason == "no fsync")
            );
        }
    }
}

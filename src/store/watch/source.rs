//! The source of a watch before it is live: the state, or the log.

use crate::store::{
    Shared, WatchOptions,
    watch::{
        log_source::LogSource,
        piece::{Read, SourceError},
        state_source::StateSource,
    },
};

/// The state at the start, or the log after a position.
#[derive(Debug)]
pub(super) enum Source {
    State(StateSource),
    Log(Box<LogSource>),
}

impl Source {
    /// Reads the next piece. Reads files: not for the event loop.
    pub(super) fn next(
        &mut self,
        shared: &Shared,
        options: &WatchOptions,
    ) -> Result<Read, SourceError> {
        match self {
            Self::State(source) => source.next(shared, options).map_err(SourceError::from),
            Self::Log(source) => source.next(shared, options),
        }
    }
}

impl From<LogSource> for Source {
    fn from(source: LogSource) -> Self {
        Self::Log(Box::new(source))
    }
}

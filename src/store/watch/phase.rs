//! The phase of a watch: where its next change comes from.

use std::pin::Pin;

use tokio::{task::JoinHandle, time::Sleep};

use crate::{
    protocol::frontier::MissingRange,
    store::watch::{
        piece::{Read, SourceError},
        source::Source,
    },
};

#[derive(Debug)]
pub(super) enum Phase {
    // Nothing was read yet.
    Start,
    // For entries that the cursor names and that are not here.
    Waiting(Waiting),
    // A blocking thread reads. It owns the source meanwhile and gives it back with the result.
    Reading(JoinHandle<Result<(Source, Read), SourceError>>),
    Live,
    Ended,
}

#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) missing: Vec<MissingRange>,
    // Version of the view in which `missing` was found.
    pub(super) version: u64,
    pub(super) look_again: Pin<Box<Sleep>>,
}

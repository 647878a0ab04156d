//! The reading wing: values, lists, history, the past, roots, proofs, and checks, each from one view of the
//! state.

pub(super) mod compare;
pub(super) mod get;
pub(super) mod history;
pub(super) mod moment;
pub(super) mod outgoing;
pub(super) mod past;
pub(super) mod prove;
pub(super) mod root;
pub(super) mod scan;
pub(super) mod verify;

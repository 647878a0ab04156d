//! Fuzz targets: one for each decoder and each state machine that meets bytes, messages or entries
//! from elsewhere.
//!
//! Each is an ordinary test over a corpus of honest values and mutants of them, by seeds that are
//! printed; fifty times as many with `LATTICE_SOAK=1`. A target panics where a promise is broken:
//!
//! - nothing panics, and no result is larger than its input allows
//! - a decoded value, encoded and decoded again, is the same value
//! - where a format has one encoding of a value, the bytes are the same, too
//! - a state machine keeps its bounds and its order, whatever comes in which order
//!
//! Decoders that are not public have their targets beside them, by the same mutator. The HTTP and
//! gRPC framing of the local socket is tonic's, and not tried here.

mod disk;
mod entries;
mod history;
mod intake;
mod machines;
mod members;
mod messages;
mod session;
mod texts;
mod trees;

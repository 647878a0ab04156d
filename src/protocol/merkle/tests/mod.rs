//! The tree against the definition of it, its proofs against forgers, and comparisons with peers.

mod comparisons;
mod definition;
mod map;
mod proofs;
mod roots;

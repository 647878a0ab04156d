//! The schemas of `proto/`, as generated.

#![allow(
    missing_docs,
    unreachable_pub,
    unused_qualifications,
    reason = "generated code"
)]
#![allow(
    clippy::all,
    clippy::use_self,
    clippy::missing_panics_doc,
    reason = "generated code"
)]

include!(concat!(env!("OUT_DIR"), "/lattice.v1.rs"));

/// What two nodes say to each other on a sync stream.
pub mod sync {
    include!(concat!(env!("OUT_DIR"), "/lattice.sync.v1.rs"));
}

/// What nodes say to each other besides.
#[cfg(feature = "net")]
pub mod net {
    include!(concat!(env!("OUT_DIR"), "/lattice.net.v1.rs"));
}

/// The local API.
#[cfg(feature = "api")]
pub mod api {
    include!(concat!(env!("OUT_DIR"), "/lattice.api.v1.rs"));

    /// The schema itself, for server reflection.
    pub const DESCRIPTOR: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/api.bin"));
}

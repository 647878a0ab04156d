//! The types that are generated from the schemas in `proto/`.

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

/// Messages of a sync session.
pub mod sync {
    include!(concat!(env!("OUT_DIR"), "/lattice.sync.v1.rs"));
}

/// Messages of a comparison of two states.
pub mod compare {
    include!(concat!(env!("OUT_DIR"), "/lattice.compare.v1.rs"));
}

/// Bodies of the blocks of a snapshot file.
pub mod snapshot {
    include!(concat!(env!("OUT_DIR"), "/lattice.snapshot.v1.rs"));
}

/// Messages between nodes besides those of a sync session.
#[cfg(feature = "net")]
pub mod net {
    include!(concat!(env!("OUT_DIR"), "/lattice.net.v1.rs"));
}

/// Messages and services of the local API.
#[cfg(feature = "client")]
pub mod api {
    include!(concat!(env!("OUT_DIR"), "/lattice.api.v1.rs"));

    /// The encoded schema, for server reflection.
    #[cfg(feature = "api")]
    pub const DESCRIPTOR: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/api.bin"));
}

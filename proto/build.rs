//! Compiles the schemas with protox, so a build does not need protoc.

use std::{env, error::Error, fs, path::PathBuf};

use prost::Message as _;

fn main() -> Result<(), Box<dyn Error>> {
    let out = PathBuf::from(env::var("OUT_DIR")?);
    for file in [
        "proto/lattice.proto",
        "proto/sync.proto",
        "proto/compare.proto",
        "proto/snapshot.proto",
        "proto/api.proto",
        "proto/net.proto",
        "proto/build.rs",
    ] {
        println!("cargo:rerun-if-changed={file}");
    }
    let formats = [
        "lattice.proto",
        "sync.proto",
        "compare.proto",
        "snapshot.proto",
    ];
    let formats = protox::compile(formats, ["proto"])?;
    tonic_prost_build::configure()
        .bytes(".")
        .compile_fds(formats)?;
    if env::var_os("CARGO_FEATURE_NET").is_some() {
        let net = protox::compile(["net.proto"], ["proto"])?;
        tonic_prost_build::configure().bytes(".").compile_fds(net)?;
    }
    if env::var_os("CARGO_FEATURE_CLIENT").is_some() {
        let api = protox::compile(["api.proto"], ["proto"])?;
        fs::write(out.join("api.bin"), api.encode_to_vec())?;
        // The link in src/client takes the place of tonic's transport.
        tonic_prost_build::configure()
            .bytes(".")
            .build_transport(false)
            .build_server(env::var_os("CARGO_FEATURE_API").is_some())
            .compile_fds(api)?;
    }
    Ok(())
}

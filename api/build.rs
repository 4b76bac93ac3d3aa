//! Compiles the `.proto` files without a `protoc`.

use std::{env, path::PathBuf};

const PROTOS: [&str; 3] = [
    "proto/sawmill/v1/ingest.proto",
    "proto/sawmill/v1/queue.proto",
    "proto/sawmill/v1/registry.proto",
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    for proto in PROTOS {
        println!("cargo::rerun-if-changed={proto}");
    }
    let descriptors = protox::compile(PROTOS, ["proto"])?;
    let out = PathBuf::from(env::var("OUT_DIR")?);
    tonic_prost_build::configure()
        .file_descriptor_set_path(out.join("sawmill.v1.bin"))
        .bytes(".")
        .compile_fds(descriptors)?;
    Ok(())
}

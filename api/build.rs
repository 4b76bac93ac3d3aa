//! Compiles the `.proto` files without a `protoc`.

use std::{env, fs, path::PathBuf};

use prost::Message as _;
use tonic_prost_build::FileDescriptorSet;

const PROTOS: [&str; 7] = [
    "proto/sawmill/v1/admin.proto",
    "proto/sawmill/v1/blocks.proto",
    "proto/sawmill/v1/catalog.proto",
    "proto/sawmill/v1/ingest.proto",
    "proto/sawmill/v1/queue.proto",
    "proto/sawmill/v1/registry.proto",
    "proto/sawmill/v1/worker.proto",
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    for proto in PROTOS {
        println!("cargo::rerun-if-changed={proto}");
    }
    let descriptors = protox::compile(PROTOS, ["proto"])?;
    let out = PathBuf::from(env::var("OUT_DIR")?);
    fs::write(out.join("sawmill.v1.bin"), descriptors.encode_to_vec())?;
    let streams = client_streams(&descriptors);
    fs::write(out.join("client_streams.rs"), format!("&{streams:?}"))?;
    tonic_prost_build::configure()
        .bytes(".")
        .compile_fds(descriptors)?;
    Ok(())
}

/// The paths of the methods to which a client sends a stream.
fn client_streams(descriptors: &FileDescriptorSet) -> Vec<String> {
    let mut paths = Vec::new();
    for file in &descriptors.file {
        for service in &file.service {
            for method in service.method.iter().filter(|method| method.client_streaming()) {
                paths.push(format!(
                    "/{}.{}/{}",
                    file.package(),
                    service.name(),
                    method.name()
                ));
            }
        }
    }
    paths
}

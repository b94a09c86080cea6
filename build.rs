//! Compiles `proto/` with protox, so that no `protoc` is needed, and keeps the descriptors for reflection.

use std::{env, fs, path::PathBuf};

use prost::Message as _;

const FILES: [&str; 3] = ["remit/v1/types.proto", "remit/v1/decision_service.proto", "remit/v1/admin_service.proto"];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed=proto");
    let out = PathBuf::from(env::var("OUT_DIR")?);
    let descriptors = protox::compile(FILES, ["proto"])?;
    fs::write(out.join("remit.v1.bin"), descriptors.encode_to_vec())?;
    let events = ".remit.v1.WatchDecisionsResponse.item.event";
    tonic_prost_build::configure().boxed(events).compile_fds(descriptors)?;
    Ok(())
}

//! `ports.json`: where a service that was started from this folder listens.

use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::private_file;

const FILE: &str = "ports.json";

/// The ports of a running service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ports {
    /// gRPC.
    pub grpc: u16,
    /// HTTP.
    pub http: u16,
    /// Admin gRPC.
    pub admin: u16,
}

impl Ports {
    /// Writes `ports.json`, whole or not at all.
    ///
    /// # Errors
    /// The system refuses.
    pub fn write(&self, folder: &Path) -> io::Result<()> {
        private_file::replace_public(&folder.join(FILE), &serde_json::to_string(self)?)
    }

    /// Reads `ports.json`; none if there is no such file, or it is not of its form.
    #[must_use]
    pub fn read(folder: &Path) -> Option<Self> {
        serde_json::from_slice(&std::fs::read(folder.join(FILE)).ok()?).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(Ports::read(folder.path()), None);
        let ports = Ports { grpc: 1, http: 2, admin: 65_535 };
        ports.write(folder.path()).unwrap();
        assert_eq!(Ports::read(folder.path()), Some(ports));
        let text = std::fs::read_to_string(folder.path().join("ports.json")).unwrap();
        assert_eq!(text, "{\"grpc\":1,\"http\":2,\"admin\":65535}\n");
    }
}

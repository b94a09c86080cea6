//! API keys for the two who hold roles in the folder.

use zeroize::Zeroizing;

use super::{DevFolder, DevFolderError, file_error, private_file};
use crate::domain::agent::AgentName;
use crate::identity::api_key::{line_for, new_key};

/// Who gets a key: an administrator and auditor, and an enforcement point.
const AGENTS: [&str; 2] = ["ops-admin", "svc-demo"];
/// The digests, as the configuration names the file.
const DIGESTS: &str = "api_keys.txt";

/// `api_keys/<agent>.key`, and the file with their digests. Both are made together: a folder that has digests is left
/// as it is.
pub(super) fn lay_out(folder: &DevFolder, secret: impl Fn() -> Zeroizing<String>) -> Result<(), DevFolderError> {
    if folder.file(DIGESTS).exists() {
        return Ok(());
    }
    let keys = folder.file("api_keys");
    std::fs::create_dir_all(&keys).map_err(|error| file_error(&keys, error))?;
    let mut lines = vec!["# id agent sha256: `remit api-key new` makes more".to_owned()];
    for name in AGENTS {
        let file = format!("api_keys/{name}.key");
        folder.keep_or_write(&file, |path| private_file::create(path, &new_key(&secret())))?;
        let path = folder.file(&file);
        let key = Zeroizing::new(std::fs::read_to_string(&path).map_err(|error| file_error(&path, error))?);
        let agent = AgentName::parse(name).map_err(|error| file_error(&path, error))?;
        lines.push(line_for(&format!("dev-{name}"), &agent, key.trim_end()));
    }
    folder.keep_or_write(DIGESTS, |path| private_file::replace_public(path, &lines.join("\n")))
}

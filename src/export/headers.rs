//! Headers that go with each request to the collector, such as its credential. They are secrets: no `Debug`, no log.

use std::path::PathBuf;

use tonic::metadata::{Ascii, MetadataKey, MetadataMap, MetadataValue};

use crate::keyring::{ClosedFileError, read_closed};

/// The file's length, in bytes: a few credentials.
const FILE_BYTES: usize = 16 * 1024;
/// Headers in it.
const MOST: usize = 16;

/// Headers of a file, read again when the collector refuses.
pub struct Headers {
    file: PathBuf,
    entries: Vec<(MetadataKey<Ascii>, MetadataValue<Ascii>)>,
}

/// Why headers can't be used. No value stands in it.
#[derive(Debug)]
pub enum InvalidHeaders {
    /// The file can't be read, or others can.
    File(ClosedFileError),
    /// A line is not a header: its number.
    Line(usize),
    /// There are more than are needed.
    Many,
}

impl std::fmt::Display for InvalidHeaders {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::File(error) => write!(f, "{error}"),
            Self::Line(number) => {
                write!(f, "line {number} is not a header: write `name: value`, each name once, in lower case")
            }
            Self::Many => write!(f, "it has more than {MOST} headers"),
        }
    }
}

impl std::error::Error for InvalidHeaders {}

impl Headers {
    /// Reads a file: a header a line, `name: value`; empty lines and those that begin with `#` are passed over.
    ///
    /// # Errors
    /// It can't be used.
    pub fn read(file: PathBuf) -> Result<Self, InvalidHeaders> {
        let bytes = read_closed(&file, FILE_BYTES).map_err(InvalidHeaders::File)?;
        let mut entries: Vec<(MetadataKey<Ascii>, MetadataValue<Ascii>)> = Vec::new();
        for (index, line) in bytes.split(|byte| *byte == b'\n').enumerate() {
            let line = line.trim_ascii();
            if line.is_empty() || line.starts_with(b"#") {
                continue;
            }
            let (name, value) = header(line).ok_or(InvalidHeaders::Line(index.saturating_add(1)))?;
            if entries.iter().any(|(known, _)| *known == name) {
                return Err(InvalidHeaders::Line(index.saturating_add(1)));
            }
            entries.push((name, value));
        }
        if entries.len() > MOST {
            return Err(InvalidHeaders::Many);
        }
        Ok(Self { file, entries })
    }

    /// Takes what the file says now, if it can be used.
    pub(super) fn refresh(&mut self) {
        if let Ok(now) = Self::read(self.file.clone()) {
            *self = now;
        }
    }

    /// Puts them on a request.
    pub(super) fn put(&self, metadata: &mut MetadataMap) {
        for (name, value) in &self.entries {
            metadata.insert(name.clone(), value.clone());
        }
    }
}

fn header(line: &[u8]) -> Option<(MetadataKey<Ascii>, MetadataValue<Ascii>)> {
    let colon = line.iter().position(|byte| *byte == b':')?;
    let (name, value) = line.split_at_checked(colon)?;
    let is_ours = !name.starts_with(b"grpc-") && ![b"te".as_slice(), b"content-type"].contains(&name);
    let is_lower = !name.iter().any(u8::is_ascii_uppercase);
    let name = MetadataKey::from_bytes(name).ok().filter(|_| is_ours && is_lower)?;
    let mut value = MetadataValue::try_from(value.strip_prefix(b":")?.trim_ascii()).ok()?;
    // No layer below shows it in a log.
    value.set_sensitive(true);
    Some((name, value))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn of(text: &str, mode: u32) -> Result<MetadataMap, InvalidHeaders> {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("headers");
        std::fs::write(&file, text).unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(mode)).unwrap();
        let mut metadata = MetadataMap::new();
        Headers::read(file)?.put(&mut metadata);
        Ok(metadata)
    }

    #[test]
    fn a_line_is_a_header() {
        let headers =
            of("# for the collector\n\nauthorization: Bearer s3cret:x\r\nx-scope-orgid:  a b \n", 0o600).unwrap();
        assert_eq!(headers.get("authorization").unwrap(), "Bearer s3cret:x");
        assert_eq!(headers.get("x-scope-orgid").unwrap(), "a b");
        assert!(!format!("{headers:?}").contains("s3cret"), "sensitive values show nothing");
        assert!(of("", 0o640).unwrap().is_empty());
    }

    #[test]
    fn what_is_no_header_is_refused_without_its_value() {
        for bad in
            ["s3cret", "a b: s3cret", "Name: s3cret", "a: s3cret\na: s3cret", "grpc-timeout: 1", "te: x", "a: s3\u{1}"]
        {
            let refused = of(bad, 0o600).unwrap_err().to_string();
            assert!(refused.contains("line ") && !refused.contains("s3"), "{refused}");
        }
        let many = (0..17).map(|number| format!("a{number}: b")).collect::<Vec<_>>().join("\n");
        assert!(matches!(of(&many, 0o600), Err(InvalidHeaders::Many)));
        assert!(matches!(of("a: b", 0o644), Err(InvalidHeaders::File(ClosedFileError::Exposed(..)))));
    }
}

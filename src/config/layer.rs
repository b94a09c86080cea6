//! Where settings come from: a file, the environment, flags. Each layer is checked on its own, so that an error
//! names its place, and then laid over those below it.

use std::ffi::{OsStr, OsString};
use std::path::Path;

use toml::{Table, Value};

use super::keys::{KEYS, Key, Kind};
use super::{Config, ConfigError};

/// `REMIT_` variables that are not settings of the service.
const OTHER_VARIABLES: &[&str] = &["REMIT_TOKEN"];
/// A key this far from a known one may be a slip of the pen.
const NEAR: usize = 3;
/// Keys that are known, and that this version does not act on.
const LATER: &[&str] = &["candidate", "console", "otlp_endpoint", "prefix", "replicas", "timeout_ms", "url"];

/// The settings in a file's text. `name` is the file's name in messages; paths become relative to `folder`.
pub(super) fn file(name: &Path, text: &str, folder: &Path) -> Result<Table, ConfigError> {
    let malformed = |error: &toml::de::Error| ConfigError::Malformed {
        file: name.to_owned(),
        detail: error.to_string().trim_end().to_owned(),
        help: help(error.message()),
    };
    toml::from_str::<Config>(text).map_err(|error| malformed(&error))?;
    let mut table: Table = text.parse().map_err(|error| malformed(&error))?;
    for key in KEYS {
        make_absolute(&mut table, key, folder);
    }
    make_clients_absolute(&mut table, folder);
    Ok(table)
}

/// The settings in the environment, and warnings about variables that look like settings and are none.
pub(super) fn environment(
    variables: impl IntoIterator<Item = (OsString, OsString)>,
) -> Result<(Table, Vec<String>), ConfigError> {
    let mut table = Table::new();
    let mut warnings = Vec::new();
    let mut ours: Vec<(OsString, OsString)> =
        variables.into_iter().filter(|(name, _)| name.as_encoded_bytes().starts_with(b"REMIT_")).collect();
    ours.sort();
    for (name, value) in ours {
        let name = name.to_string_lossy();
        match KEYS.iter().find(|key| key.variable() == name) {
            Some(key) => lay(&mut table, setting(key, &name, &value)?),
            None if OTHER_VARIABLES.contains(&name.as_ref()) => {}
            None => warnings.push(unknown_variable(&name)),
        }
    }
    Ok((table, warnings))
}

/// The settings in flags, each `SECTION.KEY=VALUE`.
pub(super) fn flags(flags: &[String]) -> Result<Table, ConfigError> {
    let mut table = Table::new();
    for flag in flags {
        let bad = |why: String| ConfigError::Setting { place: format!("--set {flag}"), why };
        let (path, value) =
            flag.split_once('=').ok_or_else(|| bad("write it as SECTION.KEY=VALUE, e.g. grpc.listen=…".to_owned()))?;
        let known = KEYS.iter().find(|key| path.rsplit_once('.') == Some((key.section, key.name)));
        let Some(key) = known else {
            let names: Vec<String> = KEYS.iter().map(|key| format!("{}.{}", key.section, key.name)).collect();
            let meant = closest(path, names.iter().map(String::as_str));
            let meant = meant.map(|name| format!(", did you mean {name}?")).unwrap_or_default();
            return Err(bad(format!("there is no such key{meant}")));
        };
        lay(&mut table, setting(key, &format!("--set {path}"), OsStr::new(value))?);
    }
    Ok(table)
}

/// Lays the upper settings over the lower, key by key; `[[key]]` entries replace all those below.
pub(super) fn lay(lower: &mut Table, upper: Table) {
    for (name, value) in upper {
        match (lower.get_mut(&name), value) {
            (Some(Value::Table(below)), Value::Table(above)) => lay(below, above),
            (_, value) => {
                lower.insert(name, value);
            }
        }
    }
}

fn setting(key: &Key, place: &str, value: &OsStr) -> Result<Table, ConfigError> {
    let bad = |why: &str| ConfigError::Setting { place: place.to_owned(), why: why.to_owned() };
    let text = value.to_str().ok_or_else(|| bad("it is not UTF-8"))?;
    let table = key.table(text).map_err(bad)?;
    table.clone().try_into::<Config>().map_err(|error| bad(error.message()))?;
    Ok(table)
}

/// The files of `[[identity.client]]`, which only a file can have.
fn make_clients_absolute(table: &mut Table, folder: &Path) {
    let clients = table.get_mut("identity").and_then(|identity| identity.get_mut("client"));
    let entries = clients.and_then(Value::as_array_mut).into_iter().flatten();
    entries.filter_map(|entry| entry.get_mut("jwks_file")).for_each(|path| put_into(folder, path));
}

fn put_into(folder: &Path, value: &mut Value) {
    if let Value::String(path) = value
        && !path.is_empty()
        && let Some(joined) = folder.join(&*path).to_str()
    {
        joined.clone_into(path);
    }
}

fn make_absolute(table: &mut Table, key: &Key, folder: &Path) {
    let join = |value: &mut Value| {
        let is_standard_output = key.kind == Kind::PathOrDash && value.as_str() == Some("-");
        if !is_standard_output {
            put_into(folder, value);
        }
    };
    let mut names = key.section.split('.');
    let outermost = names.next().and_then(|name| table.get_mut(name));
    let Some(section) = names.fold(outermost, |section, name| section?.get_mut(name)) else { return };
    match (key.kind, section) {
        (Kind::Path | Kind::PathOrDash, Value::Table(section)) => section.get_mut(key.name).into_iter().for_each(join),
        (Kind::Paths, Value::Table(section)) => {
            section.get_mut(key.name).and_then(Value::as_array_mut).into_iter().flatten().for_each(join);
        }
        (Kind::KeyFiles, Value::Array(entries)) => {
            entries.iter_mut().filter_map(|entry| entry.get_mut(key.name)).for_each(join);
        }
        _ => {}
    }
}

/// What to do about a key that is unknown. The names are taken from the message: it is all that serde gives.
fn help(message: &str) -> Option<String> {
    let (_, names) = message.split_once("unknown field `")?;
    let (found, expected) = names.split_once('`')?;
    if let Some(known) = closest(found, expected.split('`').skip(1).step_by(2)) {
        return Some(format!("did you mean `{known}`?"));
    }
    LATER.contains(&found).then(|| format!("this version of Remit does not act on `{found}`: remove it"))
}

fn unknown_variable(name: &str) -> String {
    let names: Vec<String> = KEYS.iter().map(Key::variable).collect();
    let meant = closest(name, names.iter().map(String::as_str));
    let meant = meant.map(|known| format!(" (did you mean {known}?)")).unwrap_or_default();
    format!("the environment variable {name} is not a setting and changes nothing{meant}")
}

fn closest<'n>(found: &str, names: impl Iterator<Item = &'n str>) -> Option<&'n str> {
    let near = |name: &&'n str| strsim::osa_distance(name, found) <= NEAR.min(name.len() / 2);
    names.filter(near).min_by_key(|name| strsim::osa_distance(name, found))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_is_in_the_list_and_every_entry_is_a_key() {
        let text = crate::config::tests::EVERYTHING;
        let table: Table = text.parse().unwrap();
        toml::from_str::<Config>(text).unwrap();
        let mut count = 0;
        for (section, keys) in &table {
            let keys = if let Value::Array(entries) = keys { &entries[0] } else { keys };
            for (name, value) in keys
                .as_table()
                .unwrap()
                .iter()
                .filter(|(name, _)| !["foreign", "jwt", "client"].contains(&name.as_str()))
            {
                let is_map = name == "client_certificate_header";
                let inner = value
                    .as_table()
                    .filter(|_| !is_map)
                    .map(|inner| inner.keys().map(|key| (format!("{section}.{name}"), key)));
                for (section, name) in inner.map_or_else(|| vec![(section.clone(), name)], Iterator::collect) {
                    assert!(KEYS.iter().any(|key| key.section == section && key.name == name), "{section}.{name}");
                    count += 1;
                }
            }
        }
        assert_eq!(count, KEYS.len());
    }

    #[test]
    fn a_slip_of_the_pen_is_recognised() {
        let help = |message| help(message).unwrap_or_default();
        assert_eq!(help("unknown field `lisen`, expected `listen`"), "did you mean `listen`?");
        assert_eq!(help("unknown field `fil`, expected one of `file`, `keep`"), "did you mean `file`?");
        assert!(
            help("unknown field `replicas`, expected one of `backend`, `capacity`").contains("not act on `replicas`")
        );
        assert_eq!(help("unknown field `nonsense`, expected `file` or `keep`"), "");
    }
}

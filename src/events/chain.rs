//! The audit log's chain: each line ends with the digest of the line before it and its own, so that a line can't be
//! changed, removed, added or moved without every later one saying so.
//!
//! `hash` is the SHA-256 of the line's bytes up to the `,"hash":` that it stands in; `prev_hash` is the `hash` of the
//! line before, 64 zeros for the first of all. Any language can check that with a string function and SHA-256.

use crate::digest::Digest;

const PREVIOUS: &[u8] = b",\"prev_hash\":\"";
const OWN: &[u8] = b",\"hash\":\"";
const END: &[u8] = b"\"}";
const DIGITS: usize = 64;

/// A line's place in the chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Links {
    /// `prev_hash`: the digest of the line before.
    pub previous: Digest,
    /// `hash`: its own.
    pub own: Digest,
}

impl Links {
    /// Puts them into the JSON object at the end of `line`.
    pub(super) fn close(&self, line: &mut Vec<u8>) {
        let without_end = line.pop();
        debug_assert_eq!(without_end, Some(b'}'), "an object ends so");
        extend(line, PREVIOUS, self.previous);
        line.push(b'"');
        extend(line, OWN, self.own);
        line.extend_from_slice(END);
    }
}

/// What a line of the log says of its place, and whether it is what was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// What it says.
    pub links: Links,
    /// Its bytes have the digest that it says.
    pub is_intact: bool,
}

/// Reads the place of a line, given without its line end. None: it doesn't end as a line of the chain does.
#[must_use]
pub fn read(line: &[u8]) -> Option<Seen> {
    let (hashed, links) = split(line)?;
    Some(Seen { links, is_intact: Digest::of(hashed) == links.own })
}

/// What a line says of its place, believed.
pub(super) fn links(line: &[u8]) -> Option<Links> {
    Some(split(line)?.1)
}

/// The bytes that the line's own digest is of, and what the line says of its place.
fn split(line: &[u8]) -> Option<(&[u8], Links)> {
    let (hashed, own) = ending(line.strip_suffix(END)?, OWN)?;
    let (_, previous) = ending(hashed.strip_suffix(b"\"")?, PREVIOUS)?;
    Some((hashed, Links { previous, own }))
}

/// Cuts `key` and the digest behind it off the end of `text`.
fn ending<'a>(text: &'a [u8], key: &[u8]) -> Option<(&'a [u8], Digest)> {
    let (head, digits) = text.split_at_checked(text.len().checked_sub(DIGITS)?)?;
    let digest = Digest::from_hex(std::str::from_utf8(digits).ok()?)?;
    Some((head.strip_suffix(key)?, digest))
}

/// The end of the chain, to which lines are added.
pub(super) struct Chain {
    head: Digest,
}

impl Chain {
    /// A chain that goes on after the line of this digest.
    pub(super) const fn after(head: Digest) -> Self {
        Self { head }
    }

    /// The digest of the last line.
    pub(super) const fn head(&self) -> Digest {
        self.head
    }

    /// Adds the JSON object that stands in `lines` from `start` on: it gets its links and a line end.
    pub(super) fn add(&mut self, lines: &mut Vec<u8>, start: usize) -> Links {
        let without_end = lines.pop();
        debug_assert_eq!(without_end, Some(b'}'), "an object ends so");
        let previous = self.head;
        extend(lines, PREVIOUS, previous);
        lines.push(b'"');
        let own = Digest::of(lines.get(start..).unwrap_or_default());
        extend(lines, OWN, own);
        lines.extend_from_slice(END);
        lines.push(b'\n');
        self.head = own;
        Links { previous, own }
    }
}

fn extend(lines: &mut Vec<u8>, key: &[u8], digest: Digest) {
    lines.extend_from_slice(key);
    lines.extend_from_slice(digest.to_string().as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chained(objects: &[&str]) -> Vec<String> {
        let mut chain = Chain::after(Digest::default());
        let mut lines = Vec::new();
        for object in objects {
            let start = lines.len();
            lines.extend_from_slice(object.as_bytes());
            chain.add(&mut lines, start);
        }
        String::from_utf8(lines).unwrap().lines().map(str::to_owned).collect()
    }

    #[test]
    fn each_line_names_the_one_before_and_itself() {
        let lines = chained(&[r#"{"a":1}"#, r#"{"a":2}"#]);
        let first = format!(r#"{{"a":1,"prev_hash":"{}""#, "0".repeat(64));
        let own = Digest::of(first.as_bytes());
        assert_eq!(lines[0], format!(r#"{first},"hash":"{own}"}}"#));
        let seen = lines.iter().map(|line| read(line.as_bytes()).unwrap()).collect::<Vec<_>>();
        assert!(seen.iter().all(|seen| seen.is_intact));
        assert_eq!(seen[0].links, Links { previous: Digest::default(), own });
        assert_eq!(seen[1].links.previous, own);
        assert!(serde_json::from_str::<serde_json::Value>(&lines[1]).is_ok());
    }

    #[test]
    fn a_line_with_any_byte_changed_is_not_intact() {
        let line = chained(&[r#"{"a":1,"b":"x"}"#]).remove(0).into_bytes();
        for at in 0..line.len() {
            for bit in 0..8 {
                let mut changed = line.clone();
                changed[at] ^= 1 << bit;
                assert!(read(&changed).is_none_or(|seen| !seen.is_intact), "byte {at} bit {bit}");
            }
            assert_eq!(read(&line[..at]), None, "cut at {at}");
        }
    }
}

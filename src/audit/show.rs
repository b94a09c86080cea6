//! What a log says about an agent or a token: it reads the files, and believes them.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, BufRead as _, BufReader};
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::Unread;
use super::order::in_order;

/// Tokens of one chain, at most: some hundred MB of them. Nobody reads what they did one by one.
const TOKENS: usize = 1_000_000;

/// Which events are wanted: those for which everything that is given holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ask {
    /// The agent acts, asks, is acted on, is aimed at or is in the chain.
    pub agent: Option<String>,
    /// The event is about this token, one it was made from, or one that was made from it.
    pub token: Option<String>,
    /// `timestamp` is this or later, `2026-11-21T21:51:43Z`.
    pub since: Option<String>,
    /// `timestamp` is earlier than this.
    pub until: Option<String>,
}

/// What was shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Shown {
    /// Events that were wanted.
    pub events: u64,
    /// Lines that are no events.
    pub others: u64,
}

/// What a line says, as far as it is asked for or shown.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Line<'a> {
    /// When.
    #[serde(borrow)]
    pub timestamp: Cow<'a, str>,
    /// Who acts.
    #[serde(borrow)]
    pub from_agent: Cow<'a, str>,
    /// On whom.
    #[serde(borrow)]
    pub to_agent: Cow<'a, str>,
    /// What kind of event it is.
    #[serde(borrow)]
    pub message_type: Cow<'a, str>,
    /// From the root to the holder.
    #[serde(borrow)]
    pub delegation_chain: Vec<Cow<'a, str>>,
    /// What is used or passed on.
    #[serde(borrow)]
    pub capabilities_used: Vec<Cow<'a, str>>,
    /// The token that was used or made.
    #[serde(borrow)]
    pub token_id: Cow<'a, str>,
    /// How it ended.
    #[serde(borrow)]
    pub result: Cow<'a, str>,
    /// Its number.
    pub sequence: u64,
    /// Why.
    #[serde(borrow)]
    pub reason: Cow<'a, str>,
    /// For people.
    #[serde(borrow)]
    pub message: Cow<'a, str>,
    /// Who asked.
    #[serde(borrow)]
    pub caller: Cow<'a, str>,
    /// What it is done to.
    #[serde(borrow)]
    pub resource: Cow<'a, str>,
    /// What it is aimed at; of a delegation, the token that the new one is made from.
    #[serde(borrow)]
    pub target: Cow<'a, str>,
    /// Nothing was spent.
    pub dry_run: bool,
    /// How many it stands for beside itself.
    pub repeated: u64,
}

/// The token's chain has more tokens than can be followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooManyTokens;

impl std::fmt::Display for TooManyTokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "more than {TOKENS} tokens were made from this one: ask for one of those")
    }
}

impl std::error::Error for TooManyTokens {}

/// Why nothing could be shown, or not all of it.
#[derive(Debug)]
pub enum ShowError<E> {
    /// A file can't be read.
    Unread(Unread),
    /// The chain is too wide.
    TooManyTokens(TooManyTokens),
    /// Whoever is shown the lines has enough.
    Taker(E),
}

/// Gives `take` the wanted lines, without their ends, in the order in which they were written.
///
/// # Errors
/// A file can't be read, more tokens belong to the chain than can be followed, or what `take` answers.
pub fn show<E>(
    files: Vec<PathBuf>,
    ask: &Ask,
    mut take: impl FnMut(&Line<'_>, &str) -> Result<(), E>,
) -> Result<Shown, ShowError<E>> {
    let files = in_order(files).map_err(ShowError::Unread)?;
    let tokens = match &ask.token {
        Some(token) => Some(relatives(&files, token)?),
        None => None,
    };
    let mut shown = Shown::default();
    for file in &files {
        each(file, |text| {
            let Some(line) = read(text) else {
                shown.others = shown.others.saturating_add(1);
                return Ok(());
            };
            if !ask.wants(&line) || !tokens.as_ref().is_none_or(|tokens| is_about(&line, tokens)) {
                return Ok(());
            }
            shown.events = shown.events.saturating_add(1);
            take(&line, text).map_err(ShowError::Taker)
        })?;
    }
    Ok(shown)
}

impl Ask {
    fn wants(&self, line: &Line<'_>) -> bool {
        // Timestamps of one form sort as texts.
        self.since.as_deref().is_none_or(|since| since <= &*line.timestamp)
            && self.until.as_deref().is_none_or(|until| &*line.timestamp < until)
            && self.agent.as_deref().is_none_or(|agent| concerns(line, agent))
    }
}

fn concerns(line: &Line<'_>, agent: &str) -> bool {
    let named = [&line.from_agent, &line.to_agent, &line.caller, &line.target];
    named.into_iter().chain(&line.delegation_chain).any(|name| name == agent)
}

fn is_about(line: &Line<'_>, tokens: &BTreeSet<String>) -> bool {
    // A delegation that names a token of the chain as its parent is either of the chain itself, and then its own token
    // is among them, or a branch beside it; a refused one names the parent in both places.
    let aims = line.message_type != "delegate" && tokens.contains(&*line.target);
    aims || tokens.contains(&*line.token_id)
}

/// The token, those that it was made from, and all that were made from it.
fn relatives<E>(files: &[PathBuf], token: &str) -> Result<BTreeSet<String>, ShowError<E>> {
    let mut made = BTreeSet::from([token.to_owned()]);
    let mut sources = vec![token.to_owned()];
    // Down takes one reading where parents stand before their children, and up takes one for each hop: so many hops
    // are remembered as there are, and not all delegations of the log.
    loop {
        let before = (made.len(), sources.len());
        for file in files {
            each(file, |text| {
                let delegation = read(text).filter(|line| line.message_type == "delegate" && line.result == "accepted");
                let Some(Line { token_id: child, target: parent, .. }) = delegation else { return Ok(()) };
                if made.contains(&*parent) && !made.contains(&*child) {
                    made.insert(child.clone().into_owned());
                }
                let is_source = sources.last().is_some_and(|last| *last == child);
                if is_source && !parent.is_empty() && !sources.iter().any(|known| *known == parent) {
                    sources.push(parent.into_owned());
                }
                if made.len().max(sources.len()) > TOKENS {
                    return Err(ShowError::TooManyTokens(TooManyTokens));
                }
                Ok(())
            })?;
        }
        if before == (made.len(), sources.len()) {
            made.extend(sources);
            return Ok(made);
        }
    }
}

/// What stands in a line of the log; none if it is no event. A line that breaks off is none.
fn read(text: &str) -> Option<Line<'_>> {
    serde_json::from_str::<Line<'_>>(text).ok().filter(|line| !line.message_type.is_empty())
}

fn each<E>(file: &Path, mut line: impl FnMut(&str) -> Result<(), ShowError<E>>) -> Result<(), ShowError<E>> {
    let unread = |error: io::Error| ShowError::Unread(Unread { file: file.to_owned(), error });
    let mut reader = BufReader::with_capacity(super::READ_BYTES, File::open(file).map_err(unread)?);
    let mut bytes = Vec::new();
    loop {
        bytes.clear();
        if reader.read_until(b'\n', &mut bytes).map_err(unread)? == 0 {
            return Ok(());
        }
        let text = bytes.strip_suffix(b"\n").unwrap_or(&bytes);
        line(std::str::from_utf8(text).unwrap_or_default())?;
    }
}

#[cfg(test)]
#[path = "show_tests.rs"]
mod tests;

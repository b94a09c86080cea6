//! The shapes of policies, tokens and requests, as the generator makes them and the oracle reads them: no logic.

use std::collections::{BTreeMap, BTreeSet};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    pub can_delegate_to: BTreeSet<String>,
    pub cap: BTreeSet<String>,
    pub res: Vec<String>,
    pub trusted: BTreeSet<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    pub agent: String,
    pub cap: Vec<String>,
    pub res: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Communication {
    pub from: String,
    pub to: String,
    pub methods: Option<Vec<String>>,
    pub paths: Option<Vec<String>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Point {
    pub agent: String,
    pub destinations: Vec<String>,
    /// None: any.
    pub agents: Option<Vec<String>>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    pub max_depth: u64,
    pub rules: BTreeMap<String, Rule>,
    pub default_ttl: u64,
    pub max_ttl: u64,
    pub default_uses: u64,
    pub max_uses_trusted: u64,
    pub grants: Option<Vec<Grant>>,
    pub communication: Option<Vec<Communication>>,
    pub points: Vec<Point>,
    pub administrators: BTreeSet<String>,
    pub quarantined: BTreeSet<String>,
}

#[derive(Clone, Debug, Default)]
pub struct Token {
    pub chain: Vec<String>,
    pub cap: Vec<String>,
    pub res: Vec<String>,
    pub max_uses: u64,
    pub left: u64,
    pub iat: u64,
    pub exp: u64,
    pub delegatable: bool,
    /// The root first.
    pub ancestors: Vec<usize>,
    pub max_depth: Option<u64>,
    pub aud: Vec<String>,
    pub foreign: bool,
    /// The revocation counter when its root came into the ledger; none: nothing was taken from it yet.
    pub born: Option<usize>,
}

/// A token as somebody shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shown {
    Token(usize),
    /// Altered, or no token at all.
    Garbage,
}

#[derive(Clone, Debug)]
pub struct Ask {
    pub caller: String,
    pub agent: Option<String>,
    pub destination: Option<String>,
    /// Capability and resource.
    pub wanted: Option<(String, String)>,
    /// Method and path.
    pub call: Option<(String, String)>,
    pub token: Option<Shown>,
    pub dry_run: bool,
    /// Less than 5 ms are left.
    pub late: bool,
}

#[derive(Clone, Debug)]
pub struct Wish {
    pub caller: String,
    pub to: String,
    pub cap: Vec<String>,
    pub res: Vec<String>,
    pub parent: Option<Shown>,
    pub uses: Option<u64>,
    pub ttl: Option<u64>,
    pub max_depth: Option<u64>,
    pub delegatable: bool,
    pub aud: Vec<String>,
    pub late: bool,
}

#[derive(Clone, Debug)]
pub enum Target {
    Token(Shown),
    Id(usize),
    /// An id that was never given out.
    UnknownId,
    Agent(String),
    Quarantine(String),
    All,
}

/// Whether yes is right, and which refusals are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    pub allowed: bool,
    pub reasons: Vec<&'static str>,
    /// The agent of the chain that has to be named, where that is certain.
    pub hop: Option<String>,
}

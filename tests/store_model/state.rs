//! What the model is made of: stores, nodes, and what an onlooker who sees everything remembers.

use crate::rules::Scope;

/// Seconds, shrunk: see [`crate::rules`].
pub type Time = i16;
/// An epoch's id, or a primary's replication id. 0 is none.
pub type Id = u8;

/// A root token of two uses, its child of one, and another issuer's token of one use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Token {
    Root,
    Child,
    Foreign,
}

impl Token {
    pub fn bit(self) -> u8 {
        match self {
            Self::Root => 1,
            Self::Child => 2,
            Self::Foreign => 4,
        }
    }
}

/// The epoch's record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Record {
    /// 0 where a script ended the epoch.
    pub replid: Id,
    pub id: Id,
    pub fence: Time,
    pub serve_after: Time,
    pub base: Time,
    pub counter: Time,
    pub latest: Time,
    pub seen: Time,
    /// Whether a quarantine was noted.
    pub quarantines: bool,
}

/// A token's entry, under its epoch's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Entry {
    pub epoch: Id,
    pub token: Token,
    pub left: u8,
    pub number: Time,
    pub expires: Time,
    pub revoked: bool,
}

/// The revocation of the agent's tokens, under its epoch's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Cut {
    pub epoch: Id,
    pub number: Time,
    pub moment: Time,
    pub gone_at: Time,
}

/// The last word on the agent's quarantine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Word {
    pub version: Time,
    pub is_quarantine: bool,
}

/// What a server holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Data {
    pub record: Option<Record>,
    pub entries: Vec<Entry>,
    pub cuts: Vec<Cut>,
    pub quarantine: Option<Word>,
    /// For the onlooker: tokens of whose uses this server may have forgotten some.
    pub lost: u8,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Server {
    pub is_primary: bool,
    pub replid: Id,
    /// By how much its clock is ahead of true time.
    pub ahead: Time,
    /// Since when its replicas follow another.
    pub left_alone: Option<Time>,
    pub data: Data,
    /// What is on its disk.
    pub saved: Option<Box<Data>>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Node {
    /// Not there yet, where it is to join later with an empty directory.
    pub is_up: bool,
    pub link: Option<usize>,
    /// The epoch that the store last named.
    pub named: Id,
    /// The epoch that is served; 0: none.
    pub serving: Id,
    /// The epoch that its copy is of.
    pub copied: Id,
    /// The number of the last revocation in it.
    pub number: Time,
    /// When the newest answer in it was asked for.
    pub heard: Time,
    pub quarantine: Word,
    /// For the onlooker: a quarantine was entered here, and no script has taken it yet.
    pub has_entered: bool,
    /// Everything was read, and has still to be compared and served: what the store said of the quarantine.
    pub read: Option<Word>,
    pub owes: bool,
    /// It had its turn in this second.
    pub has_polled: bool,
}

/// A request that is under way while other things happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Flight {
    /// A mint that has looked at the policy. No request takes as long as a token lives.
    Mint { node: usize, born: Time, began: Time },
    /// A reinstatement that is on its way to a server.
    Reinstate { node: usize, server: usize, epoch: Id, version: Time, again: bool, late: bool, outdated: bool },
}

/// What an onlooker who sees everything remembers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Onlooker {
    /// Tokens that there are.
    pub known: u8,
    /// Of these, the ones that a revocation was answered for.
    pub revoked: u8,
    /// Revoked since the mint under way began.
    pub mint_is_revoked: bool,
    /// Uses given: of the root and its child, and of the foreign token.
    pub given: u8,
    pub given_foreign: u8,
    /// When the foreign token was made, by its issuer's clock.
    pub issued: Time,
    pub root_expires: Time,
    /// After this moment nobody may act for the agent: its quarantine was answered, or a store was told of it.
    pub quarantined: Option<Time>,
    pub broken: Option<&'static str>,
}

/// How often each thing may yet happen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Left {
    pub ticks: u8,
    pub mints: u8,
    pub moves: u8,
    pub issues: u8,
    pub revokes: u8,
    pub ends: u8,
    pub quarantines: u8,
    pub reinstates: u8,
    pub promotions: u8,
    pub rejoins: u8,
    pub flushes: u8,
    pub saves: u8,
    pub restarts: u8,
    pub evictions: u8,
    pub small_steps: u8,
    pub large_steps: u8,
    pub cuts: u8,
    pub joins: u8,
    pub naps: u8,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct State {
    pub now: Time,
    pub servers: [Server; 2],
    pub nodes: [Node; 2],
    pub flight: Option<Flight>,
    /// The last id that was used.
    pub ids: Id,
    pub seen: Onlooker,
    pub left: Left,
}

impl State {
    /// A primary, its replica, and nodes that have just been started.
    pub fn new(scope: &Scope) -> Self {
        let server = |is_primary, replid| Server {
            is_primary,
            replid,
            ahead: 0,
            left_alone: None,
            data: Data::default(),
            saved: None,
        };
        let node = |is_up: bool| Node {
            is_up,
            link: is_up.then_some(0),
            named: 0,
            serving: 0,
            copied: 0,
            number: 0,
            heard: 0,
            quarantine: Word::default(),
            has_entered: false,
            read: None,
            owes: false,
            has_polled: false,
        };
        Self {
            now: 40,
            servers: [server(true, 1), server(false, 2)],
            nodes: [node(true), node(!scope.joins_later)],
            flight: None,
            ids: 2,
            seen: Onlooker::default(),
            left: Left::default(),
        }
    }

    pub fn new_id(&mut self) -> Id {
        self.ids += 1;
        self.ids
    }

    pub fn clock(&self, server: usize) -> Time {
        self.now + self.servers[server].ahead
    }
}

impl Node {
    pub fn stop_serving(&mut self) {
        self.serving = 0;
        self.read = None;
    }

    pub fn disconnect(&mut self) {
        self.stop_serving();
        self.link = None;
        self.named = 0;
    }

    /// Under quarantine, and the store has not confirmed it.
    pub fn is_untold(&self) -> bool {
        self.quarantine == Word { version: 0, is_quarantine: true }
    }

    /// Takes the store's word on the quarantine, if it is the newer one. Of two equal ones a quarantine wins.
    pub fn hear(&mut self, word: Word) {
        if self.is_untold() {
            return;
        }
        let known = self.quarantine;
        let wins = word.version == known.version && word.is_quarantine && !known.is_quarantine;
        if word.version > known.version || wins {
            self.quarantine = word;
        }
    }
}

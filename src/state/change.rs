//! What changes in the register and the ledger, as it is written down.
//!
//! Changes are absolute and merge one way: uses only fall, a revocation stays, the greatest number counts. Read in
//! their order after a snapshot that already has some of them, they give the same state.

use std::borrow::Cow;

use super::standing::{Cutoff, QuarantineSources};
use crate::domain::time::Timestamp;
use crate::domain::token::{SealTag, TokenId};

/// Takes note of changes, in the order in which they are in force. Called under a lock: it must not wait.
pub(super) trait Sink: Send + Sync {
    /// These changes belong together: all of them are written down, or none.
    fn note(&self, changes: &[Change<'_>]);
}

/// One change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Change<'a> {
    /// A snapshot begins.
    Snapshot(Snapshot),
    /// All that was when the snapshot was made has been said; what follows came later.
    Whole,
    /// The counter of revocations, and the moment of the last.
    Counter { number: u64, latest: Timestamp },
    /// Everything is revoked.
    All(Cutoff),
    /// An agent's tokens are revoked.
    Agent { name: Cow<'a, str>, cutoff: Cutoff },
    /// An agent is under quarantine.
    Quarantined { name: Cow<'a, str>, sources: QuarantineSources },
    /// It no longer is.
    Reinstated { name: Cow<'a, str> },
    /// The version of a shared store's last word on the agent's quarantine.
    QuarantineVersion { name: Cow<'a, str>, version: u64 },
    /// An id that the ledger doesn't hold is revoked, and remembered up to this second.
    Unknown { id: TokenId, until: u64 },
    /// Tokens of other issuers may be taken up to this moment.
    Mark { until: Timestamp },
    /// A token is in the ledger.
    Entered(Entered<'a>),
    /// It has so many uses left.
    Left { id: TokenId, left: u32 },
    /// It and its descendants are revoked.
    Ended { id: TokenId },
    /// Which ledger belongs to this register.
    Paired(Paired),
    /// Which ledger this is.
    Lineage(Lineage),
    /// How far the register beside this ledger is on the disk.
    RegisterAt { sequence: u64 },
}

/// The ledger that a register names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Paired {
    /// Its generation; 0 for none.
    pub(super) generation: u64,
    /// The number of its last change that is on the disk, at least.
    pub(super) sequence: u64,
}

/// Whose ledger it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Lineage {
    /// Its generation.
    pub(super) own: u64,
    /// That of the ledger which it was made from.
    pub(super) follows: u64,
}

/// What a snapshot begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Snapshot {
    /// The number of the last change in it, in its own file's counting.
    pub(super) sequence: u64,
    /// The register's durable changes when it was made.
    pub(super) register: u64,
    /// When.
    pub(super) time: Timestamp,
    /// Tokens of other issuers made up to this moment are refused.
    pub(super) fence: Timestamp,
}

/// A token as it is entered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entered<'a> {
    pub(super) id: TokenId,
    pub(super) tag: SealTag,
    pub(super) left: u32,
    pub(super) expires_at: u64,
    pub(super) number: u64,
    pub(super) revoked: bool,
    pub(super) ancestors: Cow<'a, [TokenId]>,
    pub(super) chain: Vec<Cow<'a, str>>,
    pub(super) capabilities: Vec<Cow<'a, str>>,
}

impl<'a> Change<'a> {
    /// Appends the change's bytes.
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::Snapshot(Snapshot { sequence, register, time, fence }) => {
                out.push(1);
                for number in [*sequence, *register, time.nanos(), fence.nanos()] {
                    put_u64(out, number);
                }
            }
            Self::Whole => out.push(2),
            Self::Counter { number, latest } => {
                out.push(3);
                put_cutoff(out, Cutoff { number: *number, at: *latest });
            }
            Self::All(cutoff) => {
                out.push(4);
                put_cutoff(out, *cutoff);
            }
            Self::Agent { name, cutoff } => {
                out.push(5);
                put_cutoff(out, *cutoff);
                put_text(out, name);
            }
            Self::Quarantined { name, sources } => {
                out.extend_from_slice(&[6, sources.bits()]);
                put_text(out, name);
            }
            Self::Reinstated { name } => {
                out.push(7);
                put_text(out, name);
            }
            Self::QuarantineVersion { name, version } => {
                out.push(16);
                put_u64(out, *version);
                put_text(out, name);
            }
            Self::Unknown { id, until } => {
                out.push(8);
                out.extend_from_slice(id.bytes());
                put_u64(out, *until);
            }
            Self::Mark { until } => {
                out.push(9);
                put_u64(out, until.nanos());
            }
            Self::Entered(entered) => {
                out.push(10);
                entered.write(out);
            }
            Self::Left { id, left } => {
                out.push(11);
                out.extend_from_slice(id.bytes());
                out.extend_from_slice(&left.to_le_bytes());
            }
            Self::Ended { id } => {
                out.push(12);
                out.extend_from_slice(id.bytes());
            }
            Self::Paired(Paired { generation, sequence }) => put_pair(out, 13, [*generation, *sequence]),
            Self::Lineage(Lineage { own, follows }) => put_pair(out, 14, [*own, *follows]),
            Self::RegisterAt { sequence } => {
                out.push(15);
                put_u64(out, *sequence);
            }
        }
    }

    /// Reads one change off the front of `bytes`; none if they are not one.
    pub(super) fn read(bytes: &mut &'a [u8]) -> Option<Self> {
        let [kind] = take(bytes)?;
        Some(match kind {
            1 => Self::Snapshot(Snapshot {
                sequence: take_u64(bytes)?,
                register: take_u64(bytes)?,
                time: Timestamp::from_nanos(take_u64(bytes)?),
                fence: Timestamp::from_nanos(take_u64(bytes)?),
            }),
            2 => Self::Whole,
            3 => {
                let Cutoff { number, at } = take_cutoff(bytes)?;
                Self::Counter { number, latest: at }
            }
            4 => Self::All(take_cutoff(bytes)?),
            5 => {
                let cutoff = take_cutoff(bytes)?;
                Self::Agent { cutoff, name: take_text(bytes)? }
            }
            6 => {
                let [bits] = take(bytes)?;
                Self::Quarantined { sources: QuarantineSources::from_bits(bits), name: take_text(bytes)? }
            }
            7 => Self::Reinstated { name: take_text(bytes)? },
            8 => Self::Unknown { id: take_id(bytes)?, until: take_u64(bytes)? },
            9 => Self::Mark { until: Timestamp::from_nanos(take_u64(bytes)?) },
            10 => Self::Entered(Entered::read(bytes)?),
            11 => Self::Left { id: take_id(bytes)?, left: u32::from_le_bytes(take(bytes)?) },
            12 => Self::Ended { id: take_id(bytes)? },
            13 => Self::Paired(Paired { generation: take_u64(bytes)?, sequence: take_u64(bytes)? }),
            14 => Self::Lineage(Lineage { own: take_u64(bytes)?, follows: take_u64(bytes)? }),
            15 => Self::RegisterAt { sequence: take_u64(bytes)? },
            16 => {
                let version = take_u64(bytes)?;
                Self::QuarantineVersion { version, name: take_text(bytes)? }
            }
            _ => return None,
        })
    }
}

impl<'a> Entered<'a> {
    fn write(&self, out: &mut Vec<u8>) {
        let Self { id, tag, left, expires_at, number, revoked, ancestors, chain, capabilities } = self;
        out.extend_from_slice(id.bytes());
        out.extend_from_slice(tag.bytes());
        out.extend_from_slice(&left.to_le_bytes());
        put_u64(out, *expires_at);
        put_u64(out, *number);
        out.push(u8::from(*revoked));
        put_count(out, ancestors.len());
        ancestors.iter().for_each(|id| out.extend_from_slice(id.bytes()));
        for names in [chain, capabilities] {
            put_count(out, names.len());
            for name in names {
                put_text(out, name);
            }
        }
    }

    fn read(bytes: &mut &'a [u8]) -> Option<Self> {
        let (id, tag) = (take_id(bytes)?, SealTag::from_bytes(take(bytes)?));
        let left = u32::from_le_bytes(take(bytes)?);
        let (expires_at, number) = (take_u64(bytes)?, take_u64(bytes)?);
        let revoked = match take(bytes)? {
            [0] => false,
            [1] => true,
            _ => return None,
        };
        let ancestors = (0..take_count(bytes)?).map(|_| take_id(bytes)).collect::<Option<Vec<_>>>()?.into();
        let mut names = || (0..take_count(bytes)?).map(|_| take_text(bytes)).collect::<Option<Vec<_>>>();
        let (chain, capabilities) = (names()?, names()?);
        Some(Self { id, tag, left, expires_at, number, revoked, ancestors, chain, capabilities })
    }
}

fn put_u64(out: &mut Vec<u8>, number: u64) {
    out.extend_from_slice(&number.to_le_bytes());
}

fn put_pair(out: &mut Vec<u8>, kind: u8, numbers: [u64; 2]) {
    out.push(kind);
    for number in numbers {
        put_u64(out, number);
    }
}

fn put_cutoff(out: &mut Vec<u8>, cutoff: Cutoff) {
    put_u64(out, cutoff.number);
    put_u64(out, cutoff.at.nanos());
}

/// Chains, capabilities and names are far shorter than 65,536; what were longer would not be read back.
fn put_count(out: &mut Vec<u8>, count: usize) {
    out.extend_from_slice(&u16::try_from(count).unwrap_or(u16::MAX).to_le_bytes());
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    put_count(out, text.len());
    out.extend_from_slice(text.as_bytes());
}

fn take<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (taken, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(*taken)
}

fn take_u64(bytes: &mut &[u8]) -> Option<u64> {
    take(bytes).map(u64::from_le_bytes)
}

fn take_id(bytes: &mut &[u8]) -> Option<TokenId> {
    take(bytes).map(TokenId::from_bytes)
}

fn take_cutoff(bytes: &mut &[u8]) -> Option<Cutoff> {
    Some(Cutoff { number: take_u64(bytes)?, at: Timestamp::from_nanos(take_u64(bytes)?) })
}

fn take_count(bytes: &mut &[u8]) -> Option<u16> {
    take(bytes).map(u16::from_le_bytes)
}

fn take_text<'a>(bytes: &mut &'a [u8]) -> Option<Cow<'a, str>> {
    let length = usize::from(take_count(bytes)?);
    let (text, rest) = bytes.split_at_checked(length)?;
    *bytes = rest;
    std::str::from_utf8(text).ok().map(Cow::Borrowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all() -> Vec<Change<'static>> {
        let (id, at) = (TokenId::from_bytes([7; 16]), Timestamp::from_nanos(1_795_297_903_000_000_001));
        let cutoff = Cutoff { number: 3, at };
        let name = || Cow::Borrowed("agent-deployer");
        vec![
            Change::Snapshot(Snapshot { sequence: 1, register: 2, time: at, fence: Timestamp::from_seconds(9) }),
            Change::Counter { number: 4, latest: at },
            Change::All(cutoff),
            Change::Agent { name: name(), cutoff },
            Change::Quarantined { name: name(), sources: QuarantineSources { api: true, automatic: true } },
            Change::Reinstated { name: name() },
            Change::QuarantineVersion { name: name(), version: 7 },
            Change::Unknown { id, until: 5 },
            Change::Mark { until: at },
            Change::Entered(Entered {
                id,
                tag: SealTag::from_bytes([8; 16]),
                left: 6,
                expires_at: 7,
                number: 8,
                revoked: true,
                ancestors: vec![id, TokenId::from_bytes([9; 16])].into(),
                chain: vec!["a".into(), name(), "c".into()],
                capabilities: vec!["kubectl_get".into()],
            }),
            Change::Left { id, left: 9 },
            Change::Ended { id },
            Change::Paired(Paired { generation: 10, sequence: 11 }),
            Change::Lineage(Lineage { own: 12, follows: 13 }),
            Change::RegisterAt { sequence: 14 },
            Change::Whole,
        ]
    }

    #[test]
    fn what_is_written_is_read_back_and_nothing_shorter_is() {
        let mut together = Vec::new();
        for change in all() {
            let mut bytes = Vec::new();
            change.write(&mut bytes);
            assert_eq!(Change::read(&mut bytes.as_slice()), Some(change.clone()));
            for cut in 0..bytes.len() {
                assert_eq!(Change::read(&mut &bytes[..cut]), None, "{change:?} cut at {cut}");
            }
            together.extend_from_slice(&bytes);
        }
        let mut rest = together.as_slice();
        let read = std::iter::from_fn(|| Change::read(&mut rest)).collect::<Vec<_>>();
        assert_eq!(read, all());
        assert!(rest.is_empty());
        assert_eq!(Change::read(&mut [200_u8].as_slice()), None);
    }
}

//! Every bound, with its reason. Nothing in Remit grows without one.

use std::time::Duration;

/// A token's text, in bytes. A token travels in a header; header lists are capped at 16 KiB, and four
/// tokens must fit beside the rest.
pub const TOKEN_BYTES: usize = 4096;
/// A resource's or pattern's text, in bytes.
pub const RESOURCE_BYTES: usize = 1024;
/// An agent's name, in bytes: a DNS name or a SPIFFE path segment fits.
pub const AGENT_NAME_BYTES: usize = 256;
/// A capability's name, in bytes.
pub const CAPABILITY_BYTES: usize = 128;
/// Hops in a chain, whatever the policy says: the policy's own maximum.
pub const CHAIN_HOPS: usize = 16;
/// Agents in a chain: one more than hops.
pub const CHAIN_AGENTS: usize = 17;
/// Capabilities in one token. What fits into a token of [`TOKEN_BYTES`] and no more.
pub const TOKEN_CAPABILITIES: usize = 256;
/// Resource patterns in one token. Each is tried at each use.
pub const TOKEN_PATTERNS: usize = 64;
/// Entries of a token's audience.
pub const TOKEN_AUDIENCE: usize = 16;
/// Free text that a caller attaches: `task`, `request_id`, `note`.
pub const TEXT_BYTES: usize = 256;
/// A call's HTTP method, in bytes.
pub const METHOD_BYTES: usize = 32;
/// Entries of one list of a watcher's filter. Each is compared with each event.
pub const FILTER_ENTRIES: usize = 64;
/// A stream's name, in bytes. Ours have 16; one that a watcher names is shown back to it.
pub const STREAM_ID_BYTES: usize = 64;
/// Items of a batch.
pub const BATCH_ITEMS: usize = 100;
/// The context of a request, in bytes as [`within_bounds`](super::facts::within_bounds) counts them.
pub const CONTEXT_BYTES: usize = 8 * 1024;
/// Nesting of the context.
pub const CONTEXT_DEPTH: usize = 8;
/// A condition's text, in bytes: some twenty comparisons. Its parser and its evaluation take stack for nesting.
pub const CONDITION_BYTES: usize = 2048;
/// Steps that all conditions of one request may take together: some milliseconds at the worst.
pub const CONDITION_STEPS: u64 = 100_000;
/// Entries of `conditions`. Each is looked at for each request.
pub const CONDITIONS: usize = 1000;
/// Different texts of conditions in one policy file. Each is parsed when the file is loaded.
pub const CONDITION_TEXTS: usize = 1000;
/// Subjects, resources or actions that the policy lists for searches: as many as it may have agents with rules.
pub const ENTITIES: usize = 100_000;
/// What one page of a search looks at: each costs a decision.
pub const SEARCH_CANDIDATES: usize = 1000;
/// Results of a page of a search for which no limit is asked.
pub const SEARCH_RESULTS: usize = 100;
/// The body of a batch over HTTP, in bytes: as a gRPC message.
pub const BATCH_BODY_BYTES: usize = 1024 * 1024;
/// The body of any other request over HTTP, in bytes: context and three sets of properties, with room.
pub const BODY_BYTES: usize = 256 * 1024;
/// The policy file, in bytes.
pub const POLICY_BYTES: usize = 8 * 1024 * 1024;
/// Nesting of the policy file. The deepest known key is at 6.
pub const POLICY_DEPTH: usize = 32;
/// A token's lifetime, whatever the policy says.
pub const TTL_SECONDS: u64 = 3600;
/// Integers in JSON that every reader agrees on are below this (RFC 8259 §6).
pub const JSON_INTEGER: u64 = 1 << 53;
/// How far another node's clock may run ahead of ours for tokens that this system minted.
pub const CLOCK_SKEW_SECONDS: u64 = 5;
/// A revoked id that the ledger doesn't know is kept this long: the longest lifetime and a margin.
pub const UNKNOWN_REVOCATION_SECONDS: u64 = TTL_SECONDS + 10;
/// Ids revoked without being known, at most. Full refuses to mint; nothing is forgotten.
pub const UNKNOWN_REVOCATIONS: usize = 100_000;
/// Agents with a revocation of their own, at most. Only names that policy knows are revoked.
pub const AGENT_REVOCATIONS: usize = 1_000_000;
/// The same `request_id` by the same caller within this time is a retry and not a reuse attempt.
pub const RETRY_SECONDS: u64 = 10;
/// Left of the caller's deadline when a use is spent: less, and the answer would come too late.
pub const DEADLINE_MARGIN: Duration = Duration::from_millis(5);
/// A request that names no deadline has this one.
pub const REQUEST_DEADLINE: Duration = Duration::from_secs(2);
/// How long an answer waits for a place in the audit queue.
pub const AUDIT_RESERVE: Duration = Duration::from_millis(50);
/// A log whose oldest unwritten line is older than this does not record.
pub const AUDIT_STALL: Duration = Duration::from_millis(500);
/// A state directory whose oldest change waits longer than this for the disk takes no further ones.
pub const STATE_STALL: Duration = Duration::from_millis(500);
/// How long an answer waits for the disk on which it is to be durable. A request has no more time than that.
pub const STATE_WAIT: Duration = Duration::from_secs(2);
/// Agents among which a near name is looked for: more would cost more than a decision.
pub const SUGGESTION_AGENTS: usize = 500;
/// The longest name for which a near one is looked for.
pub const SUGGESTION_BYTES: usize = 48;
/// What names and patterns of one token may have together, in bytes: with the rest a token of [`TOKEN_BYTES`].
pub const TOKEN_CONTENT_BYTES: usize = 3072;
/// Capabilities that one event lists.
pub const EVENT_CAPABILITIES: usize = 32;
/// HMAC keys in a keyring. Each is tried for each token.
pub const KEYS: usize = 4;
/// An HMAC key's length, in bytes: SHA-256's output (RFC 2104 §3).
pub const KEY_BYTES: usize = 32;
/// A key file's length, in bytes.
pub const KEY_FILE_BYTES: usize = 4096;

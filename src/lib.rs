//! Remit, a policy decision point for systems of AI agents. This is the map: one sentence a room, from the ground up.
//!
//! An Authorize comes in through [`transport`] (who is on the other end), [`identity`] makes a caller of it, [`grpc`] takes
//! the message apart, [`engine`] asks [`keyring`], [`state`] and the pure functions of [`domain`], and leaves the answer
//! with [`events`]; CONTRIBUTING.md names the files on that way. Each room begins with its sentence here, and
//! `tests/architecture.rs` holds which may import which.
//!
//! | room | |
//! |---|---|
//! | [`domain`] | What the words mean, and the two pure functions that decide. |
//! | [`digest`] | SHA-256 of what is not a key. |
//! | [`json`] | JSON from strangers, read strictly. |
//! | [`agent_card`] | The security part of an A2A agent card. |
//! | [`keyring`] | Seals and opens tokens; the only room that knows a key. |
//! | [`state`] | Counts uses, and knows what is revoked. |
//! | [`events`] | Numbers, records and streams what was decided. |
//! | [`baseline`] | Learns what each agent usually does, and says what is new. |
//! | [`audit`] | Reads audit logs: are they what was written? |
//! | [`policy_file`] | Reads, checks and watches the policy; the last good one stays. |
//! | [`transport`] | Sockets, TLS, who is on the other end of a connection, and HTTP/2 with its limits. |
//! | [`identity`] | From evidence to a caller. |
//! | [`engine`] | The verbs, one file each. |
//! | [`api`] | The messages that `proto/` generates. |
//! | [`door`] | The first thing of every request: is there room, and who asks? |
//! | [`decision_feed`] | The decisions as they are made, for who may watch them. |
//! | [`proxied`] | A request that a proxy holds, and whether it passes. |
//! | [`readiness`] | How the process is doing. |
//! | [`grpc`] | The gRPC face: services, who asks, messages, statuses. |
//! | [`http`] | The HTTP face: decisions for `AuthZEN` clients and for proxies, OAuth, events, metrics, health, published keys. |
//! | [`istio`] | Communication rules as Istio's `AuthorizationPolicy` objects, and back. |
//! | [`doctor`] | What in a proxy's configuration would open a hole, or close everything. |
//! | [`telemetry`] | The log: what operators read. |
//! | [`export`] | Events to a collector, as log records and spans. |
//! | [`shutdown`] | The first signal drains, the second stops. |
//! | [`config`] | The sum of the rooms' own configurations; the only reader of settings and environment. |
//! | [`server`] | Builds every room from the configuration, joins them, and runs until shutdown. |
//! | [`dev_folder`] | What `serve --dev` needs, made in one folder. |
//! | [`cli`] | The command line: one file a command. |

pub mod agent_card;
pub mod api;
pub mod audit;
pub mod baseline;
pub mod cli;
pub mod config;
pub mod decision_feed;
pub mod dev_folder;
pub mod digest;
pub mod doctor;
pub mod domain;
pub mod door;
pub mod engine;
pub mod events;
pub mod export;
pub mod grpc;
pub mod http;
pub mod identity;
pub mod istio;
pub mod json;
pub mod keyring;
pub mod policy_file;
pub mod proxied;
pub mod readiness;
pub mod server;
pub mod shutdown;
pub mod state;
pub mod telemetry;
pub mod transport;

//! A request that a proxy holds, and whether it passes.
//!
//! Each wire makes a [`Held`] of what its proxy tells (Envoy over gRPC, nginx and Caddy over HTTP), and puts the [`Verdict`]
//! in its own words. Between them everything is the same: who sent it, where it goes, what it means, and one
//! question to the engine. What can be read two ways is refused: a guess of ours that is not the upstream's is a hole.

mod body;
mod config;
mod headers;
mod judge;
mod rpc;
mod rules;
mod sender;
mod target;
mod template;
mod verdict;
mod xfcc;

pub use body::Body;
pub use config::{Config, InvalidRule, RuleConfig};
pub use headers::{Headers, TOKEN_HEADER};
pub use judge::Gatekeeper;
pub use rules::Rules;
pub use verdict::{OUR_HEADERS, Passed, Refused, Status, Verdict};

/// A request, as the proxy tells of it. It has no `Debug`: headers hold tokens.
pub struct Held<'a> {
    /// The HTTP method.
    pub method: &'a str,
    /// The path with its query, not decoded.
    pub target: &'a str,
    /// The `Host` or `:authority`.
    pub host: &'a str,
    /// Every header.
    pub headers: Headers<'a>,
    /// The body, as far as it is known.
    pub body: Body<'a>,
    /// Who is on the other end of the proxy's own connection, by its verified certificate: a URI, else a DNS name, else
    /// a subject; empty without one.
    pub source_principal: &'a str,
    /// That certificate, URL-encoded PEM; empty where the proxy doesn't tell.
    pub source_certificate: &'a str,
    /// The same of the proxy's own certificate.
    pub destination_principal: &'a str,
    /// What the operator wrote on the route.
    pub route: Route<'a>,
}

/// What the operator wrote on the proxy's route.
#[derive(Clone, Copy, Default)]
pub struct Route<'a> {
    /// `remit-capability`.
    pub capability: Option<&'a str>,
    /// `remit-resource`.
    pub resource: Option<&'a str>,
    /// `remit-destination`.
    pub destination: Option<&'a str>,
}

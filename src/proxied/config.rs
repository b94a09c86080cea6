//! `[ext_authz]`: what requests mean.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// `[ext_authz]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Agents in front of the proxy whose `x-forwarded-client-cert` is believed. None by default.
    pub xfcc_from: Vec<String>,
    /// Proxies that tell their client's certificate over HTTP, by their agents: the header that each always sets itself,
    /// whatever its client sent. None by default: what a proxy does not set is the client's own word.
    pub client_certificate_header: BTreeMap<String, String>,
    /// What requests mean; the first that fits. One without a capability does not fit where a nearer one guards the path.
    pub rules: Vec<RuleConfig>,
}

/// A rule: which requests it is for, and what they mean. Without `capability` and `resource` they are calls between agents, by
/// the policy's `communication_rules` alone.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct RuleConfig {
    /// Hosts without ports; absent: any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hosts: Option<Vec<String>>,
    /// HTTP methods; absent: any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub methods: Option<Vec<String>>,
    /// A path, where `{name}` stands for one segment, and `{name*}` at the end for one or more. Required.
    pub path: String,
    /// Methods of JSON-RPC requests in the body; absent: the body is not looked at.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rpc: Option<Vec<String>>,
    /// Tools that are called by `tools/call`; absent: any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tools: Option<Vec<String>>,
    /// The capability that is used: a text with `{name}` for what stands in the path, and `{tool}`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub capability: Option<String>,
    /// What it is used on: likewise, and with `{arguments.name}` for a text among the tool's arguments.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resource: Option<String>,
}

/// A setting of `[ext_authz]` that can't be acted on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidRule(pub(super) String);

impl std::fmt::Display for InvalidRule {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "[ext_authz] {}", self.0)
    }
}

impl std::error::Error for InvalidRule {}

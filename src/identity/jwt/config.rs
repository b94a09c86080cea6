//! `[[identity.jwt]]`: one issuer a section.

use serde::{Deserialize, Serialize};

/// An issuer whose JWTs are evidence, as it stands in `remit.toml`. `Terms` is the same, read.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// `iss`, exactly as it stands in the tokens. Required.
    pub issuer: String,
    /// Values of `aud` that mean this service; a token needs one of them. Required: one, or a list.
    pub audience: Audience,
    /// Where the issuer's keys are. This or `discovery`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub jwks_uri: Option<String>,
    /// The issuer's metadata, which says where its keys are. This or `jwks_uri`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub discovery: Option<Discovery>,
    /// The algorithms that its tokens may be signed with. Default: all that there are.
    pub algorithms: Vec<Algorithm>,
    /// The claim that names the agent. Without it the issuer names users and never an agent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agent_claim: Option<String>,
    /// The claims that are carried on with the identity. None by default.
    pub forward_claims: Vec<String>,
    /// Whether its word is enough to be administrator, auditor or enforcement point. Default false.
    pub privileged: bool,
    /// Whether its ID tokens are taken in a token exchange. They are never evidence of a caller. Default false.
    pub id_tokens: bool,
    /// The longest lifetime, `exp` less `iat`, of a token, 1 to 86,400. Default 3600.
    pub max_lifetime_seconds: u64,
    /// How often the keys are fetched, 1 to 86,400. Default 300.
    pub refresh_seconds: u64,
    /// How long keys are used after they were fetched when newer ones can't be had; more than `refresh_seconds`, at
    /// most 604,800. Default 3600.
    pub max_stale_seconds: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            issuer: String::new(),
            audience: Audience::default(),
            jwks_uri: None,
            discovery: None,
            algorithms: Algorithm::ALL.to_vec(),
            agent_claim: None,
            forward_claims: Vec::new(),
            privileged: false,
            id_tokens: false,
            max_lifetime_seconds: 3600,
            refresh_seconds: 300,
            max_stale_seconds: 3600,
        }
    }
}

/// Values of `aud`: in a file one, or a list.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(from = "OneOrMore")]
pub struct Audience(pub Vec<String>);

#[derive(Deserialize)]
#[serde(untagged, expecting = "an audience is a text or a list of texts")]
enum OneOrMore {
    One(String),
    More(Vec<String>),
}

impl From<OneOrMore> for Audience {
    fn from(given: OneOrMore) -> Self {
        match given {
            OneOrMore::One(audience) => Self(vec![audience]),
            OneOrMore::More(audiences) => Self(audiences),
        }
    }
}

/// Where an issuer's metadata is.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(untagged, expecting = "discovery is true or a URL")]
pub enum Discovery {
    /// `true`: `/.well-known/openid-configuration` after the issuer (OIDC Discovery §4).
    Standard(bool),
    /// At this URL, such as that of RFC 8414 §3, or one inside the cluster.
    Url(String),
}

/// An algorithm of signatures (RFC 7518 §3.1, RFC 8037 §3.1). Symmetric ones and `none` are not among them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub enum Algorithm {
    /// RSA PKCS#1 v1.5 with SHA-256.
    #[serde(rename = "RS256")]
    Rs256,
    /// RSA-PSS with SHA-256.
    #[serde(rename = "PS256")]
    Ps256,
    /// ECDSA on P-256 with SHA-256.
    #[serde(rename = "ES256")]
    Es256,
    /// ECDSA on P-384 with SHA-384.
    #[serde(rename = "ES384")]
    Es384,
    /// Ed25519.
    #[serde(rename = "EdDSA")]
    EdDsa,
}

impl Algorithm {
    /// Every algorithm.
    pub const ALL: [Self; 5] = [Self::Rs256, Self::Ps256, Self::Es256, Self::Es384, Self::EdDsa];

    /// Its name in headers and keys.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Rs256 => "RS256",
            Self::Ps256 => "PS256",
            Self::Es256 => "ES256",
            Self::Es384 => "ES384",
            Self::EdDsa => "EdDSA",
        }
    }

    /// The algorithm of this name, written exactly so (RFC 7515 §4.1.1).
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|algorithm| algorithm.name() == name)
    }
}

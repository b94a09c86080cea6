//! The kinds of tokens, as requests name them (RFC 8693 §3).

/// A capability token.
pub(super) const CAPABILITY: &str = "urn:remit:token-type:capability";
/// An identity that Remit signed.
pub(super) const IDENTITY: &str = "urn:remit:token-type:identity";
/// RFC 8693 §3.
pub(super) const ACCESS_TOKEN: &str = "urn:ietf:params:oauth:token-type:access_token";
/// RFC 8693 §3.
pub(super) const JWT: &str = "urn:ietf:params:oauth:token-type:jwt";
/// RFC 8693 §3.
pub(super) const ID_TOKEN: &str = "urn:ietf:params:oauth:token-type:id_token";

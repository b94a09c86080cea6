//! The `typ` of every JWT that Remit makes, in one place: a JWT of one kind is never taken for another (RFC 8725 §3.11).

/// A kind of JWT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JwtType {
    /// Who asked somebody else: `x-remit-identity`.
    ForwardedIdentity,
    /// An access token for use without Remit (RFC 9068). Remit makes it and never takes it.
    AccessToken,
    /// The audit log up to some line.
    Checkpoint,
}

impl JwtType {
    /// Every kind.
    pub const ALL: [Self; 3] = [Self::ForwardedIdentity, Self::AccessToken, Self::Checkpoint];

    /// The header's `typ`, compared byte for byte.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ForwardedIdentity => "remit-identity+jwt",
            Self::AccessToken => "at+jwt",
            Self::Checkpoint => "remit-checkpoint+jwt",
        }
    }
}

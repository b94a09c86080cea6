//! From a request's connection and headers to a [`Caller`], remembered as long as nothing it rests on changes.

use std::sync::Arc;

use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderName};

use super::mtls::Certificate;
use super::{Evidence, Identity, Unidentified};
use crate::domain::caller::Caller;
use crate::domain::policy::Policy;
use crate::domain::time::Timestamp;
use crate::transport::{Peer, Standing};

/// A name and nothing else. Believed under `serve --dev` alone.
pub const SELF_ASSERTED_HEADER: &str = "x-remit-agent";

/// An API key.
pub const API_KEY_HEADER: &str = "x-api-key";
/// An identity that Remit signed.
pub const FORWARDED_HEADER: &str = "x-remit-identity";

/// What a connection remembers of its client: read once, and mapped once a policy.
struct Remembered {
    certificate: Arc<Certificate>,
    mapped: Option<(u64, Caller)>,
}

/// A caller, and what was found out on the way.
pub struct Identified {
    /// Who asks.
    pub caller: Caller,
    /// The end of its certificate's time, when it was just mapped and not remembered.
    pub newly_seen_until: Option<Timestamp>,
}

impl Identity {
    /// The caller of a request. A certificate's times are compared at each; its chain is verified anew when the
    /// authorities changed; its name is mapped anew when the policy changed.
    ///
    /// # Errors
    /// Why it is nobody.
    pub fn identify_request(
        &self,
        peer: Option<&Arc<Peer>>,
        headers: &HeaderMap,
        policy: &Policy,
        now: Timestamp,
    ) -> Result<Identified, Unidentified> {
        let told = told(headers)?;
        let Some((peer, remembered)) = peer.map(remembered).transpose()?.flatten() else {
            let caller = self.identify(told, policy, now)?;
            return Ok(Identified { caller, newly_seen_until: None });
        };
        let certificate = &remembered.certificate;
        let is_alone = told.is_nothing();
        if let (Some((revision, caller)), true) = (&remembered.mapped, is_alone)
            && *revision == policy.id.revision
            && certificate.is_current(now)
        {
            return Ok(Identified { caller: caller.clone(), newly_seen_until: None });
        }
        let caller = self.identify(Evidence { certificate: Some(certificate), ..told }, policy, now)?;
        let mapped = Some((policy.id.revision, caller.clone()));
        peer.remember(Arc::new(Remembered { certificate: Arc::clone(certificate), mapped }));
        Ok(Identified { caller, newly_seen_until: Some(certificate.not_after()) })
    }
}

/// Whether a request brings nothing at all that could say who asks, good or bad.
#[must_use]
pub fn shows_nothing(peer: Option<&Arc<Peer>>, headers: &HeaderMap) -> bool {
    let is_anonymous = peer.is_none_or(|peer| peer.standing() == Standing::Anonymous);
    is_anonymous && told(headers).is_ok_and(|told| told.is_nothing())
}

type Connection<'p> = (&'p Arc<Peer>, Arc<Remembered>);

/// What the connection knows of its client; none if it showed no certificate.
fn remembered(peer: &Arc<Peer>) -> Result<Option<Connection<'_>>, Unidentified> {
    match peer.standing() {
        Standing::Anonymous => return Ok(None),
        Standing::NoLongerTrusted => {
            return Err(Unidentified::Unauthenticated("the authority of the client certificate is trusted no longer"));
        }
        Standing::Trusted => {}
    }
    if let Some(remembered) = peer.recall::<Remembered>() {
        return Ok(Some((peer, remembered)));
    }
    let leaf = peer.chain().first().ok_or(Unidentified::Unauthenticated("there is no client certificate"))?;
    let certificate = Certificate::from_der(leaf)
        .map_err(|_| Unidentified::Unauthenticated("the client certificate names nobody that could be read"))?;
    let remembered = Arc::new(Remembered { certificate: Arc::new(certificate), mapped: None });
    peer.remember(Arc::clone(&remembered));
    Ok(Some((peer, remembered)))
}

/// The evidence that the headers bring.
fn told(headers: &HeaderMap) -> Result<Evidence<'_>, Unidentified> {
    Ok(Evidence {
        certificate: None,
        bearer: bearer(headers)?,
        api_key: single(headers, const { HeaderName::from_static(API_KEY_HEADER) }, "x-api-key is not one key")?,
        forwarded: single(
            headers,
            const { HeaderName::from_static(FORWARDED_HEADER) },
            "x-remit-identity is not one identity",
        )?,
        self_asserted: single(
            headers,
            const { HeaderName::from_static(SELF_ASSERTED_HEADER) },
            "x-remit-agent is not one name",
        )?,
    })
}

/// The token of an `authorization: Bearer` (RFC 6750 §2.1). Another scheme is evidence that can't be checked here.
fn bearer(headers: &HeaderMap) -> Result<Option<&str>, Unidentified> {
    let Some(value) = single(headers, AUTHORIZATION, "authorization is not one credential")? else {
        return Ok(None);
    };
    let token = value.split_once(' ').filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
    let token = token.map(|(_, token)| token.trim_start_matches(' ')).filter(|token| !token.is_empty());
    token.map(Some).ok_or(Unidentified::Unauthenticated("authorization is no bearer token"))
}

fn single<'h>(
    headers: &'h HeaderMap,
    name: HeaderName,
    why_not: &'static str,
) -> Result<Option<&'h str>, Unidentified> {
    let mut values = headers.get_all(name).iter();
    let Some(first) = values.next() else { return Ok(None) };
    match (first.to_str(), values.next()) {
        (Ok(value), None) => Ok(Some(value)),
        _ => Err(Unidentified::Unauthenticated(why_not)),
    }
}

//! From a request's connection and headers to a [`Caller`], remembered as long as nothing it rests on changes.

use std::sync::Arc;

use http::HeaderMap;

use super::mtls::Certificate;
use super::{Evidence, Identity, Unidentified};
use crate::domain::caller::Caller;
use crate::domain::policy::Policy;
use crate::domain::time::Timestamp;
use crate::transport::{Peer, Standing};

/// A name and nothing else. Believed under `serve --dev` alone.
pub const SELF_ASSERTED_HEADER: &str = "x-remit-agent";

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
        let self_asserted = self_asserted(headers)?;
        let Some((peer, remembered)) = peer.map(remembered).transpose()?.flatten() else {
            let caller = self.identify(Evidence { certificate: None, self_asserted }, policy, now)?;
            return Ok(Identified { caller, newly_seen_until: None });
        };
        let certificate = &remembered.certificate;
        if let (Some((revision, caller)), None) = (&remembered.mapped, self_asserted)
            && *revision == policy.id.revision
            && certificate.is_current(now)
        {
            return Ok(Identified { caller: caller.clone(), newly_seen_until: None });
        }
        let evidence = Evidence { certificate: Some(certificate), self_asserted };
        let caller = self.identify(evidence, policy, now)?;
        let mapped = Some((policy.id.revision, caller.clone()));
        peer.remember(Arc::new(Remembered { certificate: Arc::clone(certificate), mapped }));
        Ok(Identified { caller, newly_seen_until: Some(certificate.not_after()) })
    }
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

fn self_asserted(headers: &HeaderMap) -> Result<Option<&str>, Unidentified> {
    let mut values = headers.get_all(SELF_ASSERTED_HEADER).iter();
    let Some(first) = values.next() else { return Ok(None) };
    match (first.to_str(), values.next()) {
        (Ok(name), None) => Ok(Some(name)),
        _ => Err(Unidentified::Unauthenticated("x-remit-agent is not one name")),
    }
}

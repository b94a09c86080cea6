//! Who sent a request: the other end of the proxy's own connection, or whom a proxy before it, named in the configuration,
//! says it is.

use super::rules::Rules;
use super::{Held, xfcc};
use crate::domain::agent::AgentName;
use crate::domain::caller::Caller;
use crate::domain::policy::Policy;
use crate::domain::time::Timestamp;
use crate::identity::{Identity, Unidentified};

const XFCC: &str = "x-forwarded-client-cert";

/// The agent that sent the request. Nothing else in the request says who it is.
///
/// # Errors
/// Why it is nobody.
pub(super) fn sender(
    held: &Held<'_>,
    rules: &Rules,
    identity: &Identity,
    policy: &Policy,
    now: Timestamp,
) -> Result<AgentName, Unidentified> {
    let peer = peer(held, identity, policy, now)?;
    if !rules.believes_xfcc_of(peer.as_str()) {
        return Ok(peer);
    }
    let header = held.headers.single(XFCC);
    let header =
        header.map_err(|_| Unidentified::Unauthenticated("x-forwarded-client-cert is there more than once"))?;
    // Without one its client showed no certificate: that is not a request of the proxy's own.
    let header = header.ok_or(Unidentified::Unauthenticated("the proxy before this one tells of no client"))?;
    let uri = xfcc::uri(header).map_err(Unidentified::Unauthenticated)?;
    identity.agent_of_principal(&uri, policy)
}

/// The destination for which the caller asks, if it is not the caller itself. One that the operator wrote is not
/// passed over, also where the caller may not speak for it: the engine refuses that.
pub(super) fn destination<'a>(
    held: &Held<'a>,
    identity: &Identity,
    policy: &'a Policy,
    caller: &Caller,
) -> Option<&'a str> {
    if let Some(name) = held.route.destination {
        return Some(name);
    }
    let scope = policy.enforcement_point(caller.agent().as_str())?;
    let agent = identity.agent_of_principal(held.destination_principal, policy).ok()?;
    scope.destinations.get(&agent).map(AgentName::as_str)
}

/// The agent on the other end of the proxy's connection. Where the proxy tells it twice, both must say the same.
fn peer(held: &Held<'_>, identity: &Identity, policy: &Policy, now: Timestamp) -> Result<AgentName, Unidentified> {
    let Held { source_principal: principal, source_certificate: certificate, .. } = held;
    if certificate.is_empty() {
        if principal.is_empty() {
            return Err(Unidentified::Unauthenticated("the proxy verified no client certificate"));
        }
        return identity.agent_of_principal(principal, policy);
    }
    let agent = identity.agent_of_encoded_certificate(certificate, policy, now)?;
    if !principal.is_empty() && identity.agent_of_principal(principal, policy)? != agent {
        return Err(Unidentified::Unauthenticated("the principal is not the certificate's"));
    }
    Ok(agent)
}

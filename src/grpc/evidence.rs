//! Credentials in messages: verified, and held against what the message says beside them.

use std::sync::Arc;

use super::wire::Malformed;
use crate::api as pb;
use crate::domain::caller::VerifiedIdentity;
use crate::domain::reason::Denial;
use crate::domain::token::is_free_text;
use crate::door::{Door, Visit};
use crate::identity::{Shown, Unidentified};

/// What a credential for an agent turned out to be: its identity, or why policy knows nobody by it.
pub(super) type AgentEvidence = Result<Arc<VerifiedIdentity>, Denial>;

/// Why a credential is not answered.
pub(super) enum NotTold {
    Malformed(Malformed),
    Denied(Denial),
}

/// The evidence for `agent` in a question, if there is some. It is of that agent, or of nobody that policy knows.
pub(super) fn of_agent(
    door: &Door,
    visit: &Visit,
    request: &pb::AuthorizeRequest,
) -> Result<Option<AgentEvidence>, Malformed> {
    use pb::agent_credential::Evidence;
    const FIELD: &str = "agent_credential";
    let Some(pb::AgentCredential { evidence }) = &request.agent_credential else { return Ok(None) };
    if request.agent.is_empty() {
        return Err(Malformed::new("agent", "agent_credential is evidence for agent: name it"));
    }
    let verified = match evidence {
        Some(Evidence::Bearer(token)) => verify(door, visit, Shown::Bearer(token)),
        // It was signed for whoever shows it now, or for Remit itself.
        Some(Evidence::Forwarded(text)) => {
            let receiver = visit.caller.agent().as_str();
            let verified = verify(door, visit, Shown::ForwardedTo(receiver, text));
            verified.or_else(|_| verify(door, visit, Shown::Forwarded(text)))
        }
        None => return Err(Malformed::new(FIELD, "say one of bearer or forwarded, or leave it out")),
    };
    let identity = match verified {
        Ok(identity) => identity,
        Err(Unidentified::Unmapped(denial)) => return Ok(Some(Err(denial))),
        Err(Unidentified::Unauthenticated(_) | Unidentified::SelfAsserted(_)) => return Err(not_good(FIELD)),
    };
    if identity.agent.as_str() != request.agent {
        return Err(Malformed::new(FIELD, "it is good evidence of another agent than agent names"));
    }
    Ok(Some(Ok(identity)))
}

/// The user behind a chain that begins here.
pub(super) struct User {
    /// `jwt:<issuer>#<subject>`.
    pub(super) name: String,
    /// When its evidence expires, in seconds: what is minted lives no longer.
    pub(super) expires_at: u64,
}

/// The user behind a chain that begins here, if there is evidence of one.
pub(super) fn of_user(door: &Door, request: &pb::DelegateRequest) -> Result<Option<User>, Malformed> {
    use pb::user_credential::Evidence;
    const FIELD: &str = "obo_credential";
    let Some(pb::UserCredential { evidence }) = &request.obo_credential else { return Ok(None) };
    let Some(Evidence::Bearer(token)) = evidence else {
        return Err(Malformed::new(FIELD, "say bearer, or leave it out"));
    };
    if !request.parent_token.is_empty() {
        return Err(Malformed::new(FIELD, "below the root the user is the parent's: leave it out"));
    }
    let now = door.engine().clock().now();
    let verified = door.identity().sources().issuers.verify(token, now);
    let jwt = verified.inspect_err(|why| refused(why)).map_err(|_| not_good(FIELD))?;
    if jwt.actor.is_some() || jwt.may_act.is_some() {
        // Who acts, and who may, is for the exchange to compare; here it would be forgotten.
        return Err(Malformed::new(FIELD, "it has act or may_act: exchange it at /oauth2/token, which keeps them"));
    }
    let name = format!("jwt:{}#{}", jwt.issuer, jwt.subject);
    if !is_free_text(&name) {
        return Err(Malformed::new(FIELD, "its issuer and subject are too long, or have control characters"));
    }
    Ok(Some(User { name, expires_at: jwt.expires_at }))
}

/// Whom the evidence is of, where the caller may be told.
pub(super) fn identity(
    door: &Door,
    visit: &Visit,
    request: &pb::VerifyIdentityRequest,
) -> Result<Arc<VerifiedIdentity>, NotTold> {
    use pb::verify_identity_request::Evidence;
    let pb::VerifyIdentityRequest { evidence } = request;
    let engine = door.engine();
    let (policy, caller) = (visit.policy(), &visit.caller);
    engine.may_ask(policy, caller).map_err(NotTold::Denied)?;
    let (field, shown) = match evidence {
        Some(Evidence::Bearer(token)) => ("bearer", Shown::Bearer(token)),
        Some(Evidence::ApiKey(key)) => ("api_key", Shown::ApiKey(key)),
        Some(Evidence::Forwarded(text)) => ("forwarded", Shown::ForwardedTo(caller.agent().as_str(), text)),
        None => {
            let why = "say one of bearer, api_key or forwarded";
            return Err(NotTold::Malformed(Malformed::new("evidence", why)));
        }
    };
    match verify(door, visit, shown) {
        // It was signed for the caller, whoever it is of.
        Ok(identity) if matches!(shown, Shown::ForwardedTo(..)) => Ok(identity),
        Ok(identity) => {
            engine.may_be_told(policy, caller, Some(&identity.agent)).map_err(NotTold::Denied)?;
            Ok(identity)
        }
        Err(Unidentified::Unmapped(denial)) => {
            let told = engine.may_be_told(policy, caller, None);
            Err(NotTold::Denied(told.err().unwrap_or(denial)))
        }
        Err(Unidentified::Unauthenticated(_) | Unidentified::SelfAsserted(_)) => {
            Err(NotTold::Malformed(not_good(field)))
        }
    }
}

fn verify(door: &Door, visit: &Visit, shown: Shown<'_>) -> Result<Arc<VerifiedIdentity>, Unidentified> {
    let now = door.engine().clock().now();
    let verified = door.identity().verify(shown, visit.policy(), now);
    verified.inspect_err(|nobody| {
        if let Unidentified::Unauthenticated(why) = nobody {
            refused(why);
        }
    })
}

/// What is wrong with evidence is for the log alone.
fn refused(why: &str) {
    tracing::debug!(target: "identity", why, "a credential in a message was refused");
}

fn not_good(field: &'static str) -> Malformed {
    Malformed::new(field, "it is no good evidence")
}

impl From<NotTold> for tonic::Status {
    fn from(not_told: NotTold) -> Self {
        match not_told {
            NotTold::Malformed(malformed) => super::status::malformed(&malformed),
            NotTold::Denied(denial) => super::status::refusal(&denial),
        }
    }
}

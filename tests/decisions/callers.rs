//! Who asks, by the evidence that a case gives.

use std::sync::Arc;

use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, SanType, date_time_ymd};
use remit::domain::agent::AgentName;
use remit::domain::caller::{Caller, IdentityMethod, VerifiedIdentity};
use remit::domain::reason::{Denial, Reason};
use remit::domain::time::Timestamp;
use remit::identity::mtls::Certificate;
use remit::identity::{Evidence as Shown, Identity, Unidentified};
use serde_json::{Value, json};

use crate::case::{AgentEvidence, By, CertificateNames, Evidence, Switches};
use crate::harness::World;

const METHODS: [IdentityMethod; 7] = [
    IdentityMethod::Mtls,
    IdentityMethod::Spiffe,
    IdentityMethod::Jwt,
    IdentityMethod::ApiKey,
    IdentityMethod::Forwarded,
    IdentityMethod::EnforcementPoint,
    IdentityMethod::SelfAsserted,
];

/// The caller, or the answer to somebody who is none.
pub(crate) fn caller(world: &World, switches: &Switches, by: &By) -> Result<Result<Caller, Value>, String> {
    let evidence = match by {
        By::Agent(name) => return Ok(Ok(world.caller(name))),
        By::Other(evidence) => evidence,
    };
    let Evidence { agent, method, privileged, claims, certificate, header } = evidence;
    if let Some(agent) = agent {
        let method = method_of(method.as_deref().unwrap_or_default())?;
        return Ok(Ok(world.caller_with(agent, method, *privileged, claims.clone())));
    }
    let identity = Identity::new(switches.identity.clone(), switches.dev).map_err(|error| error.to_string())?;
    let certificate = certificate.as_ref().map(made).transpose()?;
    let shown = Shown { certificate: certificate.as_ref(), self_asserted: header.as_deref(), ..Shown::default() };
    Ok(identity.identify(shown, &world.engine.policy().policy, world.now()).map_err(|nobody| answer(&nobody)))
}

/// What was shown for an agent, as a door hands it to the engine.
pub(crate) fn agent_evidence(
    shown: &AgentEvidence,
    now: Timestamp,
) -> Result<Result<VerifiedIdentity, Denial>, String> {
    let AgentEvidence { agent, method, subject, issuer, claims } = shown;
    let method = method_of(method)?;
    let Some(agent) = agent else {
        return Ok(Err(Denial::new(Reason::IdentityUnmapped, format!("{subject} belongs to no agent"))));
    };
    let agent = AgentName::parse(agent).map_err(|error| error.to_string())?;
    let (subject, issuer) = (subject.as_str().into(), issuer.as_str().into());
    Ok(Ok(VerifiedIdentity { agent, subject, method, issuer, claims: Arc::new(claims.clone()), verified_at: now }))
}

fn method_of(name: &str) -> Result<IdentityMethod, String> {
    let found = METHODS.into_iter().find(|known| known.as_str() == name);
    found.ok_or_else(|| "`method` is none of the methods of identity".to_owned())
}

fn answer(nobody: &Unidentified) -> Value {
    match nobody {
        Unidentified::Unauthenticated(why) => json!({"reason": "UNAUTHENTICATED", "message": why}),
        Unidentified::SelfAsserted(denial) | Unidentified::Unmapped(denial) => {
            json!({"reason": denial.reason().as_str(), "message": denial.message()})
        }
    }
}

fn made(names: &CertificateNames) -> Result<Certificate, String> {
    let text = |error: rcgen::Error| error.to_string();
    let mut params = CertificateParams::new(names.dns.clone()).map_err(text)?;
    for uri in &names.uris {
        params.subject_alt_names.push(SanType::URI(uri.as_str().try_into().map_err(text)?));
    }
    params.distinguished_name = DistinguishedName::new();
    if let Some(name) = &names.common_name {
        params.distinguished_name.push(DnType::CommonName, name.as_str());
    }
    params.not_before = date_time_ymd(2026, 1, 1);
    params.not_after = date_time_ymd(if names.expired { 2026 } else { 2027 }, 6, 1);
    let key = KeyPair::generate().map_err(text)?;
    let certificate = params.self_signed(&key).map_err(text)?;
    Certificate::from_der(certificate.der()).map_err(|error| error.to_string())
}

//! Who asks, by the evidence that a case gives.

use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, SanType, date_time_ymd};
use remit::domain::caller::{Caller, IdentityMethod};
use remit::identity::mtls::Certificate;
use remit::identity::{Evidence as Shown, Identity, Unidentified};
use serde_json::{Value, json};

use crate::case::{By, CertificateNames, Evidence, Switches};
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
        let found = METHODS.into_iter().find(|known| Some(known.as_str()) == method.as_deref());
        let method = found.ok_or("`method` is none of the methods of identity")?;
        return Ok(Ok(world.caller_with(agent, method, *privileged, claims.clone())));
    }
    let identity = Identity::new(switches.identity.clone(), switches.dev).map_err(|error| error.to_string())?;
    let certificate = certificate.as_ref().map(made).transpose()?;
    let shown = Shown { certificate: certificate.as_ref(), self_asserted: header.as_deref(), ..Shown::default() };
    Ok(identity.identify(shown, &world.engine.policy().policy, world.now()).map_err(|nobody| answer(&nobody)))
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

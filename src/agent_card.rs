//! The security part of an A2A agent card. It is read in the shape of version 1.0 or 0.3, checked, filled with what a server
//! takes as evidence, and written in one of the two. Everything else of a card stays as it is.
//!
//! Sources: A2A 1.0 §4.5 (`SecurityScheme`, `SecurityRequirement`, in `ProtoJSON`) and §8.4 (signatures); A2A 0.3 §5.5,
//! which has the security schemes of `OpenAPI` 3.0.

mod requirement;
mod scheme;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde_json::{Map, Value};

use crate::json;
use requirement::{Requirement, Requirements};
use scheme::Scheme;

/// The most that a card may have, in bytes. Cards of the field have a few thousand.
pub const MOST_BYTES: u64 = 1024 * 1024;

/// Deeper than any card, and shallow enough for every reader.
const MOST_LEVELS: usize = 32;

/// How a card writes its security.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// A2A 1.0: each scheme in a member that names its kind, and `securityRequirements`.
    V1,
    /// A2A 0.3: each scheme with a `type`, and `security`.
    V03,
}

/// What a server takes as evidence of its caller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Evidence {
    /// A client certificate.
    ClientCertificate,
    /// A JWT of this `OpenID` provider.
    OpenIdConnect {
        /// Where the provider describes itself.
        discovery: String,
        /// For people: which issuer, which audience.
        description: String,
    },
    /// A JWT of an issuer that describes itself nowhere.
    BearerJwt {
        /// For people: which issuer, which audience.
        description: String,
    },
    /// A key in this header.
    ApiKey {
        /// The header's name.
        header: String,
    },
}

/// All that a server takes as evidence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offer {
    /// Whether nobody gets in without a client certificate, whatever else they have.
    pub is_certificate_required: bool,
    /// Each of them is enough by itself, apart from that.
    pub evidence: Vec<Evidence>,
}

/// A card that says what its server takes.
#[derive(Clone, Debug, PartialEq)]
pub struct Filled {
    /// The card.
    pub card: Map<String, Value>,
    /// The names of the schemes that were put in, in order.
    pub schemes: Vec<String>,
    /// What its owner should know about the change.
    pub warnings: Vec<String>,
}

/// Why a card can't be filled: where, and what is wrong there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidCard {
    place: String,
    why: String,
}

impl InvalidCard {
    fn new(place: impl Into<String>, why: impl Into<String>) -> Self {
        Self { place: place.into(), why: why.into() }
    }
}

impl fmt::Display for InvalidCard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.why)
    }
}

impl std::error::Error for InvalidCard {}

/// The card, with the schemes of the offer and the requirements that follow from it, in the wanted shape. Schemes of
/// other names and the requirements of skills stay, rewritten where the card had them in the other shape. Signatures stay
/// only if nothing changed.
///
/// # Errors
/// The text is no strict JSON object, a scheme or a requirement is not of its form, or a requirement names a scheme that
/// the card doesn't declare.
pub fn fill(text: &[u8], offer: &Offer, shape: Shape) -> Result<Filled, InvalidCard> {
    let mut card =
        json::parse_object(text, MOST_LEVELS).map_err(|error| InvalidCard::new("the card", error.to_string()))?;
    refuse_other_spellings(&card)?;
    let signatures = card.remove(SIGNATURES).filter(|signatures| !matches!(signatures, Value::Null));
    let unsigned = signatures.is_some().then(|| card.clone());
    let mut schemes = read_schemes(&card)?;
    let declared: BTreeSet<String> = schemes.keys().cloned().collect();
    let had = Requirements::read(&card, "", &declared)?;
    let mut warnings = Vec::new();
    rewrite_skills(&mut card, &declared, shape)?;

    let ours = name_all(&offer.evidence);
    for (name, evidence) in &ours {
        let scheme = Scheme::of(evidence);
        if schemes.insert(name.clone(), scheme.clone()).is_some_and(|old| !old.says_the_same(&scheme)) {
            warnings.push(format!("the scheme {name} was another one, and is replaced"));
        }
    }
    let wanted = requirements_of(&ours, offer.is_certificate_required);
    if had.as_ref().is_some_and(|had| had.list != wanted) {
        warnings.push("the card's requirements were others, and are replaced".to_owned());
    }
    Requirements { list: wanted }.write(&mut card, shape);
    card.insert(SCHEMES.to_owned(), write_schemes(&schemes, shape)?);
    match signatures {
        Some(signatures) if unsigned.as_ref() == Some(&card) => {
            card.insert(SIGNATURES.to_owned(), signatures);
        }
        Some(_) => {
            warnings.push("the card was signed, and has changed: its signatures are dropped, sign it again".to_owned());
        }
        None => {}
    }
    Ok(Filled { card, schemes: ours.into_iter().map(|(name, _)| name).collect(), warnings })
}

const SCHEMES: &str = "securitySchemes";
const SIGNATURES: &str = "signatures";

/// `ProtoJSON` readers take these names too, and would find the same thing twice.
fn refuse_other_spellings(card: &Map<String, Value>) -> Result<(), InvalidCard> {
    let spellings = [("security_schemes", SCHEMES), ("security_requirements", requirement::V1_MEMBER)];
    match spellings.iter().find(|(other, _)| card.contains_key(*other)) {
        Some((other, usual)) => Err(InvalidCard::new(*other, format!("write {usual}"))),
        None => Ok(()),
    }
}

fn read_schemes(card: &Map<String, Value>) -> Result<BTreeMap<String, Scheme>, InvalidCard> {
    let schemes = match card.get(SCHEMES) {
        None | Some(Value::Null) => return Ok(BTreeMap::new()),
        Some(Value::Object(schemes)) => schemes,
        Some(_) => return Err(InvalidCard::new(SCHEMES, "it has to be an object: names and their schemes")),
    };
    let read = |(name, value): (&String, &Value)| {
        let scheme = Scheme::read(value).map_err(|why| InvalidCard::new(format!("{SCHEMES}.{name}"), why))?;
        Ok((name.clone(), scheme))
    };
    schemes.iter().map(read).collect()
}

fn write_schemes(schemes: &BTreeMap<String, Scheme>, shape: Shape) -> Result<Value, InvalidCard> {
    let write = |(name, scheme): (&String, &Scheme)| {
        let value = scheme.write(shape).map_err(|why| InvalidCard::new(format!("{SCHEMES}.{name}"), why))?;
        Ok((name.clone(), value))
    };
    Ok(Value::Object(schemes.iter().map(write).collect::<Result<_, _>>()?))
}

/// A skill may require more than the card does.
fn rewrite_skills(card: &mut Map<String, Value>, declared: &BTreeSet<String>, shape: Shape) -> Result<(), InvalidCard> {
    let skills = match card.get_mut("skills") {
        None | Some(Value::Null) => return Ok(()),
        Some(Value::Array(skills)) => skills,
        Some(_) => return Err(InvalidCard::new("skills", "it has to be a list")),
    };
    for (index, skill) in skills.iter_mut().enumerate() {
        let place = format!("skills[{index}].");
        let Value::Object(skill) = skill else {
            return Err(InvalidCard::new(place.trim_end_matches('.'), "it has to be an object"));
        };
        if let Some(required) = Requirements::read(skill, &place, declared)? {
            required.rewrite(skill, shape);
        }
    }
    Ok(())
}

/// Names that say what it is, and from the second of a kind on a number.
fn name_all(evidence: &[Evidence]) -> Vec<(String, &Evidence)> {
    let mut seen: BTreeMap<&str, usize> = BTreeMap::new();
    let mut name = |evidence: &Evidence| {
        let kind = match evidence {
            Evidence::ClientCertificate => MTLS,
            Evidence::OpenIdConnect { .. } => "oidc",
            Evidence::BearerJwt { .. } => "bearer",
            Evidence::ApiKey { .. } => "apiKey",
        };
        let count = seen.entry(kind).and_modify(|count| *count = count.saturating_add(1)).or_insert(1);
        if *count == 1 { kind.to_owned() } else { format!("{kind}{count}") }
    };
    evidence.iter().map(|evidence| (name(evidence), evidence)).collect()
}

const MTLS: &str = "mtls";

/// One of these is enough. Where the certificate is required it stands in each.
fn requirements_of(evidence: &[(String, &Evidence)], is_certificate_required: bool) -> Vec<Requirement> {
    let one = |(name, _): &(String, &Evidence)| {
        let certificate = is_certificate_required.then(|| (MTLS.to_owned(), Vec::new()));
        [(name.clone(), Vec::new())].into_iter().chain(certificate).collect()
    };
    evidence.iter().map(one).collect()
}

#[cfg(test)]
mod tests;

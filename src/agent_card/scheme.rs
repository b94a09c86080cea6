//! One way to authenticate, as a card declares it.

use serde_json::{Map, Value, json};

use super::{Evidence, Shape};

/// A declared scheme, and how it was written.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Scheme {
    kind: Kind,
    /// What it says, in the words of version 1.0.
    body: Map<String, Value>,
    /// The text that it had in a card, and the one shape that the text is of.
    written: Option<(Shape, Value)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    ApiKey,
    Http,
    OAuth2,
    OpenIdConnect,
    MutualTls,
}

const KINDS: [Kind; 5] = [Kind::ApiKey, Kind::Http, Kind::OAuth2, Kind::OpenIdConnect, Kind::MutualTls];

/// The flows of OAuth 2.0 that a card may name; version 0.3 doesn't know the last.
const FLOWS: [&str; 5] = ["authorizationCode", "clientCredentials", "implicit", "password", DEVICE_CODE];
const DEVICE_CODE: &str = "deviceCode";

impl Kind {
    /// The member of version 1.0.
    const fn member(self) -> &'static str {
        match self {
            Self::ApiKey => "apiKeySecurityScheme",
            Self::Http => "httpAuthSecurityScheme",
            Self::OAuth2 => "oauth2SecurityScheme",
            Self::OpenIdConnect => "openIdConnectSecurityScheme",
            Self::MutualTls => "mtlsSecurityScheme",
        }
    }

    /// The `type` of version 0.3.
    const fn word(self) -> &'static str {
        match self {
            Self::ApiKey => "apiKey",
            Self::Http => "http",
            Self::OAuth2 => "oauth2",
            Self::OpenIdConnect => "openIdConnect",
            Self::MutualTls => "mutualTLS",
        }
    }

    /// What it can't be without, in the words of version 1.0.
    const fn required(self) -> &'static [&'static str] {
        match self {
            Self::ApiKey => &["name", "location"],
            Self::Http => &["scheme"],
            Self::OpenIdConnect => &["openIdConnectUrl"],
            Self::OAuth2 | Self::MutualTls => &[],
        }
    }
}

impl Scheme {
    /// The scheme for this evidence.
    pub(super) fn of(evidence: &Evidence) -> Self {
        let (kind, body) = match evidence {
            Evidence::ClientCertificate => (Kind::MutualTls, json!({})),
            Evidence::OpenIdConnect { discovery, description } => {
                (Kind::OpenIdConnect, json!({"openIdConnectUrl": discovery, "description": description}))
            }
            Evidence::BearerJwt { description } => {
                (Kind::Http, json!({"scheme": "Bearer", "bearerFormat": "JWT", "description": description}))
            }
            Evidence::ApiKey { header } => (Kind::ApiKey, json!({"location": "header", "name": header})),
        };
        Self { kind, body: body.as_object().cloned().unwrap_or_default(), written: None }
    }

    /// Reads one of either shape, or of both where they name the same kind: some servers write both for old readers.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn read(value: &Value) -> Result<Self, String> {
        let object = value.as_object().ok_or("it has to be an object")?;
        let members: Vec<Kind> = KINDS.into_iter().filter(|kind| object.contains_key(kind.member())).collect();
        let word = object.get("type").map(kind_of_word).transpose()?;
        let (kind, body, shape) = match (members.as_slice(), word) {
            ([], None) => return Err(format!("it has no member that says its kind, as {}", names(&KINDS))),
            ([], Some(kind)) => (kind, body_of_v03(kind, object), Some(Shape::V03)),
            ([kind], None) => (*kind, body_of_v1(*kind, object)?, Some(Shape::V1)),
            ([kind], Some(word)) if *kind == word => (*kind, body_of_v1(*kind, object)?, None),
            ([kind], Some(word)) => {
                return Err(format!("its member {} and its type {} disagree", kind.member(), word.word()));
            }
            (several, _) => return Err(format!("it has more than one kind: {}", names(several))),
        };
        check(kind, &body)?;
        Ok(Self { kind, body, written: shape.map(|shape| (shape, value.clone())) })
    }

    /// Whether the other is the same scheme, however it is written.
    pub(super) fn says_the_same(&self, other: &Self) -> bool {
        self.kind == other.kind && self.body == other.body
    }

    /// The scheme in this shape; one that was read in it stays as it was.
    ///
    /// # Errors
    /// The shape has no words for it.
    pub(super) fn write(&self, shape: Shape) -> Result<Value, String> {
        match (&self.written, shape) {
            (Some((written, value)), _) if *written == shape => Ok(value.clone()),
            (_, Shape::V1) => self.write_v1(),
            (_, Shape::V03) => self.write_v03(),
        }
    }

    fn write_v1(&self) -> Result<Value, String> {
        if self.kind == Kind::OAuth2 {
            one_flow(&self.body)?;
        }
        Ok(Value::Object(Map::from_iter([(self.kind.member().to_owned(), Value::Object(self.body.clone()))])))
    }

    fn write_v03(&self) -> Result<Value, String> {
        if flows(&self.body).contains(&DEVICE_CODE) {
            return Err(format!("version 0.3 has no flow {DEVICE_CODE}: leave the scheme away, or write version 1.0"));
        }
        let mut object = self.body.clone();
        object.insert("type".to_owned(), self.kind.word().into());
        if self.kind == Kind::ApiKey {
            rename(&mut object, "location", "in");
        }
        Ok(Value::Object(object))
    }
}

fn kind_of_word(word: &Value) -> Result<Kind, String> {
    let kind = KINDS.into_iter().find(|kind| word == kind.word());
    kind.ok_or_else(|| format!("its type has to be one of {}", KINDS.map(Kind::word).join(", ")))
}

fn body_of_v1(kind: Kind, object: &Map<String, Value>) -> Result<Map<String, Value>, String> {
    let body = object.get(kind.member()).and_then(Value::as_object).cloned();
    let body = body.ok_or_else(|| format!("{} has to be an object", kind.member()))?;
    if kind == Kind::OAuth2 {
        one_flow(&body)?;
    }
    Ok(body)
}

fn body_of_v03(kind: Kind, object: &Map<String, Value>) -> Map<String, Value> {
    let mut body = object.clone();
    body.remove("type");
    if kind == Kind::ApiKey {
        rename(&mut body, "in", "location");
    }
    body
}

fn check(kind: Kind, body: &Map<String, Value>) -> Result<(), String> {
    let text = |member: &str| body.get(member).and_then(Value::as_str).filter(|text| !text.is_empty());
    if let Some(missing) = kind.required().iter().find(|member| text(member).is_none()) {
        return Err(format!("{missing} has to be a text"));
    }
    match (kind, text("location")) {
        (Kind::ApiKey, Some("query" | "header" | "cookie")) => Ok(()),
        (Kind::ApiKey, _) => Err("the key's location has to be query, header or cookie".to_owned()),
        (Kind::OAuth2, _) if flows(body).is_empty() => Err(format!("flows has to name one of {}", FLOWS.join(", "))),
        _ => Ok(()),
    }
}

/// Version 1.0 has exactly one.
fn one_flow(body: &Map<String, Value>) -> Result<(), String> {
    match flows(body).as_slice() {
        [_] => Ok(()),
        [] => Err(format!("flows has to name one of {}", FLOWS.join(", "))),
        several => Err(format!(
            "version 1.0 has one flow a scheme, and this has {}: make it several schemes",
            several.join(", ")
        )),
    }
}

fn flows(body: &Map<String, Value>) -> Vec<&'static str> {
    let flows = body.get("flows").and_then(Value::as_object);
    flows.map_or(Vec::new(), |flows| FLOWS.into_iter().filter(|flow| flows.contains_key(*flow)).collect())
}

fn rename(object: &mut Map<String, Value>, from: &str, to: &str) {
    if let Some(value) = object.remove(from) {
        object.insert(to.to_owned(), value);
    }
}

fn names(kinds: &[Kind]) -> String {
    kinds.iter().map(|kind| kind.member()).collect::<Vec<_>>().join(", ")
}

//! The claims as a payload has them: read strictly (known claims only, each once, of its type, in its range, one story
//! together), and written.

use std::borrow::Cow;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{Claims, TokenId};
use crate::domain::agent::AgentName;
use crate::domain::capability::Capability;
use crate::domain::limits;
use crate::domain::resource::Pattern;

/// Why a payload is not a token's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidClaims(Cow<'static, str>);

impl std::fmt::Display for InvalidClaims {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for InvalidClaims {}

impl<'a> Claims<'a> {
    /// Reads a payload: known claims only, each once, of its type, in its range.
    ///
    /// # Errors
    /// Names the claim that is wrong, never its value.
    pub fn parse(payload: &'a str) -> Result<Self, InvalidClaims> {
        // The error of serde_json can quote a value, so only its place is passed on.
        let wire: Wire<'a> = serde_json::from_str(payload).map_err(|error| {
            InvalidClaims(
                format!("its payload is not the object of a token's claims, at byte {}", error.column()).into(),
            )
        })?;
        wire.into_claims()
    }

    /// The payload's text.
    #[must_use]
    pub fn to_payload(&self) -> String {
        // Serialising strings and integers into memory can't fail; empty text opens nowhere.
        serde_json::to_string(&Wire::from_claims(self)).unwrap_or_default()
    }
}

/// Borrowed where the JSON has no escapes, owned where it has.
#[derive(Deserialize, Serialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

impl Serialize for TokenId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for TokenId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Text::deserialize(deserializer)?;
        Self::parse(&text.0).ok_or_else(|| serde::de::Error::custom("an id is 32 lower-case hex digits"))
    }
}

/// The claims as they stand in the payload.
#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Wire<'a> {
    #[serde(borrow)]
    iss: Text<'a>,
    #[serde(borrow)]
    sub: Text<'a>,
    #[serde(borrow)]
    cap: Vec<Text<'a>>,
    #[serde(borrow)]
    res: Vec<Text<'a>>,
    max_uses: u64,
    iat: u64,
    exp: u64,
    delegatable: bool,
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    jti: Option<TokenId>,
    #[serde(borrow, default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    kid: Option<Text<'a>>,
    #[serde(borrow, default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    chain: Option<Vec<Text<'a>>>,
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    root: Option<TokenId>,
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    par: Option<Vec<TokenId>>,
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    max_depth: Option<u64>,
    #[serde(borrow, default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    aud: Option<Vec<Text<'a>>>,
    #[serde(borrow, default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    obo: Option<Text<'a>>,
    #[serde(borrow, default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    task: Option<Text<'a>>,
}

/// An optional claim may be absent; `null` is not absent.
fn present<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}

impl<'a> Wire<'a> {
    fn into_claims(self) -> Result<Claims<'a>, InvalidClaims> {
        let Self {
            iss,
            sub,
            cap,
            res,
            max_uses,
            iat,
            exp,
            delegatable,
            jti,
            kid,
            chain,
            root,
            par,
            max_depth,
            aud,
            obo,
            task,
        } = self;
        let claims = Claims {
            issuer: agent("iss", iss)?,
            holder: agent("sub", sub)?,
            capabilities: capabilities(cap)?,
            resources: patterns(res)?,
            max_uses: uses(max_uses)?,
            issued_at: seconds("iat", iat)?,
            expires_at: seconds("exp", exp)?,
            delegatable,
            id: jti,
            key_id: kid.map(|kid| free_text("kid", kid)).transpose()?,
            chain: agents("chain", limits::CHAIN_AGENTS, chain.unwrap_or_default())?,
            ancestors: par.unwrap_or_default(),
            max_depth: max_depth.map(depth).transpose()?,
            audience: audience(aud)?,
            on_behalf_of: obo.map(|obo| free_text("obo", obo)).transpose()?,
            task: task.map(|task| free_text("task", task)).transpose()?,
        };
        consistent(claims, root)
    }

    fn from_claims(claims: &'a Claims<'a>) -> Self {
        let text = |value: &'a Cow<'a, str>| Text(Cow::Borrowed(value.as_ref()));
        let texts = |values: &'a [Cow<'a, str>]| values.iter().map(text).collect::<Vec<_>>();
        let root = claims.ancestors.first().copied().or(claims.id);
        Self {
            iss: text(&claims.issuer),
            sub: text(&claims.holder),
            cap: texts(&claims.capabilities),
            res: claims.resources.iter().map(|pattern| Text(Cow::Borrowed(pattern.as_str()))).collect(),
            max_uses: u64::from(claims.max_uses),
            iat: claims.issued_at,
            exp: claims.expires_at,
            delegatable: claims.delegatable,
            jti: claims.id,
            kid: claims.key_id.as_ref().map(text),
            chain: Some(texts(&claims.chain)),
            root: claims.id.and(root),
            par: claims.id.map(|_| claims.ancestors.clone()),
            max_depth: claims.max_depth.map(u64::from),
            aud: (!claims.audience.is_empty()).then(|| texts(&claims.audience)),
            obo: claims.on_behalf_of.as_ref().map(text),
            task: claims.task.as_ref().map(text),
        }
    }
}

fn invalid(claim: &'static str, why: &'static str) -> InvalidClaims {
    InvalidClaims(format!("its claim {claim} {why}").into())
}

/// What the claims say of the chain has to be one story.
fn consistent(mut claims: Claims<'_>, root: Option<TokenId>) -> Result<Claims<'_>, InvalidClaims> {
    if claims.expires_at <= claims.issued_at {
        return Err(invalid("exp", "is not later than iat"));
    }
    if claims.chain.is_empty() {
        claims.chain = vec![claims.issuer.clone(), claims.holder.clone()];
    }
    let mut from_holder = claims.chain.iter().rev();
    if from_holder.next() != Some(&claims.holder) || from_holder.next() != Some(&claims.issuer) {
        return Err(invalid("chain", "does not end with iss and sub"));
    }
    let Some(id) = claims.id else {
        if claims.depth() != 1 || !claims.ancestors.is_empty() || root.is_some() {
            return Err(invalid("jti", "is missing, and a token of another issuer has one hop and no ancestors"));
        }
        return Ok(claims);
    };
    if claims.ancestors.len().saturating_add(1) != claims.depth() {
        return Err(invalid("par", "does not name one ancestor for each hop before the last"));
    }
    if root.unwrap_or(id) != claims.ancestors.first().copied().unwrap_or(id) {
        return Err(invalid("root", "is not the first ancestor"));
    }
    if claims.ancestors.contains(&id) {
        return Err(invalid("par", "names the token itself"));
    }
    if claims.max_depth.is_some_and(|max| usize::from(max) < claims.depth()) {
        return Err(invalid("max_depth", "is less than the token's own depth"));
    }
    Ok(claims)
}

fn agent<'a>(claim: &'static str, text: Text<'a>) -> Result<Cow<'a, str>, InvalidClaims> {
    AgentName::check(&text.0).map_err(|_| invalid(claim, "is not an agent's name"))?;
    Ok(text.0)
}

fn agents<'a>(claim: &'static str, limit: usize, texts: Vec<Text<'a>>) -> Result<Vec<Cow<'a, str>>, InvalidClaims> {
    if texts.len() > limit {
        return Err(invalid(claim, "names too many agents"));
    }
    texts.into_iter().map(|text| agent(claim, text)).collect()
}

fn audience(texts: Option<Vec<Text<'_>>>) -> Result<Vec<Cow<'_, str>>, InvalidClaims> {
    match texts {
        // An empty list would mean "nowhere" to one reader and "anywhere" to another.
        Some(texts) if texts.is_empty() => Err(invalid("aud", "is empty")),
        Some(texts) => agents("aud", limits::TOKEN_AUDIENCE, texts),
        None => Ok(Vec::new()),
    }
}

fn capabilities(texts: Vec<Text<'_>>) -> Result<Vec<Cow<'_, str>>, InvalidClaims> {
    if texts.is_empty() || texts.len() > limits::TOKEN_CAPABILITIES {
        return Err(invalid("cap", "has none or more than 256 capabilities"));
    }
    let one = |text: Text<'_>| Capability::check(&text.0).is_ok();
    let mut names = Vec::with_capacity(texts.len());
    for text in texts {
        let Text(name) = text;
        if !one(Text(Cow::Borrowed(&name))) {
            return Err(invalid("cap", "has a name that is not a capability's"));
        }
        names.push(name);
    }
    Ok(names)
}

fn patterns(texts: Vec<Text<'_>>) -> Result<Vec<Pattern<'_>>, InvalidClaims> {
    if texts.is_empty() || texts.len() > limits::TOKEN_PATTERNS {
        return Err(invalid("res", "has none or more than 64 patterns"));
    }
    let parse = |text: Text<'_>| Pattern::parse(text.0.into_owned());
    let borrow = |text| match text {
        Text(Cow::Borrowed(text)) => Pattern::parse(text),
        owned => parse(owned),
    };
    texts
        .into_iter()
        .map(|text| borrow(text).map_err(|_| invalid("res", "has a text that is not a pattern of resources")))
        .collect()
}

fn uses(number: u64) -> Result<u32, InvalidClaims> {
    match u32::try_from(number) {
        Ok(uses) if uses > 0 => Ok(uses),
        _ => Err(invalid("max_uses", "is not between 1 and 4294967295")),
    }
}

fn seconds(claim: &'static str, number: u64) -> Result<u64, InvalidClaims> {
    if number < limits::JSON_INTEGER { Ok(number) } else { Err(invalid(claim, "is not a time")) }
}

fn depth(number: u64) -> Result<u8, InvalidClaims> {
    match u8::try_from(number) {
        Ok(depth) if (1..=16).contains(&depth) => Ok(depth),
        _ => Err(invalid("max_depth", "is not between 1 and 16")),
    }
}

fn free_text<'a>(claim: &'static str, text: Text<'a>) -> Result<Cow<'a, str>, InvalidClaims> {
    if is_free_text(&text.0) { Ok(text.0) } else { Err(invalid(claim, "is empty, too long or has control characters")) }
}

/// Whether a text may be carried and shown: 1 to 256 bytes without control characters.
#[must_use]
pub fn is_free_text(text: &str) -> bool {
    (1..=limits::TEXT_BYTES).contains(&text.len()) && !text.chars().any(char::is_control)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEED: &str = r#"{"cap": ["read_file"], "delegatable": false, "exp": 1300, "iat": 1000, "iss": "agent-coordinator", "max_uses": 1, "res": ["/data/reports/*"], "sub": "agent-analyst"}"#;

    #[test]
    fn reads_the_source_documents_payload() {
        let claims = Claims::parse(SEED).unwrap();
        assert!(claims.is_foreign());
        assert_eq!(claims.chain, ["agent-coordinator", "agent-analyst"]);
        assert_eq!(claims.depth(), 1);
    }

    #[test]
    fn reads_back_what_it_writes() {
        let mut claims = Claims::parse(SEED).unwrap();
        claims.id = Some(TokenId::from_bytes([7; 16]));
        claims.max_depth = Some(2);
        claims.task = Some("t-1".into());
        let payload = claims.to_payload();
        assert_eq!(Claims::parse(&payload).unwrap(), claims);
    }

    #[test]
    fn escapes_are_read_and_not_another_claim() {
        assert!(Claims::parse(&SEED.replace("\"exp\"", "\"\\u0065xp\"")).is_ok());
        assert!(Claims::parse(&SEED.replace('{', "{\"\\u0065xp\": 5, ")).is_err());
        assert!(Claims::parse(&SEED.replace("/data/", "\\/data\\/")).is_ok());
    }

    #[test]
    fn refuses_numbers_that_readers_disagree_on() {
        for bad in [
            "1e10",
            "1300.0",
            "-1",
            "\"1300\"",
            "null",
            "true",
            "[1]",
            "9007199254740993",
            "18446744073709551615",
            "18446744073709551616",
            "1300e0",
        ] {
            assert!(Claims::parse(&SEED.replace("1300", bad)).is_err(), "{bad}");
        }
    }

    #[test]
    fn refuses_what_is_not_one_story() {
        let wrong = [
            ("{", r#"{"extra": 1, "#),
            ("{", r#"{"cap": ["x"], "#),
            ("{", r#"{"jti": null, "#),
            (
                "{",
                r#"{"jti": "00000000000000000000000000000001", "chain": ["a", "agent-coordinator", "agent-analyst"], "#,
            ),
            ("{", r#"{"chain": ["agent-analyst", "agent-coordinator"], "#),
            ("{", r#"{"aud": [], "#),
            ("[\"read_file\"]", "[]"),
            ("[\"/data/reports/*\"]", "[]"),
            ("/data/reports/*", "/data/rep*"),
            ("1300", "1000"),
            ("\"max_uses\": 1", "\"max_uses\": 0"),
        ];
        for (from, to) in wrong {
            assert!(Claims::parse(&SEED.replacen(from, to, 1)).is_err(), "{to}");
        }
    }
}

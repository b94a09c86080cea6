//! Tokens by the names that a case gives them, and times relative to now.

use std::collections::HashMap;

use serde_json::Value;

use crate::case::{Forge, Mangle, MintForeign, patch};
use crate::harness::seal::{payload, python_json, seal};

/// What a case has named so far.
#[derive(Default)]
pub(crate) struct Names {
    tokens: HashMap<String, Token>,
    now: u64,
}

struct Token {
    text: String,
    id: String,
}

impl Names {
    /// The time that `now` is, in seconds since the epoch.
    pub(crate) fn set_now(&mut self, now: u64) {
        self.now = now;
    }

    /// Names a token that was minted.
    pub(crate) fn add(&mut self, name: &str, text: String, id: String) {
        self.tokens.insert(name.to_owned(), Token { text, id });
    }

    /// The text of the token of this name.
    pub(crate) fn text(&self, name: &str) -> Result<&str, String> {
        self.tokens.get(name).map(|token| token.text.as_str()).ok_or_else(|| format!("no token is named {name}"))
    }

    /// The id of the token of this name; 32 hex digits are an id themselves.
    pub(crate) fn id<'a>(&'a self, name: &'a str) -> Result<&'a str, String> {
        let is_id = name.len() == 32 && name.bytes().all(|byte| byte.is_ascii_hexdigit());
        let known = self.tokens.get(name).map(|token| token.id.as_str());
        known.or(is_id.then_some(name)).ok_or_else(|| format!("no token is named {name}"))
    }

    /// The value with `$name` and `now+5` replaced by what they stand for.
    pub(crate) fn resolved(&self, value: &Value) -> Value {
        match value {
            Value::String(text) => match (text.strip_prefix('$'), self.time(text)) {
                (Some(name), _) => self.id(name).map_or_else(|_| value.clone(), Value::from),
                (None, Some(time)) => time.into(),
                (None, None) => value.clone(),
            },
            Value::Array(items) => items.iter().map(|item| self.resolved(item)).collect(),
            Value::Object(object) => {
                Value::Object(object.iter().map(|(name, value)| (name.clone(), self.resolved(value))).collect())
            }
            Value::Null | Value::Bool(_) | Value::Number(_) => value.clone(),
        }
    }

    /// Makes a token as the source document does.
    pub(crate) fn mint_foreign(&mut self, step: &MintForeign) {
        let mut claims = serde_json::json!({
            "iss": "agent-coordinator",
            "sub": "agent-deployer",
            "cap": ["kubectl_get"],
            "res": ["prod/*"],
            "max_uses": 1,
            "iat": self.now,
            "exp": self.now.saturating_add(300),
            "delegatable": false,
        });
        if let Value::Object(_) = &step.claims {
            patch(&mut claims, &self.resolved(&step.claims));
        }
        let text = match &step.payload {
            Some(payload) => {
                let with = |text: String, (from, to): (&String, &String)| {
                    assert!(text.contains(from), "the payload has no {from}");
                    text.replacen(from, to, 1)
                };
                self.with_times(&step.replace.iter().fold(payload.clone(), with))
            }
            None => python_json(&claims),
        };
        self.seal_and_name(&step.name, &step.key, text.as_bytes());
    }

    /// Changes a token's claims and seals them again.
    pub(crate) fn forge(&mut self, step: &Forge) -> Result<(), String> {
        let mut claims: Value =
            serde_json::from_slice(&payload(self.text(&step.from)?)).map_err(|error| error.to_string())?;
        patch(&mut claims, &self.resolved(&step.claims));
        self.seal_and_name(&step.name, &step.key, claims.to_string().as_bytes());
        Ok(())
    }

    /// Changes a token's text.
    pub(crate) fn mangle(&mut self, step: &Mangle) -> Result<(), String> {
        let old = self.text(&step.token)?;
        let (payload, seal) = old.split_once('.').unwrap_or((old, ""));
        let text = step
            .text
            .replace("{payload}", payload)
            .replace("{seal}", seal)
            .replace("{SEAL}", &seal.to_uppercase())
            .replace("{cut}", seal.get(1..).unwrap_or_default())
            .replace("{bare}", payload.trim_end_matches('='))
            .replace("{standard}", &payload.replace('-', "+").replace('_', "/"))
            .replace("{long}", &"A".repeat(4100));
        let id = self.id(&step.token)?.to_owned();
        self.add(&step.name, text, id);
        Ok(())
    }

    fn seal_and_name(&mut self, name: &str, key: &str, payload: &[u8]) {
        let text = seal(&[key_byte(key); 32], payload);
        let id = own_id(payload).unwrap_or_else(|| derived_id(&text));
        self.add(name, text, id);
    }

    fn time(&self, text: &str) -> Option<u64> {
        match text.strip_prefix("now")? {
            "" => Some(self.now),
            shift => self.now.checked_add_signed(shift.parse().ok()?),
        }
    }

    /// Replaces `@now`, `@now+5` and `@now-5` in a payload.
    fn with_times(&self, payload: &str) -> String {
        let mut parts = payload.split("@now");
        let mut text = parts.next().unwrap_or_default().to_owned();
        for part in parts {
            let end = part.find(|c: char| !c.is_ascii_digit() && c != '+' && c != '-').unwrap_or(part.len());
            let (shift, rest) = part.split_at(end);
            let time = self.time(&format!("now{shift}")).unwrap_or_default();
            text.push_str(&time.to_string());
            text.push_str(rest);
        }
        text
    }
}

/// The byte that a key of this name repeats: 1 for `k1`.
pub(crate) fn key_byte(name: &str) -> u8 {
    let number = name.trim_start_matches("own:").strip_prefix('k').and_then(|number| number.parse().ok());
    number.unwrap_or_else(|| panic!("{name} is not a key's name: k1 to k9"))
}

fn own_id(payload: &[u8]) -> Option<String> {
    let claims: Value = serde_json::from_slice(payload).ok()?;
    claims.get("jti")?.as_str().map(str::to_owned)
}

/// The id of a token that has none of its own: half of the digest of its seal.
fn derived_id(token: &str) -> String {
    let seal = token.split_once('.').map_or("", |(_, seal)| seal);
    let bytes: Vec<u8> =
        (0..seal.len()).step_by(2).filter_map(|at| u8::from_str_radix(seal.get(at..)?.get(..2)?, 16).ok()).collect();
    let digest = remit::digest::sha256_hex(&bytes);
    digest.get(..32).unwrap_or_default().to_owned()
}

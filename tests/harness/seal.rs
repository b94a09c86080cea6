//! The source document's issuer, written from that document: nothing here is Remit's.

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE;
use hmac::{Hmac, KeyInit as _, Mac as _};
use serde_json::Value;
use sha2::Sha256;

/// `base64.urlsafe_b64encode(payload) + "." + hmac.new(key, payload, sha256).hexdigest()`.
pub(crate) fn seal(key: &[u8], payload: &[u8]) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).unwrap();
    mac.update(payload);
    let mut token = format!("{}.", URL_SAFE.encode(payload));
    for byte in mac.finalize().into_bytes() {
        write!(token, "{byte:02x}").unwrap();
    }
    token
}

/// The payload of a token's text.
pub(crate) fn payload(token: &str) -> Vec<u8> {
    URL_SAFE.decode(token.split('.').next().unwrap()).unwrap()
}

/// `json.dumps(value, sort_keys=True)`: a space after each comma and colon, and ASCII only.
pub(crate) fn python_json(value: &Value) -> String {
    match value {
        Value::Object(object) => {
            let mut members: Vec<_> = object.iter().collect();
            members.sort_by_key(|(name, _)| *name);
            let members = members.iter().map(|(name, value)| format!("{}: {}", text(name), python_json(value)));
            format!("{{{}}}", members.collect::<Vec<_>>().join(", "))
        }
        Value::Array(items) => {
            format!("[{}]", items.iter().map(python_json).collect::<Vec<_>>().join(", "))
        }
        Value::String(string) => text(string),
        Value::Null | Value::Bool(_) | Value::Number(_) => value.to_string(),
    }
}

fn text(string: &str) -> String {
    let escaped = Value::from(string).to_string();
    let escape = |character: char| {
        let mut units = [0; 2];
        let units = character.encode_utf16(&mut units).iter().map(|unit| format!("\\u{unit:04x}"));
        units.collect::<String>()
    };
    escaped.chars().map(|c| if c.is_ascii() { c.to_string() } else { escape(c) }).collect()
}

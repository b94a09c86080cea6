//! `remit token inspect`: what is in a token, without asking the service.

use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE;
use clap::Args;
use serde_json::{Value, json};

use super::output::{Answer, Output};
use super::refusal::Refusal;
use super::{CliError, Outcome, token_source};
use crate::domain::resource::Pattern;
use crate::domain::time::Timestamp;
use crate::domain::token::Claims;
use crate::engine::clock::Clock;
use crate::keyring::{KeyFile, KeyFiles};

/// Show what is in a token. Only with --key is its seal checked; uses and revocations only the service knows.
#[derive(Args)]
#[command(after_help = "Example:\n  remit token inspect --token-file token --key .remit-dev/hmac.key")]
pub(super) struct Inspect {
    /// The token's file, `-` for standard input [default: `REMIT_TOKEN`]
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Check the seal with the HMAC key in this file
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
}

impl Inspect {
    pub(super) fn run(self, output: Output) -> Result<Outcome, CliError> {
        let token = token_source::required(self.token_file.as_deref())?;
        let now = Clock::system().now();
        let Some(path) = self.key else {
            let payload = payload(&token)?;
            let claims =
                Claims::parse(&payload).map_err(|error| CliError::new("the token is not of its form", error))?;
            shown(&claims, "not checked: it may say anything; name a key with --key", None, now).print(output)?;
            return Ok(Outcome::Done);
        };
        let keyring = KeyFiles(vec![KeyFile { path, foreign: true }]).read();
        let keyring = keyring.map_err(|error| CliError(error.to_string()))?;
        let mut buffer = Vec::new();
        match keyring.open(&token, &mut buffer) {
            Ok(verified) => {
                shown(verified.claims(), "good", Some(true), now).print(output)?;
                Ok(Outcome::Done)
            }
            Err(denial) => {
                let message = denial.message().to_string();
                Refusal { reason: denial.reason().to_string(), failed_hop: String::new(), message }.print(output)
            }
        }
    }
}

/// What stands before the seal, as it is.
fn payload(token: &str) -> Result<String, CliError> {
    let malformed = || CliError("the token is not of its form: base64url, a dot, and 64 hexadecimal digits".to_owned());
    let (payload, _) = token.split_once('.').ok_or_else(malformed)?;
    let bytes = URL_SAFE.decode(payload).map_err(|_| malformed())?;
    String::from_utf8(bytes).map_err(|_| malformed())
}

fn shown(claims: &Claims<'_>, seal: &str, seal_valid: Option<bool>, now: Timestamp) -> Answer {
    let names = |texts: &[std::borrow::Cow<'_, str>], between: &str| texts.join(between);
    let resources: Vec<&str> = claims.resources.iter().map(Pattern::as_str).collect();
    let expired = claims.expires_at <= now.seconds();
    let rows = vec![
        ("seal", seal.to_owned()),
        ("token id", claims.id.map_or_else(|| "none: another issuer's token".to_owned(), |id| id.to_string())),
        ("issuer", claims.issuer.to_string()),
        ("holder", claims.holder.to_string()),
        ("chain", names(&claims.chain, " > ")),
        ("capabilities", names(&claims.capabilities, ", ")),
        ("resources", resources.join(", ")),
        ("max uses", claims.max_uses.to_string()),
        ("issued", date(claims.issued_at)),
        ("expires", format!("{}{}", date(claims.expires_at), if expired { " (expired)" } else { "" })),
        ("delegatable", if claims.delegatable { "yes" } else { "no" }.to_owned()),
        ("max depth", claims.max_depth.map(|depth| depth.to_string()).unwrap_or_default()),
        ("audience", names(&claims.audience, ", ")),
        ("on behalf of", claims.on_behalf_of.as_deref().unwrap_or_default().to_owned()),
        ("task", claims.task.as_deref().unwrap_or_default().to_owned()),
    ];
    let payload: Value = serde_json::from_str(&claims.to_payload()).unwrap_or_default();
    Answer { title: None, rows, json: json!({"seal_valid": seal_valid, "expired": expired, "claims": payload}) }
}

fn date(seconds: u64) -> String {
    let at = i64::try_from(seconds).ok().and_then(|seconds| jiff::Timestamp::from_second(seconds).ok());
    at.map_or_else(|| seconds.to_string(), |at| at.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keyring::{Key, Keyring};

    const KEY: [u8; 32] = [b'k'; 32];

    fn inspect(token: &str, key: Option<&[u8]>) -> Result<Outcome, CliError> {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        std::fs::write(at("token"), token).unwrap();
        if let Some(key) = key {
            std::fs::write(at("key"), key).unwrap();
            std::fs::set_permissions(at("key"), std::fs::Permissions::from_mode(0o600)).unwrap();
        }
        Inspect { token_file: Some(at("token")), key: key.map(|_| at("key")) }.run(Output::Json)
    }

    fn token() -> String {
        let claims = Claims::parse(
            r#"{"cap":["read_file"],"delegatable":false,"exp":1300,"iat":1000,"iss":"a","max_uses":1,"res":["/x/*"],"sub":"b"}"#,
        );
        Keyring::new(vec![Key::new(&KEY, false).unwrap()]).unwrap().seal(claims.unwrap()).unwrap().0
    }

    #[test]
    fn a_seal_is_checked_only_with_a_key() {
        assert_eq!(inspect(&token(), None).unwrap(), Outcome::Done);
        assert_eq!(inspect(&token(), Some(&KEY)).unwrap(), Outcome::Done);
        assert_eq!(inspect(&token(), Some(&[b'o'; 32])).unwrap(), Outcome::Denied);
    }

    #[test]
    fn what_is_no_token_is_not_shown() {
        for bad in ["secret", "secret.00", "c2VjcmV0.00", "{}.x"] {
            let error = inspect(bad, None).unwrap_err().to_string();
            assert!(error.contains("not of its form") && !error.contains("secret"), "{error}");
        }
    }
}

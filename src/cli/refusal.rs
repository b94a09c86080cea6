//! A refusal as people and programs read it, and what else can come back instead of an answer.

use serde_json::json;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use super::output::{self, Output};
use super::{CliError, Outcome};
use crate::api;

/// Trailing metadata with the reason as text.
const REASON_METADATA: &str = "remit-reason";

/// A refusal by policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    /// The reason's name, e.g. `TOKEN_WRONG_HOLDER`.
    pub(super) reason: String,
    /// The agent of the chain that failed a check; empty if none did.
    pub(super) failed_hop: String,
    /// What to do about it.
    pub(super) message: String,
}

impl Refusal {
    /// The refusal that this status is.
    ///
    /// # Errors
    /// The status is none: the request was not of its form, the caller is nobody, or the connection broke.
    pub(super) fn from_status(status: &Status) -> Result<Self, CliError> {
        let reason = status.metadata().get(REASON_METADATA).and_then(|reason| reason.to_str().ok());
        match (reason, status.code()) {
            (Some(reason), code) if code != Code::InvalidArgument => {
                let info = status.get_error_details().error_info().map(|info| info.metadata.clone());
                let failed_hop = info.and_then(|mut facts| facts.remove("failed_hop")).unwrap_or_default();
                Ok(Self { reason: reason.to_owned(), failed_hop, message: status.message().to_owned() })
            }
            _ => Err(broken(status)),
        }
    }

    /// `denied  REASON  at AGENT: message`.
    pub(super) fn text(&self) -> String {
        let Self { reason, failed_hop, message } = self;
        let hop = if failed_hop.is_empty() { String::new() } else { format!("at {failed_hop}: ") };
        format!("denied  {reason}  {hop}{message}")
    }

    /// Prints a refusal that came instead of an answer: as text on standard error, as JSON on standard output.
    pub(super) fn print(&self, output: Output) -> Result<Outcome, CliError> {
        let Self { reason, failed_hop, message } = self;
        match output {
            Output::Text => output::complain(&self.text()),
            Output::Json => output::say(
                &json!({"result": "denied", "reason": reason, "failed_hop": failed_hop, "message": message})
                    .to_string(),
            )?,
        }
        Ok(Outcome::Denied)
    }
}

/// A reason's name without its enum's prefix.
pub(super) fn reason_name(reason: i32) -> String {
    match api::Reason::try_from(reason) {
        Ok(reason) => reason.as_str_name().trim_start_matches("REASON_").to_owned(),
        Err(_) => format!("UNKNOWN_{reason}"),
    }
}

/// A status that is no refusal.
fn broken(status: &Status) -> CliError {
    let (code, message) = (status.code(), status.message());
    if code == Code::InvalidArgument {
        return CliError::new("the request is not of its form", message);
    }
    if code == Code::Unauthenticated {
        return CliError(format!(
            "the service does not know who is asking ({message}): connect with --as AGENT, or with --cert and --key of an agent"
        ));
    }
    if let Some(cause) = std::error::Error::source(status) {
        return CliError(format!(
            "the connection broke: {}\nA server that refuses the client's certificate ends it like this: is the certificate in time, and from a CA that the server trusts ([tls] client_ca)?",
            causes(cause)
        ));
    }
    CliError(format!("the service answered {code:?}: {message}"))
}

/// An error and what caused it, in one line.
pub(super) fn causes(error: &dyn std::error::Error) -> String {
    let mut texts = vec![error.to_string()];
    let mut cause = error.source();
    while let Some(error) = cause {
        let text = error.to_string();
        if !texts.iter().any(|before| before.contains(&text)) {
            texts.push(text);
        }
        cause = error.source();
    }
    texts.join(": ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_with_a_reason_is_a_refusal() {
        let mut status = Status::permission_denied("ask for less");
        let error = Refusal::from_status(&status).unwrap_err().to_string();
        assert!(error.contains("ask for less"), "{error}");
        status.metadata_mut().insert(REASON_METADATA, "DELEGATION_WIDENS".parse().unwrap());
        let refusal = Refusal::from_status(&status).unwrap();
        assert_eq!(refusal.text(), "denied  DELEGATION_WIDENS  ask for less");
        let at_hop = Refusal { failed_hop: "agent-a".to_owned(), ..refusal };
        assert_eq!(at_hop.text(), "denied  DELEGATION_WIDENS  at agent-a: ask for less");
    }

    #[test]
    fn what_is_not_of_its_form_is_an_error() {
        let mut status = Status::invalid_argument("to_agent: it is empty");
        status.metadata_mut().insert(REASON_METADATA, "REQUEST_MALFORMED".parse().unwrap());
        assert!(Refusal::from_status(&status).is_err());
    }

    #[test]
    fn reasons_have_their_names() {
        assert_eq!(reason_name(api::Reason::TokenWrongHolder.into()), "TOKEN_WRONG_HOLDER");
        assert_eq!(reason_name(9999), "UNKNOWN_9999");
    }
}

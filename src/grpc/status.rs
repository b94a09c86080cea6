//! From a refusal to a gRPC status: the one place where reasons meet codes.

use std::collections::HashMap;
use std::time::Duration;

use tonic::metadata::MetadataValue;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

use super::wire::Malformed;
use crate::domain::reason::{Denial, Reason};
use crate::identity::Unidentified;

/// The domain of `google.rpc.ErrorInfo`.
const DOMAIN: &str = "remit";
/// Trailing metadata with the reason as text.
const REASON_METADATA: &str = "remit-reason";

/// The status of a refusal outside Authorize.
#[must_use]
pub(super) fn refusal(denial: &Denial) -> Status {
    if denial.reason() == Reason::RequestMalformed {
        return with_reason(malformed(&Malformed::new("request", denial.message().clone())), denial.reason());
    }
    let mut metadata = HashMap::new();
    if let Some(hop) = denial.failed_hop() {
        metadata.insert("failed_hop".to_owned(), hop.to_owned());
    }
    let mut details = ErrorDetails::with_error_info(denial.reason().as_str(), DOMAIN, metadata);
    if let Some(wait) = denial.wait() {
        details.set_retry_info(Some(wait.max(Duration::from_millis(1))));
    }
    let status = Status::with_error_details(code(denial.reason()), denial.message().clone(), details);
    with_reason(status, denial.reason())
}

/// The status of a request that is not of its form.
#[must_use]
pub(super) fn malformed(malformed: &Malformed) -> Status {
    let message = malformed.to_string();
    let mut details = ErrorDetails::with_bad_request_violation(malformed.field(), malformed.why());
    details.set_error_info(Reason::RequestMalformed.as_str(), DOMAIN, HashMap::new());
    with_reason(Status::with_error_details(Code::InvalidArgument, message, details), Reason::RequestMalformed)
}

/// The status of a caller that is nobody. Without any evidence it learns nothing more.
#[must_use]
pub(super) fn unidentified(unidentified: &Unidentified) -> Status {
    match unidentified {
        Unidentified::Unauthenticated(_) => Status::unauthenticated("no verified identity"),
        Unidentified::SelfAsserted(denial) => {
            let details = ErrorDetails::with_error_info(denial.reason().as_str(), DOMAIN, HashMap::new());
            let status = Status::with_error_details(Code::Unauthenticated, denial.message().clone(), details);
            with_reason(status, denial.reason())
        }
        Unidentified::Unmapped(denial) => refusal(denial),
    }
}

/// The status of what can't be done before somebody does something else.
#[must_use]
pub(super) fn failed_precondition(denial: &Denial) -> Status {
    let details = ErrorDetails::with_error_info(denial.reason().as_str(), DOMAIN, HashMap::new());
    let status = Status::with_error_details(Code::FailedPrecondition, denial.message().clone(), details);
    with_reason(status, denial.reason())
}

/// More requests at once than this process takes.
#[must_use]
pub(super) fn overloaded() -> Status {
    Status::resource_exhausted("too many requests at once: come back in a moment")
}

/// The message or the answer took longer than its caller waits.
#[must_use]
pub(super) fn too_late() -> Status {
    Status::deadline_exceeded("the request was not there, or not answered, in time")
}

fn with_reason(mut status: Status, reason: Reason) -> Status {
    status.metadata_mut().insert(REASON_METADATA, MetadataValue::from_static(reason.as_str()));
    status
}

fn code(reason: Reason) -> Code {
    match reason {
        Reason::RequestMalformed => Code::InvalidArgument,
        Reason::RateLimited | Reason::CapacityExhausted => Code::ResourceExhausted,
        Reason::StateUnavailable | Reason::AuditUnavailable | Reason::PolicyStale => Code::Unavailable,
        // `Allowed` is no refusal; whoever gets here with it gets no permission.
        Reason::Allowed
        | Reason::TokenRequired
        | Reason::TokenMalformed
        | Reason::TokenSealInvalid
        | Reason::TokenExpired
        | Reason::TokenNotYetValid
        | Reason::TokenLifetimeTooLong
        | Reason::TokenWrongHolder
        | Reason::TokenWrongAudience
        | Reason::TokenRevoked
        | Reason::TokenFenced
        | Reason::TokenUsesExhausted
        | Reason::TokenNotDelegatable
        | Reason::CapabilityNotGranted
        | Reason::ResourceNotGranted
        | Reason::ResourceNotCanonical
        | Reason::AgentUnknown
        | Reason::AgentQuarantined
        | Reason::IdentitySelfAsserted
        | Reason::IdentityUnmapped
        | Reason::CallerNotEnforcementPoint
        | Reason::CallerNotAuthorized
        | Reason::CommunicationNotAllowed
        | Reason::DelegationNotAllowed
        | Reason::DelegationDepthExceeded
        | Reason::DelegationCycle
        | Reason::DelegationWidens
        | Reason::UsesNotAllowed
        | Reason::LifetimeNotAllowed
        | Reason::ConditionNotMet
        | Reason::DeadlineExceeded => Code::PermissionDenied,
    }
}

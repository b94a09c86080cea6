//! The identity that goes on with a request which was allowed: signed for the one that receives it.

use super::wire::{self, Malformed};
use crate::api as pb;
use crate::door::{Door, Visit};
use crate::engine::Decision;

/// Whether the wish can be granted at all: found out before a use is spent.
pub(super) fn check(door: &Door, request: &pb::AuthorizeRequest) -> Result<(), Malformed> {
    if request.forward_identity && door.identity().sources().forwarding.signer().is_none() {
        let why =
            "nothing is signed here: write [identity.forward] signing_key and issuer in the server's configuration";
        return Err(Malformed::new("forward_identity", why));
    }
    Ok(())
}

/// The answer, with the signed identity where the caller wished for it and may act on the answer.
pub(super) fn answer(
    door: &Door,
    visit: &Visit,
    request: &pb::AuthorizeRequest,
    decided: Decision,
) -> pb::AuthorizeResponse {
    let is_wished = request.forward_identity && decided.outcome.is_ok() && !decided.dry_run;
    let signed = is_wished.then(|| {
        // A destination that the caller may not speak for was denied.
        let receiver = Some(request.destination.as_str()).filter(|name| !name.is_empty());
        door.introduce(&decided, receiver.unwrap_or(visit.caller.agent().as_str()))
    });
    let forwarded_identity = signed.flatten().unwrap_or_default();
    pb::AuthorizeResponse { forwarded_identity, ..wire::authorize_response(decided) }
}

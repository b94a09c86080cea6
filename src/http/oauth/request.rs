//! What every endpoint takes: a form, from somebody.

use std::sync::Arc;

use axum::extract::Request;
use axum::http::HeaderMap;

use super::form::Form;
use super::refusal::{Error, Refusal};
use crate::transport::Peer;

/// A request, read.
pub(super) struct Asked {
    pub(super) peer: Option<Arc<Peer>>,
    pub(super) headers: HeaderMap,
    pub(super) form: Form,
}

impl Asked {
    /// # Errors
    /// `invalid_request`: parameters stand in the address, or the body is no form.
    pub(super) async fn read(request: Request) -> Result<Self, Refusal> {
        let (parts, body) = request.into_parts();
        // Addresses are logged on the way, and tokens are secrets.
        if parts.uri.query().is_some_and(|query| !query.is_empty()) {
            return Err(Refusal::new(Error::InvalidRequest, "parameters belong in the body and never in the address"));
        }
        let form = Form::read(&parts.headers, body).await?;
        Ok(Self { peer: parts.extensions.get::<Arc<Peer>>().cloned(), headers: parts.headers, form })
    }
}

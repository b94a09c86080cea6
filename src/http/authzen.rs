//! `OpenID` `AuthZEN` Authorization API 1.0: the same decisions as `Authorize`, asked for in its words.
//!
//! A subject is an agent, an action's name a capability, a resource a resource ([`crate::domain::entities`] says which
//! text a type and an id stand for). The token travels in `context.remit_token`. A denial is an answer, status 200; any
//! other status says that there is none.

mod answer;
mod batch;
mod metadata;
mod page;
mod question;
mod search;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::HeaderValue;
use axum::http::header::CACHE_CONTROL;
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use axum::{Json, middleware};
use serde_json::{Map, Value};

use super::Pages;
use super::authenticate::{enter, is_somebody};
use super::refusal::Refusal;
use super::request_id::{self, RequestId};
use crate::domain::limits;
use crate::domain::reason::Reason;
use crate::door::Visit;
use crate::engine::{Decision, Verb};
use question::{Question, Stated};

/// Levels of a body: the object, the list of evaluations, one of them, its context, and what a context may have.
const LEVELS: usize = limits::CONTEXT_DEPTH + 4;

/// Where things are, as the metadata publishes them.
const EVALUATION: &str = "/access/v1/evaluation";
const EVALUATIONS: &str = "/access/v1/evaluations";
const SEARCH_SUBJECT: &str = "/access/v1/search/subject";
const SEARCH_RESOURCE: &str = "/access/v1/search/resource";
const SEARCH_ACTION: &str = "/access/v1/search/action";
const METADATA: &str = "/.well-known/authzen-configuration";

pub(super) fn routes() -> Router<Pages> {
    Router::new()
        .route(EVALUATION, post(evaluation))
        .route(EVALUATIONS, post(evaluations))
        .route(SEARCH_SUBJECT, post(search::subjects))
        .route(SEARCH_RESOURCE, post(search::resources))
        .route(SEARCH_ACTION, post(search::actions))
        .route(METADATA, get(metadata::page))
        .route_layer(middleware::from_fn(request_id::echo))
}

/// A request that was let in, with its body.
struct Received {
    visit: Visit,
    id: RequestId,
    body: Map<String, Value>,
}

/// Who asks is settled first: the body of a caller that is nobody is not read. The request begins when its body is there:
/// one that comes slowly takes no place from others, nor from its own time. Who asks holds at that moment.
async fn receive(pages: &Pages, request: Request, most: usize) -> Result<Received, Refusal> {
    let (head, body) = request.into_parts();
    is_somebody(&pages.door, &head)?;
    let body = super::body::json_object(&head.headers, body, most, LEVELS).await;
    let body = body.inspect_err(|_| pages.door.engine().tally().malformed(Verb::Authorize))?;
    let visit = enter(&pages.door, &head)?;
    let id = head.extensions.get::<RequestId>().cloned().unwrap_or_default();
    Ok(Received { visit, id, body })
}

async fn evaluation(State(pages): State<Pages>, request: Request) -> Result<Response, Refusal> {
    let received = receive(&pages, request, limits::BODY_BYTES).await?;
    evaluate_alone(&pages, &received).await
}

async fn evaluations(State(pages): State<Pages>, request: Request) -> Result<Response, Refusal> {
    let received = receive(&pages, request, limits::BATCH_BODY_BYTES).await?;
    match received.body.get("evaluations") {
        None => evaluate_alone(&pages, &received).await,
        Some(Value::Array(items)) if items.is_empty() => evaluate_alone(&pages, &received).await,
        Some(items) => batch::evaluate(&pages, &received, items).await,
    }
}

async fn evaluate_alone(pages: &Pages, received: &Received) -> Result<Response, Refusal> {
    let question = Question::parse(&Stated::alone(&received.body)).map_err(|malformed| {
        pages.door.engine().tally().malformed(Verb::Authorize);
        Refusal::malformed(malformed.to_string())
    })?;
    let decision = decide(pages, received, &question).await;
    match &decision.outcome {
        // What is malformed in the light of the policy is as malformed as any other request.
        Err(denial) if denial.reason() == Reason::RequestMalformed => Err(Refusal::malformed(denial.message().clone())),
        _ => Ok(said(answer::decision(&decision))),
    }
}

async fn decide(pages: &Pages, received: &Received, question: &Question<'_>) -> Decision {
    let Received { visit, id, body: _ } = received;
    let request = question.asked(id.as_str(), visit.deadline);
    pages.door.engine().authorize_under(&visit.beginning, &visit.caller, &request).await
}

/// An answer, which is good for this moment alone.
fn said(answer: Value) -> Response {
    ([(CACHE_CONTROL, HeaderValue::from_static("no-store"))], Json(answer)).into_response()
}

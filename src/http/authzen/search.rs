//! The three searches: everything but one part of an evaluation is given, and what the policy names is tried for it.

use axum::extract::{Request, State};
use axum::response::Response;
use serde_json::{Value, json};

use super::page::Page;
use super::question::{Malformed, Question, Stated};
use super::{Received, receive, said};
use crate::domain::entities::Kind;
use crate::domain::limits;
use crate::domain::reason::{Denial, Reason};
use crate::engine::{AuthorizeRequest, SearchRequest, Searched, Sought, Verb, is_undecided};
use crate::events::DecisionId;
use crate::http::Pages;
use crate::http::refusal::Refusal;

pub(super) async fn subjects(State(pages): State<Pages>, request: Request) -> Result<Response, Refusal> {
    let received = receive(&pages, request, limits::BODY_BYTES).await?;
    let parsed = parse_subjects(&Stated::alone(&received.body));
    answer(&pages, &received, parsed).await
}

pub(super) async fn resources(State(pages): State<Pages>, request: Request) -> Result<Response, Refusal> {
    let received = receive(&pages, request, limits::BODY_BYTES).await?;
    let parsed = parse_resources(&Stated::alone(&received.body));
    answer(&pages, &received, parsed).await
}

pub(super) async fn actions(State(pages): State<Pages>, request: Request) -> Result<Response, Refusal> {
    let received = receive(&pages, request, limits::BODY_BYTES).await?;
    let parsed = parse_actions(&Stated::alone(&received.body));
    answer(&pages, &received, parsed).await
}

/// What is given, what is looked for. The place of what is looked for is empty, and so are its properties: a result
/// has none when it is asked about.
type Parsed<'a> = Result<(Question<'a>, Sought<'a>), Malformed>;

fn parse_subjects<'a>(stated: &Stated<'a>) -> Parsed<'a> {
    let type_name = stated.type_of(Kind::Subject, "subject")?;
    let (capability, action_properties) = stated.action()?;
    let (resource, resource_properties) = stated.resource()?;
    let question = Question {
        agent: "".into(),
        capability,
        resource,
        subject_properties: None,
        action_properties,
        resource_properties,
        context: stated.context()?,
    };
    Ok((question, Sought::Subjects(type_name)))
}

fn parse_resources<'a>(stated: &Stated<'a>) -> Parsed<'a> {
    let (agent, subject_properties) = stated.subject()?;
    let (capability, action_properties) = stated.action()?;
    let type_name = stated.type_of(Kind::Resource, "resource")?;
    let question = Question {
        agent,
        capability,
        resource: "".into(),
        subject_properties,
        action_properties,
        resource_properties: None,
        context: stated.context()?,
    };
    Ok((question, Sought::Resources(type_name)))
}

fn parse_actions<'a>(stated: &Stated<'a>) -> Parsed<'a> {
    let (agent, subject_properties) = stated.subject()?;
    let (resource, resource_properties) = stated.resource()?;
    let question = Question {
        agent,
        capability: "",
        resource,
        subject_properties,
        action_properties: None,
        resource_properties,
        context: stated.context()?,
    };
    Ok((question, Sought::Actions))
}

async fn answer(pages: &Pages, received: &Received, parsed: Parsed<'_>) -> Result<Response, Refusal> {
    let engine = pages.door.engine();
    let Received { visit, id, body } = received;
    let parsed = parsed.and_then(|(question, sought)| {
        let page = Page::parse(body, sought, &visit.policy().id)?;
        Ok((question, sought, page))
    });
    let (question, sought, page) = parsed.map_err(|malformed| {
        engine.tally().malformed(Verb::Authorize);
        Refusal::malformed(malformed.to_string())
    })?;
    let asked = question.asked(id.as_str(), visit.deadline);
    // An agent that is looked for is not named.
    let asked = AuthorizeRequest { agent: asked.agent.filter(|name| !name.is_empty()), dry_run: true, ..asked };
    let request = SearchRequest { sought, question: asked, from: page.from, most: page.most };
    let Searched { outcome, id } = engine.search(&visit.beginning, &visit.caller, &request).await;
    let found = match outcome {
        Ok(found) => found,
        Err(denial) => return refused(&denial, id),
    };
    let results = found.names.iter().filter_map(|name| result(sought, name)).collect::<Vec<_>>();
    Ok(said(json!({
        "page": { "next_token": page.token(found.next), "count": results.len() },
        "context": { "decision_id": id.to_string() },
        "results": results,
    })))
}

/// Who may not ask finds nothing, and is told why. That there is nothing is not said where nobody looked.
fn refused(denial: &Denial, id: DecisionId) -> Result<Response, Refusal> {
    if denial.reason() == Reason::RateLimited {
        return Err(Refusal::rate_limited(denial));
    }
    if is_undecided(denial) {
        return Err(Refusal::undecided(denial));
    }
    Ok(said(json!({
        "page": { "next_token": "", "count": 0 },
        "context": {
            "reason": denial.reason().as_str(),
            "message": denial.message(),
            "decision_id": id.to_string(),
        },
        "results": [],
    })))
}

fn result(sought: Sought<'_>, name: &str) -> Option<Value> {
    let typed = |kind: Kind| kind.typed(name).map(|(type_name, id)| json!({ "type": type_name, "id": id }));
    match sought {
        Sought::Subjects(_) => typed(Kind::Subject),
        Sought::Resources(_) => typed(Kind::Resource),
        Sought::Actions => Some(json!({ "name": name })),
    }
}

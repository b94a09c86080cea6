//! Several evaluations in one request, in order, under one policy.

use axum::response::Response;
use serde_json::{Map, Value, json};

use super::question::{Malformed, Question, Stated, object};
use super::{Received, answer, decide, said};
use crate::domain::limits;
use crate::engine::{BatchItem, Decision, Verb, give_way};
use crate::http::Pages;
use crate::http::refusal::Refusal;

/// How far a batch goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Semantic {
    /// To its end.
    ExecuteAll,
    /// To the first denial.
    DenyOnFirstDeny,
    /// To the first permission.
    PermitOnFirstPermit,
}

impl Semantic {
    fn parse(body: &Map<String, Value>) -> Result<Self, Malformed> {
        let Some(options) = body.get("options") else { return Ok(Self::ExecuteAll) };
        match object("options", options)?.get("evaluations_semantic").map(Value::as_str) {
            None | Some(Some("execute_all")) => Ok(Self::ExecuteAll),
            Some(Some("deny_on_first_deny")) => Ok(Self::DenyOnFirstDeny),
            Some(Some("permit_on_first_permit")) => Ok(Self::PermitOnFirstPermit),
            Some(_) => Err(Malformed::new(
                "options.evaluations_semantic",
                "it is one of execute_all, deny_on_first_deny, permit_on_first_permit",
            )),
        }
    }

    fn ends_with(self, is_allowed: bool) -> bool {
        match self {
            Self::ExecuteAll => false,
            Self::DenyOnFirstDeny => !is_allowed,
            Self::PermitOnFirstPermit => is_allowed,
        }
    }
}

/// Evaluates them in their order. One that is not of its form is denied in its place.
pub(super) async fn evaluate(pages: &Pages, received: &Received, items: &Value) -> Result<Response, Refusal> {
    let (items, semantic) = check(&received.body, items).map_err(|malformed| {
        pages.door.engine().tally().malformed(Verb::Authorize);
        Refusal::malformed(malformed.to_string())
    })?;
    let questions = items.iter().map(|item| question(received, item));
    let answers = match semantic {
        Semantic::ExecuteAll => {
            let items = questions.map(|question| BatchItem {
                token: question.as_ref().ok().and_then(Question::token),
                uses: 1,
                answer: evaluate_one(pages, received, question),
            });
            let answered = pages.door.engine().answer_batch(received.visit.policy(), items).await;
            answered.into_iter().map(|(_, answer)| answer).collect()
        }
        Semantic::DenyOnFirstDeny | Semantic::PermitOnFirstPermit => {
            // Where an answer decides whether the next is asked at all, nothing may be spent ahead.
            let mut answers = Vec::with_capacity(items.len());
            for (index, question) in questions.enumerate() {
                give_way(index).await;
                let (is_allowed, answer) = evaluate_one(pages, received, question).await;
                answers.push(answer);
                if semantic.ends_with(is_allowed) {
                    break;
                }
            }
            answers
        }
    };
    Ok(said(json!({ "evaluations": answers })))
}

fn question<'a>(received: &'a Received, item: &'a Value) -> Result<Question<'a>, Malformed> {
    Question::parse(&Stated::in_batch(object("evaluation", item)?, &received.body))
}

async fn evaluate_one(pages: &Pages, received: &Received, question: Result<Question<'_>, Malformed>) -> (bool, Value) {
    match question {
        Ok(question) => {
            let decision = decide_in_batch(pages, received, &question).await;
            (decision.outcome.is_ok(), answer::decision(&decision))
        }
        Err(malformed) => {
            let engine = pages.door.engine();
            engine.tally().malformed(Verb::Authorize);
            let answer = answer::malformed(&malformed, engine.events().decision_id(), &received.visit.policy().id);
            (false, answer)
        }
    }
}

/// What comes after the deadline is denied in its place: the batch has no answer until the last of them has one.
async fn decide_in_batch(pages: &Pages, received: &Received, question: &Question<'_>) -> Decision {
    let Received { visit, id, body: _ } = received;
    let engine = pages.door.engine();
    if let Err(late) = engine.in_time(visit.deadline) {
        let request = question.asked(id.as_str(), visit.deadline);
        return engine.refuse_under(&visit.beginning, &visit.caller, &request, late);
    }
    decide(pages, received, question).await
}

/// What concerns all of them.
fn check<'a>(body: &Map<String, Value>, items: &'a Value) -> Result<(&'a [Value], Semantic), Malformed> {
    let items = items.as_array().ok_or_else(|| Malformed::new("evaluations", "it is no list"))?;
    if items.len() > limits::BATCH_ITEMS {
        return Err(Malformed::new("evaluations", format!("at most {} in a batch", limits::BATCH_ITEMS)));
    }
    for member in ["subject", "action", "resource", "context"] {
        body.get(member).map(|value| object(member, value)).transpose()?;
    }
    Ok((items, Semantic::parse(body)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn semantic(body: &Value) -> Result<Semantic, Malformed> {
        Semantic::parse(body.as_object().unwrap())
    }

    #[test]
    fn a_batch_is_executed_to_its_end_unless_it_says_otherwise() {
        for (body, wanted) in [
            (json!({}), Semantic::ExecuteAll),
            (json!({"options": {}}), Semantic::ExecuteAll),
            (json!({"options": {"another_option": "value"}}), Semantic::ExecuteAll),
            (json!({"options": {"evaluations_semantic": "execute_all"}}), Semantic::ExecuteAll),
            (json!({"options": {"evaluations_semantic": "deny_on_first_deny"}}), Semantic::DenyOnFirstDeny),
            (json!({"options": {"evaluations_semantic": "permit_on_first_permit"}}), Semantic::PermitOnFirstPermit),
        ] {
            assert_eq!(semantic(&body), Ok(wanted), "{body}");
        }
        for bad in [json!("x"), json!({"evaluations_semantic": "any"}), json!({"evaluations_semantic": 1})] {
            assert!(semantic(&json!({"options": bad})).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_batch_has_at_most_a_hundred() {
        let items = |count: usize| Value::Array(vec![json!({}); count]);
        assert!(check(&Map::new(), &items(100)).is_ok());
        assert!(check(&Map::new(), &items(101)).unwrap_err().to_string().contains("at most 100"));
        assert!(check(&Map::new(), &json!({})).is_err());
        let defaults = json!({"subject": "alice"});
        assert!(check(defaults.as_object().unwrap(), &items(1)).is_err());
    }
}

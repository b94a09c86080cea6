//! `POST /oauth2/token`: token exchange (RFC 8693), and no other grant.

use axum::Json;
use axum::extract::{Request, State};
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse as _, Response};
use serde_json::json;

use super::exchange::{Names, Plan, Shown, plan};
use super::form::Form;
use super::refusal::{Error, Refusal};
use super::request::Asked;
use super::token_type::{ACCESS_TOKEN, CAPABILITY, JWT};
use super::{OAuth, client, evidence, offline, wishes};
use crate::domain::chain::Wish;
use crate::domain::time::Timestamp;
use crate::door::Visit;
use crate::engine::{DelegateRequest, Delegated, Exchange};

/// RFC 8693 §2.1.
pub(super) const GRANT_TYPE: &str = "urn:ietf:params:oauth:grant-type:token-exchange";

/// What is to be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wanted {
    Capability,
    /// An offline JWT, under the name that it was asked for.
    Offline(&'static str),
}

pub(super) async fn exchange(State(oauth): State<OAuth>, request: Request) -> Response {
    match answer(&oauth, request).await {
        Ok(response) => response,
        Err(refusal) => refusal.into_response(),
    }
}

async fn answer(oauth: &OAuth, request: Request) -> Result<Response, Refusal> {
    let asked = Asked::read(request).await?;
    let visit = client::enter(oauth, &asked)?;
    let (plan, wanted) = understand(oauth, &asked.form, &visit).inspect_err(|why| record(oauth, &visit, why))?;
    carry_out(oauth, &asked.form, &visit, &plan, wanted).await
}

/// Records a refusal that the engine was not asked about, by its reason; what was shown stands nowhere.
fn record(oauth: &OAuth, visit: &Visit, refusal: &Refusal) {
    let wish = Wish {
        to: "",
        capabilities: Vec::new(),
        resources: Vec::new(),
        max_uses: None,
        ttl_seconds: None,
        max_depth: None,
        delegatable: false,
        audience: Vec::new(),
        task: None,
        on_behalf_of: None,
    };
    let request = DelegateRequest {
        wish,
        parent: None,
        request_id: "",
        deadline: visit.deadline,
        expires_by: None,
        exchange: None,
    };
    oauth.door.engine().refuse_delegation_under(&visit.beginning, &visit.caller, &request, refusal.denial());
}

/// Which delegation it is, and what is to be made of it.
fn understand<'f>(oauth: &OAuth, form: &'f Form, visit: &'f Visit) -> Result<(Plan<'f>, Wanted), Refusal> {
    match form.required("grant_type")? {
        GRANT_TYPE => {}
        _ => return Err(Refusal::new(Error::UnsupportedGrantType, "only token exchange is offered (RFC 8693)")),
    }
    let wanted = wanted(oauth, form)?;
    let now = oauth.door.engine().clock().now();
    let shown = Shown {
        client: &visit.caller,
        subject: evidence::subject(oauth, form, visit, now)?,
        actor: evidence::actor(oauth, form, visit, now)?,
        is_offline: wanted != Wanted::Capability,
    };
    let names = Names { policy: visit.policy(), issuer: oauth.issuer() };
    let plan = plan(shown, names).inspect_err(|refusal| {
        let client = visit.caller.agent().as_str();
        let trace_id = visit.beginning.trace().map(|trace| tracing::field::display(trace.id));
        tracing::info!(target: "oauth", client, why = refusal.description(), trace_id, "an exchange was refused");
    })?;
    Ok((plan, wanted))
}

async fn carry_out(
    oauth: &OAuth,
    form: &Form,
    visit: &Visit,
    plan: &Plan<'_>,
    wanted: Wanted,
) -> Result<Response, Refusal> {
    let engine = oauth.door.engine();
    let is_offline = wanted != Wanted::Capability;
    let wish = wish(oauth, form, plan, is_offline).inspect_err(|why| record(oauth, visit, why))?;
    let now = engine.clock().now();
    let offline_end = is_offline.then(|| now.after(offline::LIFE).seconds());
    let request = DelegateRequest {
        wish,
        parent: plan.parent,
        request_id: "",
        deadline: visit.deadline,
        expires_by: plan.expires_by.into_iter().chain(offline_end).min(),
        exchange: Some(Exchange { client: &visit.caller, is_offline }),
    };
    let delegation = engine.delegate_under(&visit.beginning, &plan.from, &request).await;
    let delegated = delegation.outcome.map_err(|denial| Refusal::from(&denial))?;
    let now = engine.clock().now();
    match wanted {
        Wanted::Capability => Ok(granted(&delegated, &delegated.token, CAPABILITY, now)),
        Wanted::Offline(kind) => {
            let client = visit.caller.agent().as_str();
            let audience = request.wish.audience.first().map_or("", AsRef::as_ref);
            let token = offline::sign(oauth, &delegated, &plan.earlier, client, audience, now)?;
            Ok(granted(&delegated, &token, kind, now))
        }
    }
}

fn wish<'a>(oauth: &OAuth, form: &'a Form, plan: &'a Plan<'_>, is_offline: bool) -> Result<Wish<'a>, Refusal> {
    let mut wish = wishes::read(form, plan.to.as_str())?;
    wish.on_behalf_of = plan.on_behalf_of.as_deref().map(Into::into);
    if is_offline {
        offline::restrict(oauth, &mut wish)?;
    }
    Ok(wish)
}

/// RFC 8693 §2.2.1. A capability token is no bearer token: only its holder may use it.
fn granted(delegated: &Delegated, token: &str, issued: &str, now: Timestamp) -> Response {
    let token_type = if issued == ACCESS_TOKEN { "Bearer" } else { "N_A" };
    let body = json!({
        "access_token": token,
        "issued_token_type": issued,
        "token_type": token_type,
        "expires_in": delegated.expires_at.seconds().saturating_sub(now.seconds()),
        "scope": delegated.capabilities.join(" "),
    });
    let mut response = Json(body).into_response();
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

fn wanted(oauth: &OAuth, form: &Form) -> Result<Wanted, Refusal> {
    let offline = |kind| {
        if oauth.settings.offline_jwt {
            return Ok(Wanted::Offline(kind));
        }
        let why = "offline JWTs are not made here ([http] offline_jwt): leave requested_token_type out";
        Err(Refusal::new(Error::InvalidRequest, why))
    };
    match form.one("requested_token_type") {
        None | Some(CAPABILITY) => Ok(Wanted::Capability),
        Some(ACCESS_TOKEN) => offline(ACCESS_TOKEN),
        Some(JWT) => offline(JWT),
        Some(_) => {
            let why = format!("requested_token_type is {CAPABILITY} or left out, or a JWT where these are made");
            Err(Refusal::new(Error::InvalidRequest, why))
        }
    }
}

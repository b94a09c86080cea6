//! What a case may say. Everything that is not listed here is an error.
//!
//! ```yaml
//! about: what the file is about
//! policy: {…}                      # of every case that has none of its own
//! given: {a token: [steps]}        # `- given: a token` in a case stands for these steps
//! cases:
//!   - name: a holder uses its token
//!     policy_patch: {…}            # RFC 7396, over the file's policy; or `policy`, whole
//!     world: {capacity: 3}         # switches, see `Switches`
//!     each: [{resource: /a}, …]    # one case for each; `${resource}` is replaced in name and steps
//!     steps:
//!       - by: agent-coordinator
//!         delegate: {to: agent-deployer, cap: [kubectl_get], res: [prod/*], as: t1}
//!         want: {reason: ALLOWED, depth: 1, claims: {exp: now+300}}
//!         event: {result: accepted, token_id: $t1}
//!       - advance: 10s
//! ```
//! Wanted values: `$t1` is the id of the token named t1, `now+5` a time in seconds, `~text` a text that has this
//! part, `null` nothing at all. In lists of requests, `{$times: 3, $text: "a{n}"}` stands for `a0`, `a1`, `a2`.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;
use serde_json::{Map, Value};

/// One file of cases.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CaseFile {
    about: String,
    policy: Value,
    #[serde(default)]
    given: BTreeMap<String, Vec<Value>>,
    cases: Vec<Map<String, Value>>,
}

/// A case.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Case {
    /// What holds, as a sentence.
    pub(crate) name: String,
    policy: Option<Value>,
    policy_patch: Option<Value>,
    /// How its world differs from others.
    #[serde(default)]
    pub(crate) world: Switches,
    /// What happens in it.
    pub(crate) steps: Vec<Step>,
    /// The file's name.
    #[serde(skip)]
    pub(crate) file: String,
}

/// Switches of a world.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Switches {
    /// Tokens the ledger has room for.
    pub(crate) capacity: Option<usize>,
    /// Tokens the ledger has room for by the chain's first agent.
    pub(crate) per_agent: Option<usize>,
    /// A policy older than this is stale.
    pub(crate) max_policy_age: Option<String>,
    /// As in `Step::keys`.
    pub(crate) keys: Option<Vec<String>>,
    /// The audit log is a pipe, so that `do: stick_audit` works.
    pub(crate) audit_pipe: bool,
    /// `[identity]`.
    pub(crate) identity: remit::identity::Config,
    /// `serve --dev`: names are believed.
    pub(crate) dev: bool,
}

/// One step: exactly one action. A verb states who asks, what is wanted, and which event.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Step {
    /// Who asks.
    pub(crate) by: Option<By>,
    #[serde(flatten)]
    pub(crate) action: Action,
    /// A reason, or what the answer has to have.
    pub(crate) want: Option<Value>,
    /// What the event has to have; `none`, or `withheld` while the audit log is stuck.
    pub(crate) event: Option<Value>,
    /// Several events, for `do: unstick_audit`; for `reload` and for a verb those beside its own.
    pub(crate) events: Option<Vec<Value>>,
}

/// Who asks: an agent's name on its own mTLS connection, or evidence.
#[derive(Deserialize)]
#[serde(untagged)]
pub(crate) enum By {
    Agent(String),
    Other(Evidence),
}

/// Evidence that is not an agent's own good certificate.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Evidence {
    /// The agent that the evidence was found to be of.
    pub(crate) agent: Option<String>,
    /// By which method it was found; `SPIFFE`, `JWT`, …
    pub(crate) method: Option<String>,
    /// Whether evidence of this kind may hold a role.
    #[serde(default)]
    pub(crate) privileged: bool,
    /// What the evidence claims beside.
    #[serde(default)]
    pub(crate) claims: Map<String, Value>,
    /// A certificate that has still to be identified.
    pub(crate) certificate: Option<CertificateNames>,
    /// The header `x-remit-agent`.
    pub(crate) header: Option<String>,
}

/// What a certificate says.
#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
#[derive(Default)]
pub(crate) struct CertificateNames {
    pub(crate) uris: Vec<String>,
    pub(crate) dns: Vec<String>,
    pub(crate) common_name: Option<String>,
    pub(crate) expired: bool,
}

/// What is done in a step.
#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Action {
    Authorize(Authorize),
    Delegate(Delegate),
    Revoke(Revoke),
    Reinstate(Reinstate),
    Introspect(Introspect),
    /// The clock is moved: `10s`, `500ms`.
    Advance(String),
    /// A patch over the policy in force is loaded.
    Reload(Value),
    /// Something that happens without anybody's asking.
    Do(Deed),
    /// Keys, the sealing one first: `k1` to `k9`; `own:k1` is one that no other issuer holds.
    Keys(Vec<String>),
    /// Series and their values: `name{label=value}`; null for a series that is not there.
    Metrics(BTreeMap<String, Option<f64>>),
    MintForeign(MintForeign),
    Forge(Forge),
    Mangle(Mangle),
}

/// What happens by itself.
#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Deed {
    /// The policy file is read again and found valid.
    ReadPolicy,
    /// What has expired is forgotten.
    ForgetExpired,
    /// Lines of the audit log wait; needs `audit_pipe`.
    StickAudit,
    /// Lines of the audit log are written again.
    UnstickAudit,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Authorize {
    pub(crate) cap: Option<String>,
    pub(crate) res: Option<String>,
    /// A token's name.
    pub(crate) token: Option<String>,
    pub(crate) agent: Option<String>,
    /// What was shown for the agent, and verified.
    pub(crate) evidence: Option<AgentEvidence>,
    pub(crate) destination: Option<String>,
    pub(crate) method: Option<String>,
    pub(crate) path: Option<String>,
    /// What is said of the request.
    #[serde(default)]
    pub(crate) context: Map<String, Value>,
    /// What is said of the agent, of the action, of the resource.
    #[serde(default)]
    pub(crate) properties: Properties,
    #[serde(default)]
    pub(crate) dry_run: bool,
    #[serde(default)]
    pub(crate) request_id: String,
    pub(crate) deadline: Option<String>,
}

/// Verified evidence for an agent; without `agent` it is of nobody that policy knows.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct AgentEvidence {
    pub(crate) agent: Option<String>,
    pub(crate) method: String,
    pub(crate) subject: String,
    pub(crate) issuer: String,
    #[serde(default)]
    pub(crate) claims: Map<String, Value>,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Properties {
    pub(crate) subject: Map<String, Value>,
    pub(crate) action: Map<String, Value>,
    pub(crate) resource: Map<String, Value>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Delegate {
    pub(crate) to: String,
    pub(crate) cap: Vec<String>,
    pub(crate) res: Vec<String>,
    /// The parent's name.
    pub(crate) from: Option<String>,
    pub(crate) uses: Option<u32>,
    pub(crate) ttl: Option<u64>,
    pub(crate) max_depth: Option<u8>,
    #[serde(default)]
    pub(crate) delegatable: bool,
    #[serde(default)]
    pub(crate) audience: Vec<String>,
    pub(crate) task: Option<String>,
    /// The user, as verified evidence names it.
    pub(crate) obo: Option<String>,
    #[serde(default)]
    pub(crate) request_id: String,
    pub(crate) deadline: Option<String>,
    /// The new token's name.
    #[serde(rename = "as")]
    pub(crate) name: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Revoke {
    /// A token's name, to show its text.
    pub(crate) token: Option<String>,
    /// A token's name, or 32 hex digits, to give its id.
    pub(crate) token_id: Option<String>,
    pub(crate) agent: Option<String>,
    pub(crate) quarantine: Option<String>,
    #[serde(default)]
    pub(crate) all: bool,
    #[serde(default)]
    pub(crate) note: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Reinstate {
    pub(crate) agent: String,
    #[serde(default)]
    pub(crate) note: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Introspect {
    pub(crate) token: Option<String>,
    pub(crate) token_id: Option<String>,
}

/// A token as the source document's issuer makes it: `sub`, `cap` and the rest have that document's defaults.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct MintForeign {
    /// Claims over the defaults; null leaves one out.
    #[serde(default)]
    pub(crate) claims: Value,
    /// The payload, instead of claims. `@now+5` becomes a time.
    pub(crate) payload: Option<String>,
    /// Parts of the payload, and what stands there instead.
    #[serde(default)]
    pub(crate) replace: BTreeMap<String, String>,
    #[serde(default = "first_key")]
    pub(crate) key: String,
    #[serde(rename = "as")]
    pub(crate) name: String,
}

/// A token of ours, changed and sealed by somebody who has a key.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Forge {
    pub(crate) from: String,
    /// Claims over its own; null leaves one out.
    pub(crate) claims: Value,
    #[serde(default = "first_key")]
    pub(crate) key: String,
    #[serde(rename = "as")]
    pub(crate) name: String,
}

/// A token's text, changed.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Mangle {
    pub(crate) token: String,
    /// The new text; `{payload}`, `{seal}`, `{SEAL}`, `{cut}` (the seal without its first digit), `{bare}`
    /// (the payload without padding) and `{standard}` (in base64 of the other alphabet) are parts of the old one.
    pub(crate) text: String,
    #[serde(rename = "as")]
    pub(crate) name: String,
}

fn first_key() -> String {
    "k1".to_owned()
}

impl Case {
    /// The policy's text.
    pub(crate) fn policy_text(&self) -> String {
        let policy = self.policy.as_ref().map(Value::to_string);
        policy.unwrap_or_else(|| panic!("{}: {} has no policy", self.file, self.name))
    }

    /// The reasons that its steps want.
    pub(crate) fn wanted_reasons(&self) -> Vec<String> {
        let reason = |want: &Value| want.as_str().or_else(|| want.get("reason")?.as_str()).map(str::to_owned);
        self.steps.iter().filter_map(|step| step.want.as_ref().and_then(reason)).collect()
    }
}

/// Every case of every file.
pub(crate) fn load() -> Vec<Case> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/decisions");
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "yaml"));
    files.sort();
    files.iter().flat_map(|path| load_file(path)).collect()
}

fn load_file(path: &Path) -> Vec<Case> {
    let name = path.file_name().unwrap().to_string_lossy().into_owned();
    parse(&name, &std::fs::read_to_string(path).unwrap())
}

/// The cases of a file's text.
pub(crate) fn parse(name: &str, text: &str) -> Vec<Case> {
    let file: CaseFile = serde_saphyr::from_str(text).unwrap_or_else(|error| panic!("{name}: {error}"));
    assert!(!file.about.is_empty(), "{name} does not say what it is about");
    let cases = file.cases.into_iter().map(|case| with_given(name, &file.given, case)).flat_map(each);
    cases.map(|case| read(name, &file.policy, case)).collect()
}

/// The case with each `given` replaced by its steps.
fn with_given(file: &str, given: &BTreeMap<String, Vec<Value>>, mut case: Map<String, Value>) -> Map<String, Value> {
    let Some(Value::Array(steps)) = case.get_mut("steps") else { return case };
    let steps_of = |step: Value| match step.get("given").and_then(Value::as_str) {
        Some(name) => given.get(name).unwrap_or_else(|| panic!("{file}: nothing is given as {name}")).clone(),
        None => vec![step],
    };
    *steps = std::mem::take(steps).into_iter().flat_map(steps_of).collect();
    case
}

/// One case for each entry of its `each`.
fn each(mut case: Map<String, Value>) -> Vec<Value> {
    let Some(entries) = case.remove("each") else { return vec![Value::Object(case)] };
    let case = Value::Object(case);
    let entries = entries.as_array().expect("each is a list").iter();
    entries.map(|entry| replaced(&case, entry.as_object().expect("each has maps"))).collect()
}

fn replaced(value: &Value, with: &Map<String, Value>) -> Value {
    match value {
        Value::String(text) => {
            let whole = with.iter().find(|(name, _)| *text == format!("${{{name}}}"));
            if let Some((_, value)) = whole {
                return value.clone();
            }
            Value::String(text_with(text, with))
        }
        Value::Array(items) => Value::Array(items.iter().map(|item| replaced(item, with)).collect()),
        Value::Object(object) => {
            let member = |(name, value): (&String, &Value)| (text_with(name, with), replaced(value, with));
            Value::Object(object.iter().map(member).collect())
        }
        other @ (Value::Null | Value::Bool(_) | Value::Number(_)) => other.clone(),
    }
}

fn text_with(text: &str, with: &Map<String, Value>) -> String {
    let part = |text: String, (name, value): (&String, &Value)| {
        let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        text.replace(&format!("${{{name}}}"), &value)
    };
    with.iter().fold(text.to_owned(), part)
}

fn read(file: &str, policy: &Value, case: Value) -> Case {
    let name = case.get("name").and_then(Value::as_str).unwrap_or("a case without a name").to_owned();
    let fail = |what: &dyn std::fmt::Display| -> ! { panic!("{file}: {name}: {what}") };
    let mut case: Case = serde_json::from_value(spliced(case)).unwrap_or_else(|error| fail(&error));
    case.file = file.to_owned();
    let mut whole = case.policy.take().unwrap_or_else(|| policy.clone());
    if let Some(change) = case.policy_patch.take() {
        patch(&mut whole, &change);
    }
    case.policy = Some(whole);
    for (number, step) in case.steps.iter().enumerate() {
        if let Err(what) = step.check() {
            fail(&format!("step {}: {what}", number.saturating_add(1)));
        }
    }
    case
}

impl Step {
    fn check(&self) -> Result<(), &'static str> {
        if !self.is_verb() {
            let has_want = self.want.is_some() && !matches!(self.action, Action::Reload(_));
            return if self.by.is_some() || has_want { Err("only a verb has `by` and `want`") } else { Ok(()) };
        }
        if self.by.is_none() || self.want.is_none() {
            return Err("a verb says who asks (`by`) and what is wanted (`want`)");
        }
        match &self.event {
            Some(Value::String(word)) if word == "none" || word == "withheld" => Ok(()),
            Some(Value::Object(keys)) if !keys.is_empty() => Ok(()),
            _ => Err("a verb states the wanted event: keys and values, or `none`"),
        }
    }

    /// Whether somebody asks something.
    pub(crate) fn is_verb(&self) -> bool {
        matches!(
            self.action,
            Action::Authorize(_)
                | Action::Delegate(_)
                | Action::Revoke(_)
                | Action::Reinstate(_)
                | Action::Introspect(_)
        )
    }
}

/// A JSON merge patch (RFC 7396 §2).
pub(crate) fn patch(target: &mut Value, change: &Value) {
    let Value::Object(change) = change else {
        *target = change.clone();
        return;
    };
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    let Value::Object(target) = target else { return };
    for (name, value) in change {
        if value.is_null() {
            target.remove(name);
        } else {
            patch(target.entry(name.clone()).or_insert(Value::Null), value);
        }
    }
}

/// `{$times: 2, $text: "a{n}"}` in a list becomes `a0`, `a1`.
fn spliced(value: Value) -> Value {
    match value {
        Value::Array(items) => Value::Array(items.into_iter().flat_map(generated).collect()),
        Value::Object(object) => {
            Value::Object(object.into_iter().map(|(name, value)| (name, spliced(value))).collect())
        }
        other @ (Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_)) => other,
    }
}

fn generated(item: Value) -> Vec<Value> {
    let times = item.get("$times").and_then(Value::as_u64);
    let text = item.get("$text").and_then(Value::as_str);
    match (times, text) {
        (Some(times), Some(text)) => (0..times).map(|n| text.replace("{n}", &n.to_string()).into()).collect(),
        _ => vec![spliced(item)],
    }
}

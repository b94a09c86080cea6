use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::domain::policy::{Call, Policy};
use crate::domain::resource::Resource;
use crate::identity::spiffe::Template;
use crate::policy_file::{ExtraRoles, compile};

const TARGET: Target<'_> = Target { namespace: "ai-agents", provider: "remit" };

/// The object of the source document, which is printed there without its indentation.
const SEED: &str = r#"
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata:
  name: agent-communication-policy
  namespace: ai-agents
spec:
  rules:
    # Coordinator can call any agent
    - from:
        - source:
            principals: ["cluster.local/ns/ai-agents/sa/agent-coordinator-sa"]
      to:
        - operation:
            methods: ["POST"]
            paths: ["/v1/delegate"]
    # Deployer can call validator only
    - from:
        - source:
            principals: ["cluster.local/ns/ai-agents/sa/agent-deployer-sa"]
      to:
        - operation:
            methods: ["POST"]
            paths: ["/v1/delegate"]
      when:
        - key: destination.labels[app]
          values: ["agent-validator"]
"#;

fn templates(texts: &[&str]) -> Vec<Template> {
    texts.iter().map(|text| Template::spiffe(text).unwrap()).collect()
}

fn usual() -> Vec<Template> {
    templates(&["spiffe://cluster.local/ns/ai-agents/sa/{agent}-sa"])
}

fn policy(value: &Value) -> Policy {
    compile("p", value.to_string().as_bytes(), &ExtraRoles::default(), |_| String::new(), 1).unwrap().policy
}

fn names<'a>(templates: &'a [Template], policy: &'a Policy) -> Names<'a> {
    Names { templates, principals: &policy.principals }
}

fn exported(policy: &Policy, templates: &[Template]) -> Exported {
    export(policy.communication_rules.as_deref(), &names(templates, policy), TARGET)
}

fn imported(text: &str) -> Imported {
    let (templates, principals) = (usual(), BTreeMap::new());
    import(&read(text).unwrap(), &Names { templates: &templates, principals: &principals }, "remit")
}

fn rule(rest: &str) -> Imported {
    let head = "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: x}\n";
    imported(&format!("{head}spec: {rest}"))
}

#[test]
fn the_source_documents_object_becomes_two_rules() {
    let seed = imported(SEED);
    assert_eq!(seed.unsaid, Vec::<String>::new());
    let methods_and_paths =
        |from: &str, to: &str| json!({"from": from, "to": to, "methods": ["POST"], "paths": ["/v1/delegate"]});
    let wanted = [methods_and_paths("agent-coordinator", "*"), methods_and_paths("agent-deployer", "agent-validator")];
    assert_eq!(seed.to_json(), json!({"communication_rules": wanted}));
    let policy = policy(&seed.to_json());
    // And out again: with a selector where the document has a condition that Istio's list of attributes lacks.
    let back = write(&exported(&policy, &usual()).objects).unwrap();
    assert_eq!(imported(&back).to_json(), json!({"communication_rules": wanted}));
    assert!(!back.contains("destination.labels") && back.contains("matchLabels"), "{back}");
}

#[test]
fn what_rules_cannot_say_is_named_and_left_out() {
    for (spec, wanted) in [
        ("{action: DENY, rules: [{}]}", "DENY"),
        ("{action: AUDIT, rules: [{}]}", "AUDIT"),
        ("{action: CUSTOM, provider: {name: other}, rules: [{}]}", "the provider other"),
        ("{targetRefs: [{kind: Gateway}]}", "unknown field `targetRefs`"),
        ("{selector: {matchLabels: {version: v1}}, rules: [{}]}", "its selector"),
        ("{selector: {matchLabels: {app: a, version: v1}}, rules: [{}]}", "its selector"),
        ("{rules: [{form: []}]}", "unknown field `form`"),
        ("{rules: [{from: [{source: {namespaces: [x]}}]}]}", "[namespaces]"),
        ("{rules: [{from: [{source: {principals: [x], notPrincipals: [v]}}]}]}", "[notPrincipals]"),
        ("{rules: [{from: [{source: {}}]}]}", "a source with []"),
        ("{rules: [{from: [{source: {principals: [other/ns/x/sa/y]}}]}]}", "no template makes it an agent"),
        ("{rules: [{from: [{source: {principals: ['cluster.local/ns/ai-agents/sa/*']}}]}]}", "one agent or all"),
        ("{rules: [{to: [{operation: {hosts: [x], methods: [GET]}}]}]}", "[hosts]"),
        ("{rules: [{to: [{operation: {}}]}]}", "an operation with []"),
        ("{rules: [{to: [{operation: {methods: ['P*']}}]}]}", "the method P*"),
        ("{rules: [{to: [{operation: {paths: ['/data*']}}]}]}", "the path /data*"),
        ("{rules: [{to: [{operation: {paths: ['*.html']}}]}]}", "the path *.html"),
        ("{rules: [{to: [{operation: {paths: ['/a/{*}']}}]}]}", "the path /a/{*}"),
        ("{rules: [{when: [{key: 'request.headers[x]', values: [v]}]}]}", "the condition on request.headers[x]"),
        ("{rules: [{when: [{key: source.principal, notValues: [v]}]}]}", "the condition on source.principal"),
    ] {
        let answer = rule(spec);
        assert!(answer.rules.is_empty(), "{spec}: {:?}", answer.rules);
        assert!(answer.unsaid.iter().any(|what| what.contains(wanted)), "{spec}: {:?}", answer.unsaid);
    }
}

#[test]
fn what_istio_lets_pass_where_nothing_selects_is_named() {
    let selected = rule("{selector: {matchLabels: {app: a}}, rules: [{}]}");
    assert_eq!(selected.rules.len(), 1);
    assert!(selected.unsaid[0].contains("no ALLOW selects"), "{:?}", selected.unsaid);
    assert_eq!(rule("{}"), Imported { rules: vec![], unsaid: vec![] });
    assert_eq!(rule("{rules: [{}]}").to_json(), json!({"communication_rules": [{"from": "*", "to": "*"}]}));
}

#[test]
fn a_short_text_becomes_no_endless_policy() {
    let many = |name: &str, form: &dyn Fn(u32) -> String| {
        let items: Vec<String> = (0..200).map(form).collect();
        format!("{name}: [{}]", items.join(", "))
    };
    let principals = many("principals", &|n| format!("cluster.local/ns/ai-agents/sa/a{n}-sa"));
    let to = many("to", &|n| format!("{{operation: {{paths: [/{n}]}}}}"));
    let answer = rule(&format!("{{rules: [{{from: [{{source: {{{principals}}}}}], {to}}}]}}"));
    assert_eq!(answer.rules.len(), 20_000);
    assert!(answer.unsaid.iter().any(|what| what.contains("more than 20000")));
}

#[test]
fn what_is_no_object_is_an_error() {
    for (text, wanted) in [("a: [", "no YAML"), ("", "no AuthorizationPolicy"), ("kind: Pod", "no AuthorizationPolicy")]
    {
        assert!(read(text).unwrap_err().to_string().contains(wanted), "{text}");
    }
    let list = json!({"kind": "List", "items": read(SEED).unwrap()});
    assert_eq!(imported(&list.to_string()), imported(SEED));
}

#[test]
fn what_istio_cannot_say_is_named_and_left_out() {
    let policy = policy(&json!({"communication_rules": [
        {"from": "user:x", "to": "b"}, {"from": "a", "to": "user:x"}, {"from": "a", "to": "b", "paths": ["/x/{y}"]},
        {"from": "c", "to": "b", "methods": []}, {"from": "c", "to": "b"},
    ], "principals": {"dns:c.example": "c"}}));
    let exported = exported(&policy, &usual());
    let wanted = [
        "user:x has no SPIFFE ID",
        "user:x can't be the value of a label",
        "the path /x/{y}",
        "c is also dns:c.example",
    ];
    assert_eq!(exported.unsaid.len(), wanted.len(), "{:?}", exported.unsaid);
    assert!(
        wanted.iter().zip(&exported.unsaid).all(|(wanted, unsaid)| unsaid.contains(wanted)),
        "{:?}",
        exported.unsaid
    );
    assert_eq!(exported.objects.len(), 4);
}

#[test]
fn without_rules_only_remit_is_asked() {
    let exported = exported(&policy(&json!({})), &usual());
    assert_eq!(exported.objects.len(), 2);
    assert_eq!(exported.objects[1]["spec"], json!({"mtls": {"mode": "STRICT"}}));
    assert_eq!(exported.objects[0]["spec"], json!({"action": "CUSTOM", "provider": {"name": "remit"}, "rules": [{}]}));
}

#[test]
fn text_that_old_readers_take_for_a_boolean_is_quoted() {
    let policy = policy(&json!({"communication_rules": [{"from": "a", "to": "on", "methods": ["NO"]}]}));
    let text = write(&exported(&policy, &usual()).objects).unwrap();
    assert!(
        ["on", "NO"].iter().all(|word| text.contains(&format!("'{word}'")) || text.contains(&format!("\"{word}\""))),
        "{text}"
    );
}

// Istio, in a few lines of its own: what its documentation says of ALLOW rules.

fn fits(pattern: &Value, text: &str) -> bool {
    let pattern = pattern.as_str().unwrap();
    match (pattern.strip_suffix('*'), pattern.strip_prefix('*')) {
        (Some(begin), _) => text.starts_with(begin),
        (None, Some(end)) => text.ends_with(end),
        (None, None) => pattern == text,
    }
}

/// One of an absent list will do; of a list that is there, one has to fit.
fn one_of(list: Option<&Value>, fits: impl Fn(&Value) -> bool) -> bool {
    list.is_none_or(|list| list.as_array().unwrap().iter().any(fits))
}

fn istio_allows(objects: &[Value], principal: &str, app: &str, method: &str, path: &str) -> bool {
    let selects = |object: &&Value| object.pointer("/spec/selector/matchLabels/app").is_none_or(|label| label == app);
    let is_allow = |object: &&Value| object["spec"].get("action").is_none_or(|action| action == "ALLOW");
    let is_policy = |object: &&Value| object["kind"] == "AuthorizationPolicy";
    let mut allows = objects.iter().filter(is_policy).filter(selects).filter(is_allow).peekable();
    if allows.peek().is_none() {
        return true;
    }
    let rules = allows.flat_map(|object| object["spec"].get("rules").and_then(Value::as_array).into_iter().flatten());
    rules.into_iter().any(|rule| {
        one_of(rule.get("from"), |from| one_of(from["source"].get("principals"), |one| fits(one, principal)))
            && one_of(rule.get("to"), |to| {
                one_of(to["operation"].get("methods"), |one| fits(one, method))
                    && one_of(to["operation"].get("paths"), |one| fits(one, path))
            })
            && rule.get("when").is_none_or(|when| {
                when.as_array().unwrap().iter().all(|when| {
                    assert_eq!(when["key"], "source.principal");
                    one_of(when.get("values"), |one| fits(one, principal))
                })
            })
    })
}

const AGENTS: &[&str] = &["a", "b", "agent-c", "Agent.D", "user:x", "_e"];
const METHODS: &[&str] = &["GET", "POST", "NO"];
const PATTERNS: &[&str] = &["*", "/*", "/v1/*", "/v1/delegate", "/v1/{x}", "db:x", "/on"];
const PATHS: &[&str] = &["/v1", "/v1/delegate", "/v1/x/y", "/v1/{x}", "/on", "/other"];
const TEMPLATES: &[&[&str]] = &[
    &["spiffe://cluster.local/ns/ai-agents/sa/{agent}-sa"],
    &["spiffe://d/ns/x/sa/{agent}"],
    &["spiffe://d/ns/{agent}/sa/default", "spiffe://cluster.local/ns/ai-agents/sa/{agent}-sa"],
];

fn communication() -> impl Strategy<Value = Value> {
    let side = || prop::sample::select([AGENTS, &["*"]].concat());
    let list =
        |from: &'static [&'static str]| prop::option::of(prop::collection::vec(prop::sample::select(from), 0..3));
    (side(), side(), list(METHODS), list(PATTERNS)).prop_map(|(from, to, methods, paths)| {
        let mut rule = json!({"from": from, "to": to});
        if let Some(methods) = methods {
            rule["methods"] = json!(methods);
        }
        if let Some(paths) = paths {
            rule["paths"] = json!(paths);
        }
        rule
    })
}

fn calls() -> impl Iterator<Item = (&'static str, &'static str, &'static str, &'static str)> {
    AGENTS.iter().chain(&["stranger"]).flat_map(|from| {
        let to = AGENTS.iter().chain(&["other"]);
        to.flat_map(move |to| {
            METHODS.iter().flat_map(move |method| PATHS.iter().map(move |path| (*from, *to, *method, *path)))
        })
    })
}

fn lets_pass(policy: &Policy, (from, to, method, path): (&str, &str, &str, &str)) -> bool {
    policy.may_call(&Call { from, to, method, path: Some(Resource::parse(path).unwrap()) }).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn the_objects_say_the_same_and_come_back_the_same(
        rules in prop::collection::vec(communication(), 0..6),
        template in prop::sample::select(TEMPLATES),
        stated in any::<bool>(),
    ) {
        let principals = if stated { json!({"spiffe://x/ops": "b", "spiffe://d/ns/x/sa/a": "agent-c"}) } else { json!({}) };
        let before = policy(&json!({"communication_rules": rules, "principals": principals}));
        let templates = templates(template);
        let names = names(&templates, &before);
        let exported = exported(&before, &templates);
        let back = import(&read(&write(&exported.objects).unwrap()).unwrap(), &names, "remit");
        prop_assert!(back.unsaid.is_empty(), "{:?}", back.unsaid);
        let after = policy(&back.to_json());
        let is_whole = exported.unsaid.is_empty();
        for call in calls() {
            let (from, to, method, path) = call;
            let wanted = lets_pass(&before, call);
            let returned = lets_pass(&after, call);
            prop_assert!(returned == wanted || (!is_whole && !returned), "back: {call:?}");
            let agent = crate::domain::agent::AgentName::parse(from).unwrap();
            for principal in names.principals(&agent) {
                let by_istio = istio_allows(&exported.objects, &principal, to, method, path);
                prop_assert!(by_istio == wanted || (!is_whole && !by_istio), "{principal} {call:?}");
            }
        }
        prop_assert!(calls().all(|(_, to, method, path)| !istio_allows(&exported.objects, "evil/ns/x/sa/a-sb", to, method, path)));
    }
}

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::domain::resource::Resource;

/// What a test says of a request.
struct Scene {
    context: Value,
    claims: Value,
    chain: Vec<Cow<'static, str>>,
    subject: Value,
    known: Value,
}

impl Scene {
    fn of(context: Value) -> Self {
        let chain = ["root", "middle", "deployer"].map(Cow::Borrowed).to_vec();
        Self { context, claims: json!({"team": "platform"}), chain, subject: json!({"level": 3}), known: json!({}) }
    }

    fn evaluate(&self, text: &str) -> (Result<(), Unmet>, u64) {
        let expression = Expression::compile(text).unwrap_or_else(|invalid| panic!("{text}: {invalid}"));
        let condition = Condition { place: "conditions[0].require".into(), expression: Arc::new(expression) };
        let facts = |value: &'_ Value| value.as_object().cloned().unwrap_or_default();
        let (context, subject) = (facts(&self.context), facts(&self.subject));
        let circumstances = Circumstances {
            agent: "deployer",
            wanted: Some(Use { capability: "restart", resource: Resource::parse("k8s://prod/web").unwrap() }),
            chain: &self.chain,
            on_behalf_of: "user:alice",
            claims: self.claims.as_object(),
            subject_properties: self.known.as_object(),
            resource_properties: None,
            given: Given { context: Some(&context), subject: Some(&subject), ..Given::default() },
            now: Timestamp::from_seconds(1_795_298_503),
        };
        let mut evaluation = Evaluation::new(&circumstances);
        let holds = evaluation.holds(&condition);
        (holds, CONDITION_STEPS.saturating_sub(evaluation.meter.left()))
    }

    fn holds(&self, text: &str) -> Result<(), Unmet> {
        self.evaluate(text).0
    }
}

#[test]
fn every_variable_has_its_value() {
    let scene = Scene::of(json!({"amount": 99.5, "approved": true, "tags": ["a", "b"], "nested": {"n": null}}));
    for text in [
        "agent == 'deployer'",
        "subject.type == 'agent' && subject.id == agent && subject.properties.level == 3",
        "action.name == 'restart' && action.properties == {}",
        "resource.type == 'k8s' && resource.id == '//prod/web' && size(resource.properties) == 0",
        "chain == ['root', 'middle', 'deployer'] && chain[0] == 'root' && depth == 2 && size(chain) == depth + 1",
        "obo == 'user:alice' && obo.startsWith('user:')",
        "claims.team == 'platform' && claims['team'] in ['platform', 'data']",
        "context.amount < 100 && context.amount <= 99.5 && context.approved && !has(context.other)",
        "'b' in context.tags && context.tags.exists(tag, tag == 'a') && context.tags.all(tag, size(tag) == 1)",
        "context.tags.exists_one(tag, tag == 'a') && context.nested.n == null && has(context.nested.n)",
        "now > timestamp('2026-11-21T00:00:00Z') && now - timestamp('2026-11-21T00:00:00Z') < duration('24h')",
        "now.getHours() == 22 && now.getDayOfWeek() == 6 && now.getHours('Europe/Berlin') == 23",
        "int(context.amount) % 2 == 1 && string(depth) == '2' && double(depth) < 2.5",
        "(context.approved ? 'yes' : 'no') == 'yes'",
        "{'platform': 200, 'data': 10}[claims.team] > context.amount",
        "context.nested.exists(name, name == 'n')",
    ] {
        assert_eq!(scene.holds(text), Ok(()), "{text}");
    }
}

#[test]
fn a_resource_without_a_type_is_its_own_id() {
    for (resource, typed) in [
        ("/data/x", ("", "/data/x")),
        ("prod/web", ("", "prod/web")),
        ("db:orders", ("db", "orders")),
        ("k8s://prod/web", ("k8s", "//prod/web")),
        ("A:b", ("", "A:b")),
    ] {
        assert_eq!(Resource::parse(resource).unwrap().typed(), typed, "{resource}");
    }
}

#[test]
fn what_can_not_be_evaluated_is_not_met() {
    let scene = Scene::of(json!({"amount": 5, "text": "x", "list": [1], "big": 1e300}));
    for (text, why) in [
        ("context.amount > 5", Unmet::False),
        ("context.missing == 1", Unmet::Missing),
        ("!(context.missing == 1)", Unmet::Missing),
        ("context.missing != 1", Unmet::Missing),
        ("!has(context.missing.deeper)", Unmet::Missing),
        ("context.list[1] == 1", Unmet::Missing),
        ("context.amount > 'x'", Unmet::Mismatch),
        ("!(context.text < 5)", Unmet::Mismatch),
        ("context.text", Unmet::NotBool),
        ("context.amount", Unmet::NotBool),
        ("!context.text", Unmet::Mismatch),
        ("context.text ? true : true", Unmet::Mismatch),
        ("context.text.exists(x, true)", Unmet::Mismatch),
        ("context.list.all(x, x.name == 1)", Unmet::Mismatch),
        ("int(context.text) == 1", Unmet::OutOfRange),
        ("int(context.big) == 1", Unmet::OutOfRange),
        ("depth / (depth - 2) == 1", Unmet::OutOfRange),
        ("9223372036854775807 + depth > 0", Unmet::OutOfRange),
        ("timestamp(context.text) < now", Unmet::OutOfRange),
        ("duration(context.text) < duration('1h')", Unmet::OutOfRange),
        ("now.getHours(context.text) == 1", Unmet::OutOfRange),
    ] {
        assert_eq!(scene.holds(text), Err(why), "{text}");
    }
}

#[test]
fn an_error_beside_what_decides_alone_is_forgotten_as_the_language_says() {
    let scene = Scene::of(json!({}));
    assert_eq!(scene.holds("context.missing == 1 || agent == 'deployer'"), Ok(()));
    assert_eq!(scene.holds("context.missing == 1 && agent == 'other'"), Err(Unmet::False));
    assert_eq!(scene.holds("context.missing == 1 || agent == 'other'"), Err(Unmet::Missing));
}

#[test]
fn what_the_request_says_goes_over_what_policy_says() {
    let mut scene = Scene::of(json!({}));
    scene.known = json!({"level": 1, "team": "platform"});
    assert_eq!(scene.holds("subject.properties.level == 3 && subject.properties.team == 'platform'"), Ok(()));
}

#[test]
fn claims_that_nobody_verified_are_none() {
    let mut scene = Scene::of(json!({}));
    scene.claims = Value::Null;
    assert_eq!(scene.holds("size(claims) == 0 && !has(claims.team)"), Ok(()));
}

#[test]
fn only_what_may_be_a_condition_compiles() {
    for (text, at, message) in [
        ("", "", "can't be empty"),
        ("agent == 1", "==", "`==` can't compare a string and a whole number"),
        ("'ä' == 'b' && agent == 1", "==", "can't compare"),
        ("agnt == 'a'", "agnt", "unknown variable `agnt`"),
        ("subject.name == 'a'", "name", "unknown field `name`"),
        ("agent.x == 'a'", "x", "a string has no field `x`"),
        ("1", "1", "a condition is true or false, and this is a whole number"),
        ("depth + 1", "+", "and this is a whole number"),
        ("'agent'", "'agent'", "and this is a string"),
        ("agent && true", "&&", "what stands before `&&` is true or false, not a string"),
        ("(true ? agent : 'x') == 1", "==", "can't compare"),
        ("!agent", "!", "`!` is nothing for a string"),
        ("agent.matches('a')", "matches", "no regular expressions"),
        ("agent.reverse()", "reverse", "unknown function `reverse`"),
        ("startsWith(agent, 'a')", "startsWith", "is written x.startsWith(…)"),
        ("agent.startsWith(1)", "startsWith", "does not take a string, a whole number"),
        ("chain.map(x, x) == chain", "map", "`has`, `all`, `exists` and `exists_one`"),
        ("size(chain.filter(x, true)) > 1", "filter", "`has`, `all`, `exists` and `exists_one`"),
        ("chain.all(x, x)", "x", "what is asked of each element is true or false, not a string"),
        ("chain.all(agent, true)", "all", "the name `agent` is taken"),
        ("agent.all(x, true)", "all", "it goes through a list or a map, not a string"),
        ("chain.all(a, chain.all(b, chain.all(c, true)))", "all", "at most 2 deep"),
        ("b'x' == b'x'", "b'x'", "no bytes"),
        ("now == 5", "==", "a timestamp and a whole number"),
        ("now + now > now", "+", "`+` can't combine a timestamp and a timestamp"),
        ("depth % 2.0 == 0", "%", "can't combine"),
        ("subject == resource", "==", "can't compare"),
        ("1 in chain", "in", "`in` can't look up"),
        ("chain['a'] == 'a'", "[", "can't look up"),
        ("{1: 2} == {}", "1", "a key is a string"),
        ("x.y.Z{a: 1} == 1", "{", "no messages"),
        ("now < timestamp('noon')", "timestamp", "`timestamp` can make nothing of what it is given here"),
        ("now - now < duration('1 day')", "duration", "can make nothing"),
        ("int('1e3') > depth", "int", "can make nothing"),
        ("now.getHours('Europe/Berln') > 8", "getHours", "can make nothing"),
        ("agent ==", "", "not CEL"),
        ("agent == 'ä' §", "§", "not CEL"),
        ("agent == 'a'\n  && ++", "+", "not CEL"),
    ] {
        let invalid = Expression::compile(text).err().unwrap_or_else(|| panic!("taken: {text}"));
        assert!(invalid.message.contains(message), "{text}: {invalid}");
        assert_eq!(text.get(invalid.at.clone()), Some(at), "{text}: {invalid}");
    }
}

#[test]
fn length_and_nesting_are_bounded() {
    let long = format!("agent == '{}'", "a".repeat(CONDITION_BYTES));
    assert!(Expression::compile(&long).unwrap_err().message.contains("at most 2048 bytes"));
    let repeated = |unit: &str, last: &str| {
        let times = CONDITION_BYTES.saturating_sub(last.len()).checked_div(unit.len()).unwrap();
        format!("{}{last}", unit.repeat(times))
    };
    // Each fills the length with what could nest: the parser, the check and their stack must bear it.
    for (unit, last) in [
        ("1+", "1"),
        ("1*", "1"),
        ("1<", "1"),
        ("!!(", "true"),
        ("-", "1"),
        ("(", "1"),
        ("[", "1"),
        ("{'a':", "1"),
        ("true?true:", "true"),
        ("true?(", "true"),
        ("context.", "x"),
        ("context[", "0"),
        ("size(", "1"),
        ("has(", "x"),
        ("'a'+", "'a'"),
        ("chain.all(a,", "true"),
        ("x{a:", "1"),
        ("a.b(", "1"),
        ("1 in ", "chain"),
        ("'", ""),
        ("\"\"\"", ""),
        ("\\", ""),
        ("\u{10ffff}", ""),
    ] {
        assert!(Expression::compile(&repeated(unit, last)).is_err(), "{unit}");
    }
    // The parser balances the first two, and takes the signs of the last together.
    assert!(Expression::compile(&repeated("!", "true")).is_ok());
    assert!(Expression::compile(&repeated("depth<9||", "true")).is_ok());
    assert!(Expression::compile(&repeated("depth<9&&", "true")).is_ok());
}

#[test]
fn the_deepest_that_compiles_evaluates() {
    let scene = Scene::of(json!({}));
    let sums = (1..60).map(|terms| format!("depth{} > 0", "+1".repeat(terms)));
    let brackets = (1..60).map(|levels| format!("{}true{}", "(true && (false || ".repeat(levels), "))".repeat(levels)));
    let calls = (1..60).map(|levels| format!("{}depth{} == 2", "int(".repeat(levels), ")".repeat(levels)));
    for texts in [sums.collect::<Vec<_>>(), brackets.collect(), calls.collect()] {
        let deepest = texts.iter().take_while(|text| Expression::compile(text).is_ok()).last().unwrap();
        assert!(texts.last() != Some(deepest), "{deepest}");
        assert_eq!(scene.holds(deepest), Ok(()), "{deepest}");
    }
}

/// 8 KiB of context that makes an evaluation cost the most: many values, or long strings.
fn largest() -> [Value; 4] {
    let numbers = vec![1; 2000];
    let texts = vec!["abcdefgh"; 700];
    [
        json!({"l": numbers, "m": numbers}),
        json!({"l": texts, "m": texts}),
        json!({"l": [["x".repeat(4000)]], "m": "y".repeat(4000)}),
        json!({"l": [[[[[[1, 2, 3]]]]]], "m": vec![vec![1; 10]; 180]}),
    ]
}

#[test]
fn no_context_makes_a_condition_cost_more_than_its_steps() {
    // Which of the four contexts leave it steps enough. The others are refused before the work is done: two thousand
    // rounds of two thousand each would take a minute here.
    for (text, enough) in [
        ("context.l.all(x, context.m.all(y, x == y))", [false, false, true, true]),
        ("context.l.exists(x, context.m.exists(y, x == y && y == 'never'))", [false, false, true, false]),
        ("context.l.exists(x, context.l == context.m && x == 'never')", [false, false, true, true]),
        ("context.l.exists(x, x in context.m && false)", [false, false, true, true]),
        ("context.l.exists(x, x < context.l)", [false, false, true, true]),
        ("context.l.exists(x, context.m + context.m + context.m == context.l)", [false, false, true, true]),
        ("[context.l, context.l].exists(x, x.exists(y, [x, x] == [y, y]))", [false, false, true, false]),
        ("context.l.all(x, x == 1) || true", [true, true, true, true]),
    ] {
        for (context, enough) in largest().into_iter().zip(enough) {
            let scene = Scene::of(context);
            assert_eq!(scene.holds(text) != Err(Unmet::TooCostly), enough, "{text}");
        }
    }
    // What is left of the text changes nothing.
    let [numbers, ..] = largest();
    assert_eq!(Scene::of(numbers).holds("context.l.all(x, context.m.all(y, x == y)) || true"), Err(Unmet::TooCostly));
}

/// The steps of one evaluation, those for making its variables apart.
fn steps_beside_making(scene: &Scene, text: &str) -> u64 {
    let (holds, steps) = scene.evaluate(text);
    assert_ne!(holds, Err(Unmet::TooCostly), "{text}");
    let (_, making) = scene.evaluate("has(context.nothing)");
    steps.saturating_sub(making)
}

#[test]
fn what_goes_through_a_value_is_charged_for_its_size() {
    let items = 4000;
    let scene = Scene::of(json!({"items": vec![0; items], "text": "x".repeat(items * 16), "key": "k"}));
    // The first that `in` and `==` are asked for is small, and what they go through isn't.
    for text in [
        "'a' in context.items",
        "!('a' in context.items)",
        "1 in context.items",
        "null in context.items",
        "true in context['items']",
        "now in context.items",
        "['a'] in context.items",
        "{} in context.items",
        "'a' in (true ? context.items : context.items)",
        "'a' in [context.items, context.items]",
        "'a' in context.items + ['b']",
        "context.key in context.items",
        "context.key in context",
        "context.items == context.items",
        "context.items != [context.key]",
        "context.items + [1] == ['b']",
        "('a' + context.text) == 'b'",
        "size(context.items) == 1",
        "context.text.size() == 1",
        "context.text.contains('y')",
        "'y'.contains(context.text)",
        "context.text.startsWith('y')",
        "context.text.endsWith('y')",
        "context.text < 'a'",
        "[context.items] == []",
        "{'a': context.items} == {}",
    ] {
        let steps = steps_beside_making(&scene, text);
        assert!(steps >= u64::try_from(items).unwrap(), "{text}: {steps}");
    }
    for text in [
        "context.items == 'a'",
        "context.items != 1",
        "context.text == 'a'",
        "context.items == ['a', 'b']",
        "context.items in ['a', 'b']",
        "'items' in context",
        "!('a' in context)",
        "'a' in subject.properties",
        "has(context.items)",
    ] {
        let steps = steps_beside_making(&scene, text);
        assert!(steps < 20, "{text}: {steps}");
    }
}

#[test]
fn a_list_gone_through_in_each_round_takes_its_length_each_time() {
    for sought in ["'a'", "1", "null", "['a']", "context.key"] {
        let text = format!("context.items.all(i, !({sought} in context.items))");
        let asked = |items: usize| Scene::of(json!({"items": vec![0; items], "key": "k"})).evaluate(&text);
        let (holds, steps) = asked(100);
        assert!(holds.is_ok() && steps >= 100 * 100, "{text}: {steps}");
        assert_eq!(asked(1000).0, Err(Unmet::TooCostly), "{text}");
        assert_eq!(asked(4000).0, Err(Unmet::TooCostly), "{text}");
    }
}

#[test]
fn what_conditions_mostly_ask_costs_a_small_part_of_the_steps() {
    let scene = Scene::of(json!({"amount": 5, "tags": ["a", "b"], "note": "n".repeat(1000)}));
    let text =
        "context.amount < 100 && agent in ['deployer', 'writer'] && context.tags.all(tag, tag in ['a', 'b', 'c'])";
    let (holds, steps) = scene.evaluate(text);
    assert_eq!(holds, Ok(()));
    assert!(steps < CONDITION_STEPS / 50, "{steps}");
    // A long list in the text doesn't make what the request says larger.
    let names = (0..100).map(|n| format!("'agent-{n}'")).collect::<Vec<_>>().join(", ");
    let (holds, steps) = scene.evaluate(&format!("!(agent in [{names}]) && context.tags.exists(tag, tag == 'b')"));
    assert_eq!(holds, Ok(()));
    assert!(steps < CONDITION_STEPS / 50, "{steps}");
}

#[test]
fn conditions_share_the_steps_of_their_request() {
    let [numbers, ..] = largest();
    let context = numbers.as_object().unwrap();
    let circumstances = Circumstances {
        agent: "a",
        wanted: None,
        chain: &[],
        on_behalf_of: "",
        claims: None,
        subject_properties: None,
        resource_properties: None,
        given: Given { context: Some(context), ..Given::default() },
        now: Timestamp::from_seconds(1),
    };
    let expression = Arc::new(Expression::compile("context.l.all(x, x == 1)").unwrap());
    let condition = Condition { place: "conditions[0].require".into(), expression };
    let mut evaluation = Evaluation::new(&circumstances);
    let first_refused = (0..100).find(|_| evaluation.holds(&condition).is_err()).unwrap();
    assert!(first_refused > 0);
    assert_eq!(evaluation.holds(&condition), Err(Unmet::TooCostly));
}

fn any_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        prop::sample::select(vec![
            0.0,
            -0.0,
            1e300,
            -1e300,
            9.3e18,
            -9.3e18,
            0.5,
            253_402_300_800.0,
            -62_135_596_801.0
        ])
        .prop_map(Value::from),
        ".{0,12}".prop_map(Value::from),
        prop::sample::select(vec![
            "9999-12-31T23:59:59.999999999Z",
            "0001-01-01T00:00:00+23:59",
            "2026-13-01T00:00:00Z",
            "--99999999999h",
            "-9223372036854775808ns",
            "1e308h1e308h",
            "+23:59",
            "-23:59",
            "Europe/Berlin",
            "-9223372036854775808",
            "NaN",
            "inf",
        ])
        .prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 48, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::btree_map("[a-e]", inner, 0..6)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

/// Conditions that do with `a` and `b` whatever can be done.
const DOING: &[&str] = &[
    "context.a == context.b",
    "context.a < context.b",
    "context.a >= context.b",
    "context.a + context.b == context.a",
    "context.a - context.b == context.a",
    "context.a * context.b == context.a",
    "context.a / context.b == context.a",
    "context.a % context.b == context.a",
    "-context.a == context.b",
    "!context.a",
    "context.a[context.b] == 1",
    "context.a in context.b",
    "context.a.exists(x, x == context.b)",
    "context.a.all(x, context.b.exists_one(y, y == x))",
    "has(context.a.b) && context.a.b.c",
    "size(context.a) > context.a.size()",
    "context.a.startsWith(context.b) || context.a.endsWith(context.b) || context.a.contains(context.b)",
    "int(context.a) + int(context.b) == 1",
    "int(context.a) * int(context.b) == 1",
    "int(context.a) / int(context.b) == 1 || int(context.a) % int(context.b) == 1",
    "-int(context.a) - int(context.b) == 1",
    "double(context.a) / double(context.b) > 1.0",
    "string(context.a) == string(context.b)",
    "timestamp(context.a) - timestamp(context.b) > duration('0')",
    "timestamp(context.a) + duration(context.b) > now",
    "timestamp(int(context.a)) - duration(context.b) > now",
    "now + duration(context.a) + duration(context.b) > now",
    "-1 * duration(context.a).getHours() > 1 || duration(context.a).getMilliseconds() > 1",
    "timestamp(context.a).getDayOfYear(context.b) == 1",
    "timestamp(context.a).getFullYear(context.b) == 1 || timestamp(context.a).getDayOfWeek() == 1",
    "string(timestamp(context.a)) == string(duration(context.b))",
    "[context.a, context.b] == [context.b, context.a] || {'a': context.a} == context.b",
    "context.a ? context.b : context.a",
    "chain[context.a] == context.b",
    "{'x': 1}[context.a] == 1",
];

/// Pieces of which texts are made that may be conditions.
const PIECES: &[&str] = &[
    "agent",
    "context",
    "context.a",
    "chain",
    "now",
    "depth",
    "1",
    "0x",
    "1u",
    "1.5",
    "'a'",
    "\"a\"",
    "b'a'",
    "r'\\",
    "true",
    "null",
    "(",
    ")",
    "[",
    "]",
    "{",
    "}",
    ".",
    ",",
    ":",
    "?",
    "==",
    "<",
    "&&",
    "||",
    "+",
    "-",
    "*",
    "/",
    "%",
    "!",
    " in ",
    "has(",
    ".exists(x,",
    ".all(x,",
    ".map(x,",
    "x",
    "size(",
    "matches(",
    "'",
    "\"",
    "'''",
    "\\u",
    "\\",
    "`",
    "@",
    "#",
    "//",
    "\n",
    "\r",
    "\0",
    "ä",
    "\u{10ffff}",
    "_",
    "_==_",
    "@result",
    "optional.of(",
    ".?",
    "[?",
    "google.protobuf.Value{",
    "9223372036854775808",
    "-9223372036854775808",
    "1e400",
    "..",
    "é",
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn no_context_makes_an_evaluation_panic(a in any_value(), b in any_value()) {
        let scene = Scene::of(json!({"a": a, "b": b}));
        for text in DOING {
            // Small values leave steps enough: an evaluation ends with its own answer.
            prop_assert_ne!(scene.holds(text), Err(Unmet::TooCostly), "{}", text);
        }
    }

    #[test]
    fn no_text_makes_compiling_panic(pieces in prop::collection::vec(prop::sample::select(PIECES.to_vec()), 0..24)) {
        let text = pieces.concat();
        match Expression::compile(&text) {
            Ok(expression) => prop_assert_eq!(expression.text(), text),
            Err(invalid) => {
                prop_assert!(text.get(invalid.at.clone()).is_some(), "{:?}: {:?}", text, invalid);
                prop_assert!(!invalid.message.contains(['\0', '\n']));
            }
        }
    }

    #[test]
    fn no_characters_make_compiling_panic(text in ".{0,60}") {
        if let Err(invalid) = Expression::compile(&text) {
            prop_assert!(text.get(invalid.at.clone()).is_some(), "{:?}: {:?}", text, invalid);
        }
    }
}

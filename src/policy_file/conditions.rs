//! `grants[].when` and `conditions`: CEL in JSON strings, compiled when the file is read.

use std::ops::Range;
use std::sync::Arc;

use jsonc_parser::ast::Value;

use super::diagnostics::{Span, finding};
use super::document::span;
use super::reading::{Keys, Path, Reader};
use crate::domain::condition::{Condition, Expression};
use crate::domain::limits::{CONDITION_TEXTS, CONDITIONS};
use crate::domain::policy::Requirement;

const REQUIREMENT: Keys = Keys { known: &["capabilities", "resources", "require"] };

impl Reader<'_> {
    /// The value as a list of conditions.
    pub(super) fn conditions(&mut self, top: &Path<'_>, value: &Value<'_>) -> Vec<Requirement> {
        let path = top.key("conditions");
        let requirements = self.list(&path, value, "a list of conditions", |reader, path, value| {
            let condition = reader.object(path, value, &REQUIREMENT)?;
            let require = reader.required(path, condition, "require");
            let value = |key: &str| condition.get(key).map(|property| &property.value);
            let capabilities = value("capabilities").map(|list| reader.capabilities(&path.key("capabilities"), list));
            let resources = value("resources").map(|list| reader.patterns(&path.key("resources"), list));
            let require = require.and_then(|value| reader.condition(&path.key("require"), value));
            let nothing = [capabilities.as_ref().map(Vec::is_empty), resources.as_ref().map(Vec::is_empty)];
            if nothing.contains(&Some(true)) {
                let start = condition.range.start;
                let what = || finding(format!("{path}: an empty list is about nothing")).help("leave it out for any");
                reader.findings.warning_with(start..start.saturating_add(1), what);
            }
            Some(Requirement {
                capabilities: capabilities.map(|list| list.into_iter().map(|item| item.value).collect()),
                resources: resources.map(|list| list.into_iter().map(|item| item.value).collect()),
                require: require?,
            })
        });
        if requirements.len() > CONDITIONS {
            let start = span(value).start;
            self.refuse(start..start.saturating_add(1), &path, format_args!("there are more than {CONDITIONS}"));
        }
        requirements
    }

    /// The value as a condition.
    pub(super) fn condition(&mut self, path: &Path<'_>, value: &Value<'_>) -> Option<Condition> {
        let text = self.text(path, value, "a condition in CEL")?;
        let expression = match self.expressions.get(text) {
            Some(known) => Arc::clone(known),
            None => self.compile(path, text, span(value))?,
        };
        Some(Condition { place: path.to_string().trim_matches('`').into(), expression })
    }

    fn compile(&mut self, path: &Path<'_>, text: &str, at: Span) -> Option<Arc<Expression>> {
        if self.expressions.len() >= CONDITION_TEXTS {
            let what = format!("the file has more than {CONDITION_TEXTS} different conditions");
            self.refuse(at, path, what);
            return None;
        }
        match Expression::compile(text) {
            Ok(expression) => {
                let expression = Arc::new(expression);
                self.expressions.insert(text.to_owned(), Arc::clone(&expression));
                Some(expression)
            }
            Err(invalid) => {
                let raw = self.findings.text_at(&at);
                let meant = inside(raw, &invalid.at);
                let meant = at.start.saturating_add(meant.start)..at.start.saturating_add(meant.end);
                let found = finding(format!("{path}: {}", invalid.message));
                self.findings.error(
                    meant,
                    match invalid.help {
                        Some(help) => found.help(help),
                        None => found,
                    },
                );
                None
            }
        }
    }
}

/// Where these bytes of a string stand in it as JSON writes it, its quotes and escapes included.
fn inside(raw: &str, bytes: &Range<usize>) -> Range<usize> {
    let mut decoded = 0_usize;
    let mut at = 1_usize;
    let mut from = None;
    loop {
        if decoded >= bytes.start && from.is_none() {
            from = Some(at);
        }
        let rest = raw.get(at..).unwrap_or_default();
        let (written, meant) = character(rest);
        if decoded >= bytes.end.max(bytes.start.saturating_add(1)) || written == 0 {
            let from = from.unwrap_or(at);
            return from..at.max(from);
        }
        decoded = decoded.saturating_add(meant);
        at = at.saturating_add(written);
    }
}

/// How many bytes the first character of a JSON string is written with, and how many it is. None is left before a quote.
fn character(rest: &str) -> (usize, usize) {
    let unit = |text: &str| text.get(2..6).and_then(|digits| u32::from_str_radix(digits, 16).ok());
    match rest.as_bytes() {
        [] | [b'"', ..] => (0, 0),
        [b'\\', b'u', ..] => match unit(rest) {
            // The first half of a pair; a file in which the second is missing is no JSON.
            Some(0xd800..=0xdbff) => (12, 4),
            Some(code) => (6, char::from_u32(code).map_or(1, char::len_utf8)),
            None => (0, 0),
        },
        [b'\\', ..] => (2, 1),
        _ => rest.chars().next().map_or((0, 0), |first| (first.len_utf8(), first.len_utf8())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy_file::diagnostics::cases::{Case, are_shown_at_their_place, compiled};

    const BAD: &[Case] = &[
        ("{\"conditions\": «{}»}", "`conditions`: expected a list of conditions, found an object", ""),
        ("{\"conditions\": [«{»}]}", "`conditions[0]`: `require` is missing", ""),
        ("{\"conditions\": [{\"require\": «7»}]}", "expected a condition in CEL, found a number", ""),
        ("{\"conditions\": [{\"require\": \"«»\"}]}", "a condition can't be empty", "leave it out"),
        ("{\"conditions\": [{\"require\": \"true\", «\"resource\"»: []}]}", "unknown key", "did you mean `resources`?"),
        (
            "{\"conditions\": [{\"require\": \"«agnt» == 'a'\"}]}",
            "`conditions[0].require`: unknown variable `agnt`",
            "did you mean `agent`?",
        ),
        (
            "{\"conditions\": [\n  {\"require\": \"agent == \\\"a\\u00e4\\\" && subject.«nme» == 1\"}]}",
            "unknown field `nme`",
            "the fields here are `type`, `id`, `properties`",
        ),
        ("{\"conditions\": [{\"require\": \"depth «+» 1\"}]}", "a condition is true or false", ""),
        ("{\"conditions\": [{\"require\": \"agent == 'ä' «§»\"}]}", "not CEL: token recognition error", ""),
        (
            "{\"grants\": [{\"agent\": \"a\", \"capabilities\": [\"c\"], \"resources\": [\"*\"], \"when\": \"agent.«matches»('x')\"}]}",
            "`grants[0].when`: conditions have no regular expressions",
            "startsWith",
        ),
    ];

    #[test]
    fn a_bad_condition_is_shown_as_compilers_show_it() {
        let text = "{\n  \"conditions\": [\n    {\"require\": \"context.tags.exists(t, t == \\\"x\\\") && depth < '3'\"}\n  ]\n}";
        assert_eq!(
            compiled(text).unwrap_err().render(false),
            "error: `conditions[0].require`: `<` can't compare a whole number and a string\n \
             --> policy.json:3:62\n  \
             |\n\
             3 | …   {\"require\": \"context.tags.exists(t, t == \\\"x\\\") && depth < '3'\"}\n  \
             |                                                              ^"
        );
    }

    #[test]
    fn what_is_no_condition_is_refused_at_its_place() {
        are_shown_at_their_place(BAD);
    }

    #[test]
    fn a_place_in_a_text_is_found_in_the_string_that_json_writes() {
        for (raw, bytes, wanted) in [
            (r#""abc""#, 0..1, "a"),
            (r#""abc""#, 2..3, "c"),
            (r#""\"a\" == b""#, 7..8, "b"),
            (r#""\u0061bc""#, 0..1, r"\u0061"),
            (r#""\u00e4bc""#, 2..3, "b"),
            (r#""\ud83d\ude00b""#, 4..5, "b"),
            (r#""äb\tc""#, 4..5, "c"),
            (r#""abc""#, 0..3, "abc"),
            (r#""abc""#, 3..3, ""),
        ] {
            let found = inside(raw, &bytes);
            assert_eq!(raw.get(found.clone()), Some(wanted), "{raw} {bytes:?} {found:?}");
        }
    }

    #[test]
    fn what_the_documents_show_compiles() {
        let page = include_str!("../../docs/policy.md");
        let example = page.split("```json\n").nth(1).unwrap().split("```").next().unwrap();
        let policy = compiled(example).unwrap().policy;
        assert_eq!((policy.conditions.len(), policy.has_when), (3, true));
    }

    #[test]
    fn equal_texts_are_compiled_once() {
        let text = r#"{"conditions": [{"require": "agent == 'a'"}, {"require": "agent == 'a'", "resources": ["/x"]}]}"#;
        let policy = compiled(text).unwrap().policy;
        let [one, two] = policy.conditions.as_slice() else { panic!("{policy:?}") };
        assert!(Arc::ptr_eq(&one.require.expression, &two.require.expression));
        assert_eq!((&*one.require.place, &*two.require.place), ("conditions[0].require", "conditions[1].require"));
    }

    #[test]
    fn there_is_a_most_of_conditions_and_of_their_texts() {
        let many = |texts: usize| {
            let conditions = (0..texts).map(|n| format!("{{\"require\": \"depth < {n}\"}}")).collect::<Vec<_>>();
            format!("{{\"conditions\": [{}]}}", conditions.join(","))
        };
        assert!(compiled(&many(20)).is_ok());
        let same = "{\"require\": \"true\"},".repeat(CONDITIONS);
        let refusal = compiled(&format!("{{\"conditions\": [{same}{{\"require\": \"true\"}}]}}")).unwrap_err();
        assert!(refusal.to_string().contains("there are more than 1000"), "{refusal}");
    }
}

//! From bytes to a tree of JSON values with their places, taking nothing looser than RFC 8259.

use std::collections::HashMap;

use jsonc_parser::ast::{Object, Value};
use jsonc_parser::common::Ranged;
use jsonc_parser::{CollectOptions, ParseOptions, parse_to_ast};

use super::diagnostics::{Finding, Findings, PolicyError, Span, finding, quoted};
use crate::domain::limits::{POLICY_BYTES, POLICY_DEPTH};

/// Values in the file, at most. Each costs some fifty bytes while the file is read, and 100,000 agents with
/// rules of their own have about half as many.
const VALUES: usize = 1_000_000;

/// Nothing beyond RFC 8259. All fields are named, so that a new leniency breaks the build.
const STRICT: ParseOptions = ParseOptions {
    allow_comments: false,
    allow_loose_object_property_names: false,
    allow_trailing_commas: false,
    allow_missing_commas: false,
    allow_single_quoted_strings: false,
    allow_hexadecimal_numbers: false,
    allow_unary_plus_numbers: false,
    allow_bare_decimal_point_numbers: false,
    allow_non_finite_numbers: false,
    allow_extended_string_escapes: false,
};

/// The span of a value or key.
pub(super) fn span(node: &impl Ranged) -> Span {
    let range = node.range();
    range.start..range.end
}

/// Reads the file's one object, without a duplicate key anywhere in it.
///
/// # Errors
/// The first thing that keeps the file from being read; for duplicate keys, all of them.
pub(super) fn parse<'a>(
    bytes: &'a [u8],
    mut findings: Findings<'a>,
) -> Result<(Object<'a>, Findings<'a>), PolicyError> {
    let text = match strict_text(bytes) {
        Ok(text) => text,
        Err((span, finding)) => return Err(findings.into_error(span, finding)),
    };
    let root = match parse_to_ast(text, &CollectOptions::default(), &STRICT) {
        Ok(parsed) => parsed.value,
        Err(error) => {
            let range = error.range();
            return Err(findings.into_error(range.start..range.end, finding(format!("not JSON: {}", error.kind()))));
        }
    };
    match root {
        Some(Value::Object(root)) => {
            refuse_duplicate_keys(&root, &mut findings);
            Ok((root, findings))
        }
        Some(other) => {
            let message = format!("a policy is an object, this is {}", kind(&other));
            Err(findings.into_error(span(&other), finding(message)))
        }
        None => Err(findings.into_error(0..0, finding("the file is empty"))),
    }
}

/// What a value is, for messages.
pub(super) fn kind(value: &Value<'_>) -> &'static str {
    match value {
        Value::StringLit(_) => "a string",
        Value::NumberLit(_) => "a number",
        Value::BooleanLit(_) => "a boolean",
        Value::Object(_) => "an object",
        Value::Array(_) => "an array",
        Value::NullKeyword(_) => "null",
    }
}

type Broken = (Span, Finding);

/// The text, if it is JSON of a bearable size and depth.
fn strict_text(bytes: &[u8]) -> Result<&str, Broken> {
    if bytes.len() > POLICY_BYTES {
        let message = format!("the file has {} bytes, more than the {POLICY_BYTES} a policy may have", bytes.len());
        return Err((0..0, finding(message)));
    }
    let text = std::str::from_utf8(bytes).map_err(|error| {
        let at = error.valid_up_to();
        (at..at.saturating_add(1), finding("not UTF-8").help("save the file as UTF-8"))
    })?;
    if text.trim_ascii().is_empty() {
        return Err((0..0, finding("the file is empty").help("the smallest policy is {}: nobody may do anything")));
    }
    serde_json::from_slice::<serde::de::IgnoredAny>(bytes).map_err(|error| syntax(text, &error))?;
    check_extent(bytes)?;
    Ok(text)
}

/// A syntax error at its place, with what people mostly meant.
fn syntax(text: &str, error: &serde_json::Error) -> Broken {
    let full = error.to_string();
    let message = full.split_once(" at line ").map_or(full.as_str(), |(message, _)| message);
    let at = match offset(text, error.line(), error.column()) {
        _ if error.is_eof() => text.len(),
        // Said of the character before it.
        at if message.starts_with("control character") => control_character(text, at),
        at => at,
    };
    let found = finding(format!("not JSON: {message}"));
    if error.is_eof() {
        return (at..at, found.help("the file ends too early: it was cut off or only half written"));
    }
    let (before, rest) = text.split_at_checked(at).unwrap_or((text, ""));
    let before = before.trim_ascii_end();
    let found = match rest.as_bytes() {
        [0xef, 0xbb, 0xbf, ..] if at == 0 => found.help("remove the byte order mark at the start of the file"),
        [0, ..] => found.help("the file has NUL bytes here: it was cut off or only half written"),
        [b'/', ..] => found.help("JSON has no comments"),
        [b'\'', ..] => found.help("JSON's strings are in double quotes"),
        [b'}' | b']', ..] if before.ends_with(',') => {
            finding("not JSON: nothing after a comma").help("remove the comma before it")
        }
        _ => found,
    };
    let width = rest.chars().next().map_or(0, char::len_utf8);
    (at..at.saturating_add(width), found)
}

/// The offset of a line and column as `serde_json` counts them: from 1, columns in bytes.
fn offset(text: &str, line: usize, column: usize) -> usize {
    let lines_before = text.split_inclusive('\n').take(line.saturating_sub(1));
    let start: usize = lines_before.map(str::len).fold(0, usize::saturating_add);
    let at = start.saturating_add(column.saturating_sub(1)).min(text.len());
    (0..=at).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0)
}

/// The offset of the first control character from `at` on.
fn control_character(text: &str, at: usize) -> usize {
    let ahead = text.get(at..).unwrap_or_default().bytes().position(|byte| byte.is_ascii_control());
    at.saturating_add(ahead.unwrap_or_default())
}

/// Refuses what would take too much stack or memory to read. The bytes are JSON already.
fn check_extent(bytes: &[u8]) -> Result<(), Broken> {
    let (mut depth, mut values, mut in_string, mut escaped) = (0_usize, 0_usize, false, false);
    for (at, byte) in bytes.iter().enumerate() {
        if in_string {
            in_string = escaped || *byte != b'"';
            escaped = !escaped && *byte == b'\\';
            continue;
        }
        match byte {
            b'"' => in_string = true,
            b'{' | b'[' => {
                depth = depth.saturating_add(1);
                values = values.saturating_add(1);
            }
            b'}' | b']' => depth = depth.saturating_sub(1),
            b',' => values = values.saturating_add(1),
            _ => continue,
        }
        if depth > POLICY_DEPTH {
            let found = finding(format!("nested deeper than {POLICY_DEPTH}")).help("no key of a policy is that deep");
            return Err((at..at.saturating_add(1), found));
        }
        if values > VALUES {
            return Err((at..at.saturating_add(1), finding(format!("more than {VALUES} values"))));
        }
    }
    Ok(())
}

/// Readers disagree on which of two equal keys counts, so there must not be two.
fn refuse_duplicate_keys(object: &Object<'_>, findings: &mut Findings<'_>) {
    let mut first: HashMap<&str, usize> = HashMap::with_capacity(object.properties.len());
    for property in &object.properties {
        let key = property.name.as_str();
        let at = span(&property.name);
        if let Some(earlier) = first.get(key) {
            findings.error_with(at, |findings| {
                let help = format!("it is first on line {}: keep one of them", findings.line_at(*earlier));
                finding(format!("duplicate key {}", quoted(key))).help(help)
            });
        } else {
            first.insert(key, at.start);
        }
        refuse_duplicate_keys_in(&property.value, findings);
    }
}

fn refuse_duplicate_keys_in(value: &Value<'_>, findings: &mut Findings<'_>) {
    match value {
        Value::Object(object) => refuse_duplicate_keys(object, findings),
        Value::Array(array) => array.elements.iter().for_each(|value| refuse_duplicate_keys_in(value, findings)),
        Value::StringLit(_) | Value::NumberLit(_) | Value::BooleanLit(_) | Value::NullKeyword(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use crate::policy_file::diagnostics::cases::{Case, are_shown_at_their_place};

    const BAD: &[Case] = &[
        ("«»", "the file is empty", "smallest policy"),
        ("«»  \n ", "the file is empty", ""),
        ("«\u{feff}»{}", "expected value", "byte order mark"),
        ("{«»", "EOF while parsing an object", "half written"),
        ("{\"quarantined\": [\"a\"\n«»", "EOF while parsing a list", "half written"),
        ("{\"quarantined\": [\"a\",«]»}", "nothing after a comma", "remove the comma"),
        ("{\"quarantined\": [],«}»", "nothing after a comma", "remove the comma"),
        ("{«/»/ comment\n}", "key must be a string", "no comments"),
        ("{} «/»* comment */", "trailing characters", "no comments"),
        ("{«'»quarantined': []}", "key must be a string", "double quotes"),
        ("{«q»uarantined: []}", "key must be a string", ""),
        ("{\"max_delegation_depth\": 0«2»}", "invalid number", ""),
        ("{\"max_delegation_depth\": «+»2}", "expected value", ""),
        ("{\"max_delegation_depth\": 0«x»2}", "expected `,` or `}`", ""),
        ("{\"max_delegation_depth\": «N»aN}", "expected value", ""),
        ("{} «{»}", "trailing characters", ""),
        ("«\0»\0\0\0", "expected value", "NUL bytes"),
        ("{\"quarantined\": [\"a«\0»\"]}", "control character", "NUL bytes"),
        ("{\"quarantined\": [\"\\«x»41\"]}", "invalid escape", ""),
        ("{\"quarantined\": [\"«\\ud800\"»]}", "surrogate", ""),
        ("«[]»", "a policy is an object, this is an array", ""),
        ("{\n \"auditors\": [],\n «\"auditors\"»: []}", "duplicate key `auditors`", "first on line 2"),
        ("{\"auditors\": [], «\"\\u0061uditors\"»: []}", "duplicate key `auditors`", "first on line 1"),
        ("{\"delegation_rules\": {\"a\": {}, «\"a\"»: {}}}", "duplicate key `a`", ""),
        (
            "{\"grants\": [{\"agent\": \"a\", \"capabilities\": [], \"resources\": [], «\"agent\"»: \"b\"}]}",
            "duplicate key `agent`",
            "",
        ),
    ];

    #[test]
    fn nothing_looser_than_json_is_taken() {
        are_shown_at_their_place(BAD);
    }
}

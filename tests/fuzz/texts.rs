//! Smaller texts: JSON, trace contexts, and the lines of an audit log.

use std::path::PathBuf;

use remit::audit::verify;
use remit::domain::trace::TraceContext;
use remit::json;
use serde_json::Value;

use crate::campaign::{Outcome, Target};

const LEVELS: usize = 8;

fn members(value: &Value) -> usize {
    match value {
        Value::Array(items) => items.iter().map(members).sum(),
        Value::Object(object) => object.len() + object.values().map(members).sum::<usize>(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => 0,
    }
}

/// Whether as many members were read as the text has colons outside its strings: of two of one name, one is lost.
pub(crate) fn has_every_member(text: &[u8], read: &Value) -> bool {
    let (mut colons, mut is_quoted, mut bytes) = (0_usize, false, text.iter());
    while let Some(byte) = bytes.next() {
        match byte {
            b'"' => is_quoted = !is_quoted,
            b'\\' if is_quoted => drop(bytes.next()),
            b':' if !is_quoted => colons += 1,
            _ => {}
        }
    }
    colons == members(read)
}

/// The nearest number that a machine has is written in more than one way, and need not be found again.
pub(crate) fn has_fraction(value: &Value) -> bool {
    match value {
        Value::Array(items) => items.iter().any(has_fraction),
        Value::Object(members) => members.values().any(has_fraction),
        Value::Number(number) => number.is_f64(),
        Value::Null | Value::Bool(_) | Value::String(_) => false,
    }
}

fn levels(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(levels).max().unwrap_or(0),
        Value::Object(members) => 1 + members.values().map(levels).max().unwrap_or(0),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => 0,
    }
}

#[test]
fn json_that_is_taken_says_the_same_to_every_reader() {
    let target = Target { name: "json", longest: 4096, executions: 150_000, cost: 1 };
    target.run(|input| {
        let other = serde_json::from_slice::<Value>(input);
        let Ok(value) = json::parse(input, LEVELS) else { return Outcome::Refused };
        assert_eq!(other.unwrap(), value);
        assert!(levels(&value) <= LEVELS && has_every_member(input, &value));
        let again = json::parse(value.to_string().as_bytes(), LEVELS);
        assert!(has_fraction(&value) || again == Ok(value), "written anew it says another thing");
        Outcome::Accepted
    });
}

#[test]
fn a_trace_context_is_taken_in_one_spelling() {
    let target = Target { name: "traceparent", longest: 200, executions: 150_000, cost: 1 };
    target.run(|input| {
        let Ok(text) = std::str::from_utf8(input) else { return Outcome::Refused };
        let Some(trace) = TraceContext::parse(text) else { return Outcome::Refused };
        let fields = text.trim_matches([' ', '\t']).split('-').collect::<Vec<_>>();
        let parent = u64::from_be_bytes(*trace.parent.unwrap().bytes());
        assert_eq!((fields[1], fields[2]), (&*trace.id.to_string(), &*format!("{parent:016x}")));
        assert!(fields.len() == 4 || (fields[0] != "00" && fields[0] != "ff"));
        assert!(u8::from_str_radix(fields[3], 16).unwrap() & trace.flags() == trace.flags());
        let again = format!("00-{}-{parent:016x}-{:02x}", trace.id, trace.flags());
        assert_eq!(TraceContext::parse(&again), Some(trace));
        Outcome::Accepted
    });
}

/// The first case of the corpus is a log as it was written; its last line's hash was kept elsewhere.
#[test]
fn an_audit_log_that_is_found_whole_is_the_one_that_was_written() {
    let target = Target { name: "audit", longest: 8000, executions: 4_000, cost: 10 };
    let folder = tempfile::tempdir().unwrap();
    let file: PathBuf = folder.path().join("audit.jsonl");
    let written = target.kept().swap_remove(0);
    std::fs::write(&file, &written).unwrap();
    let head = verify(vec![file.clone()], None, None, |_| ()).unwrap().head.unwrap();
    target.run(|input| {
        std::fs::write(&file, input).unwrap();
        let report = verify(vec![file.clone()], None, Some(head), |_| ()).unwrap();
        if report.fault_count > 0 || report.unfinished.is_some() || report.continues || report.head != Some(head) {
            return Outcome::Refused;
        }
        assert_eq!(input, written, "changed, and not seen");
        Outcome::Accepted
    });
}

//! Texts that nobody may read: masked before an event is written, shown or exported.
//!
//! A masked text is `masked:` and 16 hex digits of the HMAC of caller, agent and text under a key that is random and leaves
//! this process with nobody. So equal texts of one caller and agent look alike. Who watches can't find out what another
//! asked by asking for guesses: the same text looks different where it is the watcher's.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::event::{Event, MessageType};
use super::invalid_config::InvalidConfig;
use super::text::{Brief, Long, Text};
use crate::digest::Keyed;
use crate::domain::reason::Reason;
use crate::domain::resource::Pattern;

/// How many digits of the digest are shown: 64 bits, which tell apart all that one process sees.
const DIGITS: usize = 16;
/// A name that differs by so many letters is taken for a slip.
const NEAR: usize = 3;
/// What stands instead of a message that may hold masked text in part.
const MESSAGE: &str = "masked: the message may hold what is masked";

/// A key of an event that may be masked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Field {
    Message,
    Resource,
    HttpMethod,
    HttpPath,
    Note,
    Obo,
    RequestId,
    Task,
}

/// The names of those keys. Agents, capabilities and ids are what the log is for, and are never masked.
const FIELDS: [(&str, Field); 8] = [
    ("message", Field::Message),
    ("resource", Field::Resource),
    ("http_method", Field::HttpMethod),
    ("http_path", Field::HttpPath),
    ("note", Field::Note),
    ("obo", Field::Obo),
    ("request_id", Field::RequestId),
    ("task", Field::Task),
];

/// Keys of events that stay as they are: without them the log couldn't be checked, searched or acted on.
const NEEDED: [&str; 28] = [
    "timestamp",
    "event",
    "from_agent",
    "to_agent",
    "message_type",
    "delegation_chain",
    "delegation_depth",
    "capabilities_used",
    "token_id",
    "result",
    "stream_id",
    "sequence",
    "decision_id",
    "reason",
    "caller",
    "identity_method",
    "issuer",
    "is_self_asserted",
    "remaining_uses",
    "target",
    "policy_revision",
    "policy_digest",
    "trace_id",
    "dry_run",
    "repeated",
    "checkpoint",
    "prev_hash",
    "hash",
];

/// What is masked: whole fields, and of resources and paths perhaps only what lies within patterns.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Rules {
    whole: BTreeSet<Field>,
    within: Vec<(Field, Pattern<'static>)>,
}

/// Masks events.
pub(super) struct Mask {
    rules: Rules,
    keyed: Keyed,
}

impl Rules {
    /// Reads `[audit] mask`.
    ///
    /// # Errors
    /// Names the first entry that can't be masked, and says what can.
    pub(super) fn parse(entries: &[String]) -> Result<Self, InvalidConfig> {
        let mut rules = Self::default();
        for entry in entries {
            let invalid = |why: String| InvalidConfig(format!("[audit] mask names {entry:?}: {why}"));
            let (name, pattern) = match entry.split_once('=') {
                None => (entry.as_str(), None),
                Some((name, pattern)) => (name.trim_end(), Some(pattern.trim_start())),
            };
            let Some((_, field)) = FIELDS.iter().find(|(known, _)| *known == name) else {
                return Err(invalid(not_maskable(name)));
            };
            match (pattern, field) {
                (None, field) => {
                    rules.whole.insert(*field);
                }
                (Some(pattern), Field::Resource | Field::HttpPath) => {
                    let pattern = Pattern::parse(pattern.to_owned()).map_err(|why| invalid(why.to_string()))?;
                    rules.within.push((*field, pattern));
                }
                (Some(_), _) => {
                    return Err(invalid(format!("only resource and http_path take a pattern: write {name:?}")));
                }
            }
        }
        Ok(rules)
    }

    fn is_empty(&self) -> bool {
        self.whole.is_empty() && self.within.is_empty()
    }

    fn masks(&self, field: Field) -> bool {
        self.whole.contains(&field)
    }

    /// Whether this part of the field is masked. What can't be read as a resource or pattern is, in doubt.
    fn masks_part(&self, field: Field, part: &str) -> bool {
        let mut within = self.within.iter().filter(|(of, _)| *of == field).peekable();
        if self.masks(field) || within.peek().is_none() {
            return self.masks(field);
        }
        let Ok(asked) = Pattern::parse(part) else { return true };
        within.any(|(_, pattern)| pattern.contains(&asked))
    }
}

fn not_maskable(name: &str) -> String {
    let all = FIELDS.map(|(known, _)| known).join(", ");
    if NEEDED.contains(&name) {
        return format!("the log needs it as it is; what can be masked is {all}");
    }
    if name == "context" || name.starts_with("context.") {
        return format!("events say nothing of a request's context; what can be masked is {all}");
    }
    let near = |known: &&str| strsim::osa_distance(known, name) <= NEAR.min(known.len() / 2);
    let meant = FIELDS.iter().map(|(known, _)| *known).filter(near);
    let meant = meant.min_by_key(|known| strsim::osa_distance(known, name));
    match meant {
        Some(known) => format!("no event has such a key; did you mean {known:?}?"),
        None => format!("no event has such a key; what can be masked is {all}"),
    }
}

impl Mask {
    /// None where nothing is masked.
    ///
    /// # Errors
    /// An entry can't be masked, or there is no key to mask with.
    pub(super) fn new(entries: &[String], key: Option<[u8; 32]>) -> Result<Option<Self>, InvalidConfig> {
        let rules = Rules::parse(entries)?;
        match (rules.is_empty(), key) {
            (true, _) => Ok(None),
            (false, Some(key)) => Ok(Some(Self { rules, keyed: Keyed::new(key) })),
            (false, None) => Err(InvalidConfig("[audit] mask needs a key, and none was made".to_owned())),
        }
    }

    /// Masks what is to be masked, also where the event's message repeats it.
    pub(super) fn apply(&self, event: &mut Event) {
        let mut echoed = Vec::new();
        let veil =
            Veil { keyed: &self.keyed, caller: &Arc::clone(&event.caller), agent: &Arc::clone(&event.from_agent) };
        // What stands in a list has no spaces, unless it is the fault that is told.
        let is_list = event.message_type == MessageType::Delegate && event.reason != Reason::ResourceNotCanonical;
        let is_cut = ends_cut(event.resource.as_str()) || ends_cut(event.message.as_str());
        event.resource = self.parts(Field::Resource, &event.resource, is_list, veil, &mut echoed);
        event.http_path = self.parts(Field::HttpPath, &event.http_path, false, veil, &mut echoed);
        let briefs = [
            (Field::HttpMethod, &mut event.http_method),
            (Field::Note, &mut event.note),
            (Field::Obo, &mut event.obo),
            (Field::RequestId, &mut event.request_id),
            (Field::Task, &mut event.task),
        ];
        for (field, text) in briefs {
            if self.rules.masks(field) && !text.is_empty() {
                *text = Brief::from(veil.over(text.as_str()));
            }
        }
        event.message = self.message(&event.message, echoed, is_cut, veil);
    }

    /// The field; of a list, which a delegation's resources are, part for part. Elsewhere a space is a part of the text.
    fn parts<const N: usize>(
        &self,
        field: Field,
        text: &Text<N>,
        is_list: bool,
        veil: Veil<'_>,
        echoed: &mut Vec<String>,
    ) -> Text<N> {
        let is_masked = |part: &str| !part.is_empty() && self.rules.masks_part(field, part);
        let parts: Vec<&str> = if is_list { text.as_str().split(' ').collect() } else { vec![text.as_str()] };
        if !parts.iter().any(|part| is_masked(part)) {
            return text.clone();
        }
        let shown = parts.into_iter().map(|part| {
            if !is_masked(part) {
                return part.to_owned();
            }
            echoed.push(part.to_owned());
            veil.over(part)
        });
        Text::from(shown.collect::<Vec<_>>().join(" "))
    }

    /// The message without what was masked. Of one that was cut off nobody knows what its last word was.
    fn message(&self, message: &Long, mut echoed: Vec<String>, is_cut: bool, veil: Veil<'_>) -> Long {
        if message.is_empty() {
            return message.clone();
        }
        if self.rules.masks(Field::Message) {
            return Long::from(veil.over(message.as_str()));
        }
        if echoed.is_empty() {
            return message.clone();
        }
        if is_cut {
            return Long::from(MESSAGE);
        }
        // The longest first: one may be the beginning of another.
        echoed.sort_by_key(|part| std::cmp::Reverse(part.len()));
        let shown = echoed.iter().fold(message.as_str().to_owned(), |text, part| text.replace(part, &veil.over(part)));
        Long::from(shown)
    }
}

/// What hides one event's texts.
#[derive(Clone, Copy)]
struct Veil<'a> {
    keyed: &'a Keyed,
    caller: &'a str,
    agent: &'a str,
}

impl Veil<'_> {
    fn over(self, text: &str) -> String {
        // Each with its length, so that no two of them can be read as two others.
        let of = format!("{}:{}{}:{}{text}", self.caller.len(), self.caller, self.agent.len(), self.agent);
        let digest = self.keyed.of(of.as_bytes()).to_string();
        format!("masked:{}", digest.get(..DIGITS).unwrap_or_default())
    }
}

/// Whether the text was longer than an event keeps.
fn ends_cut(text: &str) -> bool {
    text.ends_with('…')
}

#[cfg(test)]
mod tests {
    use super::super::trial::Trial;
    use super::*;

    fn mask(entries: &[&str]) -> Mask {
        Mask::new(&entries.iter().map(|entry| (*entry).to_owned()).collect::<Vec<_>>(), Some([7; 32])).unwrap().unwrap()
    }

    fn event() -> Event {
        let trial = Trial::unwritten(64);
        let mut event = trial.event("agent-a", Reason::ResourceNotGranted);
        event.resource = "/patients/ann".into();
        event.http_path = "/visits/ann".into();
        event.message = "the token does not cover /patients/ann".into();
        event.obo = "user:ann".into();
        event.task = "user:ann".into();
        event.note = "seen".into();
        event
    }

    #[test]
    fn what_is_named_is_masked_and_nothing_else() {
        let mut event = event();
        let plain = event.clone();
        mask(&["obo", "task", "resource"]).apply(&mut event);
        assert!(event.obo.as_str().starts_with("masked:") && event.obo.as_str().len() == 23, "{}", event.obo.as_str());
        assert_eq!(event.obo, event.task, "equal texts look alike");
        assert_ne!(event.obo.as_str(), event.resource.as_str());
        assert_eq!(event.message.as_str(), format!("the token does not cover {}", event.resource.as_str()));
        let rest = Event {
            obo: plain.obo.clone(),
            task: plain.task.clone(),
            resource: plain.resource.clone(),
            message: plain.message.clone(),
            ..event.clone()
        };
        assert_eq!(rest, plain);
        let mut under_another_key = plain.clone();
        Mask::new(&["obo".to_owned()], Some([8; 32])).unwrap().unwrap().apply(&mut under_another_key);
        assert_ne!(under_another_key.obo, event.obo);
    }

    #[test]
    fn of_resources_and_paths_what_lies_within_a_pattern() {
        let within = mask(&["resource=/patients/*", "http_path = /visits/*"]);
        let shown = |resource: String| {
            let mut event = Event { resource: resource.into(), message_type: MessageType::Delegate, ..event() };
            within.apply(&mut event);
            assert!(event.http_path.as_str().starts_with("masked:"));
            event.resource.as_str().to_owned()
        };
        for open in ["prod/web", "/patients", "/*", "/patientsx/ann"] {
            assert_eq!(shown(open.to_owned()), open);
        }
        let several = shown("prod/web /patients/ann /patients/*".to_owned());
        let parts: Vec<_> = several.split(' ').collect();
        assert!(parts[0] == "prod/web" && parts[1..].iter().all(|part| part.starts_with("masked:")), "{several}");
        for doubtful in ["/patients//ann", "/patients/../patients/ann", "/patients/ann/"] {
            assert!(shown(doubtful.to_owned()).starts_with("masked:"), "{doubtful}");
        }
        let long = shown(format!("prod/web /patients/{}", "x".repeat(2000)));
        assert!(long.starts_with("prod/web masked:") && !long.contains('x'), "{long}");
    }

    #[test]
    fn a_resource_with_spaces_is_one_unless_it_stands_in_a_list() {
        let within = mask(&["resource=/patients/*"]);
        let mut event = Event { resource: "/patients/ann smith".into(), ..event() };
        event.message = "\"/patients/ann smith\" is not canonical".into();
        within.apply(&mut event);
        for shown in [event.resource.as_str(), event.message.as_str()] {
            assert!(shown.contains("masked:") && !shown.contains("smith"), "{shown}");
        }
    }

    #[test]
    fn nobody_finds_another_s_text_by_asking_for_guesses() {
        let shown = |caller: &'static str, agent: &'static str| {
            let mut event = Event { caller: caller.into(), from_agent: agent.into(), ..event() };
            mask(&["resource"]).apply(&mut event);
            event.resource.as_str().to_owned()
        };
        let victim = shown("svc-demo", "agent-a");
        assert_eq!(shown("svc-demo", "agent-a"), victim, "what one asks twice is seen");
        for (caller, agent) in [("ops-admin", "agent-a"), ("svc-demo", "ops-admin"), ("svc-demoa", "gent-a")] {
            assert_ne!(shown(caller, agent), victim, "{caller} {agent}");
        }
    }

    #[test]
    fn a_message_never_says_what_is_masked() {
        let mut twice = Event { message: "/patients/ann and /patients/ann/x".into(), ..event() };
        twice.message_type = MessageType::Delegate;
        twice.resource = "/patients/ann /patients/ann/x".into();
        mask(&["resource"]).apply(&mut twice);
        assert!(!twice.message.as_str().contains("ann"), "{}", twice.message.as_str());
        let long = format!("/patients/{}", "x".repeat(1010));
        let mut cut = Event { message: format!("the token does not cover {long}").into(), ..event() };
        cut.resource = long.into();
        mask(&["resource"]).apply(&mut cut);
        assert_eq!(cut.message.as_str(), MESSAGE);
        let mut whole = event();
        mask(&["message"]).apply(&mut whole);
        assert!(whole.message.as_str().starts_with("masked:") && whole.resource.as_str() == "/patients/ann");
    }

    #[test]
    fn what_can_not_be_masked_is_refused_with_what_can() {
        let refused = |entry: &str| Rules::parse(&[entry.to_owned()]).unwrap_err().to_string();
        for (entry, says) in [
            ("sequence", "needs it"),
            ("from_agent", "needs it"),
            ("hash", "needs it"),
            ("context.user_email", "nothing of a request's context"),
            ("ressource", "did you mean \"resource\"?"),
            ("requestid", "did you mean \"request_id\"?"),
            ("http-path", "did you mean \"http_path\"?"),
            ("zzz", "what can be masked is message, resource"),
            ("", "no event has such a key"),
            ("note=/a", "only resource and http_path"),
            ("resource=/a/", "empty segment"),
        ] {
            assert!(refused(entry).contains(says), "{entry}: {}", refused(entry));
        }
        assert_eq!(Mask::new(&[], None).map(|mask| mask.is_none()), Ok(true));
        assert!(Mask::new(&["note".to_owned()], None).is_err());
    }

    #[test]
    fn every_key_of_a_line_is_named_here() {
        let mut line = Vec::new();
        let mut event = event();
        event.checkpoint = Some("e30".into());
        event.write_json(&mut line, "s", "t");
        let line: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(&line).unwrap();
        for key in line.keys() {
            assert!(NEEDED.contains(&key.as_str()) || FIELDS.iter().any(|(name, _)| name == key), "{key}");
        }
    }
}

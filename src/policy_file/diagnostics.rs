//! What is wrong with a policy file, and where: message, line, column, the line itself with a caret, help.

use std::ops::Range;

use annotate_snippets::{AnnotationKind, Group, Level, Origin, Renderer, Snippet};

/// Errors, and likewise warnings with a place, that are kept; the rest is counted.
pub const MOST_SHOWN: usize = 20;
/// Bytes shown of a line before and after what is marked, so that a file of one long line stays readable.
const CONTEXT_BYTES: usize = 60;
/// Bytes of what is marked, at most.
const MARKED_BYTES: usize = 80;
/// Wide enough that the renderer cuts nothing that is not cut here.
const TERM_WIDTH: usize = 400;
/// Characters of a text from the file that a message quotes.
const QUOTED_CHARS: usize = 64;

/// A range of bytes in the file.
pub(super) type Span = Range<usize>;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The file is refused.
    Error,
    /// The file is taken, and somebody should look.
    Warning,
}

/// One thing that is wrong, or looks wrong. `Display` renders it without colour.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Diagnostic {
    /// How bad it is.
    pub severity: Severity,
    /// What it is, in one line.
    pub message: String,
    /// What to do about it.
    pub help: Option<String>,
    /// Where it is; none if it is something that the file doesn't have.
    pub place: Option<Place>,
    /// The file's name as it was given.
    pub file: String,
}

/// A place in the file.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Place {
    /// From 1.
    pub line: usize,
    /// In characters, from 1.
    pub column: usize,
    /// The line, or the part of a long line around the place.
    pub excerpt: String,
    /// What of the excerpt is meant, in bytes; empty at the end of a line.
    pub marked: Range<usize>,
}

impl Diagnostic {
    /// The text as compilers print it, several lines, without a newline at the end.
    #[must_use]
    pub fn render(&self, color: bool) -> String {
        let level = match self.severity {
            Severity::Error => Level::ERROR,
            Severity::Warning => Level::WARNING,
        };
        let group = Group::with_title(level.primary_title(self.message.as_str()));
        let mut group = match &self.place {
            None => group.element(Origin::path(self.file.as_str())),
            Some(place) => place.show(group, &self.file),
        };
        if let Some(help) = &self.help {
            group = group.element(Level::HELP.message(help.as_str()));
        }
        let renderer = if color { Renderer::styled() } else { Renderer::plain() };
        renderer.term_width(TERM_WIDTH).render(&[group])
    }
}

impl Place {
    fn show<'p>(&'p self, group: Group<'p>, file: &'p str) -> Group<'p> {
        let snippet = Snippet::source(self.excerpt.as_str())
            .line_start(self.line)
            .annotation(AnnotationKind::Primary.span(self.marked.clone()));
        let shown = self.excerpt.get(..self.marked.start).unwrap_or_default().chars().count();
        if self.column == shown.saturating_add(1) {
            return group.element(snippet.path(file));
        }
        // The renderer would count columns from the start of the excerpt, so they are stated.
        group.element(Origin::path(file).line(self.line).char_column(self.column)).element(snippet)
    }
}

impl std::fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.render(false))
    }
}

/// The warning about a policy under which no token can come to be.
pub(super) fn nobody_starts(file: &str, has_grants: bool) -> Diagnostic {
    let help = if has_grants {
        "give an agent an entry in `grants`"
    } else {
        "give a rule to an agent that no `can_delegate_to` names, or write `grants`"
    };
    at_large(file, "nobody can start a chain".to_owned(), Some(help.to_owned()))
}

/// A warning about something that the file doesn't have.
fn at_large(file: &str, message: String, help: Option<String>) -> Diagnostic {
    Diagnostic { severity: Severity::Warning, message, help, place: None, file: file.to_owned() }
}

/// Why a policy file is refused: at least one error, in the file's order. `Display` renders them all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyError {
    errors: Vec<Diagnostic>,
    /// Errors beyond those that are kept.
    more: usize,
}

impl PolicyError {
    /// The errors, at most [`MOST_SHOWN`].
    #[must_use]
    pub fn errors(&self) -> &[Diagnostic] {
        &self.errors
    }

    /// How many errors there are, those beyond [`MOST_SHOWN`] included.
    #[must_use]
    pub fn count(&self) -> usize {
        self.errors.len().saturating_add(self.more)
    }

    /// All errors as compilers print them, without a newline at the end.
    #[must_use]
    pub fn render(&self, color: bool) -> String {
        let mut texts: Vec<String> = self.errors.iter().map(|error| error.render(color)).collect();
        if self.more > 0 {
            texts.push(format!("error: {} more errors are not shown", self.more));
        }
        texts.join("\n\n")
    }
}

impl std::fmt::Display for PolicyError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.render(false))
    }
}

impl std::error::Error for PolicyError {}

/// What has been found in one file so far.
pub(super) struct Findings<'a> {
    file: String,
    bytes: &'a [u8],
    errors: Kept,
    warnings: Kept,
}

#[derive(Default)]
struct Kept {
    shown: Vec<(usize, Diagnostic)>,
    more: usize,
}

/// A finding to be added: what it is and what to do about it.
pub(super) struct Finding {
    message: String,
    help: Option<String>,
}

impl Finding {
    /// With help: what to do about it.
    pub(super) fn help(self, help: impl Into<String>) -> Self {
        Self { help: Some(help.into()), ..self }
    }
}

/// A finding without help.
pub(super) fn finding(message: impl Into<String>) -> Finding {
    Finding { message: message.into(), help: None }
}

impl<'a> Findings<'a> {
    pub(super) fn new(file: &str, bytes: &'a [u8]) -> Self {
        Self { file: file.into(), bytes, errors: Kept::default(), warnings: Kept::default() }
    }

    /// Whether there is no error so far.
    pub(super) fn is_clean(&self) -> bool {
        self.errors.shown.is_empty()
    }

    /// An error whose text takes work, which is left out once errors are only counted.
    pub(super) fn error_with(&mut self, span: Span, make: impl FnOnce(&Self) -> Finding) {
        if self.errors.shown.len() < MOST_SHOWN {
            let finding = make(self);
            self.error(span, finding);
        } else {
            self.errors.more = self.errors.more.saturating_add(1);
        }
    }

    /// Likewise for warnings.
    pub(super) fn warning_with(&mut self, span: Span, make: impl FnOnce() -> Finding) {
        if self.warnings.shown.len() < MOST_SHOWN {
            self.warning(span, make());
        } else {
            self.warnings.more = self.warnings.more.saturating_add(1);
        }
    }

    pub(super) fn error(&mut self, span: Span, finding: Finding) {
        self.add(Severity::Error, span, finding);
    }

    pub(super) fn warning(&mut self, span: Span, finding: Finding) {
        self.add(Severity::Warning, span, finding);
    }

    /// A warning about something that the file doesn't have. There are few, and none is only counted.
    pub(super) fn warning_at_large(&mut self, finding: Finding) {
        let Finding { message, help } = finding;
        self.warnings.shown.push((usize::MAX, at_large(&self.file, message, help)));
    }

    /// What the file has there; empty if that is no text.
    pub(super) fn text_at(&self, span: &Span) -> &'a str {
        self.bytes.get(span.clone()).and_then(|bytes| std::str::from_utf8(bytes).ok()).unwrap_or_default()
    }

    /// The line at an offset, from 1.
    pub(super) fn line_at(&self, offset: usize) -> usize {
        place(self.bytes, &(offset..offset)).line
    }

    /// The end: the warnings, or why the file is refused.
    pub(super) fn into_result(self) -> Result<Vec<Diagnostic>, PolicyError> {
        if self.errors.shown.is_empty() {
            let file = self.file;
            let (mut warnings, more) = self.warnings.into_diagnostics();
            if more > 0 {
                warnings.push(at_large(&file, format!("{more} more warnings are not shown"), None));
            }
            return Ok(warnings);
        }
        let (errors, more) = self.errors.into_diagnostics();
        Err(PolicyError { errors, more })
    }

    /// The end of a file that can't be read any further.
    pub(super) fn into_error(mut self, span: Span, finding: Finding) -> PolicyError {
        self.error(span, finding);
        let (errors, more) = self.errors.into_diagnostics();
        PolicyError { errors, more }
    }

    fn add(&mut self, severity: Severity, span: Span, finding: Finding) {
        let kept = match severity {
            Severity::Error => &mut self.errors,
            Severity::Warning => &mut self.warnings,
        };
        if kept.shown.len() >= MOST_SHOWN {
            kept.more = kept.more.saturating_add(1);
            return;
        }
        let place = Some(place(self.bytes, &span));
        let Finding { message, help } = finding;
        kept.shown.push((span.start, Diagnostic { severity, message, help, place, file: self.file.clone() }));
    }
}

impl Kept {
    fn into_diagnostics(mut self) -> (Vec<Diagnostic>, usize) {
        self.shown.sort_by_key(|(offset, _)| *offset);
        (self.shown.into_iter().map(|(_, diagnostic)| diagnostic).collect(), self.more)
    }
}

/// Where a span is, and its line. A span over several lines is cut at the end of its first.
fn place(bytes: &[u8], span: &Span) -> Place {
    let start = span.start.min(bytes.len());
    let (before, after) = bytes.split_at_checked(start).unwrap_or((bytes, &[]));
    let line = before.split(|byte| *byte == b'\n').count();
    let left = before.rsplit(|byte| *byte == b'\n').next().unwrap_or_default();
    let right = after.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let right = right.strip_suffix(b"\r").unwrap_or(right);
    let length = span.end.saturating_sub(start).min(right.len());
    let (marked, rest) = right.split_at_checked(length).unwrap_or((right, &[]));

    let (left_shown, marked, rest) =
        (last(left, CONTEXT_BYTES), first(marked, MARKED_BYTES), first(rest, CONTEXT_BYTES));
    let mut excerpt = left_shown;
    let from = excerpt.len();
    excerpt.push_str(&marked);
    let to = excerpt.len();
    excerpt.push_str(&rest);
    Place { line, column: String::from_utf8_lossy(left).chars().count().saturating_add(1), excerpt, marked: from..to }
}

/// The first bytes as text, whole characters, with `…` where something is left out.
fn first(bytes: &[u8], limit: usize) -> String {
    if bytes.len() <= limit {
        return String::from_utf8_lossy(bytes).into_owned();
    }
    let end = (0..=limit).rev().find(|end| is_boundary(bytes, *end)).unwrap_or(limit);
    let mut text = String::from_utf8_lossy(bytes.get(..end).unwrap_or_default()).into_owned();
    text.push('…');
    text
}

/// The last bytes as text, likewise.
fn last(bytes: &[u8], limit: usize) -> String {
    if bytes.len() <= limit {
        return String::from_utf8_lossy(bytes).into_owned();
    }
    let at_least = bytes.len().saturating_sub(limit);
    let start = (at_least..bytes.len()).find(|start| is_boundary(bytes, *start)).unwrap_or(at_least);
    format!("…{}", String::from_utf8_lossy(bytes.get(start..).unwrap_or_default()))
}

fn is_boundary(bytes: &[u8], offset: usize) -> bool {
    bytes.get(offset).is_none_or(|byte| byte & 0b1100_0000 != 0b1000_0000)
}

/// A text from the file, in backquotes, cut and escaped so that it can't do anything to a terminal or a log.
pub(super) fn quoted(text: &str) -> String {
    let mut shown: String = text.chars().take(QUOTED_CHARS).flat_map(char::escape_debug).collect();
    if text.chars().nth(QUOTED_CHARS).is_some() {
        shown.push('…');
    }
    format!("`{shown}`")
}

/// The candidate that is close enough to `text` to be meant by it.
pub(super) fn closest<'c>(text: &str, candidates: impl IntoIterator<Item = &'c str>) -> Option<&'c str> {
    let limit = text.len().checked_div(3).unwrap_or_default().clamp(1, 5);
    candidates
        .into_iter()
        // Measuring costs length times length, so names that can't be close are not measured.
        .filter(|candidate| candidate.len() <= 256 && candidate.len().abs_diff(text.len()) <= limit)
        .map(|candidate| (strsim::osa_distance(&candidate.to_ascii_lowercase(), &text.to_ascii_lowercase()), candidate))
        .filter(|(distance, candidate)| *distance <= limit && *candidate != text)
        .min()
        .map(|(_, candidate)| candidate)
}

/// The key that may be meant by `key`, more generously than [`closest`]: there are few, and one may be shortened.
pub(super) fn closest_key(key: &str, known: &[&'static str]) -> Option<&'static str> {
    closest(key, known.iter().copied()).or_else(|| {
        let alike = known.iter().map(|known| (strsim::jaro_winkler(known, key), *known));
        let best = alike.filter(|(likeness, _)| *likeness >= 0.8).max_by(|a, b| a.0.total_cmp(&b.0));
        best.map(|(_, known)| known)
    })
}

/// Tables of bad files, for the tests of the files that refuse them.
#[cfg(test)]
pub(super) mod cases {
    use super::*;
    use crate::policy_file::{Compiled, ExtraRoles, compile};

    pub(in crate::policy_file) fn compiled(text: &str) -> Result<Compiled, PolicyError> {
        compile("policy.json", text.as_bytes(), &ExtraRoles::default(), |_| "digest".to_owned(), 1)
    }

    /// A bad file, in which the caret must stand under what is between `«` and `»`; a part of the message; a part
    /// of message and help.
    pub(in crate::policy_file) type Case = (&'static str, &'static str, &'static str);

    pub(in crate::policy_file) fn are_shown_at_their_place(cases: &[Case]) {
        for (marked, message, help) in cases {
            let text = marked.replace(['«', '»'], "");
            let (before, rest) = marked.split_once('«').unwrap();
            let meant = rest.split_once('»').unwrap().0;
            let line = before.split('\n').count();
            let column = before.rsplit('\n').next().unwrap().chars().count().saturating_add(1);

            let Err(refusal) = compiled(&text) else { panic!("taken: {text}") };
            let [error] = refusal.errors() else { panic!("{text}: {refusal}") };
            let rendered = refusal.to_string();
            assert!(error.message.contains(message), "{text}: {rendered}");
            let said = format!("{} {}", error.message, error.help.as_deref().unwrap_or_default());
            assert!(said.contains(help), "{text}: {rendered}");
            let place = error.place.as_ref().unwrap();
            assert_eq!((place.line, place.column), (line, column), "{text}: {rendered}");
            assert_eq!(place.excerpt.get(place.marked.clone()).unwrap(), meant, "{text}: {rendered}");
            assert!(rendered.contains(&format!("--> policy.json:{line}:{column}\n")), "{rendered}");
            let carets = format!(" {}", "^".repeat(meant.chars().count().max(1)));
            assert!(rendered.lines().any(|line| line.ends_with(&carets)), "{rendered}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::cases::compiled;
    use super::*;
    use crate::policy_file::{ExtraRoles, compile};

    const EXAMPLE: &str = include_str!("../../examples/policy.json");

    #[test]
    fn an_error_reads_as_compilers_write_it() {
        let text =
            EXAMPLE.replace("\"can_delegate_to\": [\"agent-validator\"]", "\"can_delegate\": [\"agent-validator\"]");
        let refusal = compiled(&text).unwrap_err();
        assert_eq!(
            refusal.render(false),
            "error: unknown key `delegation_rules.agent-deployer.can_delegate`\n \
             --> policy.json:9:7\n  \
             |\n\
             9 |       \"can_delegate\": [\"agent-validator\"],\n  \
             |       ^^^^^^^^^^^^^^\n  \
             |\n  \
             = help: did you mean `can_delegate_to`?"
        );
        assert!(refusal.render(true).contains("\u{1b}["));
    }

    #[test]
    fn errors_are_collected_in_the_files_order_and_counted_beyond_twenty() {
        let refusal = compiled("{\"auditors\": [1, 2],\n\"zzz\": 1, \"max_delegation_depth\": 0}").unwrap_err();
        let lines: Vec<usize> = refusal.errors().iter().map(|error| error.place.as_ref().unwrap().line).collect();
        assert_eq!(lines, [1, 1, 2, 2]);
        let refusal = compiled(&format!("{{\"auditors\": [1{}]}}", ",1".repeat(99))).unwrap_err();
        assert_eq!((refusal.errors().len(), refusal.count()), (MOST_SHOWN, 100));
        assert!(refusal.to_string().ends_with("error: 80 more errors are not shown"));
    }

    #[test]
    fn warnings_beyond_twenty_hide_none_about_the_whole() {
        let text = format!("{{\"quarantined\": [\"a\"{}]}}", ",\"a\"".repeat(50));
        let warnings = compiled(&text).unwrap().warnings;
        let has = |part: &str| warnings.iter().any(|warning| warning.message.contains(part));
        assert!(has("no administrators") && has("no auditors") && has("nobody can start a chain"));
        assert!(has("31 more warnings are not shown"), "{warnings:?}");
    }

    #[test]
    fn a_long_line_is_cut_around_the_place() {
        let names: Vec<String> = (0..10_000).map(|number| format!("\"agent-{number}\"")).collect();
        let text = format!("{{\"auditors\": [{}, \"ä ö\", {}]}}", names.join(","), names.join(","));
        let refusal = compiled(&text).unwrap_err();
        let column = text.find("\"ä").unwrap() + 1;
        let rendered = refusal.to_string();
        assert!(rendered.contains(&format!("--> policy.json:1:{column}\n")), "{rendered}");
        assert!(rendered.contains("^^^^^") && rendered.len() < 1000, "{rendered}");
    }

    #[test]
    fn bytes_that_are_not_text_are_shown_at_their_place() {
        let refusal = compile("p", b"{\"a\":\n \"\xff\"}", &ExtraRoles::default(), |_| String::new(), 1).unwrap_err();
        let place = refusal.errors()[0].place.clone().unwrap();
        assert_eq!((place.line, place.column, refusal.errors()[0].message.as_str()), (2, 3, "not UTF-8"));
        assert!(refusal.to_string().contains("p:2:3"));
    }
}

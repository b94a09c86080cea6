//! Conditions of the policy, in the Common Expression Language ([CEL](https://cel.dev)): compiled when the policy is
//! loaded, evaluated over a request's facts.
//!
//! Evaluating is pure, total and bounded. Whatever goes wrong in it, the condition is not met.

mod check;
mod cost;
mod shape;
mod variables;

use std::borrow::Cow;
use std::ops::Range;
use std::sync::{Arc, LazyLock};

use cel::common::ast::SourceInfo;
use cel::common::types::CelBool;
use cel::parser::{Expression as Tree, ParseErrors, Parser};
use cel::{Context, Env, ExecutionError, Value as Evaluated};
use serde_json::{Map, Value};

use super::capability::Use;
use super::facts::Given;
use super::limits::{CONDITION_BYTES, CONDITION_STEPS};
use super::time::Timestamp;
use cost::{Cost, Meter};
use variables::Variable;

/// Nesting of brackets and arguments that the parser takes.
const BRACKETS: u16 = 24;

/// Characters of a condition that are shown of it.
const SHOWN: usize = 120;

/// Functions and types. It has no variables, so that it can be shared.
static ENVIRONMENT: LazyLock<Arc<Env>> =
    LazyLock::new(|| Arc::new(Env::default().with_optional_support(false).with_stdlib()));

/// A compiled condition. Two are equal if their texts are.
pub struct Expression {
    text: Box<str>,
    tree: Tree,
    cost: Cost,
    uses: Vec<Variable>,
}

impl std::fmt::Debug for Expression {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Debug::fmt(&self.text, f)
    }
}

impl PartialEq for Expression {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Expression {}

/// Why a text is no condition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidCondition {
    /// Which bytes of the text.
    pub at: Range<usize>,
    /// What is wrong with them.
    pub message: String,
    /// What to do about it.
    pub help: Option<String>,
}

impl std::fmt::Display for InvalidCondition {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for InvalidCondition {}

impl Expression {
    /// Compiles a text of at most [`CONDITION_BYTES`].
    ///
    /// # Errors
    /// The first thing that is wrong with it, and where.
    pub fn compile(text: &str) -> Result<Self, InvalidCondition> {
        let (mut tree, places) = parse(text)?;
        let checked = check::check(&mut tree).map_err(|problem| {
            let check::Problem { id, message, help } = problem;
            InvalidCondition { at: place(text, &places, id), message, help }
        })?;
        if checked.cost.steps > CONDITION_STEPS {
            let message =
                format!("it takes {} steps, more than the {CONDITION_STEPS} of a request", checked.cost.steps);
            return Err(InvalidCondition { at: 0..text.len(), message, help: None });
        }
        Ok(Self { text: text.into(), tree, cost: checked.cost, uses: checked.uses })
    }

    /// As it stands in the policy.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// As it is shown: on one line, cut, and with nothing in it that does something to a terminal or a log.
    #[must_use]
    pub fn shown(&self) -> String {
        shown(&self.text)
    }
}

/// A condition and where it stands in the policy file: `conditions[0].require`. Clones share what was compiled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition {
    /// Where it stands.
    pub place: Box<str>,
    /// What it says.
    pub expression: Arc<Expression>,
}

/// What conditions can see of a request.
#[derive(Clone, Copy)]
pub struct Circumstances<'a> {
    /// The agent that acts.
    pub agent: &'a str,
    /// The capability and what it is used on; none for a call that needs none.
    pub wanted: Option<Use<'a>>,
    /// From the agent whose authority it is to the one that acts.
    pub chain: &'a [Cow<'a, str>],
    /// On whose behalf, `type:id`; empty for nobody's.
    pub on_behalf_of: &'a str,
    /// The acting agent's claims from verified evidence; none where somebody else stated it.
    pub claims: Option<&'a Map<String, Value>>,
    /// What policy says of the acting agent.
    pub subject_properties: Option<&'a Map<String, Value>>,
    /// What policy says of the resource.
    pub resource_properties: Option<&'a Map<String, Value>>,
    /// What the request says, over what policy says. Nobody vouches for it but the caller.
    pub given: Given<'a>,
    /// The time.
    pub now: Timestamp,
}

/// Why a condition is not met. It holds no value of the request: what is denied is told to somebody who may have sent
/// none of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unmet {
    /// It is false.
    False,
    /// It looks at something that the request doesn't have.
    Missing,
    /// It does something with values for which there is no such thing.
    Mismatch,
    /// A number, a time or a conversion is out of range.
    OutOfRange,
    /// It is neither true nor false.
    NotBool,
    /// It takes more steps than a request may, or the request says too much.
    TooCostly,
}

impl Unmet {
    /// What it is, after the name of the condition.
    #[must_use]
    pub const fn describe(self) -> &'static str {
        match self {
            Self::False => "does not hold",
            Self::Missing => "looks at something that the request does not have",
            Self::Mismatch => "can't be evaluated: a value of the request is of another type",
            Self::OutOfRange => "can't be evaluated: a value of the request is out of range",
            Self::NotBool => "can't be evaluated: it is neither true nor false",
            Self::TooCostly => "can't be evaluated: the request says more than it has steps for",
        }
    }
}

/// Evaluates conditions for one request: variables are made once, and all conditions share its steps.
pub struct Evaluation<'a> {
    circumstances: &'a Circumstances<'a>,
    context: Context<'static, 'static>,
    made: Vec<Variable>,
    meter: Meter,
}

impl<'a> Evaluation<'a> {
    /// An evaluation over these circumstances, which makes nothing of them yet.
    #[must_use]
    pub fn new(circumstances: &'a Circumstances<'a>) -> Self {
        let mut context = Context::with_env(Arc::clone(&ENVIRONMENT));
        let mut meter = Meter::new(CONDITION_STEPS);
        if meter.count_in(&mut context).is_err() {
            // Without a count nothing is evaluated.
            meter = Meter::new(0);
        }
        Self { circumstances, context, made: Vec::new(), meter }
    }

    /// Whether the condition holds.
    ///
    /// # Errors
    /// Why it doesn't.
    pub fn holds(&mut self, condition: &Condition) -> Result<(), Unmet> {
        let expression = condition.expression.as_ref();
        for variable in &expression.uses {
            self.make(*variable)?;
        }
        if !self.meter.take(expression.cost) {
            return Err(Unmet::TooCostly);
        }
        let value = Evaluated::resolve_val(&expression.tree, &self.context);
        if self.meter.is_exceeded() {
            return Err(Unmet::TooCostly);
        }
        match value.as_ref().map(|value| value.downcast_ref::<CelBool>().map(|is_so| *is_so.inner())) {
            Ok(Some(true)) => Ok(()),
            Ok(Some(false)) => Err(Unmet::False),
            Ok(None) => Err(Unmet::NotBool),
            Err(error) => Err(unmet(error)),
        }
    }

    fn make(&mut self, variable: Variable) -> Result<(), Unmet> {
        if self.made.contains(&variable) {
            return Ok(());
        }
        let size = variables::put(variable, self.circumstances, &ENVIRONMENT, &mut self.context);
        let size = size.map_err(|variables::TooLarge| Unmet::TooCostly)?;
        self.made.push(variable);
        self.meter.grow(size);
        // Making it took as many steps as looking at it does.
        if self.meter.take(Cost { steps: size, bulks: 0 }) { Ok(()) } else { Err(Unmet::TooCostly) }
    }
}

/// The kind of an error, without the values in it.
fn unmet(error: &ExecutionError) -> Unmet {
    // The list is not closed; what is not known of it is a mismatch like most.
    if let ExecutionError::NoSuchKey(_) | ExecutionError::UndeclaredReference(_) | ExecutionError::IndexOutOfBounds(_) =
        error
    {
        return Unmet::Missing;
    }
    if let ExecutionError::Overflow(..)
    | ExecutionError::DivisionByZero(_)
    | ExecutionError::RemainderByZero(_)
    | ExecutionError::FunctionError { .. } = error
    {
        return Unmet::OutOfRange;
    }
    Unmet::Mismatch
}

/// The tree of a text, and where its parts stand.
fn parse(text: &str) -> Result<(Tree, SourceInfo), InvalidCondition> {
    let all = 0..text.len();
    let invalid = |message: String, help: &str| {
        let help = (!help.is_empty()).then(|| help.to_owned());
        Err(InvalidCondition { at: all.clone(), message, help })
    };
    if text.len() > CONDITION_BYTES {
        let message = format!("a condition has at most {CONDITION_BYTES} bytes, and this has {}", text.len());
        return invalid(message, "split it into several conditions");
    }
    if text.trim().is_empty() {
        return invalid("a condition can't be empty".to_owned(), "leave it out for none");
    }
    let parser = Parser::new().max_recursion_depth(BRACKETS);
    parser.parse_with_source_info(text).map_err(|errors| syntax(text, &errors))
}

fn syntax(text: &str, errors: &ParseErrors) -> InvalidCondition {
    let first = errors.errors.first();
    let at = first.filter(|error| error.pos.0 > 0).map_or(0..text.len(), |error| at_column(text, error.pos));
    let said = first.map_or("", |error| error.msg.as_str());
    let is_too_deep = at.len() == text.len() || said.contains("Recursion limit");
    if is_too_deep {
        let help = Some("split it into several conditions".to_owned());
        return InvalidCondition { at: 0..text.len(), message: "not CEL, or nested too deeply".to_owned(), help };
    }
    let said = said.strip_prefix("Syntax error: ").unwrap_or(said);
    // The parser lists every token that could stand there.
    let said = said.split(" expecting ").next().unwrap_or(said);
    let message = format!("not CEL: {}", shown(said));
    InvalidCondition { at, message, help: None }
}

fn shown(text: &str) -> String {
    let mut shown = String::new();
    for c in text.chars().take(SHOWN) {
        match c {
            '\'' | '"' | '\\' => shown.push(c),
            _ => shown.extend(c.escape_debug()),
        }
    }
    if text.chars().nth(SHOWN).is_some() {
        shown.push('…');
    }
    shown
}

/// The character at a line and column, both from 1.
fn at_column(text: &str, (line, column): (isize, isize)) -> Range<usize> {
    let lines_before = usize::try_from(line).unwrap_or_default().saturating_sub(1);
    let start = text.split_inclusive('\n').take(lines_before).map(str::len).fold(0, usize::saturating_add);
    let columns_before = usize::try_from(column).unwrap_or_default().saturating_sub(1);
    let rest = text.get(start..).unwrap_or_default();
    let before = rest.chars().take(columns_before).map(char::len_utf8).fold(0, usize::saturating_add);
    let from = start.saturating_add(before).min(text.len());
    let width = text.get(from..).and_then(|rest| rest.chars().next()).map_or(0, char::len_utf8);
    from..from.saturating_add(width)
}

/// Where a part stands, in bytes: the parser has the bracket of a call and the dot of a field, what is meant is their name.
fn place(text: &str, places: &SourceInfo, id: u64) -> Range<usize> {
    let whole = 0..text.len();
    let Some((from, to)) = places.offset_for(id) else { return whole };
    let byte = |offset: u32| usize::try_from(offset).unwrap_or(usize::MAX).min(text.len());
    let (from, to) = (byte(from), byte(to).saturating_add(1).min(text.len()));
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let (before, after) = (text.get(..from).unwrap_or_default(), text.get(to..).unwrap_or_default());
    match text.get(from..to) {
        Some("(") => match before.len().saturating_sub(before.trim_end_matches(is_word).len()) {
            0 => from..to,
            word => from.saturating_sub(word)..from,
        },
        Some(".") => match after.len().saturating_sub(after.trim_start_matches(is_word).len()) {
            0 => from..to,
            word => to..to.saturating_add(word),
        },
        Some(part) if !part.is_empty() => from..to,
        Some(_) | None => whole,
    }
}

#[cfg(test)]
#[path = "condition/tests.rs"]
mod tests;

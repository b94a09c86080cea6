//! Whether a parsed expression can be a condition: each name known, each type right as far as it can be told, and a
//! cost that can be counted.
//!
//! What comes from facts can be anything, so that `context.x == 1` passes and `agent == 1` doesn't.

use std::sync::Arc;

use cel::common::ast::operators as op;
use cel::common::ast::{CallExpr, ComprehensionExpr, EntryExpr, Expr, IdedExpr, ListExpr, LiteralValue, SelectExpr};
use cel::parser::Expression;
use cel::{Context, Value};

use super::ENVIRONMENT;
use super::cost::{Cost, TICK};
use super::shape::{FUNCTIONS, Shape};
use super::variables::Variable;

/// Nesting of an expression: each level takes stack when it is evaluated.
const LEVELS: usize = 48;
/// Nesting of `all`, `exists` and `exists_one`: two lists can be held against each other.
const LOOPS: usize = 2;

/// What is wrong, and with which part.
pub(super) struct Problem {
    /// The part, as the parser numbers them.
    pub(super) id: u64,
    pub(super) message: String,
    pub(super) help: Option<String>,
}

impl Problem {
    fn new(id: u64, message: impl Into<String>) -> Self {
        Self { id, message: message.into(), help: None }
    }

    fn help(self, help: impl Into<String>) -> Self {
        Self { help: Some(help.into()), ..self }
    }
}

/// What was found out about an expression.
pub(super) struct Checked {
    /// Of one evaluation, the rounds of loops apart: they are counted as they run.
    pub(super) cost: Cost,
    /// The variables that it names.
    pub(super) uses: Vec<Variable>,
}

/// Checks an expression, and puts a count into each of its loops.
pub(super) fn check(root: &mut Expression) -> Result<Checked, Problem> {
    let growth = grows(root, LEVELS).saturating_add(1);
    let mut checker = Checker { scope: Vec::new(), uses: Vec::new(), growth };
    let found = checker.check(root, LEVELS)?;
    if !found.shape.may_be(&[Shape::Bool]) {
        let message = format!("a condition is true or false, and this is {}", found.shape.describe());
        return Err(Problem::new(root.id, message));
    }
    Ok(Checked { cost: found.cost.times(growth), uses: checker.uses })
}

/// What is known of a part.
#[derive(Clone, Copy)]
struct Found {
    shape: Shape,
    cost: Cost,
    /// A string that stands in the text, or a list of such: comparing with it costs no more than its length.
    is_text: bool,
}

impl Found {
    fn is_bulky(self) -> bool {
        !self.is_text && !self.shape.is_small()
    }
}

struct Checker {
    /// The variables of the loops around the part.
    scope: Vec<(String, Shape)>,
    uses: Vec<Variable>,
    /// By how much values may grow over what the request has.
    growth: u64,
}

type Result<T, E = Problem> = std::result::Result<T, E>;

impl Checker {
    fn check(&mut self, part: &mut IdedExpr, levels: usize) -> Result<Found> {
        let id = part.id;
        let Some(below) = levels.checked_sub(1) else {
            return Err(Problem::new(id, "it is nested too deeply").help("split it into several conditions"));
        };
        match &mut part.expr {
            Expr::Literal(literal) => known(id, literal),
            Expr::Ident(name) => self.ident(id, name),
            Expr::Select(select) => self.select(id, select, below),
            Expr::List(list) => self.list(list, below),
            Expr::Map(map) => {
                let mut cost = Cost::STEP;
                for entry in &mut map.entries {
                    let EntryExpr::MapEntry(entry) = &mut entry.expr else { return Err(no_message(id)) };
                    let key_id = entry.key.id;
                    let key = self.check(&mut entry.key, below)?;
                    if !key.shape.may_be(&[Shape::Text]) {
                        return Err(Problem::new(key_id, format!("a key is a string, not {}", key.shape.describe())));
                    }
                    cost = cost.and(key.cost).and(self.check(&mut entry.value, below)?.cost).and(Cost::BULK);
                }
                Ok(found(Shape::Map, cost))
            }
            Expr::Call(call) => self.call(id, call, below),
            Expr::Comprehension(each) => self.each(id, each, below),
            Expr::Struct(_) => Err(no_message(id)),
            Expr::Unspecified => Err(Problem::new(id, "a part is missing")),
        }
    }

    fn ident(&mut self, id: u64, name: &str) -> Result<Found> {
        if let Some((_, shape)) = self.scope.iter().rev().find(|(known, _)| known == name) {
            return Ok(found(*shape, Cost::STEP));
        }
        let Some(variable) = Variable::ALL.into_iter().find(|variable| variable.name() == name) else {
            let names = Variable::ALL.map(Variable::name);
            return Err(stranger(id, "variable", name, &names, "the variables are"));
        };
        if !self.uses.contains(&variable) {
            self.uses.push(variable);
        }
        Ok(found(variable.shape(), Cost::STEP))
    }

    fn select(&mut self, id: u64, select: &mut SelectExpr, levels: usize) -> Result<Found> {
        let operand = self.check(&mut select.operand, levels)?;
        let cost = operand.cost.and(Cost::STEP);
        let shape = if let Some(fields) = operand.shape.fields() {
            let Some((_, shape)) = fields.iter().find(|(name, _)| *name == select.field) else {
                let names = fields.iter().map(|(name, _)| *name).collect::<Vec<_>>();
                return Err(stranger(id, "field", &select.field, &names, "the fields here are"));
            };
            *shape
        } else if operand.shape.may_be(&[Shape::Map]) {
            Shape::Any
        } else {
            let message = format!("{} has no field `{}`", operand.shape.describe(), shown(&select.field));
            return Err(Problem::new(id, message));
        };
        Ok(if select.test { found(Shape::Bool, cost) } else { found(shape, cost) })
    }

    fn list(&mut self, list: &mut ListExpr, levels: usize) -> Result<Found> {
        let (mut cost, mut all_texts, mut is_text) = (Cost::STEP, true, true);
        for element in &mut list.elements {
            let element = self.check(element, levels)?;
            cost = cost.and(element.cost);
            if element.is_bulky() {
                cost = cost.and(Cost::BULK);
            }
            all_texts &= element.shape == Shape::Text;
            is_text &= element.is_text;
        }
        let shape = if all_texts { Shape::Texts } else { Shape::List };
        Ok(Found { shape, cost, is_text })
    }

    fn call(&mut self, id: u64, call: &mut CallExpr, levels: usize) -> Result<Found> {
        let target = call.target.as_deref_mut().map(|target| self.check(target, levels)).transpose();
        // A bad function is said before a bad target: `f` is what `matches` or `filter` is wrong about.
        if is_name(&call.func_name) {
            function_exists(id, &call.func_name, call.target.is_some())?;
        }
        let mut operands = target?.into_iter().collect::<Vec<_>>();
        for argument in &mut call.args {
            operands.push(self.check(argument, levels)?);
        }
        let cost = operands.iter().fold(Cost::STEP, |cost, operand| cost.and(operand.cost));
        let shape = match operands.as_slice() {
            _ if is_name(&call.func_name) => {
                let shape = function(id, call, &operands)?;
                makes_something(id, call)?;
                shape
            }
            [one] => unary(id, &call.func_name, *one)?,
            [one, two] => binary(id, &call.func_name, *one, *two)?,
            [test, one, two] if call.func_name == op::CONDITIONAL => {
                wanted(id, *test, "what stands before `?`")?;
                one.shape.or(two.shape)
            }
            _ => return Err(Problem::new(id, "this operator is not available in conditions")),
        };
        let is_bulky = looks_at_all(&call.func_name, &operands);
        Ok(found(shape, if is_bulky { cost.and(Cost::BULK) } else { cost }))
    }

    /// `all`, `exists` and `exists_one`, which the parser has written out as loops.
    fn each(&mut self, id: u64, each: &mut ComprehensionExpr, levels: usize) -> Result<Found> {
        let available = || Problem::new(id, "of the macros, conditions have `has`, `all`, `exists` and `exists_one`");
        if matches!(each.accu_init.expr, Expr::List(_)) || each.iter_var2.is_some() {
            return Err(available().help("write what is asked of the elements inside `exists` or `all`"));
        }
        let range = self.check(&mut each.iter_range, levels)?;
        let element = match range.shape {
            Shape::Texts | Shape::Map => Shape::Text,
            Shape::List | Shape::Any => Shape::Any,
            other @ (Shape::Bool
            | Shape::Int
            | Shape::Uint
            | Shape::Double
            | Shape::Text
            | Shape::Null
            | Shape::Time
            | Shape::Span
            | Shape::Named
            | Shape::Entity) => {
                return Err(Problem::new(id, format!("it goes through a list or a map, not {}", other.describe())));
            }
        };
        let name = each.iter_var.as_str();
        let is_taken = Variable::ALL.iter().any(|variable| variable.name() == name);
        if is_taken || self.scope.iter().any(|(known, _)| known == name) {
            return Err(Problem::new(id, format!("the name `{}` is taken: take another", shown(name))));
        }
        if self.scope.len() >= LOOPS {
            let message = format!("`all`, `exists` and `exists_one` stand at most {LOOPS} deep in each other");
            return Err(Problem::new(id, message));
        }
        let body = body(&mut each.loop_step).ok_or_else(available)?;
        let body_id = body.id;
        self.scope.push((each.iter_var.clone(), element));
        let body = self.check(body, levels);
        self.scope.pop();
        let body = body?;
        wanted(body_id, body, "what is asked of each element")?;
        each.loop_cond = counted(std::mem::take(&mut each.loop_cond), body.cost.and(Cost::ROUND).times(self.growth));
        Ok(found(Shape::Bool, range.cost.and(Cost::BULK).and(Cost::STEP)))
    }
}

fn found(shape: Shape, cost: Cost) -> Found {
    Found { shape, cost, is_text: false }
}

fn known(id: u64, literal: &LiteralValue) -> Result<Found> {
    let shape = match literal {
        LiteralValue::Boolean(_) => Shape::Bool,
        LiteralValue::Double(_) => Shape::Double,
        LiteralValue::Int(_) => Shape::Int,
        LiteralValue::UInt(_) => Shape::Uint,
        LiteralValue::Null => Shape::Null,
        LiteralValue::String(_) => return Ok(Found { is_text: true, ..found(Shape::Text, Cost::STEP) }),
        LiteralValue::Bytes(_) => return Err(Problem::new(id, "conditions have no bytes: write a string")),
    };
    Ok(found(shape, Cost::STEP))
}

fn no_message(id: u64) -> Problem {
    Problem::new(id, "conditions have no messages: write a map, {\"name\": value}")
}

fn wanted(id: u64, part: Found, what: &str) -> Result<()> {
    if part.shape.may_be(&[Shape::Bool]) {
        return Ok(());
    }
    Err(Problem::new(id, format!("{what} is true or false, not {}", part.shape.describe())))
}

/// Operators have names that can't be written.
fn is_name(function: &str) -> bool {
    function.starts_with(|first: char| first.is_ascii_alphabetic())
        || (function.starts_with('_') && !function.ends_with('_') && !function.ends_with(']'))
}

/// Whether the call may look at all that the request says.
fn looks_at_all(function: &str, operands: &[Found]) -> bool {
    let is_spared = match (function, operands) {
        (op::LOGICAL_AND | op::LOGICAL_OR | op::CONDITIONAL, _) => true,
        // Two values are compared no further than the smaller one goes.
        (op::EQUALS | op::NOT_EQUALS, _) => operands.iter().any(|operand| !operand.is_bulky()),
        // A list is gone through, however little is looked for in it. A map looks a key up.
        (op::IN, [sought, place]) => place.is_text || (place.shape == Shape::Map && !sought.is_bulky()),
        _ => false,
    };
    !is_spared && operands.iter().any(|operand| operand.is_bulky())
}

fn unary(id: u64, operator: &str, operand: Found) -> Result<Shape> {
    let (takes, gives): (&[Shape], Shape) = match operator {
        op::LOGICAL_NOT => (&[Shape::Bool], Shape::Bool),
        op::NEGATE => (&[Shape::Int, Shape::Double], operand.shape),
        _ => return Err(Problem::new(id, "this operator is not available in conditions")),
    };
    if operand.shape.may_be(takes) {
        return Ok(gives);
    }
    Err(Problem::new(id, format!("`{}` is nothing for {}", operator.trim_end_matches('_'), operand.shape.describe())))
}

fn binary(id: u64, operator: &str, one: Found, two: Found) -> Result<Shape> {
    let sign = operator.trim_matches(['_', '@']);
    let both = |verb: &str| {
        let message = format!("`{sign}` can't {verb} {} and {}", one.shape.describe(), two.shape.describe());
        Err(Problem::new(id, message))
    };
    match operator {
        op::LOGICAL_AND | op::LOGICAL_OR => {
            wanted(id, one, &format!("what stands before `{sign}`"))?;
            wanted(id, two, &format!("what stands after `{sign}`"))?;
            Ok(Shape::Bool)
        }
        op::EQUALS | op::NOT_EQUALS if one.shape.may_equal(two.shape) => Ok(Shape::Bool),
        op::LESS | op::LESS_EQUALS | op::GREATER | op::GREATER_EQUALS if one.shape.may_compare(two.shape) => {
            Ok(Shape::Bool)
        }
        op::EQUALS | op::NOT_EQUALS | op::LESS | op::LESS_EQUALS | op::GREATER | op::GREATER_EQUALS => both("compare"),
        op::IN => {
            let elements = if matches!(two.shape, Shape::Texts | Shape::Map) { Shape::Text } else { Shape::Any };
            let is_list = two.shape.may_be(&[Shape::List, Shape::Texts, Shape::Map]);
            if is_list && elements.may_equal(one.shape) { Ok(Shape::Bool) } else { both("look up") }
        }
        op::INDEX => match two.shape {
            key if one.shape == Shape::Map && key.may_be(&[Shape::Text]) => Ok(Shape::Any),
            index if one.shape == Shape::Texts && index.may_be(&[Shape::Int, Shape::Uint, Shape::Double]) => {
                Ok(Shape::Text)
            }
            index if one.shape == Shape::List && index.may_be(&[Shape::Int, Shape::Uint, Shape::Double]) => {
                Ok(Shape::Any)
            }
            key if one.shape == Shape::Any && key.may_be(&[Shape::Text, Shape::Int, Shape::Uint, Shape::Double]) => {
                Ok(Shape::Any)
            }
            _ => both("look up"),
        },
        op::ADD | op::SUBSTRACT | op::MULTIPLY | op::DIVIDE | op::MODULO => {
            one.shape.combined(sign, two.shape).map_or_else(|| both("combine"), Ok)
        }
        _ => Err(Problem::new(id, "this operator is not available in conditions")),
    }
}

fn function_exists(id: u64, name: &str, on_value: bool) -> Result<()> {
    if FUNCTIONS.iter().any(|function| function.name == name && function.on_value == on_value) {
        return Ok(());
    }
    if name == "matches" {
        let problem = Problem::new(id, "conditions have no regular expressions");
        return Err(problem.help("use `startsWith`, `endsWith`, `contains`, or `in` with a list"));
    }
    if let Some(other) = FUNCTIONS.iter().find(|function| function.name == name) {
        let written = if other.on_value { format!("x.{name}(…)") } else { format!("{name}(x)") };
        return Err(Problem::new(id, format!("`{name}` is written {written}")));
    }
    let mut names = FUNCTIONS.iter().map(|function| function.name).collect::<Vec<_>>();
    names.dedup();
    Err(stranger(id, "function", name, &names, "the functions are"))
}

fn function(id: u64, call: &CallExpr, operands: &[Found]) -> Result<Shape> {
    let fits = |takes: &[&[Shape]]| {
        takes.len() == operands.len() && takes.iter().zip(operands).all(|(takes, operand)| operand.shape.may_be(takes))
    };
    let on_value = call.target.is_some();
    let mut named =
        FUNCTIONS.iter().filter(|function| function.name == call.func_name && function.on_value == on_value);
    if let Some(function) = named.find(|function| fits(function.takes)) {
        return Ok(function.gives);
    }
    let given = operands.iter().map(|operand| operand.shape.describe()).collect::<Vec<_>>().join(", ");
    let given = if given.is_empty() { "nothing".to_owned() } else { given };
    Err(Problem::new(id, format!("`{}` does not take {given}", call.func_name)))
}

/// Whether a function makes something of what stands in the text: `timestamp('noon')` and the time zone `'Berlin'` would
/// be an error at each evaluation.
fn makes_something(id: u64, call: &CallExpr) -> Result<()> {
    if call.args.is_empty() || !call.args.iter().all(is_literal) {
        return Ok(());
    }
    let mut call = call.clone();
    if call.target.as_deref().is_some_and(|target| !is_literal(target)) {
        if !call.func_name.starts_with("get") {
            return Ok(());
        }
        // Only moments have getters that take something, and any will do.
        let zero = IdedExpr { id, expr: Expr::Literal(LiteralValue::Int(0.into())) };
        let moment = CallExpr { func_name: "timestamp".to_owned(), target: None, args: vec![zero] };
        call.target = Some(Box::new(IdedExpr { id, expr: Expr::Call(moment) }));
    }
    let name = call.func_name.clone();
    let part = IdedExpr { id, expr: Expr::Call(call) };
    match Value::resolve_val(&part, &Context::with_env(Arc::clone(&ENVIRONMENT))) {
        Ok(_) => Ok(()),
        Err(_) => Err(Problem::new(id, format!("`{name}` can make nothing of what it is given here"))),
    }
}

/// What is asked of each element, in the step of a loop: `@result && body`, `@result || body`, or
/// `body ? @result + 1 : @result`.
fn body(step: &mut IdedExpr) -> Option<&mut IdedExpr> {
    let Expr::Call(call) = &mut step.expr else { return None };
    match (call.func_name.as_str(), call.args.as_mut_slice()) {
        (op::LOGICAL_AND | op::LOGICAL_OR, [_, body]) | (op::CONDITIONAL, [body, _, _]) => Some(body),
        _ => None,
    }
}

/// The condition of a loop, behind a count of the round that it begins. A count that says no is an error.
fn counted(condition: IdedExpr, cost: Cost) -> IdedExpr {
    let id = condition.id;
    let part = |expr: Expr| IdedExpr { id, expr };
    let number = |number: u64| part(Expr::Literal(LiteralValue::Int(i64::try_from(number).unwrap_or(i64::MAX).into())));
    let call = |name: &str, args| part(Expr::Call(CallExpr { func_name: name.to_owned(), target: None, args }));
    let tick = call(TICK, vec![number(cost.steps), number(cost.bulks)]);
    let no = part(Expr::Literal(LiteralValue::Boolean(false.into())));
    call(op::CONDITIONAL, vec![tick, condition, no])
}

/// Parts that make a value larger than what they are made of. What stands in the text is small.
fn grows(part: &IdedExpr, levels: usize) -> u64 {
    let Some(below) = levels.checked_sub(1) else { return 0 };
    let parts = parts_of(part);
    let own = match &part.expr {
        Expr::Call(call) if call.func_name == op::ADD => u64::from(parts.iter().all(|part| !is_literal(part))),
        Expr::List(_) | Expr::Map(_) => {
            u64::try_from(parts.iter().filter(|part| !is_literal(part)).count()).unwrap_or(u64::MAX)
        }
        Expr::Call(_)
        | Expr::Comprehension(_)
        | Expr::Ident(_)
        | Expr::Literal(_)
        | Expr::Select(_)
        | Expr::Struct(_)
        | Expr::Unspecified => 0,
    };
    parts.into_iter().map(|part| grows(part, below)).fold(own, u64::saturating_add)
}

fn parts_of(part: &IdedExpr) -> Vec<&IdedExpr> {
    match &part.expr {
        Expr::Call(call) => call.target.as_deref().into_iter().chain(&call.args).collect(),
        Expr::List(list) => list.elements.iter().collect(),
        Expr::Map(map) => {
            let members = map.entries.iter().filter_map(|entry| match &entry.expr {
                EntryExpr::MapEntry(entry) => Some([&entry.key, &entry.value]),
                EntryExpr::StructField(_) => None,
            });
            members.flatten().collect()
        }
        Expr::Select(select) => vec![&select.operand],
        Expr::Comprehension(each) => vec![&each.iter_range, &each.loop_step],
        Expr::Ident(_) | Expr::Literal(_) | Expr::Struct(_) | Expr::Unspecified => Vec::new(),
    }
}

fn is_literal(part: &IdedExpr) -> bool {
    matches!(part.expr, Expr::Literal(_))
}

fn stranger(id: u64, what: &str, name: &str, names: &[&str], these: &str) -> Problem {
    let problem = Problem::new(id, format!("unknown {what} `{}`", shown(name)));
    let near = names.iter().map(|known| (strsim::osa_distance(known, name), *known)).min();
    match near.filter(|(distance, _)| *distance <= 2) {
        Some((_, meant)) => problem.help(format!("did you mean `{meant}`?")),
        None => problem.help(format!("{these} `{}`", names.join("`, `"))),
    }
}

fn shown(name: &str) -> String {
    name.chars().take(64).flat_map(char::escape_debug).collect()
}

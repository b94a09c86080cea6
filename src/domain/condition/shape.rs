//! What is known of a value before there is one, and what may be done with it.

/// What is known of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    /// Nothing: it comes from facts.
    Any,
    Bool,
    Int,
    Uint,
    Double,
    Text,
    Null,
    /// A moment.
    Time,
    /// A length of time.
    Span,
    /// A list of strings.
    Texts,
    List,
    Map,
    /// `action`.
    Named,
    /// `subject` and `resource`.
    Entity,
}

use Shape::{Any, Bool, Double, Entity, Int, List, Map, Named, Null, Span, Text, Texts, Time, Uint};

impl Shape {
    /// What it is, in messages.
    pub(super) const fn describe(self) -> &'static str {
        match self {
            Any => "a value of the request",
            Bool => "true or false",
            Int | Uint => "a whole number",
            Double => "a number",
            Text => "a string",
            Null => "null",
            Time => "a timestamp",
            Span => "a duration",
            Texts => "a list of strings",
            List => "a list",
            Map => "a map",
            Named => "an object with `name`, `properties`",
            Entity => "an object with `type`, `id`, `properties`",
        }
    }

    /// The fields of an object that has no others.
    pub(super) const fn fields(self) -> Option<&'static [(&'static str, Shape)]> {
        match self {
            Named => Some(&[("name", Text), ("properties", Map)]),
            Entity => Some(&[("type", Text), ("id", Text), ("properties", Map)]),
            Any | Bool | Int | Uint | Double | Text | Null | Time | Span | Texts | List | Map => None,
        }
    }

    /// Whether values of it have one size, whatever the request says.
    pub(super) const fn is_small(self) -> bool {
        matches!(self, Bool | Int | Uint | Double | Null | Time | Span)
    }

    const fn is_number(self) -> bool {
        matches!(self, Int | Uint | Double)
    }

    const fn is_list(self) -> bool {
        matches!(self, List | Texts)
    }

    /// Whether it may be one of these.
    pub(super) fn may_be(self, wanted: &[Shape]) -> bool {
        self == Any || wanted.contains(&self)
    }

    /// What is known of a value that is the one or the other.
    pub(super) fn or(self, other: Self) -> Self {
        match (self, other) {
            (one, two) if one == two => one,
            (one, two) if one.is_list() && two.is_list() => List,
            _ => Any,
        }
    }

    /// Whether the two could ever be equal.
    pub(super) fn may_equal(self, other: Self) -> bool {
        let objects = self.fields().is_some() || other.fields().is_some();
        let alike = self == other || (self.is_number() && other.is_number()) || (self.is_list() && other.is_list());
        !objects && (self == Any || other == Any || alike)
    }

    /// Whether the one can be said to be less than the other.
    pub(super) fn may_compare(self, other: Self) -> bool {
        let ordered = [Bool, Int, Uint, Double, Text, Time, Span];
        self.may_be(&ordered) && other.may_be(&ordered) && self.may_equal(other)
    }

    /// What the operator makes of the two; none where it makes nothing.
    pub(super) fn combined(self, operator: &str, other: Self) -> Option<Self> {
        let takes = |one: Shape, two: Shape| self.may_be(&[one]) && other.may_be(&[two]);
        let rows: &[(Shape, Shape, Shape)] = match operator {
            "+" => &[
                (Int, Int, Int),
                (Uint, Uint, Uint),
                (Double, Double, Double),
                (Text, Text, Text),
                (Texts, Texts, Texts),
                (List, List, List),
                (List, Texts, List),
                (Texts, List, List),
                (Time, Span, Time),
                (Span, Time, Time),
                (Span, Span, Span),
            ],
            "-" => &[
                (Int, Int, Int),
                (Uint, Uint, Uint),
                (Double, Double, Double),
                (Time, Time, Span),
                (Time, Span, Time),
                (Span, Span, Span),
            ],
            "*" | "/" => &[(Int, Int, Int), (Uint, Uint, Uint), (Double, Double, Double)],
            _ => &[(Int, Int, Int), (Uint, Uint, Uint)],
        };
        let mut possible = rows.iter().filter(|(one, two, _)| takes(*one, *two)).map(|(_, _, result)| *result);
        let first = possible.next()?;
        Some(possible.fold(first, Shape::or))
    }
}

/// A function that conditions may call.
pub(super) struct Function {
    pub(super) name: &'static str,
    /// Called as `x.name(…)`, where `x` is its first argument.
    pub(super) on_value: bool,
    pub(super) takes: &'static [&'static [Shape]],
    pub(super) gives: Shape,
}

const fn call(name: &'static str, takes: &'static [&'static [Shape]], gives: Shape) -> Function {
    Function { name, on_value: false, takes, gives }
}

const fn method(name: &'static str, takes: &'static [&'static [Shape]], gives: Shape) -> Function {
    Function { name, on_value: true, takes, gives }
}

const SIZED: &[Shape] = &[Text, List, Texts, Map];
const SCALAR: &[Shape] = &[Text, Bool, Int, Uint, Double, Time, Span];

/// Every function of a condition. What isn't here doesn't exist; `matches` doesn't, because a pattern could cost
/// more than a decision.
pub(super) const FUNCTIONS: &[Function] = &[
    call("size", &[SIZED], Int),
    method("size", &[SIZED], Int),
    method("startsWith", &[&[Text], &[Text]], Bool),
    method("endsWith", &[&[Text], &[Text]], Bool),
    method("contains", &[&[Text], &[Text]], Bool),
    call("string", &[SCALAR], Text),
    call("int", &[&[Text, Int, Uint, Double, Time]], Int),
    call("double", &[&[Text, Int, Uint, Double]], Double),
    call("timestamp", &[&[Text, Int, Time]], Time),
    call("duration", &[&[Text, Span]], Span),
    method("getFullYear", &[&[Time]], Int),
    method("getMonth", &[&[Time]], Int),
    method("getDate", &[&[Time]], Int),
    method("getDayOfMonth", &[&[Time]], Int),
    method("getDayOfWeek", &[&[Time]], Int),
    method("getDayOfYear", &[&[Time]], Int),
    method("getHours", &[&[Time, Span]], Int),
    method("getMinutes", &[&[Time, Span]], Int),
    method("getSeconds", &[&[Time, Span]], Int),
    method("getMilliseconds", &[&[Time, Span]], Int),
    method("getFullYear", &[&[Time], &[Text]], Int),
    method("getMonth", &[&[Time], &[Text]], Int),
    method("getDate", &[&[Time], &[Text]], Int),
    method("getDayOfMonth", &[&[Time], &[Text]], Int),
    method("getDayOfWeek", &[&[Time], &[Text]], Int),
    method("getDayOfYear", &[&[Time], &[Text]], Int),
    method("getHours", &[&[Time], &[Text]], Int),
    method("getMinutes", &[&[Time], &[Text]], Int),
];

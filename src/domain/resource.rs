//! What is acted on, and patterns over it.
//!
//! ```text
//! resource = [ scheme ":" ] [ "//" | "/" ] segment *( "/" segment )      "//" only directly after a scheme
//! scheme   = a-z *( a-z 0-9 + . - )
//! segment  = 1 or more printable ASCII characters other than  / \ % ; ? # * and space
//! pattern  = "*"  |  resource (covers itself only)  |  a resource in which "*" stands as the whole last segment
//! ```
//! Anything else is refused, never repaired: what has one spelling can't be compared two ways.

use std::borrow::Cow;

use super::limits::RESOURCE_BYTES;

/// A resource in its one canonical form.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Resource<'a>(&'a str);

/// A set of resources: everything, one resource, or everything below a point.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Pattern<'a>(Cow<'a, str>);

/// Why a text is not a resource or a pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InvalidResource {
    /// It has no characters.
    Empty,
    /// It has more than [`RESOURCE_BYTES`] bytes.
    TooLong,
    /// `//` without a scheme before it, a doubled `/`, or a `/` at the end.
    EmptySegment {
        /// Where, in bytes from 0.
        offset: usize,
    },
    /// A `.` or `..` segment.
    DotSegment {
        /// Where, in bytes from 0.
        offset: usize,
    },
    /// A character that can't be in a segment.
    Character {
        /// Where, in bytes from 0.
        offset: usize,
    },
    /// A `*` that is not the whole last segment of a pattern.
    Wildcard {
        /// Where, in bytes from 0.
        offset: usize,
    },
}

impl std::fmt::Display for InvalidResource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Empty => f.write_str("it can't be empty"),
            Self::TooLong => write!(f, "it has at most {RESOURCE_BYTES} bytes"),
            Self::EmptySegment { offset } => write!(
                f,
                "an empty segment at byte {offset}: one / between segments, none at the end, // only after a scheme"
            ),
            Self::DotSegment { offset } => write!(f, "a . or .. segment at byte {offset}: write the path it leads to"),
            Self::Character { offset } => write!(
                f,
                "the character at byte {offset} can't be in a resource: printable ASCII without \\ % ; ? # and space"
            ),
            Self::Wildcard { offset } => {
                write!(f, "the * at byte {offset} is not the whole last segment: write /data/reports/*")
            }
        }
    }
}

impl std::error::Error for InvalidResource {}

impl<'a> Resource<'a> {
    /// The resource, if the text is one in canonical form, of at most [`RESOURCE_BYTES`].
    ///
    /// # Errors
    /// Says what is wrong and where, counted in bytes. Nothing is repaired: `/data/../x`, `//x`, `/x/` and `%2F` are refused.
    pub fn parse(text: &'a str) -> Result<Self, InvalidResource> {
        check(text, Wildcard::Refused)?;
        Ok(Self(text))
    }

    /// The text.
    #[must_use]
    pub fn as_str(self) -> &'a str {
        self.0
    }

    /// Its scheme without the colon, and the rest; the scheme is empty where it has none.
    #[must_use]
    pub fn typed(self) -> (&'a str, &'a str) {
        let (scheme, rest) = self.0.split_at_checked(scheme_length(self.0)).unwrap_or(("", self.0));
        (scheme.trim_end_matches(':'), rest)
    }

    /// The pattern that covers this resource and nothing else.
    #[must_use]
    pub fn only(self) -> Pattern<'a> {
        Pattern(Cow::Borrowed(self.0))
    }
}

impl<'a> Pattern<'a> {
    /// The pattern, if the text is one.
    ///
    /// # Errors
    /// Says what is wrong and where.
    pub fn parse(text: impl Into<Cow<'a, str>>) -> Result<Self, InvalidResource> {
        let text = text.into();
        if text != "*" {
            check(&text, Wildcard::LastSegment)?;
        }
        Ok(Self(text))
    }

    /// The pattern that covers everything.
    #[must_use]
    pub fn everything() -> Self {
        Self(Cow::Borrowed("*"))
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The same pattern with text of its own.
    #[must_use]
    pub fn into_owned(self) -> Pattern<'static> {
        Pattern(Cow::Owned(self.0.into_owned()))
    }

    /// Whether the resource is in the set. `/data/*` covers what lies below `/data` at any depth, and not `/data`.
    #[must_use]
    pub fn covers(&self, resource: Resource<'_>) -> bool {
        reaches(&self.0, resource.0)
    }

    /// Whether every resource of `inner` is in the set. Decided on segments, so that `/data/*` does not contain
    /// `/data-secret/*`.
    #[must_use]
    pub fn contains(&self, inner: &Pattern<'_>) -> bool {
        match inner.0.as_ref() {
            "*" => self.0 == "*",
            text => reaches(&self.0, text),
        }
    }

    /// Whether some resource is in both sets. A pattern is a point or all below one, so that of two that share a
    /// resource one contains the other.
    #[must_use]
    pub fn overlaps(&self, other: &Pattern<'_>) -> bool {
        self.contains(other) || other.contains(self)
    }
}

impl std::fmt::Display for Pattern<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// Whether `pattern` reaches all of `inner`, a resource or a pattern other than `*`.
///
/// Both are canonical, so a pattern's text before its `*` ends at a segment's start, and what lies below
/// is what begins with that text and goes on with a segment. An `inner` that is itself a pattern ends in
/// `*`, which stands where a segment stands: `/a/*` reaches `/a/*` and `/a/b/*`, and `/a` reaches neither.
fn reaches(pattern: &str, inner: &str) -> bool {
    if pattern == "*" {
        return true;
    }
    match pattern.strip_suffix('*') {
        Some(point) => inner.strip_prefix(point).is_some_and(|below| !below.is_empty() && !below.starts_with('/')),
        None => pattern == inner,
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Wildcard {
    Refused,
    LastSegment,
}

fn check(text: &str, wildcard: Wildcard) -> Result<(), InvalidResource> {
    if text.is_empty() {
        return Err(InvalidResource::Empty);
    }
    if text.len() > RESOURCE_BYTES {
        return Err(InvalidResource::TooLong);
    }
    let path = text.get(start_of_segments(text)..).unwrap_or_default();
    let mut offset = text.len().saturating_sub(path.len());
    let mut segments = path.split('/').peekable();
    while let Some(segment) = segments.next() {
        let is_last = segments.peek().is_none();
        let whole_wildcard = segment == "*" && is_last && wildcard == Wildcard::LastSegment;
        if !whole_wildcard {
            check_segment(segment, offset)?;
        }
        offset = offset.saturating_add(segment.len()).saturating_add(1);
    }
    Ok(())
}

/// The length of `scheme:` and of the slashes that may follow it.
fn start_of_segments(text: &str) -> usize {
    let scheme = scheme_length(text);
    let rest = text.get(scheme..).unwrap_or_default();
    let slashes = match (scheme, rest.as_bytes()) {
        (1.., [b'/', b'/', ..]) => 2,
        (_, [b'/', ..]) => 1,
        _ => 0,
    };
    scheme.saturating_add(slashes)
}

/// The length of `scheme:` at the start, 0 if there is none.
fn scheme_length(text: &str) -> usize {
    let Some((scheme, _)) = text.split_once(':') else { return 0 };
    let mut bytes = scheme.bytes();
    let first = bytes.next().is_some_and(|byte| byte.is_ascii_lowercase());
    let rest = bytes.all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"+.-".contains(&byte));
    if first && rest { scheme.len().saturating_add(1) } else { 0 }
}

fn check_segment(segment: &str, start: usize) -> Result<(), InvalidResource> {
    match segment {
        "" => return Err(InvalidResource::EmptySegment { offset: start }),
        "." | ".." => return Err(InvalidResource::DotSegment { offset: start }),
        _ => {}
    }
    let bad = |byte: u8| !byte.is_ascii_graphic() || matches!(byte, b'*' | b'\\' | b'%' | b';' | b'?' | b'#');
    // Nearly all are good: a fold without early exit looks at many bytes at a time.
    if !segment.bytes().fold(false, |any, byte| any | bad(byte)) {
        return Ok(());
    }
    match segment.bytes().zip(start..).find(|(byte, _)| bad(*byte)) {
        Some((b'*', offset)) => Err(InvalidResource::Wildcard { offset }),
        Some((_, offset)) => Err(InvalidResource::Character { offset }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn covers(pattern: &str, resource: &str) -> bool {
        Pattern::parse(pattern).unwrap().covers(Resource::parse(resource).unwrap())
    }

    fn within(inner: &str, outer: &str) -> bool {
        Pattern::parse(outer).unwrap().contains(&Pattern::parse(inner).unwrap())
    }

    #[test]
    fn two_patterns_overlap_exactly_if_some_resource_is_in_both() {
        let patterns = ["*", "/*", "/a", "/a/*", "/a/b", "/a/b/*", "a/*", "a", "db:*", "db:/*", "db://*", "db://x/*"];
        let resources = ["/a", "/a/b", "/a/b/c", "/c", "a", "a/b", "db:x", "db:/x", "db://x", "db://x/y", "s:z"];
        for one in patterns {
            for two in patterns {
                let is_shared = resources.iter().any(|resource| covers(one, resource) && covers(two, resource));
                let overlaps = Pattern::parse(one).unwrap().overlaps(&Pattern::parse(two).unwrap());
                assert_eq!(overlaps, is_shared, "{one} {two}");
            }
        }
    }

    #[test]
    fn takes_the_canonical_forms() {
        for good in [
            "/data/reports/q3.pdf",
            "prod/web",
            "db:orders",
            "k8s://prod/deployments/web",
            "record:record-1",
            "record:/a",
            "...",
            "/.path",
            "Foo:bar",
            "a:b:c",
            "/a@b",
        ] {
            assert!(Resource::parse(good).is_ok(), "{good}");
        }
    }

    #[test]
    fn refuses_everything_else() {
        let long = "a".repeat(1025);
        for bad in [
            "",
            "/",
            "//",
            "//data/reports/x",
            "/data/reports/",
            "/data/reports//x",
            "/data/./x",
            "/data/../secrets",
            "..",
            "/data/%2e%2e/x",
            "/data/..;/x",
            "/data\\x",
            "/data/x\0.pdf",
            "/data/．．/x",
            "/data/x\u{202e}fdp",
            "http://h/x#f",
            "http://h/x?q",
            "a b",
            "a\tb",
            "db:",
            "k8s://",
            "k8s:///x",
            "Foo://x",
            "/data/*",
            "*",
            long.as_str(),
        ] {
            assert!(Resource::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn refuses_a_star_inside_a_segment() {
        for bad in ["/data/rep*", "**", "/a/**", "/a/*/b", "*/a", "a*", "/data/reports/*/"] {
            assert!(Pattern::parse(bad).is_err(), "{bad}");
        }
        for good in ["*", "/*", "record:*", "k8s://*", "k8s:/*", "prod/*"] {
            assert!(Pattern::parse(good).is_ok(), "{good}");
        }
    }

    #[test]
    fn a_pattern_covers_what_lies_below_and_not_the_point_itself() {
        assert!(covers("/data/reports/*", "/data/reports/q3.pdf"));
        assert!(covers("/data/reports/*", "/data/reports/a/b"));
        assert!(!covers("/data/reports/*", "/data/reports"));
        assert!(!covers("/data/reports/*", "/data/reports-secret/x"));
        assert!(!covers("/data/reports/*", "/Data/reports/x"));
        assert!(!covers("/data/reports/*", "data/reports/x"));
        assert!(covers("*", "anything:/at/all"));
        assert!(covers("/*", "/a/b"));
        assert!(!covers("/*", "a/b"));
    }

    #[test]
    fn a_scheme_is_part_of_the_point() {
        assert!(covers("record:*", "record:a"));
        assert!(covers("record:*", "record:a/b"));
        assert!(!covers("record:*", "record:/a"));
        assert!(!covers("record:*", "record://a"));
        assert!(!covers("k8s:/*", "k8s://a"));
        assert!(covers("k8s://*", "k8s://prod/x"));
    }

    #[test]
    fn containment_is_decided_on_segments() {
        assert!(within("/a/b/*", "/a/*"));
        assert!(within("/a/*", "/a/*"));
        assert!(within("/a/b", "/a/*"));
        assert!(!within("/a/*", "/a/b/*"));
        assert!(!within("/a/*", "/a"));
        assert!(!within("*", "/*"));
        assert!(within("/*", "*"));
        assert!(!within("record:/*", "record:*"));
        assert!(!within("/data/reports-x/*", "/data/reports/*"));
    }
}

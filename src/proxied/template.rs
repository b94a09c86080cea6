//! Templates of paths, and of the texts that are made from what they find.
//!
//! `/reports/{year}/{name}` has a whole segment for each name; `{name*}` as the last one stands for one segment or more. In a
//! text, `{name}` is what was found.

use std::collections::HashMap;

use crate::domain::resource::Resource;

/// What stands for a name, by the name.
pub(super) type Found<'a> = HashMap<&'a str, &'a str>;

/// A template of paths.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PathTemplate {
    segments: Vec<Segment>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Segment {
    Text(String),
    One(String),
    Rest(String),
}

/// A text with places for what was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct TextTemplate {
    pieces: Vec<Piece>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Text(String),
    Place(String),
}

impl PathTemplate {
    /// Reads a template.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let Some(path) = text.strip_prefix('/') else { return Err("it does not begin with /".to_owned()) };
        let segments = path.split('/').filter(|_| text != "/").map(segment).collect::<Result<Vec<_>, _>>()?;
        let is_rest = |segment: &Segment| matches!(segment, Segment::Rest(_));
        if segments.iter().rev().skip(1).any(is_rest) {
            return Err("{name*} can only be the last segment".to_owned());
        }
        let template = Self { segments };
        let names = template.names().collect::<Vec<_>>();
        if names
            .iter()
            .enumerate()
            .any(|(place, name)| names.iter().skip(place.saturating_add(1)).any(|other| other == name))
        {
            return Err("a name stands twice in it".to_owned());
        }
        Ok(template)
    }

    /// Its names.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.segments.iter().filter_map(|segment| match segment {
            Segment::Text(_) => None,
            Segment::One(name) | Segment::Rest(name) => Some(name.as_str()),
        })
    }

    /// Whether a name may stand for several segments.
    pub(super) fn is_rest(&self, name: &str) -> bool {
        matches!(self.segments.last(), Some(Segment::Rest(rest)) if rest == name)
    }

    /// What stands for its names in this canonical path; none if the path is another.
    pub(super) fn find<'a>(&'a self, path: &'a str) -> Option<Found<'a>> {
        self.find_by(path, |text, segment| text == segment)
    }

    /// Whether a service that routes without regard to case takes this canonical path for one of the template's.
    pub(super) fn covers(&self, path: &str) -> bool {
        self.find_by(path, |text, segment| text.to_lowercase() == segment.to_lowercase()).is_some()
    }

    /// Whether it says more of a path than the other one: at the first segment where they differ in kind it has a text for
    /// a name, or one segment for any number.
    pub(super) fn is_nearer_than(&self, other: &Self) -> bool {
        self.segments.iter().map(Segment::nearness).gt(other.segments.iter().map(Segment::nearness))
    }

    fn find_by<'a>(&'a self, path: &'a str, is_same: impl Fn(&str, &str) -> bool) -> Option<Found<'a>> {
        let mut rest = path.strip_prefix('/').filter(|rest| !rest.is_empty());
        let mut found = Found::new();
        for segment in &self.segments {
            let path = rest?;
            let (first, after) = path.split_once('/').map_or((path, None), |(first, after)| (first, Some(after)));
            rest = after;
            match segment {
                Segment::Text(text) if is_same(text, first) => {}
                Segment::Text(_) => return None,
                Segment::One(name) => {
                    found.insert(name, first);
                }
                Segment::Rest(name) => {
                    found.insert(name, path);
                    rest = None;
                }
            }
        }
        rest.is_none().then_some(found)
    }
}

impl Segment {
    fn nearness(&self) -> u8 {
        match self {
            Self::Text(_) => 2,
            Self::One(_) => 1,
            Self::Rest(_) => 0,
        }
    }
}

fn segment(text: &str) -> Result<Segment, String> {
    let Some(inner) = text.strip_prefix('{').and_then(|text| text.strip_suffix('}')) else {
        let is_plain =
            !text.contains(['{', '}']) && Resource::parse(&format!("/{text}")).is_ok() && !text.contains('/');
        return if is_plain { Ok(Segment::Text(text.to_owned())) } else { Err(format!("{text:?} can't be a segment")) };
    };
    let (name, is_rest) = inner.strip_suffix('*').map_or((inner, false), |name| (name, true));
    if !is_place_name(name) {
        return Err(format!("{{{inner}}} is not a name of letters, digits and _"));
    }
    Ok(if is_rest { Segment::Rest(name.to_owned()) } else { Segment::One(name.to_owned()) })
}

fn is_place_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

impl TextTemplate {
    /// Reads a template.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let mut pieces = Vec::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('{') {
            let Some((name, after)) = after.split_once('}') else { return Err("a { in it has no }".to_owned()) };
            let is_place = name.split('.').all(is_place_name);
            if before.contains('}') || !is_place {
                return Err(format!("{{{name}}} is not a name of letters, digits and _"));
            }
            pieces.extend((!before.is_empty()).then(|| Piece::Text(before.to_owned())));
            pieces.push(Piece::Place(name.to_owned()));
            rest = after;
        }
        if rest.contains('}') {
            return Err("a } in it has no {".to_owned());
        }
        pieces.extend((!rest.is_empty()).then(|| Piece::Text(rest.to_owned())));
        Ok(Self { pieces })
    }

    /// Its names.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.pieces.iter().filter_map(|piece| match piece {
            Piece::Text(_) => None,
            Piece::Place(name) => Some(name.as_str()),
        })
    }

    /// The text before its first place, or all of it.
    pub(super) fn beginning(&self) -> &str {
        match self.pieces.first() {
            Some(Piece::Text(text)) => text,
            Some(Piece::Place(_)) | None => "",
        }
    }

    /// The text with what `value` gives for each name.
    ///
    /// # Errors
    /// What `value` says.
    pub(super) fn fill<'v, E>(&self, mut value: impl FnMut(&str) -> Result<&'v str, E>) -> Result<String, E> {
        let mut text = String::new();
        for piece in &self.pieces {
            match piece {
                Piece::Text(piece) => text.push_str(piece),
                Piece::Place(name) => text.push_str(value(name)?),
            }
        }
        Ok(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(template: &str, path: &str) -> Option<Vec<(String, String)>> {
        let template = PathTemplate::parse(template).unwrap();
        let mut found = template
            .find(path)?
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect::<Vec<_>>();
        found.sort();
        Some(found)
    }

    fn pairs(list: &[(&str, &str)]) -> Vec<(String, String)> {
        list.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn a_name_stands_for_one_whole_segment() {
        assert_eq!(
            found("/reports/{year}/{name}", "/reports/2026/q3"),
            Some(pairs(&[("name", "q3"), ("year", "2026")]))
        );
        for other in ["/reports/2026", "/reports/2026/q3/x", "/report/2026/q3", "/", "/Reports/2026/q3"] {
            assert_eq!(found("/reports/{year}/{name}", other), None, "{other}");
        }
        assert_eq!(found("/", "/"), Some(pairs(&[])));
        assert_eq!(found("/", "/a"), None);
        assert_eq!(found("/a", "/"), None);
    }

    #[test]
    fn a_rest_stands_for_one_segment_or_more() {
        assert_eq!(found("/files/{path*}", "/files/a/b"), Some(pairs(&[("path", "a/b")])));
        assert_eq!(found("/files/{path*}", "/files/a"), Some(pairs(&[("path", "a")])));
        assert_eq!(found("/files/{path*}", "/files"), None);
    }

    #[test]
    fn the_nearer_template_says_more_of_a_path() {
        let of = |text: &str| PathTemplate::parse(text).unwrap();
        for (near, far) in [("/mcp", "/{a*}"), ("/a/{b}", "/a/{b*}"), ("/a/b", "/{a}/b"), ("/a/{b}/c", "/a/{b*}")] {
            assert!(of(near).is_nearer_than(&of(far)) && !of(far).is_nearer_than(&of(near)), "{near} {far}");
        }
        assert!(!of("/a").is_nearer_than(&of("/A")));
    }

    #[test]
    fn a_path_in_other_letters_is_covered_and_not_found() {
        let template = PathTemplate::parse("/files/{name*}").unwrap();
        assert!(template.covers("/FILES/a") && template.covers("/files/a") && !template.covers("/file/a"));
        assert!(template.find("/Files/a").is_none());
    }

    #[test]
    fn what_is_no_template_is_refused() {
        for bad in [
            "", "a", "/a/", "//a", "/{a*}/b", "/{a}{b}", "/x{a}", "/{}", "/{a-b}", "/{a}/{a}", "/a%2f", "/..", "/*",
            "/{a}*",
        ] {
            assert!(PathTemplate::parse(bad).is_err(), "{bad}");
        }
        for bad in ["{", "}", "a{b", "a}b", "{}", "{a.}", "{a b}"] {
            assert!(TextTemplate::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_text_is_filled_with_what_was_found() {
        let text = TextTemplate::parse("db:{arguments.db}/{t}").unwrap();
        assert_eq!(text.names().collect::<Vec<_>>(), ["arguments.db", "t"]);
        assert_eq!(text.fill(|name| Ok::<_, ()>(if name == "t" { "x" } else { "y" })), Ok("db:y/x".to_owned()));
        assert_eq!(text.beginning(), "db:");
    }
}

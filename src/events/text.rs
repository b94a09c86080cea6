//! Text in an event: bounded, free of what changes how a line is read, and without tokens.

use std::borrow::Cow;
use std::ops::Range;

use crate::domain::limits;

/// Text of at most `BYTES` bytes without control characters. Longer text is cut at a character and ends
/// in `…`; a control character becomes U+FFFD.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Text<const BYTES: usize>(Cow<'static, str>);

/// Text that a caller attaches, or a name.
pub type Brief = Text<{ limits::TEXT_BYTES }>;
/// A resource, a path or a message for people.
pub type Long = Text<{ limits::RESOURCE_BYTES }>;

impl<const BYTES: usize> Text<BYTES> {
    /// From borrowed text. No more is copied than is kept.
    #[must_use]
    pub fn copied(text: &str) -> Self {
        if is_plain(text, BYTES) { Self(Cow::Owned(text.to_owned())) } else { Self(Cow::Owned(cleaned(text, BYTES))) }
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl<const BYTES: usize> From<Cow<'static, str>> for Text<BYTES> {
    fn from(text: Cow<'static, str>) -> Self {
        if is_plain(&text, BYTES) { Self(text) } else { Self(Cow::Owned(cleaned(&text, BYTES))) }
    }
}

impl<const BYTES: usize> From<String> for Text<BYTES> {
    fn from(text: String) -> Self {
        Self::from(Cow::Owned(text))
    }
}

impl<const BYTES: usize> From<&'static str> for Text<BYTES> {
    fn from(text: &'static str) -> Self {
        Self::from(Cow::Borrowed(text))
    }
}

/// The text as it may stand in an event of `limit` bytes a text.
pub(super) fn clean(text: &str, limit: usize) -> Cow<'_, str> {
    if is_plain(text, limit) { Cow::Borrowed(text) } else { Cow::Owned(cleaned(text, limit)) }
}

/// Nearly all text is short printable ASCII; a fold without early exit is done many bytes at a time.
fn is_plain(text: &str, limit: usize) -> bool {
    text.len() <= limit
        && text.bytes().fold(true, |plain, byte| plain & matches!(byte, b' '..=b'~'))
        && token(text).is_none()
}

/// What stands in a token's place, where a caller put one into a field for other text.
const WITHHELD: &str = "[token withheld]";
/// The hex digits of a token's seal, and the fewest characters before its dot.
const SEAL_DIGITS: usize = 64;
const PAYLOAD_CHARACTERS: usize = 40;

/// Where the first text of a capability token's form stands.
fn token(text: &str) -> Option<Range<usize>> {
    if text.len() <= SEAL_DIGITS.saturating_add(PAYLOAD_CHARACTERS) {
        return None;
    }
    text.match_indices('.').find_map(|(dot, _)| {
        let (before, after) = (text.get(..dot)?, text.get(dot.saturating_add(1)..)?);
        let is_payload = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'=');
        let payload = before.bytes().rev().take_while(is_payload).count();
        let seal = after.bytes().take_while(u8::is_ascii_hexdigit).count();
        let is_token = payload >= PAYLOAD_CHARACTERS && seal >= SEAL_DIGITS;
        is_token.then(|| dot.saturating_sub(payload)..dot.saturating_add(1).saturating_add(seal))
    })
}

/// The text with something else in the place of each token.
fn without_tokens(text: &str) -> Cow<'_, str> {
    let Some(found) = token(text) else { return Cow::Borrowed(text) };
    let before = text.get(..found.start).unwrap_or_default();
    let after = text.get(found.end..).unwrap_or_default();
    Cow::Owned([before, WITHHELD, &without_tokens(after)].concat())
}

fn cleaned(text: &str, limit: usize) -> String {
    const CUT: char = '…';
    let text = without_tokens(text);
    let before_cut = limit.saturating_sub(CUT.len_utf8());
    let mut kept = String::with_capacity(text.len().min(limit));
    let mut cut_at = 0;
    for character in text.chars() {
        let character = if changes_reading(character) { char::REPLACEMENT_CHARACTER } else { character };
        if kept.len().saturating_add(character.len_utf8()) > limit {
            kept.truncate(cut_at);
            kept.push(CUT);
            break;
        }
        kept.push(character);
        if kept.len() <= before_cut {
            cut_at = kept.len();
        }
    }
    kept
}

/// Control characters, and the format characters that break lines or turn the direction of what follows.
fn changes_reading(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_text_stays_as_it_is() {
        for plain in ["", "prod/web", "the token's holder is agent-deployer", "größer als 3 €"] {
            assert_eq!(Brief::copied(plain).as_str(), plain);
            assert_eq!(Brief::from(plain.to_owned()).as_str(), plain);
        }
        assert_eq!(Brief::from("x".repeat(256)).as_str().len(), 256);
    }

    #[test]
    fn control_characters_become_replacement_characters() {
        let text = "a\nb\0c\u{7f}d\u{85}e\u{202e}f\u{2028}g\u{1b}[31m";
        assert_eq!(Brief::copied(text).as_str(), "a\u{fffd}b\u{fffd}c\u{fffd}d\u{fffd}e\u{fffd}f\u{fffd}g\u{fffd}[31m");
    }

    #[test]
    fn a_token_in_a_field_for_other_text_is_withheld() {
        let token =
            format!("{}.{}", "eyJpc3MiOiJhZ2VudC1jb29yZGluYXRvciIsInN1YiI6ImFnZW50In0=", "0123456789abcdef".repeat(4));
        assert_eq!(Long::copied(&token).as_str(), "[token withheld]");
        assert_eq!(Brief::from(format!("see {token}, {token}!")).as_str(), "see [token withheld], [token withheld]!");
        let long = format!("{}{token}", "-".repeat(1000));
        assert!(!Long::copied(&long).as_str().contains("0123456789abcdef"), "not even where the text is cut");
        assert!(!Long::copied(&format!("ä\n{token}")).as_str().contains("eyJ"));
        for plain in [format!("sha256:{}", "0".repeat(64)), format!("a.{}", "0".repeat(110)), "x.".repeat(100)] {
            assert_eq!(Brief::copied(&plain).as_str(), plain);
        }
    }

    #[test]
    fn long_text_is_cut_at_a_character() {
        for unit in ["x", "ä", "€", "𝄞", "\n"] {
            for extra in 0..5 {
                let text = format!("{}{}", "-".repeat(extra), unit.repeat(300));
                let kept = Brief::copied(&text);
                assert!(kept.as_str().len() <= 256 && kept.as_str().len() > 250, "{unit:?} {}", kept.as_str().len());
                assert!(kept.as_str().ends_with('…'));
            }
        }
        assert_eq!(Long::from("x".repeat(5000)).as_str().len(), 1024);
    }
}

//! Text in an event: bounded, and free of what changes how a line is read.

use std::borrow::Cow;

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
    text.len() <= limit && text.bytes().fold(true, |plain, byte| plain & matches!(byte, b' '..=b'~'))
}

fn cleaned(text: &str, limit: usize) -> String {
    const CUT: char = '…';
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

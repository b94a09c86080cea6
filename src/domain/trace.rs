//! Which trace a request belongs to, as W3C Trace Context writes it in `traceparent`.

/// Where the context stands: in HTTP headers and in gRPC metadata.
pub const TRACEPARENT: &str = "traceparent";

/// The bit of the flags that says: whoever called records its span.
const SAMPLED: u8 = 0x01;
/// The bit that says: the last seven bytes of the id are random.
const RANDOM: u8 = 0x02;
/// A version that none will ever have.
const NO_VERSION: [u8; 1] = [0xff];

/// A trace's id: 16 bytes, not all zero, shown as 32 lower-case hex digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceId([u8; 16]);

/// A span's id: 8 bytes, not all zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpanId([u8; 8]);

/// The trace that a request belongs to, and where in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceContext {
    /// The trace.
    pub id: TraceId,
    /// The caller's span; none where the trace begins here.
    pub parent: Option<SpanId>,
    flags: u8,
}

impl TraceId {
    /// From its text.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        bytes(text).filter(|id| *id != [0; 16]).map(Self)
    }

    /// Its bytes.
    #[must_use]
    pub const fn bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl std::fmt::Display for TraceId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

impl SpanId {
    /// From its bytes; all zero is none.
    #[must_use]
    pub fn new(id: [u8; 8]) -> Option<Self> {
        (id != [0; 8]).then_some(Self(id))
    }

    /// Its bytes.
    #[must_use]
    pub const fn bytes(&self) -> &[u8; 8] {
        &self.0
    }
}

impl TraceContext {
    /// From a `traceparent`. None where it is not of the form of version 00, or of what later versions keep of it: such
    /// a one is as good as none (Trace Context §3.2, §4.3).
    #[must_use]
    pub fn parse(header: &str) -> Option<Self> {
        let mut fields = header.trim_matches([' ', '\t']).splitn(5, '-');
        let version: [u8; 1] = bytes(fields.next()?)?;
        let id = TraceId::parse(fields.next()?)?;
        let parent = SpanId::new(bytes(fields.next()?)?)?;
        let [flags] = bytes(fields.next()?)?;
        // Only later versions may have more behind it, which nobody can read yet.
        let is_longer = fields.next().is_some();
        if version == NO_VERSION || (version == [0] && is_longer) {
            return None;
        }
        Some(Self { id, parent: Some(parent), flags: flags & (SAMPLED | RANDOM) })
    }

    /// A trace that begins here, by random bytes; none for as many of them as `ratio`, from 0 to 1, leaves out.
    #[must_use]
    pub fn begin(random: [u8; 16], ratio: f64) -> Option<Self> {
        let [.., a, b, c, d] = random;
        let drawn = f64::from(u32::from_be_bytes([a, b, c, d])) / TWO_TO_32;
        let id = Some(TraceId(random)).filter(|_| drawn < ratio && random != [0; 16])?;
        Some(Self { id, parent: None, flags: SAMPLED | RANDOM })
    }

    /// The trace of this id, of which no more is known.
    #[must_use]
    pub const fn of_id(id: TraceId) -> Self {
        Self { id, parent: None, flags: 0 }
    }

    /// Whether its spans are wanted.
    #[must_use]
    pub const fn is_sampled(&self) -> bool {
        self.flags & SAMPLED != 0
    }

    /// `trace-flags`, those that are known.
    #[must_use]
    pub const fn flags(&self) -> u8 {
        self.flags
    }
}

const TWO_TO_32: f64 = 4_294_967_296.0;

/// So many bytes, in exactly as many lower-case hex digits.
fn bytes<const N: usize>(text: &str) -> Option<[u8; N]> {
    let is_lower = text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    let mut bytes = [0; N];
    if !is_lower || text.len() != N.saturating_mul(2) {
        return None;
    }
    faster_hex::hex_decode(text.as_bytes(), &mut bytes).ok()?;
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ID: &str = "0af7651916cd43dd8448eb211c80319c";
    const PARENT: &str = "b7ad6b7169203331";

    fn of(version: &str, flags_and_more: &str) -> Option<TraceContext> {
        TraceContext::parse(&format!("{version}-{ID}-{PARENT}-{flags_and_more}"))
    }

    #[test]
    fn version_00_is_read() {
        let context = of("00", "01").unwrap();
        assert_eq!(context.id.to_string(), ID);
        assert_eq!(context.parent.unwrap().bytes(), &[0xb7, 0xad, 0x6b, 0x71, 0x69, 0x20, 0x33, 0x31]);
        assert!(context.is_sampled() && context.flags() == 1);
        assert!(!of("00", "00").unwrap().is_sampled());
        assert!(!of("00", "02").unwrap().is_sampled());
        assert_eq!(of("00", "ff").unwrap().flags(), 3, "flags that nobody knows are not passed on");
        assert_eq!(TraceContext::parse(&format!(" 00-{ID}-{PARENT}-01\t")), of("00", "01"));
    }

    #[test]
    fn later_versions_are_read_as_far_as_they_are_this_one() {
        for more in ["01", "01-what-the-future-will-be-like", "01-"] {
            assert_eq!(of("cc", more), of("00", "01"), "{more}");
        }
        for bad in ["01.what-the-future-will-be-like", "0", "1-1", ""] {
            assert_eq!(of("cc", bad), None, "{bad}");
        }
    }

    #[test]
    fn anything_else_is_as_good_as_none() {
        let whole = format!("00-{ID}-{PARENT}-01");
        for bad in [
            String::new(),
            "-".to_owned(),
            ID.to_owned(),
            whole.replace("00-", "ff-"),
            whole.replace("00-", "0-"),
            whole.replace("00-", "000-"),
            whole.replace("00-", ".0-"),
            whole.to_ascii_uppercase(),
            whole.replace(ID, &"0".repeat(32)),
            whole.replace(ID, ID.trim_start_matches('0')),
            whole.replace(ID, &format!("{ID}0")),
            whole.replace(ID, &ID.replace('a', "A")),
            whole.replace(PARENT, &"0".repeat(16)),
            whole.replace(PARENT, PARENT.trim_start_matches('b')),
            whole.replace(PARENT, &PARENT.replace('a', "g")),
            whole.replace("-01", "-1"),
            whole.replace("-01", "-.1"),
            whole.replace("-01", ""),
            format!("{whole}-"),
            format!("{whole}-01"),
            format!("{whole},{whole}"),
            format!("{whole} {whole}"),
        ] {
            assert_eq!(TraceContext::parse(&bad), None, "{bad:?}");
        }
    }

    #[test]
    fn as_many_traces_begin_as_were_asked_for() {
        let begun = |ratio| {
            (0..1000_u32).filter(move |number| {
                let mut random = [7; 16];
                random[12..].copy_from_slice(&number.wrapping_mul(4_294_967).to_be_bytes());
                TraceContext::begin(random, ratio)
                    .is_some_and(|context| context.is_sampled() && context.parent.is_none())
            })
        };
        assert_eq!([0.0, 0.25, 1.0].map(|ratio| begun(ratio).count()), [0, 251, 1000]);
        assert_eq!(TraceContext::begin([0; 16], 1.0), None, "an id of zeros is none");
        assert!(TraceContext::begin([0xff; 16], 1.0).is_some());
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_passed_over(text in ".{0,80}") {
            let _ = TraceContext::parse(&text);
        }

        #[test]
        fn what_is_read_says_the_same_again(text in "[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}") {
            if let Some(context) = TraceContext::parse(&text) {
                prop_assert!(text.contains(&context.id.to_string()));
                prop_assert_eq!(TraceId::parse(&context.id.to_string()), Some(context.id));
            }
        }
    }
}

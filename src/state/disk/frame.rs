//! Records in a file, each in a frame by which a torn end and a damage are told apart.
//!
//! ```text
//! file  = magic[8] version[1] kind[1] 0[2] salt[8] check[4]  *frame        numbers little-endian
//! frame = length[4] check-of-length[4] payload[length] check-of-payload[4] 0xA5
//! ```
//!
//! A check is CRC-32 over the file's salt, the frame's place in the file and the bytes: a frame that is missing in the
//! middle, and one of another file, don't fit. A crash leaves a file that ends early, or whose last frame was never
//! written and reads as zeros: that is torn, and nobody was told of it. All else is damage.

/// A frame's payload, in bytes: the largest token and its names are below 64 KiB.
pub(super) const PAYLOAD_BYTES: usize = 256 * 1024;

const MAGIC: [u8; 8] = *b"REMITSTA";
const VERSION: u8 = 2;
const HEADER_BYTES: usize = 24;
/// Length and its check.
const FRONT_BYTES: usize = 8;
/// The payload's check and the end.
const BACK_BYTES: usize = 5;
/// More than one bit, so that no single flip makes it look unwritten.
const END: u8 = 0xA5;

/// What a file holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Revocations, quarantines and the mark.
    Register,
    /// Live tokens.
    Ledger,
}

impl Kind {
    const fn byte(self) -> u8 {
        match self {
            Self::Register => 1,
            Self::Ledger => 2,
        }
    }
}

/// Frames records for one file, in their order.
pub(super) struct Framing {
    salt: u64,
    place: u64,
}

impl Framing {
    pub(super) const fn new(salt: u64) -> Self {
        Self { salt, place: 0 }
    }

    pub(super) const fn place(&self) -> u64 {
        self.place
    }

    /// Takes frames back that could not be written.
    pub(super) const fn go_back(&mut self, place: u64) {
        self.place = place;
    }

    /// What the file begins with.
    pub(super) fn header(&self, kind: Kind) -> Vec<u8> {
        let mut header = Vec::with_capacity(HEADER_BYTES);
        header.extend_from_slice(&MAGIC);
        header.extend_from_slice(&[VERSION, kind.byte(), 0, 0]);
        header.extend_from_slice(&self.salt.to_le_bytes());
        let check = crc(&[&header]);
        header.extend_from_slice(&check.to_le_bytes());
        header
    }

    /// Appends the next frame to `out`.
    pub(super) fn frame(&mut self, payload: &[u8], out: &mut Vec<u8>) {
        let length = u32::try_from(payload.len()).unwrap_or(u32::MAX).to_le_bytes();
        out.extend_from_slice(&length);
        out.extend_from_slice(&self.check(&length).to_le_bytes());
        out.extend_from_slice(payload);
        out.extend_from_slice(&self.check(payload).to_le_bytes());
        out.push(END);
        self.place = self.place.saturating_add(1);
    }

    fn check(&self, bytes: &[u8]) -> u32 {
        crc(&[&self.salt.to_le_bytes(), &self.place.to_le_bytes(), bytes])
    }
}

/// How a file ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// With a whole frame.
    Whole,
    /// With this many bytes of a write that never finished.
    Torn(usize),
}

/// Why a file can't be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Damage {
    /// It is not a file of this kind.
    NotOurs,
    /// Another version of Remit wrote it.
    Version(u8),
    /// Its bytes are not those that were written, from here on.
    At(usize),
}

/// Hands over each whole frame's payload in order; how the file ends.
pub(super) fn read<'b>(bytes: &'b [u8], kind: Kind, mut each: impl FnMut(&'b [u8]) -> bool) -> Result<End, Damage> {
    let mut framing = Framing::new(salt(bytes, kind)?);
    let mut at = HEADER_BYTES;
    // Once: the zeros at the end may be many, and so are the frames.
    let written = written(bytes);
    while let Some(rest) = bytes.get(at..).filter(|rest| !rest.is_empty()) {
        match next(rest, written.saturating_sub(at), &framing) {
            Next::Frame(payload) if each(payload) => {
                at = at.saturating_add(FRONT_BYTES).saturating_add(payload.len()).saturating_add(BACK_BYTES);
                framing.place = framing.place.saturating_add(1);
            }
            Next::Torn => return Ok(End::Torn(rest.len())),
            Next::Frame(_) | Next::Damaged => return Err(Damage::At(at)),
        }
    }
    Ok(End::Whole)
}

fn salt(bytes: &[u8], kind: Kind) -> Result<u64, Damage> {
    let header = bytes.get(..HEADER_BYTES).ok_or(Damage::NotOurs)?;
    let [m0, m1, m2, m3, m4, m5, m6, m7, version, found, _, _, salt @ .., c0, c1, c2, c3] = header else {
        return Err(Damage::NotOurs);
    };
    if [*m0, *m1, *m2, *m3, *m4, *m5, *m6, *m7] != MAGIC {
        return Err(Damage::NotOurs);
    }
    let checked = header.get(..HEADER_BYTES.saturating_sub(4)).unwrap_or_default();
    if crc(&[checked]) != u32::from_le_bytes([*c0, *c1, *c2, *c3]) {
        return Err(Damage::At(0));
    }
    if *version != VERSION {
        return Err(Damage::Version(*version));
    }
    if *found != kind.byte() {
        return Err(Damage::NotOurs);
    }
    salt.try_into().map(u64::from_le_bytes).map_err(|_| Damage::NotOurs)
}

enum Next<'b> {
    Frame(&'b [u8]),
    Torn,
    Damaged,
}

/// How long it is without the zeros at its end, which a file system gives for what was never written.
fn written(bytes: &[u8]) -> usize {
    bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last.saturating_add(1))
}

/// The next frame, of which this many bytes are `written`.
fn next<'b>(rest: &'b [u8], written: usize, framing: &Framing) -> Next<'b> {
    let unless_unwritten = |end: usize| if written < end { Next::Torn } else { Next::Damaged };
    let Some((front, after)) = rest.split_at_checked(FRONT_BYTES) else { return Next::Torn };
    let [l0, l1, l2, l3, c0, c1, c2, c3] = front else { return Next::Torn };
    let length = [*l0, *l1, *l2, *l3];
    if framing.check(&length) != u32::from_le_bytes([*c0, *c1, *c2, *c3]) {
        return unless_unwritten(FRONT_BYTES);
    }
    let length = usize::try_from(u32::from_le_bytes(length)).unwrap_or(usize::MAX);
    if length > PAYLOAD_BYTES {
        return Next::Damaged;
    }
    let Some((payload, after)) = after.split_at_checked(length) else { return Next::Torn };
    let Some(back) = after.get(..BACK_BYTES) else { return Next::Torn };
    let [c0, c1, c2, c3, end] = back else { return Next::Torn };
    if framing.check(payload) != u32::from_le_bytes([*c0, *c1, *c2, *c3]) || *end != END {
        return unless_unwritten(FRONT_BYTES.saturating_add(length).saturating_add(BACK_BYTES));
    }
    Next::Frame(payload)
}

/// CRC-32 (ISO 3309, as in gzip) of these bytes in a row: it sees every burst of up to 32 bits.
fn crc(parts: &[&[u8]]) -> u32 {
    let step = |crc: u32, byte: &u8| {
        let [low, ..] = crc.to_le_bytes();
        crc >> 8 ^ TABLE.get(usize::from(low ^ byte)).copied().unwrap_or_default()
    };
    !parts.iter().copied().flatten().fold(u32::MAX, step)
}

const TABLE: [u32; 256] = table();

#[expect(
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    clippy::as_conversions,
    clippy::cast_possible_truncation,
    reason = "worked out by the compiler, which refuses what overflows"
)]
const fn table() -> [u32; 256] {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let mut crc = byte as u32;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 1 == 1 { crc >> 1 ^ 0xEDB8_8320 } else { crc >> 1 };
            bit += 1;
        }
        table[byte] = crc;
        byte += 1;
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(payloads: &[&[u8]]) -> Vec<u8> {
        let mut framing = Framing::new(42);
        let mut bytes = framing.header(Kind::Ledger);
        for payload in payloads {
            framing.frame(payload, &mut bytes);
        }
        bytes
    }

    fn payloads(bytes: &[u8]) -> (Vec<Vec<u8>>, Result<End, Damage>) {
        let mut found = Vec::new();
        let end = read(bytes, Kind::Ledger, |payload| {
            found.push(payload.to_vec());
            true
        });
        (found, end)
    }

    #[test]
    fn the_check_is_the_one_of_gzip() {
        assert_eq!(crc(&[b"1234", b"56789"]), 0xCBF4_3926);
    }

    #[test]
    fn frames_are_read_back() {
        let bytes = file(&[b"one", b"", b"three"]);
        assert_eq!(payloads(&bytes), (vec![b"one".to_vec(), Vec::new(), b"three".to_vec()], Ok(End::Whole)));
    }

    #[test]
    fn a_file_cut_anywhere_has_the_whole_frames_before_the_cut() {
        let whole = [b"one".as_slice(), b"two", b"three"];
        let bytes = file(&whole);
        let ends: Vec<_> = (0..=3).map(|count| file(&whole[..count]).len()).collect();
        for cut in HEADER_BYTES..=bytes.len() {
            let (found, end) = payloads(&bytes[..cut]);
            let expected = ends.iter().rposition(|end| *end <= cut).unwrap();
            assert_eq!(found.len(), expected, "{cut}");
            let torn = cut - ends[expected];
            assert_eq!(end, Ok(if torn == 0 { End::Whole } else { End::Torn(torn) }), "{cut}");
            // A file system may have made room before it wrote.
            let mut padded = bytes[..cut].to_vec();
            padded.resize(bytes.len() + 100, 0);
            assert_eq!(payloads(&padded).0.len(), expected, "{cut}");
            assert!(matches!(payloads(&padded).1, Ok(End::Torn(_))), "{cut}");
        }
        for cut in 0..HEADER_BYTES {
            assert_eq!(payloads(&bytes[..cut]).1, Err(Damage::NotOurs));
        }
    }

    #[test]
    fn a_long_tail_that_was_never_written_is_looked_at_once() {
        let payloads: Vec<_> = (0..20_000_u32).map(u32::to_le_bytes).collect();
        let payloads: Vec<&[u8]> = payloads.iter().map(<[u8; 4]>::as_slice).collect();
        let mut bytes = file(&payloads);
        let length = bytes.len();
        bytes.resize(length + (16 << 20), 0);
        let mut count = 0;
        // Looked at for every frame, this is 320 GB.
        let end = read(&bytes, Kind::Ledger, |_| {
            count += 1;
            true
        });
        assert_eq!((count, end), (20_000, Ok(End::Torn(16 << 20))));
    }

    #[test]
    fn every_flipped_bit_is_damage() {
        let bytes = file(&[b"one", b"two", b"three"]);
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(payloads(&flipped).1.is_err(), "bit {bit}");
        }
    }

    #[test]
    fn a_frame_out_of_its_place_is_damage() {
        let (one, two) = (file(&[b"one"]).len(), file(&[b"one", b"two"]).len());
        let mut bytes = file(&[b"one", b"two", b"six"]);
        bytes.drain(one..two);
        assert_eq!(payloads(&bytes).1, Err(Damage::At(one)), "a hole");
        let mut bytes = file(&[b"one", b"two", b"six"]);
        bytes[one..two].fill(0);
        assert_eq!(payloads(&bytes).1, Err(Damage::At(one)), "a hole that was never written");
        let mut other = Framing::new(7);
        let mut bytes = file(&[b"one"]);
        other.place = 1;
        other.frame(b"two", &mut bytes);
        assert_eq!(payloads(&bytes).1, Err(Damage::At(one)), "a frame of another file");
    }

    #[test]
    fn another_kind_or_version_is_not_read() {
        let bytes = file(&[]);
        assert_eq!(read(&bytes, Kind::Register, |_| true), Err(Damage::NotOurs));
        assert_eq!(read(b"root:x:0:0:root:/root:/bin/bash\n", Kind::Ledger, |_| true), Err(Damage::NotOurs));
        let mut newer = bytes[..HEADER_BYTES - 4].to_vec();
        newer[8] = VERSION + 1;
        let check = crc(&[&newer]);
        newer.extend_from_slice(&check.to_le_bytes());
        assert_eq!(read(&newer, Kind::Ledger, |_| true), Err(Damage::Version(VERSION + 1)));
    }
}

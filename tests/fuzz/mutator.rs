//! Changes a text at random, the same way for the same seed.

/// Random enough, and quick (xorshift64*).
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        // Zero would stay zero, and neighbouring seeds would begin alike.
        Self((seed ^ 0x9e37_79b9_7f4a_7c15).wrapping_mul(0xbf58_476d_1ce4_e5b9) | 1)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 11
    }

    /// Less than `bound`; 0 if that is 0.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        let bound = u64::try_from(bound).unwrap().max(1);
        usize::try_from(self.next() % bound).unwrap()
    }

    /// One of them; nothing, of none.
    fn pick<'a>(&mut self, of: &'a [Vec<u8>]) -> &'a [u8] {
        of.get(self.below(of.len())).map_or(&[], Vec::as_slice)
    }

    /// Two places in a text of this length, the lesser first; mostly near each other.
    fn range(&mut self, length: usize) -> (usize, usize) {
        let from = self.below(length.saturating_add(1));
        let longest = if self.below(4) == 0 { length } else { 8 };
        (from, from.saturating_add(self.below(longest.saturating_add(1))).min(length))
    }
}

/// Bytes that mean something somewhere.
const TELLING: &[u8] = b"\0\t\n\r \"#%&'()*+,-./:;<=>?@[\\]^_`{|}~\x7f\x80\xc0\xff09azAZ";
const NUMBERS: [&str; 12] = [
    "0",
    "1",
    "-1",
    "16",
    "17",
    "255",
    "4294967295",
    "4294967296",
    "9007199254740992",
    "18446744073709551616",
    "1e9",
    "0.5",
];
/// How often something is repeated at most, when it is repeated often.
const REPEATED: usize = 2000;

/// A change of `base`, by up to eight steps; `others` are what is spliced in, `words` what is inserted.
pub(crate) fn mutate(dice: &mut Dice, base: &[u8], others: &[Vec<u8>], words: &[Vec<u8>], longest: usize) -> Vec<u8> {
    let mut text = base.to_vec();
    let steps = 1 << dice.below(4);
    for _ in 0..=dice.below(steps) {
        step(dice, &mut text, others, words);
        text.truncate(longest);
    }
    text
}

fn step(dice: &mut Dice, text: &mut Vec<u8>, others: &[Vec<u8>], words: &[Vec<u8>]) {
    let (from, to) = dice.range(text.len());
    let byte = TELLING[dice.below(TELLING.len())];
    match dice.below(11) {
        0 => text.iter_mut().skip(from).take(1).for_each(|at| *at ^= 1 << dice.below(8)),
        1 => text.iter_mut().skip(from).take(1).for_each(|at| *at = byte),
        2 => text.insert(from, byte),
        3 => drop(text.drain(from..to)),
        4 => text.truncate(from),
        5 => {
            let times = if dice.below(16) == 0 { dice.below(REPEATED) } else { 1 };
            let more = text[from..to].repeat(times);
            drop(text.splice(to..to, more));
        }
        6 | 7 => {
            let other = dice.pick(others);
            let (begin, end) = dice.range(other.len());
            let end = if dice.below(2) == 0 { other.len() } else { end };
            drop(text.splice(from..to, other[begin..end].iter().copied()));
        }
        8 => drop(text.splice(from..from, dice.pick(words).iter().copied())),
        9 => drop(text.splice(from..to, dice.pick(words).iter().copied())),
        _ => another_number(dice, text),
    }
}

/// Puts another number where one stands, or takes it up or down by one.
fn another_number(dice: &mut Dice, text: &mut Vec<u8>) {
    let from = dice.below(text.len());
    let Some(from) = text.iter().skip(from).position(u8::is_ascii_digit).map(|after| from.saturating_add(after)) else {
        return;
    };
    let length = text.iter().skip(from).take_while(|byte| byte.is_ascii_digit()).count();
    let digits = text.drain(from..from.saturating_add(length)).collect::<Vec<_>>();
    let number = String::from_utf8(digits).unwrap().parse().unwrap_or(0_u64);
    let other = match dice.below(4) {
        0 => number.saturating_add(1).to_string(),
        1 => number.saturating_sub(1).to_string(),
        _ => NUMBERS[dice.below(NUMBERS.len())].to_owned(),
    };
    drop(text.splice(from..from, other.bytes()));
}

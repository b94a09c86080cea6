//! RSA keys that a broken generator made (CVE-2017-15361, "ROCA"): their factors can be found.
//!
//! Such a modulus is a power of 65537 modulo each small prime, which another modulus is by chance once in 2^27.

use std::num::NonZeroU32;

/// The primes at which the fingerprint is taken, as in the finders' own detector.
const PRIMES: [u32; 38] = [
    3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47, 53, 59, 61, 67, 71, 73, 79, 83, 89, 97, 101, 103, 107, 109,
    113, 127, 131, 137, 139, 149, 151, 157, 163, 167,
];

/// Whether a modulus, big-endian, has the fingerprint.
pub(super) fn is_weak(modulus: &[u8]) -> bool {
    PRIMES.iter().filter_map(|prime| NonZeroU32::new(*prime)).all(|prime| {
        let rest = modulus.iter().fold(0, |rest, byte| step(rest, 256, u32::from(*byte), prime));
        is_power_of_65537(rest, prime)
    })
}

fn is_power_of_65537(number: u32, prime: NonZeroU32) -> bool {
    let mut power = 1;
    for _ in 0..prime.get() {
        if power == number {
            return true;
        }
        power = step(power, 65_537, 0, prime);
    }
    false
}

/// `rest * factor + addend` modulo the prime: `rest` is below 168, so that nothing is lost.
fn step(rest: u32, factor: u32, addend: u32, prime: NonZeroU32) -> u32 {
    rest.wrapping_mul(factor).wrapping_add(addend) % prime
}

//! A mutator: makes hostile inputs out of honest ones, for fuzz targets.
//!
//! Flipped bits, cut and repeated parts, parts of two inputs put together, and numbers at the ends of
//! their ranges, as bytes, as varints and as digits.

use std::{
    env,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
};

use data_encoding::HEXLOWER;

use super::random::{Random, for_each_seed};

/// Gives each input of `corpus` to `target`, which must accept the honest ones and refuse the broken
/// ones, then mutants of them.
///
/// `target` returns whether it accepts its input, and panics where a promise is broken: then the
/// input is printed, and the seed.
pub fn fuzz(corpus: &Corpus, mut target: impl FnMut(&[u8]) -> bool) {
    let mut run = |input: &[u8]| {
        let ran = catch_unwind(AssertUnwindSafe(|| target(input)));
        ran.unwrap_or_else(|panic| {
            eprintln!("the input was {}", HEXLOWER.encode(input));
            resume_unwind(panic)
        })
    };
    for input in corpus.inputs() {
        assert!(run(input), "refused: {}", HEXLOWER.encode(input));
    }
    for (number, input) in corpus.broken.iter().enumerate() {
        assert!(!run(input), "broken input {number} was accepted");
    }
    let mut refused = 0;
    for_each_seed(1..=soaked(SEEDS), |random| {
        for _ in 0..MUTANTS {
            refused += u64::from(!run(&corpus.mutant(random)));
        }
    });
    assert!(refused > 0, "no mutant was refused");
}

/// Inputs of one decoder: honest ones, and broken ones.
#[derive(Debug, Clone)]
pub struct Corpus {
    honest: Vec<Vec<u8>>,
    broken: Vec<Vec<u8>>,
}

impl Corpus {
    /// Makes a corpus of at least one input.
    pub fn new<T: Into<Vec<u8>>>(inputs: impl IntoIterator<Item = T>) -> Self {
        let honest: Vec<Vec<u8>> = inputs.into_iter().map(Into::into).collect();
        assert!(!honest.is_empty(), "there is something to change");
        Self {
            honest,
            broken: Vec::new(),
        }
    }

    /// Adds inputs that break one rule each, and no other. Mutants of honest inputs seldom do that where
    /// lengths must fit: faults that let one rule go were not found without these.
    #[must_use]
    pub fn broken<T: Into<Vec<u8>>>(mut self, inputs: impl IntoIterator<Item = T>) -> Self {
        self.broken.extend(inputs.into_iter().map(Into::into));
        self
    }

    /// Returns the honest inputs.
    pub fn inputs(&self) -> &[Vec<u8>] {
        &self.honest
    }

    /// Returns one of the inputs after 1 to 4 changes.
    pub fn mutant(&self, random: &mut Random) -> Vec<u8> {
        let mut bytes = self.pick(random).clone();
        for _ in 0..=random.below(4) {
            self.change(&mut bytes, random);
            bytes.truncate(BYTES_MAX);
        }
        bytes
    }

    fn pick(&self, random: &mut Random) -> &Vec<u8> {
        let broken = &self.broken;
        if !broken.is_empty() && random.once_in(4) {
            let input = &broken[random.below(broken.len())];
            if input.len() <= BYTES_MAX {
                return input;
            }
        }
        &self.honest[random.below(self.honest.len())]
    }

    fn change(&self, bytes: &mut Vec<u8>, random: &mut Random) {
        let at = random.below(bytes.len() + 1);
        let end = at + random.below(bytes.len() - at + 1);
        match random.below(12) {
            0 | 1 => flip(bytes, random),
            2 => bytes.truncate(at),
            3 => drop(bytes.drain(at..end)),
            4 => drop(bytes.splice(at..at, random.bytes(16))),
            5 => {
                let part = bytes[at..end].repeat(1 + random.below(64));
                drop(bytes.splice(at..at, part));
            }
            6 => {
                let other = self.pick(random);
                let from = random.below(other.len() + 1);
                drop(bytes.splice(at.., other[from..].iter().copied()));
            }
            7 => {
                let other = self.pick(random);
                let from = random.below(other.len() + 1);
                let part = &other[from..from + random.below(other.len() - from + 1)];
                drop(bytes.splice(at..end, part.iter().copied()));
            }
            8 => overwrite(bytes, at, &number(random).to_le_bytes(), random),
            9 => overwrite(bytes, at, &number(random).to_be_bytes(), random),
            10 => {
                let replaced = at..(at + 1 + random.below(3)).min(bytes.len());
                drop(bytes.splice(replaced, varint(number(random), random)));
            }
            _digits => digits(bytes, random),
        }
    }
}

/// Returns `count`, or fifty times as many with `LATTICE_SOAK=1`.
pub fn soaked(count: u64) -> u64 {
    match env::var_os("LATTICE_SOAK") {
        Some(_) => count * 50,
        None => count,
    }
}

/// Returns a number, mostly one at the end of a range.
pub fn number(random: &mut Random) -> u64 {
    let power = 1_u64 << random.below(64);
    match random.below(6) {
        0 => random.bits(),
        1 => random.bits() % 4,
        2 => power,
        3 => power - 1,
        4 => power.wrapping_add(1),
        _end => u64::MAX - random.bits() % 4,
    }
}

/// Returns a number as protobuf writes it, sometimes longer than it need be.
pub fn varint(mut number: u64, random: &mut Random) -> Vec<u8> {
    let mut bytes = Vec::new();
    while number > 0x7f {
        bytes.push(number.to_le_bytes()[0] | 0x80);
        number >>= 7;
    }
    bytes.push(number.to_le_bytes()[0]);
    if random.once_in(4) {
        *bytes.last_mut().unwrap() |= 0x80;
        bytes.push(0);
    }
    bytes
}

fn flip(bytes: &mut [u8], random: &mut Random) {
    if bytes.is_empty() {
        return;
    }
    let at = random.below(bytes.len());
    bytes[at] = match random.below(4) {
        0 => [0, 1, 0x7f, 0x80, 0xff][random.below(5)],
        _bit => bytes[at] ^ (1 << random.below(8)),
    };
}

fn overwrite(bytes: &mut [u8], at: usize, with: &[u8], random: &mut Random) {
    let width = [1, 2, 4, 8][random.below(4)];
    for (byte, new) in bytes[at..].iter_mut().zip(&with[..width]) {
        *byte = *new;
    }
}

// Replaces a number that is written in digits.
fn digits(bytes: &mut Vec<u8>, random: &mut Random) {
    let places: Vec<usize> = (0..bytes.len())
        .filter(|at| bytes[*at].is_ascii_digit())
        .collect();
    if places.is_empty() {
        return flip(bytes, random);
    }
    let begin = places[random.below(places.len())];
    let rest = bytes[begin..].iter();
    let end = begin + rest.take_while(|byte| byte.is_ascii_digit()).count();
    let text = match random.below(4) {
        0 => "18446744073709551616".to_owned(),
        1 => format!("-{}", number(random)),
        2 => format!("0{}", number(random)),
        _plain => number(random).to_string(),
    };
    drop(bytes.splice(begin..end, text.into_bytes()));
}

const SEEDS: u64 = 100;
/// Mutants for each seed.
const MUTANTS: u64 = 50;
// Longer mutants take time and try nothing more.
const BYTES_MAX: usize = 64 << 10;

#[test]
fn a_mutant_is_bounded_and_mostly_another_input() {
    let corpus = Corpus::new([vec![7; 500], b"seq 12".to_vec(), Vec::new()]);
    let mut random = Random::new(1);
    let mutants: Vec<_> = (0..1000).map(|_| corpus.mutant(&mut random)).collect();
    assert!(mutants.iter().all(|mutant| mutant.len() <= BYTES_MAX));
    let others = mutants.iter();
    let others = others.filter(|mutant| !corpus.inputs().contains(mutant));
    assert!(others.count() > 800);
}

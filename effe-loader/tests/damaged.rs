//! Copies of a real plugin, damaged by chance: whatever the damage, the loader gets as far as Init or refuses the
//! copy in one line. It neither dies nor hangs.

use std::{
    env, fs,
    hash::{BuildHasher, RandomState},
    net::TcpListener,
    sync::atomic::{AtomicU64, Ordering},
    thread,
};

use super::fixtures::probe;
use crate::support::{Counts, Loader, Scratch};

/// How many copies for each of the two seeds, unless `EFFE_DAMAGED` says otherwise.
const COPIES: u64 = 30;
/// The seed of every run; the other one is new each time, unless `EFFE_SEED` says otherwise.
const SEED: u64 = 0x0eff_e201_6000_0001;

#[test]
fn a_damaged_plugin_is_refused_or_loads_and_never_kills_or_hangs_the_loader() {
    let number = |name| env::var(name).ok().and_then(|text| text.parse().ok());
    let copies = number("EFFE_DAMAGED").map_or(COPIES, |all: u64| all.div_ceil(2));
    let random = number("EFFE_SEED").unwrap_or_else(|| RandomState::new().hash_one(0));
    let tally = [SEED, random].map(|seed| {
        // In the output of a failure, so that it can be had again.
        println!("EFFE_SEED={seed}");
        damage(seed, copies)
    });
    let [refused, loaded] = [0, 1].map(|way| tally[0][way] + tally[1][way]);
    println!("{refused} refused, {loaded} loaded");
    assert!(refused > 0, "no damage was found out: is it damage at all?");
}

/// Damages copies and has them opened; how many were refused, how many were loaded.
fn damage(seed: u64, copies: u64) -> [u64; 2] {
    let good = fs::read(probe()).unwrap();
    let (next, tally) = (AtomicU64::new(0), [AtomicU64::new(0), AtomicU64::new(0)]);
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(2, usize::from) {
            scope.spawn(|| {
                loop {
                    let n = next.fetch_add(1, Ordering::Relaxed);
                    if n >= copies {
                        return;
                    }
                    let mut dice = Dice(seed.wrapping_add(n << 32));
                    let (bytes, what) = damaged(&good, &mut dice);
                    let loaded = is_loaded(&bytes, &format!("copy {n} of seed {seed}: {what}"));
                    tally[usize::from(loaded)].fetch_add(1, Ordering::Relaxed);
                }
            });
        }
    });
    tally.map(AtomicU64::into_inner)
}

/// Has a copy opened as it is before Init, once to be asked for its Info and once to be served; whether it was.
fn is_loaded(bytes: &[u8], what: &str) -> bool {
    let (scratch, counts) = (Scratch::new(), Counts::new());
    let plugin = scratch.write("libdamaged.so", bytes);
    // The address is taken, which is found out after the plugin is mapped and before Init.
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let info = Loader::of(&plugin).arg("--info").run();
    let serve = Loader::of(&plugin).counting(&counts).args(["--host", "127.0.0.1", "--port", &port]).run();
    // What is read from the file says nothing of the rest of it: one may be refused and the other not.
    match info.status.code() {
        Some(0) => {}
        Some(78) => assert!(info.one_line().contains("libdamaged.so: "), "{what}: {info:#?}"),
        _ => panic!("{what}: neither told nor refused: {info:#?}"),
    }
    let loaded = match serve.status.code() {
        Some(1) => {
            // The dynamic linker may have a word of its own about a symbol.
            assert!(serve.stderr.contains("cannot listen on"), "{what}: {serve:#?}");
            true
        }
        Some(78) => {
            assert!(serve.one_line().contains("libdamaged.so: "), "{what}: {serve:#?}");
            false
        }
        _ => panic!("{what}: neither loaded nor refused: {serve:#?}"),
    };
    assert!(counts.lines().is_empty(), "{what}: Init was not to run");
    loaded
}

/// Damages a copy in one of three ways. Half of the damage is at the beginning, where headers, symbols and
/// relocations are; all of it is in what gets mapped: nobody reads the rest.
fn damaged(good: &[u8], dice: &mut Dice) -> (Vec<u8>, String) {
    let mut bytes = good.to_vec();
    let mapped = mapped(good);
    let range = if dice.roll(2) == 0 { mapped / 16 } else { mapped };
    match dice.roll(6) {
        0 => {
            let len = dice.roll(bytes.len());
            bytes.truncate(len);
            (bytes, format!("cut to {len}"))
        }
        1 | 2 => {
            let page = dice.roll(range) & !4095;
            let end = (page + 4096).min(bytes.len());
            bytes[page..end].fill(0);
            (bytes, format!("the page at {page} zeroed"))
        }
        _ => {
            let n_bits = 1 + dice.roll(64);
            for _ in 0..n_bits {
                bytes[dice.roll(range)] ^= 1 << dice.roll(8);
            }
            (bytes, format!("{n_bits} bits of the first {range} bytes flipped"))
        }
    }
}

/// Where the last of the segments to be mapped ends.
fn mapped(bytes: &[u8]) -> usize {
    let number = |at: usize, len: usize| {
        bytes[at..at + len].iter().rev().fold(0_usize, |number, byte| number << 8 | usize::from(*byte))
    };
    let (first, size, count) = (number(32, 8), number(54, 2), number(56, 2));
    let segments = (0..count).map(|n| first + n * size).filter(|at| number(*at, 4) == 1);
    segments.map(|at| number(at + 8, 8) + number(at + 32, 8)).max().unwrap()
}

/// Numbers by chance, the same ones for the same seed.
struct Dice(u64);

impl Dice {
    /// Less than `sides`.
    fn roll(&mut self, sides: usize) -> usize {
        // SplitMix64.
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut out = self.0;
        out = (out ^ (out >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        out = (out ^ (out >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((out ^ (out >> 31)) % sides as u64) as usize
    }
}

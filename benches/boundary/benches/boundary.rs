//! Run, Start and Stop through the wire, with real plugins, without HTTP: `scripts/bench boundary`.

use std::path::PathBuf;

use divan::{Bencher, black_box};
use effe_loader::boot::bench::Crossing;

const ORDER: &[u8] = br#"{"name":"Ada Lovelace","count":41,"tags":["a","b","c"]}"#;

fn main() {
    divan::main();
}

/// A lambda of the examples, built for release.
fn open(name: &str) -> Crossing {
    let program = std::env::current_exe().expect("this program has a path");
    // target/release/deps/boundary-0123456789abcdef
    let release = program.ancestors().nth(2).map_or_else(PathBuf::new, PathBuf::from);
    let plugin = release.join(format!("lib{name}.so"));
    Crossing::open(&plugin).unwrap_or_else(|why| panic!("{why}; build it with --release first"))
}

#[divan::bench]
fn run_hello(bencher: Bencher) {
    let mut hello = open("hello");
    bencher.bench_local(|| hello.run(&[]));
}

#[divan::bench(args = [0, 256, 4096, 65536])]
fn run_echo(bencher: Bencher, bytes: usize) {
    let mut echo = open("echo");
    let body = vec![b'x'; bytes];
    bencher.bench_local(|| echo.run(black_box(&body)));
}

#[divan::bench]
fn run_json(bencher: Bencher) {
    let mut json = open("json");
    bencher.bench_local(|| json.run(black_box(ORDER)));
}

#[divan::bench]
fn start_and_stop_hello(bencher: Bencher) {
    let hello = open("hello");
    bencher.bench_local(|| hello.start_and_stop());
}

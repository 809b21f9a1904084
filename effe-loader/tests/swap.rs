//! A new generation takes over in the same process, while requests come, and whatever is wrong with it, the old one
//! goes on.

use std::{
    collections::BTreeMap,
    env, fs,
    path::{Path, PathBuf},
};

use rustix::{
    process::Signal,
    pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt},
};

use super::fixtures::probe;
use crate::support::{
    Connection, Counts, Hammer, Loader, Scratch, Server,
    admin::over,
    load,
    plugins::{other_abi, patched},
    wait_until,
};

/// A plugin in a file of its own, and the parameters of the next generation in another.
struct Site {
    scratch: Scratch,
    plugin: PathBuf,
    params: PathBuf,
    /// What each generation has counted.
    counts: Vec<Counts>,
}

impl Site {
    fn new() -> Site {
        let scratch = Scratch::new();
        let (plugin, params) = (scratch.join("libprobe.so"), scratch.join("params.json"));
        let mut site = Site { scratch, plugin, params, counts: Vec::new() };
        site.next(1, "");
        site
    }

    /// Puts version `n` of the plugin in place, as a package manager does, with a file of counts of its own.
    fn next(&mut self, version: u8, params: &str) {
        let new = self.scratch.write("new.so", probe_version(version));
        fs::rename(new, &self.plugin).unwrap();
        self.next_params(params);
    }

    /// Parameters of the next generation, as members of a JSON object, beside the file of its counts.
    fn next_params(&mut self, params: &str) {
        let counts = Counts::new();
        let (_, path) =
            counts.parameter().split_once('=').map(|(key, path)| (key.to_owned(), path.to_owned())).unwrap();
        self.scratch.write("params.json", format!("{{\"count\": \"{path}\"{params}}}"));
        self.counts.push(counts);
    }

    fn loader(&self) -> Loader {
        Loader::of(&self.plugin).arg("--params").arg(&self.params)
    }
}

fn probe_version(version: u8) -> Vec<u8> {
    let bytes = fs::read(probe()).unwrap();
    patched(&bytes, b"probe, version 1", format!("probe, version {version}").as_bytes())
}

fn says(version: u8) -> String {
    format!("probe, version {version} / probe, version {version}")
}

/// SIGHUP, and the line that says what came of it.
fn reload(server: &Server, line: &str) {
    server.signal(Signal::HUP);
    server.wait_for_line(line);
}

#[test]
fn the_images_of_generations_that_are_retired_are_still_counted() {
    let mut site = Site::new();
    let server = site.loader().args(["--admin", "127.0.0.1:0"]).serve();
    let one = server.scrape().value("effe_image_bytes");
    assert!(one > 0.0);
    for n in 2..=5_u8 {
        site.next(n, "");
        reload(&server, &format!("generation {n} serves"));
        // No more than two are held: the others retire.
        wait_until("all others have retired", || {
            let retired = usize::from(n) - 2;
            (0..retired).all(|n| site.counts[n].of("retire") == 1)
        });
        assert_eq!(server.scrape().value("effe_image_bytes"), f64::from(n) * one);
    }
    server.stop();
}

#[test]
fn a_new_version_takes_over_and_the_one_before_it_retires_at_the_next_swap() {
    let mut site = Site::new();
    let server = site.loader().serve();
    assert_eq!(server.get("/version").text(), says(1));
    site.next(2, "");
    reload(&server, "generation 2 serves");
    assert_eq!(server.get("/version").text(), says(2));
    site.counts[0].wait_for("stop", 1);
    assert_eq!(site.counts[0].of("retire"), 0, "it is kept for a roll-back");
    site.next(3, "");
    reload(&server, "generation 3 serves");
    assert_eq!(server.get("/version").text(), says(3));
    site.counts[0].wait_for("retire", 1);
    assert_eq!(site.counts[1].of("retire"), 0);
    server.stop();
    site.counts.iter().for_each(Counts::assert_complete);
}

#[test]
fn parameters_that_changed_make_a_new_generation_and_nothing_that_changed_makes_none() {
    let mut site = Site::new();
    let server = site.loader().serve();
    reload(&server, "nothing has changed; generation 1 goes on serving");
    site.next_params(", \"greeting\": \"Ciao\"");
    reload(&server, "generation 2 serves");
    assert!(server.get("/parameters").text().contains("Ciao"));
    // The same bytes in another file are no change either.
    fs::copy(probe(), site.scratch.join("same.so")).unwrap();
    fs::rename(site.scratch.join("same.so"), &site.plugin).unwrap();
    reload(&server, "nothing has changed; generation 2 goes on serving");
    server.stop();
    site.counts.iter().for_each(Counts::assert_complete);
}

#[test]
fn whatever_is_wrong_with_the_new_one_the_old_one_goes_on_under_load() {
    let mut site = Site::new();
    let server = site.loader().serve();
    let hammer = Hammer::start(server.address, "/version", 8);
    let whole = probe_version(2);
    let replace = |bytes: &[u8]| {
        let new = site.scratch.write("new.so", bytes);
        fs::rename(new, &site.plugin).unwrap();
    };
    for (bytes, line) in [
        (&whole[..whole.len() / 2], "it is truncated"),
        (b"no plugin", "it is not a shared library"),
        (&fs::read(other_abi()).unwrap(), "ABI mismatch"),
    ] {
        replace(bytes);
        reload(&server, line);
        hammer.wait_for(20);
    }
    fs::remove_file(&site.plugin).unwrap();
    reload(&server, "no such file");
    site.next(2, ", \"fail\": \"init\"");
    reload(&server, "its init failed: told to fail in init");
    site.next(2, ", \"panic\": \"init\"");
    reload(&server, "its init panicked");
    site.next(2, ", \"panic\": \"start\"");
    reload(&server, "its start panicked");
    site.next(2, ", \"fail\": \"start\", \"fail-with-context\": \"1\"");
    reload(&server, "its start failed: told to fail in start");
    site.scratch.write("params.json", "no JSON");
    reload(&server, "--params");
    hammer.wait_for(50);
    let report = hammer.stop();
    assert_eq!(report.failures, Vec::<String>::new());
    assert_eq!(report.answers.keys().collect::<Vec<_>>(), [&says(1)]);
    let lines = server.stop();
    assert_eq!(lines.iter().filter(|line| line.contains("generation 1 goes on serving")).count(), 9);
    site.counts[0].assert_complete();
    for counts in &site.counts[1..3] {
        assert_eq!(counts.lines(), ["init"], "what was never initialised is not retired");
    }
    site.counts[3..].iter().for_each(Counts::assert_complete);
}

#[test]
fn a_file_that_is_overwritten_truncated_or_removed_while_it_serves_changes_nothing() {
    let site = Site::new();
    let server = site.loader().args(["--execution", "inline"]).serve();
    let hammer = Hammer::start(server.address, "/version", 8);
    fs::write(&site.plugin, probe_version(2)).unwrap();
    hammer.wait_for(50);
    fs::File::options().write(true).open(&site.plugin).unwrap().set_len(1000).unwrap();
    hammer.wait_for(50);
    fs::remove_file(&site.plugin).unwrap();
    hammer.wait_for(50);
    let report = hammer.stop();
    assert_eq!((report.failures.len(), report.answers.keys().collect::<Vec<_>>()), (0, vec![&says(1)]));
    server.stop();
}

/// Swaps under load; in the long proof 200 of them.
fn n_swaps() -> usize {
    env::var("EFFE_SWAPS").ok().and_then(|text| text.parse().ok()).unwrap_or(12)
}

/// Threads and descriptors of a process.
fn size_of(server: &Server) -> (usize, usize) {
    let count = |what: &str| fs::read_dir(format!("/proc/{}/{what}", server.id())).unwrap().count();
    (count("task"), count("fd"))
}

fn swaps_under_load(execution: &str) {
    let mut site = Site::new();
    let server =
        site.loader().args(["--execution", execution, "--workers", "2", "--max-concurrency", "8"]).serve();
    let hammer = Hammer::start(server.address, "/version", 64);
    hammer.wait_for(100 * n_swaps());
    let calm = hammer.stop();
    let hammer = Hammer::start(server.address, "/version", 64);
    let (mut after_two, mut memory) = ((0, 0), 0);
    for n in 0..n_swaps() {
        hammer.wait_for(100);
        site.next(2 + (n % 7) as u8, "");
        reload(&server, &format!("generation {} serves", n + 2));
        if n == 1 {
            site.counts[0].wait_for("retire", 1);
            hammer.wait_for(500);
            (after_two, memory) = (size_of(&server), server.peak_memory());
        }
    }
    hammer.wait_for(500);
    site.counts[n_swaps() - 2].wait_for("retire", 1);
    // A Context that came back late may keep its generation for a moment; a thread of the pool that has nothing to do
    // may still be there, or no longer.
    wait_until("as few threads and descriptors as after two swaps", || {
        let (threads, descriptors) = size_of(&server);
        threads <= after_two.0 + 8 && descriptors <= after_two.1
    });
    let report = hammer.stop();
    assert_eq!(report.failures, Vec::<String>::new());
    let versions: BTreeMap<_, _> = (1..9).map(|version| (says(version), 0)).collect();
    assert!(report.answers.keys().all(|answer| versions.contains_key(answer)), "{:#?}", report.answers);
    assert!(report.answers.len() >= 8.min(n_swaps()), "{:#?}", report.answers);
    println!(
        "{execution}: {} swaps during {} requests, none lost; p99 {:.1?}, without swaps {:.1?}; slowest {:.1?}; \
         {} KiB a swap",
        n_swaps(),
        report.latencies.len(),
        report.percentile(99),
        calm.percentile(99),
        report.percentile(100),
        (server.peak_memory() - memory) / (n_swaps() - 2) / 1024
    );
    server.stop();
    site.counts.iter().for_each(Counts::assert_complete);
}

#[test]
fn swaps_under_load_lose_no_request_on_the_pool() {
    swaps_under_load("pool");
}

#[test]
fn swaps_under_load_lose_no_request_inline() {
    swaps_under_load("inline");
}

#[test]
fn the_way_back_needs_no_file_and_loses_no_request() {
    let mut site = Site::new();
    let socket = site.scratch.join("admin.sock");
    let server = site.loader().arg("--admin").arg(format!("unix:{}", socket.display())).serve();
    let roll_back = || over(&socket, "POST /rollback HTTP/1.1\r\nHost: effe\r\nConnection: close\r\n\r\n");
    assert!(roll_back().contains("there is no generation before this one"));
    let hammer = Hammer::start(server.address, "/version", 16);
    site.next(2, "");
    reload(&server, "generation 2 serves");
    fs::remove_file(&site.plugin).unwrap();
    for version in [1, 2, 1] {
        hammer.wait_for(100);
        let answer = roll_back();
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        assert_eq!(server.get("/version").text(), says(version));
    }
    hammer.wait_for(100);
    let report = hammer.stop();
    assert_eq!(report.failures, Vec::<String>::new());
    assert_eq!(report.answers.into_keys().collect::<Vec<_>>(), [says(1), says(2)]);
    server.stop();
    site.counts.iter().for_each(Counts::assert_complete);
}

#[test]
fn a_request_ends_on_the_generation_it_began_with() {
    let mut site = Site::new();
    let server = site.loader().serve();
    let gate = site.scratch.join("gate");
    let mut waiting = server.connect();
    waiting.send(format!("GET /wait?for={} HTTP/1.1\r\nHost: test\r\n\r\n", gate.display()));
    site.counts[0].wait_for("run", 1);
    for version in [2, 3] {
        site.next(version, "");
        reload(&server, &format!("generation {version} serves"));
    }
    assert_eq!(server.get("/version").text(), says(3));
    assert_eq!((site.counts[0].of("stop"), site.counts[0].of("retire")), (0, 0), "its Context is in use");
    site.scratch.write("gate", "");
    assert_eq!(waiting.reply().text(), "waited");
    site.counts[0].wait_for("retire", 1);
    server.stop();
    site.counts.iter().for_each(Counts::assert_complete);
}

#[test]
fn a_storm_of_signals_is_a_few_reloads() {
    let mut site = Site::new();
    let server = site.loader().serve();
    let hammer = Hammer::start(server.address, "/version", 8);
    site.next(2, "");
    for _ in 0..2_000 {
        server.signal(Signal::HUP);
    }
    server.wait_for_line("generation 2 serves");
    // All of them may have been taken for one, but this is another.
    server.signal(Signal::HUP);
    server.wait_for_line("nothing has changed; generation 2 goes on serving");
    hammer.wait_for(100);
    assert_eq!(hammer.stop().failures, Vec::<String>::new());
    assert_eq!(server.get("/version").text(), says(2));
    server.stop();
    site.counts.iter().for_each(Counts::assert_complete);
}

#[test]
fn a_lambda_under_a_read_only_name_is_swapped_by_its_link() {
    let mut site = Site::new();
    let link = site.scratch.join("current.so");
    std::os::unix::fs::symlink(&site.plugin, &link).unwrap();
    let server = Loader::of(&link).arg("--params").arg(&site.params).serve();
    site.next(2, "");
    reload(&server, "generation 2 serves");
    assert_eq!(server.get("/version").text(), says(2));
    server.stop();
}

#[test]
fn a_terminal_that_goes_away_ends_the_effe() {
    let counts = Counts::new();
    let terminal = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
    grantpt(&terminal).unwrap();
    unlockpt(&terminal).unwrap();
    let name = ptsname(&terminal, Vec::new()).unwrap();
    let inside = fs::File::options().read(true).write(true).open(Path::new(name.to_str().unwrap())).unwrap();
    let server = Loader::of(probe())
        .counting(&counts)
        .args(["--host", "127.0.0.1", "--port", "0"])
        .on_terminal(inside)
        .serve_as_told();
    assert_eq!(load(server.address, "/", 10, 1), 10);
    let mut idle: Connection = server.connect();
    assert_eq!(idle.get("/").status, 200);
    drop(terminal);
    server.wait_for_line("the terminal has gone");
    server.ends_with(0);
    wait_until("the idle connection is closed", || idle.is_closed());
    counts.assert_complete();
}

//! Keeps v1 of the wire as it is: the offset of every field, and the source text of the tables.
//!
//! A plugin that was built years ago and today's loader know each other only by these tables.

use std::mem::offset_of;

use effe_abi::{
    c_root::Root,
    extensions::{
        AsyncHost, AsyncPlugin, Duplex, DuplexTable, EarlyHost, FailHost, Future, Ready, SpawnHost,
        TrailersHost, UpgradeHost, Waker, WakerTable,
    },
    raw::{Chunk, Exchange, ExchangeOps, Failure, Header, Host, Plugin},
};

/// The hash of `src/raw.rs` without its comments and spaces, as it was frozen.
const FROZEN: u64 = 0x8e7d_e2f9_2483_853f;

/// The hash of `src/c_root.rs`, computed likewise.
const C_ROOT: u64 = 0x34bd_ea10_a4fc_959a;

/// The hash of `src/extensions.rs`, computed likewise, with the extensions of today.
const EXTENSIONS: u64 = 0xcb6a_b6df_6800_6474;

#[test]
#[cfg(target_pointer_width = "64")]
fn every_field_lies_where_v1_put_it() {
    macro_rules! table {
        ($type:ty: $($field:ident)*) => {
            (stringify!($type), size_of::<$type>(), vec![$((stringify!($field), offset_of!($type, $field))),*])
        };
    }
    #[rustfmt::skip]
    let expected = [
        ("Chunk", 32, vec![("ptr", 0), ("len", 8), ("owner", 16), ("release", 24)]),
        ("Header<'_>", 32, vec![("name", 0), ("value", 16)]),
        ("Failure", 40, vec![("level", 0), ("text", 8)]),
        ("Host", 48, vec![
            ("data", 0), ("level", 8), ("log", 16), ("parameter", 24), ("attribute", 32), ("extension", 40),
        ]),
        ("Exchange<'_>", 80, vec![
            ("method", 0), ("target", 16), ("path_len", 32), ("body", 40), ("flags", 56), ("version", 60),
            ("host", 64), ("ops", 72),
        ]),
        ("ExchangeOps", 56, vec![
            ("header", 0), ("headers", 8), ("attribute", 16), ("state", 24), ("read", 32), ("respond", 40),
            ("write", 48),
        ]),
        ("Plugin", 88, vec![
            ("flags", 0), ("info", 8), ("build", 24), ("init", 40), ("start", 48), ("run", 56), ("stop", 64),
            ("retire", 72), ("extension", 80),
        ]),
        ("Root", 96, vec![
            ("size", 0), ("version", 4), ("flags", 8), ("info", 16), ("build", 32), ("init", 48), ("start", 56),
            ("run", 64), ("stop", 72), ("retire", 80), ("extension", 88),
        ]),
        ("FailHost", 16, vec![("size", 0), ("version", 4), ("fail", 8)]),
        ("Ready", 16, vec![("size", 0), ("version", 4), ("ready", 8)]),
        ("AsyncPlugin", 32, vec![("size", 0), ("version", 4), ("start", 8), ("run", 16), ("stop", 24)]),
        ("AsyncHost", 24, vec![("size", 0), ("version", 4), ("poll_read", 8), ("poll_ready", 16)]),
        ("SpawnHost", 56, vec![
            ("size", 0), ("version", 4), ("may_spawn", 8), ("enter", 16), ("leave", 24), ("hold", 32),
            ("release", 40), ("may_block", 48),
        ]),
        ("EarlyHost", 16, vec![("size", 0), ("version", 4), ("end_early", 8)]),
        ("TrailersHost", 24, vec![("size", 0), ("version", 4), ("request", 8), ("respond", 16)]),
        ("UpgradeHost", 24, vec![("size", 0), ("version", 4), ("offered", 8), ("upgrade", 16)]),
        ("Duplex", 16, vec![("data", 0), ("table", 8)]),
        ("DuplexTable", 80, vec![
            ("size", 0), ("version", 4), ("read", 8), ("poll_read", 16), ("write", 24), ("poll_ready", 32),
            ("shutdown", 40), ("state", 48), ("poll_away", 56), ("clone", 64), ("drop", 72),
        ]),
        ("Future", 24, vec![("data", 0), ("poll", 8), ("drop", 16)]),
        ("Waker", 8, vec![("table", 0)]),
        ("WakerTable", 32, vec![("clone", 0), ("wake", 8), ("wake_by_ref", 16), ("drop", 24)]),
    ];
    let found = [
        table!(Chunk: ptr len owner release),
        table!(Header<'_>: name value),
        table!(Failure: level text),
        table!(Host: data level log parameter attribute extension),
        table!(Exchange<'_>: method target path_len body flags version host ops),
        table!(ExchangeOps: header headers attribute state read respond write),
        table!(Plugin: flags info build init start run stop retire extension),
        table!(Root: size version flags info build init start run stop retire extension),
        table!(FailHost: size version fail),
        table!(Ready: size version ready),
        table!(AsyncPlugin: size version start run stop),
        table!(AsyncHost: size version poll_read poll_ready),
        table!(SpawnHost: size version may_spawn enter leave hold release may_block),
        table!(EarlyHost: size version end_early),
        table!(TrailersHost: size version request respond),
        table!(UpgradeHost: size version offered upgrade),
        table!(Duplex: data table),
        table!(DuplexTable: size version read poll_read write poll_ready shutdown state poll_away clone drop),
        table!(Future: data poll drop),
        table!(Waker: table),
        table!(WakerTable: clone wake wake_by_ref drop),
    ];
    assert_eq!(
        found, expected,
        "v1 changed: a plugin and a loader built before and after this would misread each other"
    );
}

#[test]
fn the_text_of_v1_has_not_changed() {
    let found = fnv_1a(&code(include_str!("../src/raw.rs")));
    assert_eq!(
        found, FROZEN,
        "v1 changed: src/raw.rs is frozen, since plugins in the field were built against it. Undo the change and \
         grow through `extension` instead. Only if nothing but names inside Rust, lints or asserts changed, and \
         this file's other test passes, set FROZEN to {found:#x} and say in the commit why v1 is still v1"
    );
}

#[test]
fn the_root_of_c_has_not_changed_either() {
    let found = fnv_1a(&code(include_str!("../src/c_root.rs")));
    assert_eq!(
        found, C_ROOT,
        "src/c_root.rs is frozen as v1 is: plugins in the field were built against it. Only if nothing but names inside \
         Rust, lints or asserts changed, set C_ROOT to {found:#x} and say in the commit why it is still the same root"
    );
}

#[test]
fn the_source_that_is_kept_is_the_wire() {
    // The file is not in a published package.
    let kept = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/frozen/effe-abi/src/raw.rs");
    if let Ok(kept) = std::fs::read_to_string(kept) {
        assert_eq!(
            fnv_1a(&code(&kept)),
            FROZEN,
            "tests/frozen holds the wire as it was frozen, and never changes"
        );
    }
}

#[test]
fn the_extensions_have_not_changed_either() {
    let found = fnv_1a(&code(include_str!("../src/extensions.rs")));
    assert_eq!(
        found, EXTENSIONS,
        "a table of src/extensions.rs changed under its id, or one was added. A new extension, and fields at the end of \
         a table, are fine: set EXTENSIONS to {found:#x}. All else needs another id"
    );
}

#[test]
fn comments_and_spaces_are_no_part_of_v1() {
    assert_eq!(code("//! a\npub  struct A { // b\n    x: u8,\n}\n"), "pubstructA{x:u8,}");
    assert_eq!(code("const URL: &str = \"a//b\"; // c"), "constURL:&str=\"a//b\";");
}

/// A source text without line comments and without white space. `raw.rs` has no block comments, and no string in
/// it holds an escaped quote.
fn code(source: &str) -> String {
    let mut out = String::new();
    for line in source.lines() {
        let mut in_string = false;
        let mut previous = ' ';
        for (at, c) in line.char_indices() {
            if !in_string && line[at..].starts_with("//") {
                break;
            }
            in_string ^= c == '"' && previous != '\\';
            if !c.is_whitespace() {
                out.push(c);
            }
            previous = c;
        }
    }
    out
}

fn fnv_1a(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

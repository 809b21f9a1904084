//! The cases of Autobahn's test suite for WebSockets, which itself needs a Python of long ago: the same numbers, and of
//! each what its description says that a client sends and expects. Groups 1 to 7 and 10 are a table; group 9, which is
//! about size, is short here and has its full sizes in `scripts/prove websockets`. Groups 12 and 13 are about
//! compression, which is not offered.

use std::{
    cell::Cell,
    env,
    io::{Read, Write},
    path::PathBuf,
    time::Instant,
};

use crate::support::{
    Counts, Loader, Server,
    plugins::{async_upgrader, axum_upgrader, upgrader},
    websocket::{BINARY, CLOSE, FIN, PING, PONG, Socket, TEXT, frame},
};

/// The bits of a frame's first byte that nothing is agreed for.
const RESERVED: [u8; 7] = [0x10, 0x20, 0x30, 0x40, 0x50, 0x60, 0x70];

/// What a client sends, what comes back, and the code with which the socket is closed then; 0 if it goes on.
struct Case {
    name: String,
    sent: Vec<Vec<u8>>,
    back: Vec<(u8, Vec<u8>)>,
    code: u16,
}

impl Case {
    fn of(number: impl Into<String>) -> Case {
        Case { name: number.into(), sent: Vec::new(), back: Vec::new(), code: 0 }
    }

    /// The client sends a frame; `first` is the opcode, with [`FIN`] or without.
    fn sends(mut self, first: u8, payload: impl AsRef<[u8]>) -> Case {
        self.sent.push(frame(first, payload.as_ref()));
        self
    }

    /// A whole message comes back.
    fn hears(mut self, opcode: u8, payload: impl AsRef<[u8]>) -> Case {
        self.back.push((opcode, payload.as_ref().to_vec()));
        self
    }

    /// A message that comes back as it is.
    fn echoed(self, opcode: u8, payload: impl AsRef<[u8]>) -> Case {
        self.sends(FIN | opcode, &payload).hears(opcode, payload)
    }

    /// A message in fragments, which comes back in one piece.
    fn fragmented(mut self, opcode: u8, fragments: &[impl AsRef<[u8]>]) -> Case {
        let payload: Vec<u8> = fragments.iter().flat_map(|fragment| fragment.as_ref()).copied().collect();
        for (n, fragment) in fragments.iter().enumerate() {
            let is_last = n + 1 == fragments.len();
            self = self.sends(if n == 0 { opcode } else { 0 } | if is_last { FIN } else { 0 }, fragment);
        }
        self.hears(opcode, payload)
    }

    fn closes(mut self, code: u16) -> Case {
        self.code = code;
        self
    }

    /// The client closes with a code and a reason, and is answered with a code.
    fn closed(self, payload: impl AsRef<[u8]>, code: u16) -> Case {
        self.sends(FIN | CLOSE, payload).closes(code)
    }
}

fn close(code: u16, reason: &[u8]) -> Vec<u8> {
    [&code.to_be_bytes(), reason].concat()
}

/// Group 1: messages of the lengths at which a frame's head changes, text and binary.
fn messages() -> Vec<Case> {
    let mut cases = Vec::new();
    for (group, opcode) in [("1.1", TEXT), ("1.2", BINARY)] {
        for (n, len) in [0, 125, 126, 127, 128, 65535, 65536, 65536].into_iter().enumerate() {
            let byte = if opcode == TEXT { b'*' } else { 0xfe };
            cases.push(Case::of(format!("{group}.{}", n + 1)).echoed(opcode, vec![byte; len]));
        }
    }
    cases
}

/// Group 2: pings and pongs.
fn pings() -> Vec<Case> {
    let ping =
        |number: &str, payload: &[u8]| Case::of(number).sends(FIN | PING, payload).hears(PONG, payload);
    let ten = |number: &str| {
        (0..10).fold(Case::of(number), |case, n| {
            let payload = format!("payload-{n}");
            case.sends(FIN | PING, &payload).hears(PONG, payload)
        })
    };
    vec![
        ping("2.1", b""),
        ping("2.2", b"Hello, world!"),
        ping("2.3", b"\x00\xff\xfe\xfd\xfc\xfb\x00\xff"),
        ping("2.4", &[0xfe; 125]),
        Case::of("2.5").sends(FIN | PING, [0xfe; 126]).closes(1002),
        ping("2.6", &[0xfe; 125]),
        Case::of("2.7").sends(FIN | PONG, b""),
        Case::of("2.8").sends(FIN | PONG, b"unasked"),
        Case::of("2.9").sends(FIN | PONG, b"unasked").sends(FIN | PING, b"asked").hears(PONG, b"asked"),
        ten("2.10"),
        ten("2.11"),
    ]
}

/// Group 3: the reserved bits.
fn reserved_bits() -> Vec<Case> {
    let hello = b"Hello, world!".as_slice();
    let mut cases = vec![Case::of("3.1").sends(FIN | RESERVED[0] | TEXT, hello).closes(1002)];
    for n in 2..=4 {
        let bits = RESERVED[n - 1];
        let case = Case::of(format!("3.{n}")).echoed(TEXT, hello).sends(FIN | bits | TEXT, hello);
        cases.push(case.sends(FIN | PING, b"").closes(1002));
    }
    cases.push(Case::of("3.5").sends(FIN | RESERVED[4] | BINARY, [0, 0xff, 0xfe, 0xfd]).closes(1002));
    cases.push(Case::of("3.6").sends(FIN | RESERVED[5] | PING, hello).closes(1002));
    cases.push(Case::of("3.7").sends(FIN | RESERVED[6] | CLOSE, close(1000, b"")).closes(1002));
    cases
}

/// Group 4: the opcodes that mean nothing.
fn reserved_opcodes() -> Vec<Case> {
    let mut cases = Vec::new();
    for (group, opcodes) in [("4.1", [3, 4, 5, 6, 7]), ("4.2", [11, 12, 13, 14, 15])] {
        for (n, opcode) in opcodes.into_iter().enumerate() {
            let (case, payload) =
                (Case::of(format!("{group}.{}", n + 1)), if n % 2 == 0 { "" } else { "payload" });
            let case = if n < 2 { case } else { case.echoed(TEXT, "Hello, world!") };
            let case = case.sends(FIN | opcode, payload);
            cases.push(if n < 2 { case } else { case.sends(FIN | PING, b"") }.closes(1002));
        }
    }
    cases
}

/// Group 5: fragments.
fn fragments() -> Vec<Case> {
    let two = ["fragment1", "fragment2"];
    let with_ping = |number: &str| {
        let case = Case::of(number).sends(TEXT, two[0]).sends(FIN | PING, "ping").hears(PONG, "ping");
        case.sends(FIN, two[1]).hears(TEXT, two.concat())
    };
    let stray = |number: &str, first: u8| {
        Case::of(number).sends(first, "non-continuation payload").sends(FIN | TEXT, "Hello").closes(1002)
    };
    let mut cases = vec![
        Case::of("5.1").sends(PING, two[0]).sends(FIN, two[1]).closes(1002),
        Case::of("5.2").sends(PONG, two[0]).sends(FIN, two[1]).closes(1002),
    ];
    cases.extend(["5.3", "5.4", "5.5"].map(|number| Case::of(number).fragmented(TEXT, &two)));
    cases.extend(["5.6", "5.7", "5.8"].map(with_ping));
    cases.extend(["5.9", "5.10", "5.11"].map(|number| stray(number, FIN)));
    cases.extend(["5.12", "5.13", "5.14"].map(|number| stray(number, 0)));
    let case = Case::of("5.15").fragmented(TEXT, &two).sends(0, "fragment3");
    cases.push(case.sends(FIN | TEXT, "fragment4").closes(1002));
    for (number, first) in [("5.16", 0), ("5.17", FIN)] {
        let case = Case::of(number).sends(first, "fragment1").sends(TEXT, "fragment2");
        cases.push(case.sends(FIN, "fragment3").closes(1002));
    }
    cases.push(Case::of("5.18").sends(TEXT, two[0]).sends(FIN | TEXT, two[1]).closes(1002));
    for number in ["5.19", "5.20"] {
        let case =
            Case::of(number).sends(TEXT, "one").sends(0, "two").sends(FIN | PING, "1").hears(PONG, "1");
        let case = case.sends(0, "three").sends(0, "four").sends(FIN | PING, "2").hears(PONG, "2");
        cases.push(case.sends(FIN, "five").hears(TEXT, "onetwothreefourfive"));
    }
    cases
}

/// Group 6: text that is UTF-8, or not. Rust's own check says which, for the sequences at each boundary.
fn utf_8() -> Vec<Case> {
    let greek = b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5".as_slice();
    let valid = "Hello-\u{b5}@\u{df}\u{f6}\u{e4}\u{fc}\u{e0}\u{e1}-UTF-8!!".as_bytes();
    let bytes = |text: &[u8]| text.iter().map(|byte| [*byte]).collect::<Vec<_>>();
    let (surrogate, beyond) = (b"\xed\xa0\x80".as_slice(), b"\xf4\x90\x80\x80".as_slice());
    let invalid = [greek, surrogate, b"edited"].concat();
    let mut cases = vec![
        Case::of("6.1.1").echoed(TEXT, b""),
        Case::of("6.1.2").fragmented(TEXT, &["", "", ""]),
        Case::of("6.1.3").fragmented(TEXT, &["", "middle frame payload", ""]),
        Case::of("6.2.1").echoed(TEXT, valid),
        // Cut between two characters, within one, and everywhere.
        Case::of("6.2.2").fragmented(TEXT, &[&valid[..12], &valid[12..]]),
        Case::of("6.2.3").fragmented(TEXT, &bytes(valid)),
        Case::of("6.2.4").fragmented(TEXT, &bytes(greek)),
        Case::of("6.3.1").sends(FIN | TEXT, &invalid).closes(1007),
    ];
    let case = |number: &str, fragments: &[&[u8]]| {
        let mut case = Case::of(number).fragmented(TEXT, fragments).closes(1007);
        case.back.clear();
        case
    };
    cases.push(case("6.3.2", &bytes(&invalid).iter().map(|byte| &byte[..]).collect::<Vec<_>>()));
    cases.push(case("6.4.1", &[greek, beyond, b"edited"]));
    cases.push(case("6.4.2", &[greek, &beyond[..2], &beyond[2..], b"edited"]));
    // In one frame, whose bytes come one by one in the second round.
    cases.push(case("6.4.3", &[&[greek, beyond, b"edited"].concat()]));
    cases.push(case("6.4.4", &[&[greek, surrogate, b"edited"].concat()]));
    for (n, text) in sequences().into_iter().enumerate() {
        let case = Case::of(format!("6.5 to 6.23, {}", text.escape_ascii()));
        let is_text = std::str::from_utf8(&text).is_ok();
        cases.push(match is_text {
            // Whole, or cut into bytes, in turns.
            true if n % 2 == 0 => case.echoed(TEXT, text),
            true => case.fragmented(TEXT, &bytes(&text)),
            false => case.sends(FIN | TEXT, text).closes(1007),
        });
    }
    cases
}

/// UTF-8 at its boundaries, and what only looks like it.
fn sequences() -> Vec<Vec<u8>> {
    let mut all: Vec<Vec<u8>> = Vec::new();
    let greek = "\u{3ba}\u{1f79}\u{3c3}\u{3bc}\u{3b5}".as_bytes();
    all.extend(
        ["hello$world", "hello\u{a2}world", "hello\u{20ac}world", "hello\u{24b62}world"].map(Into::into),
    );
    // Each beginning of a text.
    all.extend((1..=greek.len()).map(|len| greek[..len].to_vec()));
    // The first and the last character of each length, those around the surrogates, and beyond the last of all.
    for n in [0, 0x7f, 0x80, 0x7ff, 0x800, 0xd7ff, 0xe000, 0xfffd, 0xffff, 0x10000, 0x10ffff] {
        all.push(char::from_u32(n).unwrap().to_string().into_bytes());
    }
    for n in
        [0xd800, 0xdb7f, 0xdb80, 0xdbff, 0xdc00, 0xdf80, 0xdfff, 0x110000, 0x1f_ffff, 0x3ff_ffff, 0x7fff_ffff]
    {
        all.push(coded(n, 0));
    }
    for (high, low) in [(0xd800, 0xdc00), (0xd800, 0xdfff), (0xdbff, 0xdc00), (0xdbff, 0xdfff)] {
        all.push([coded(high, 0), coded(low, 0)].concat());
    }
    // Characters that are none, which are text nevertheless: the last two of each plane.
    for plane in 0..=0x10_u32 {
        all.extend(
            [0xfffe, 0xffff].map(|n| char::from_u32(plane << 16 | n).unwrap().to_string().into_bytes()),
        );
    }
    // Longer than they need be: a slash, the last of each length, and nothing.
    for (n, len) in
        [(0x2f, 2), (0x2f, 3), (0x2f, 4), (0x2f, 5), (0x2f, 6), (0x7f, 2), (0x7ff, 3), (0xffff, 4)]
    {
        all.push(coded(n, len));
    }
    for len in 2..=6 {
        all.push(coded(0, len));
    }
    // Continuations without a beginning, beginnings without a continuation, and bytes that never occur.
    all.extend((1..=6).map(|len| b"\x80\xbf\x80\xbf\x80\xbf"[..len].to_vec()));
    all.push((0x80..0xc0).collect());
    for first in [0xc0..=0xdf, 0xe0..=0xef, 0xf0..=0xf7, 0xf8..=0xfb, 0xfc..=0xfd] {
        all.push(first.flat_map(|byte: u8| [byte, b' ']).collect());
    }
    for (n, len) in
        [(0x2f, 2), (0x2f, 3), (0x2f, 4), (0x2f, 5), (0x2f, 6), (0x7ff, 2), (0xffff, 3), (0x1f_ffff, 4)]
    {
        let mut cut = coded(n, len);
        cut.pop();
        all.push(cut);
    }
    all.extend([vec![0xfe], vec![0xff], vec![0xfe, 0xfe, 0xff, 0xff]]);
    all
}

/// A number by UTF-8's scheme as it was before it had limits, in so many bytes, or as few as it needs for 0.
fn coded(n: u32, len: usize) -> Vec<u8> {
    let needs = match n {
        0..0x80 => 1,
        0x80..0x800 => 2,
        0x800..0x1_0000 => 3,
        0x1_0000..0x20_0000 => 4,
        0x20_0000..0x400_0000 => 5,
        _ => 6,
    };
    let len = len.max(needs);
    if len == 1 {
        return vec![n as u8];
    }
    let bits = |at: usize| (n >> (6 * at)) as u8;
    let mut bytes = vec![0xff_u8 << (8 - len) | bits(len - 1) & (0x7f >> len)];
    bytes.extend((0..len - 1).rev().map(|at| 0x80 | bits(at) & 0x3f));
    bytes
}

/// Group 7: closing.
fn closing() -> Vec<Case> {
    let large = vec![b'*'; 256 * 1024];
    let normal = close(1000, b"");
    let mut cases = vec![
        Case::of("7.1.1").echoed(TEXT, "Hello World!").closed(&normal, 1000),
        Case::of("7.1.2").sends(FIN | CLOSE, &normal).closed(&normal, 1000),
        Case::of("7.1.3").closed(&normal, 1000).sends(FIN | PING, b""),
        Case::of("7.1.4").closed(&normal, 1000).sends(FIN | TEXT, "Hello World!"),
        Case::of("7.1.5").sends(TEXT, "fragment1").closed(&normal, 1000).sends(FIN, "fragment2"),
        Case::of("7.1.6").echoed(TEXT, large).closed(&normal, 1000).sends(FIN | PING, b""),
        Case::of("7.3.1").closed(b"", 1005),
        Case::of("7.3.2").closed(b"a", 1002),
        Case::of("7.3.3").closed(&normal, 1000),
        Case::of("7.3.4").closed(close(1000, b"Hello World!"), 1000),
        Case::of("7.3.5").closed(close(1000, &[b'*'; 123]), 1000),
        Case::of("7.3.6").closed(close(1000, &[b'*'; 124]), 1002),
        Case::of("7.5.1").closed(close(1000, b"\xce\xba\xe1\xbd\xb9\xed\xa0\x80edited"), 1007),
    ];
    let valid = [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999];
    cases.extend(valid.map(|code| Case::of(format!("7.7, {code}")).closed(close(code, b""), code)));
    let invalid = [0, 999, 1004, 1005, 1006, 1016, 1100, 2000, 2999];
    cases.extend(invalid.map(|code| Case::of(format!("7.9, {code}")).closed(close(code, b""), 1002)));
    // The suite takes any answer to these.
    cases.extend([5000, 65535].map(|code| Case::of(format!("7.13, {code}")).closed(close(code, b""), 1002)));
    cases
}

/// Groups 1 to 7, 10, and what a client may never do.
fn all() -> Vec<Case> {
    let mut cases = messages();
    cases.extend(pings());
    cases.extend(reserved_bits());
    cases.extend(reserved_opcodes());
    cases.extend(fragments());
    cases.extend(utf_8());
    cases.extend(closing());
    cases.push(Case::of("10.1.1").fragmented(TEXT, &vec![b'*'; 65536].chunks(1300).collect::<Vec<_>>()));
    let mut unmasked = Case::of("a frame without a mask").closes(1002);
    unmasked.sent.push(b"\x81\x01a".to_vec());
    cases.push(unmasked);
    cases
}

/// Plays a case, with as many bytes at a time. `says_why`: whether a client that breaks a rule is always told so before
/// the connection ends; the suite leaves that open.
fn play<S: Read + Write>(mut socket: Socket<S>, case: &Case, at_a_time: usize, says_why: bool) {
    let Case { name, sent, back, code } = case;
    for bytes in sent.concat().chunks(at_a_time) {
        // A server that has closed the socket reads no more.
        let _ = socket.0.write_all(bytes);
    }
    for (opcode, payload) in back {
        let next = socket.next();
        let (first, found) = next.unwrap_or_else(|| panic!("{name}: no frame comes"));
        assert!(first == FIN | opcode && found == *payload, "{name}: {first:#x}, {} bytes", found.len());
    }
    let expected = if *code == 0 {
        socket.sends(FIN | CLOSE, &close(1000, b""));
        1000
    } else {
        *code
    };
    let found = socket.closes();
    let is_dropped = found == 1006 && !says_why && [1002, 1007].contains(&expected);
    assert!(found == expected || is_dropped, "{name}, {at_a_time} bytes at a time: {found}, not {expected}");
}

fn play_all<S: Read + Write>(says_why: bool, open: impl Fn() -> Socket<S>) {
    for case in all() {
        let len: usize = case.sent.iter().map(Vec::len).sum();
        // As the suite does it: at once, in odd pieces, and byte by byte.
        for at_a_time in [usize::MAX, 997, 1] {
            if at_a_time == usize::MAX || (len > at_a_time && len < 2000 * at_a_time) {
                play(open(), &case, at_a_time.min(1 << 20), says_why);
            }
        }
    }
}

/// The plugins that have their sockets on threads, in tasks, and in a Router of axum's, where a handler that gets an
/// error drops its socket without a word.
fn plugins() -> [(PathBuf, &'static str, bool); 3] {
    [(upgrader(), "/own/ws", true), (async_upgrader(), "/own/ws", true), (axum_upgrader(), "/ws", false)]
}

#[test]
fn every_case_has_its_end() {
    for (plugin, path, says_why) in plugins() {
        let counts = Counts::new();
        let server = Loader::of(&plugin).counting(&counts).args(["--workers", "1"]).serve();
        play_all(says_why, || Socket::open(&server, path));
        server.stop();
        // The Router counts nothing.
        if says_why {
            counts.assert_complete();
        }
    }
}

#[cfg(feature = "http2")]
#[test]
fn every_case_has_the_same_end_over_http_2() {
    for (plugin, path, says_why) in plugins() {
        let server = Loader::of(plugin).args(["--workers", "1"]).serve();
        let client = crate::support::h2::Http2::connect(&server);
        play_all(says_why, || Socket(client.open("websocket", path)));
        server.stop();
    }
}

/// The largest message of group 9, in bytes; `scripts/prove websockets` has the suite's own 16 MiB.
fn largest() -> usize {
    env::var("EFFE_MESSAGE").map_or(1 << 20, |text| text.parse().expect("EFFE_MESSAGE is a number of bytes"))
}

#[test]
fn large_messages_in_frames_fragments_and_pieces_of_any_size_come_back() {
    let (largest, begun, n_cases) = (largest(), Instant::now(), Cell::new(0));
    let plays = |server: &Server, case: Case, at_a_time: usize| {
        play(Socket::open(server, "/own/ws-large"), &case, at_a_time, true);
        n_cases.set(n_cases.get() + 1);
    };
    for plugin in [upgrader(), async_upgrader()] {
        let server = Loader::of(plugin).args(["--workers", "1"]).serve();
        for (group, opcode) in [("9.1", TEXT), ("9.2", BINARY)] {
            for (n, len) in [64 << 10, 256 << 10, 1 << 20, 4 << 20, 8 << 20, 16 << 20].into_iter().enumerate()
            {
                if len <= largest {
                    plays(
                        &server,
                        Case::of(format!("{group}.{}", n + 1)).echoed(opcode, vec![b'*'; len]),
                        1 << 20,
                    );
                }
            }
        }
        for (group, opcode) in [("9.3", TEXT), ("9.4", BINARY)] {
            let message = vec![b'*'; largest.min(4 << 20)];
            for n in 0..9 {
                let fragments: Vec<&[u8]> = message.chunks(64 << (2 * n)).collect();
                plays(
                    &server,
                    Case::of(format!("{group}.{}", n + 1)).fragmented(opcode, &fragments),
                    1 << 20,
                );
            }
        }
        for (group, opcode) in [("9.5", TEXT), ("9.6", BINARY)] {
            for n in 0..6 {
                let case =
                    Case::of(format!("{group}.{}", n + 1)).echoed(opcode, vec![b'*'; largest.min(1 << 20)]);
                plays(&server, case, 64 << n);
            }
        }
        for opcode in [TEXT, BINARY] {
            for len in [0, 16, 64, 256, 1024, 4096] {
                let mut socket = Socket::open(&server, "/own/ws-large");
                let payload = vec![b'*'; len];
                for _ in 0..1000 {
                    socket.sends(FIN | opcode, &payload).hears(opcode, &payload);
                }
                n_cases.set(n_cases.get() + 1);
            }
        }
        server.stop();
    }
    println!(
        "{} large cases, of up to {largest} bytes, in {:.1} s",
        n_cases.get(),
        begun.elapsed().as_secs_f64()
    );
}

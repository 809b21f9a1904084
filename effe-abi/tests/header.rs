//! Holds `include/effe.h` against the wire: every compiler that is here takes it with all warnings as errors, and lays
//! out every field, and has every number and id, as this crate does.

use std::{
    collections::BTreeMap,
    env, fs,
    mem::offset_of,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use effe_abi::{
    c_root::{self, Root, Text},
    extensions::{self, *},
    raw::{
        self, Chunk, Exchange, ExchangeOps, Header, Host, attribute, host_attribute, plugin_flags, status,
    },
};

const HEADER: &str = include_str!("../include/effe.h");

/// A lambda that uses every helper and macro.
const LAMBDA: &str = r#"
#include "effe.h"

static effe_status nothing(const effe_host *host, effe_failure *failure) {
    (void)host;
    (void)failure;
    return EFFE_OK;
}

static effe_status start(const effe_host *host, void **context, effe_failure *failure) {
    static int one;
    *context = &one;
    return nothing(host, failure);
}

static effe_status run(void *context, const effe_exchange *exchange, effe_failure *failure) {
    effe_bytes host = effe_find_header(exchange, "host");
    (void)context;
    (void)failure;
    return effe_respond_text(exchange, host.len > 0 ? 200 : 400, effe_text("hello"));
}

static effe_status stop(void *context, effe_failure *failure) {
    (void)context;
    (void)failure;
    return EFFE_OK;
}

static const void *extension(effe_str id) {
    (void)id;
    return EFFE_NULL;
}

EFFE_LAMBDA(EFFE_NEVER_WAITS, "{\"name\":\"hello\"}", nothing, start, run, stop, nothing, extension);
"#;

/// What every compiler is asked for.
const WARNINGS: [&str; 6] = ["-Wall", "-Wextra", "-Wpedantic", "-pedantic-errors", "-Werror", "-Wshadow"];

/// A compiler, its name for a person, and the standards that it is tried with.
struct Compiler {
    command: Vec<PathBuf>,
    standards: &'static [&'static str],
    /// What it warns of beyond that.
    warnings: &'static [&'static str],
}

impl Compiler {
    /// Those that are on this machine. Of one that isn't, a word is said.
    #[expect(clippy::print_stderr, reason = "a test says what it left out")]
    fn all() -> Vec<Compiler> {
        const C: &[&str] = &["-std=c99", "-std=c11", "-std=c17"];
        const CPP: &[&str] = &["-std=c++17", "-std=c++20"];
        const OF_CPP: &[&str] = &["-Wold-style-cast", "-Wzero-as-null-pointer-constant"];
        let of_clang: &[&str] = &["-Wconversion", "-Wunused-macros", "-Wmissing-prototypes"];
        // From PyPI, as `.ci/run` installs it.
        let zig = Path::new(env!("CARGO_MANIFEST_DIR")).join("../out/python/bin/zig");
        let zig = if zig.exists() { zig } else { "zig".into() };
        let all = [
            (vec!["gcc".into()], C, &["-Wconversion", "-Wstrict-prototypes"][..]),
            (vec!["clang".into()], C, of_clang),
            (vec!["g++".into()], CPP, OF_CPP),
            (vec!["clang++".into()], CPP, OF_CPP),
            // One standard each: zig's clang is the same compiler, and the first time it compiles its own libraries.
            (vec![zig.clone(), "cc".into()], &C[..1], of_clang),
            (vec![zig, "c++".into()], &CPP[..1], OF_CPP),
        ];
        let is_here = |compiler: &Compiler| {
            let is_here =
                compiler.run(|command| command.arg("--version")).is_some_and(|out| out.status.success());
            if !is_here {
                eprintln!("skipped: there is no {:?}", compiler.command);
            }
            is_here
        };
        let all = all.map(|(command, standards, warnings)| Compiler { command, standards, warnings });
        all.into_iter().filter(is_here).collect()
    }

    fn run(&self, arguments: impl FnOnce(&mut Command) -> &mut Command) -> Option<Output> {
        let mut command = Command::new(&self.command[0]);
        command.args(&self.command[1..]);
        arguments(&mut command).output().ok()
    }

    /// Compiles a file in each of its standards.
    #[track_caller]
    fn compile(&self, source: &Path, flags: &[&str], to: &Path) {
        let language = if self.standards[0].contains("++") { "c++" } else { "c" };
        for standard in self.standards {
            let output = self.run(|command| {
                let command = command.args(["-x", language, standard]).args(WARNINGS).args(self.warnings);
                let command = command.arg("-I").arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("include"));
                command.args(flags).arg("-o").arg(to).arg(source)
            });
            let output = output.expect("it was there");
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{:?} {standard}: {said}", self.command);
        }
    }
}

/// The name of a type or field in C, and its size or offset here.
fn layout() -> BTreeMap<String, usize> {
    let mut all = BTreeMap::new();
    macro_rules! types {
        ($($name:ident = $type:ty: $($field:ident)*;)*) => {
            $(
                all.insert(stringify!($name).to_owned(), size_of::<$type>());
                $(
                    let field = format!("{}.{}", stringify!($name), stringify!($field));
                    all.insert(field, offset_of!($type, $field));
                )*
            )*
        };
    }
    types! {
        effe_str = Text: ptr len;
        effe_bytes = Text: ptr len;
        effe_headers = Text: ptr len;
        effe_chunk = Chunk: ptr len owner release;
        effe_header = Header<'_>: name value;
        effe_host = Host: data level log parameter attribute extension;
        effe_exchange_ops = ExchangeOps: header headers attribute state read respond write;
        effe_exchange = Exchange<'_>: method target path_len body flags version host ops;
        effe_lambda = Root: size version flags info build init start run stop retire extension;
        effe_fail_host = FailHost: size version fail;
        effe_ready = Ready: size version ready;
        effe_waker_table = WakerTable: clone wake wake_by_ref drop;
        effe_waker = Waker: table;
        effe_future = Future: data poll drop;
        effe_async_plugin = AsyncPlugin: size version start run stop;
        effe_async_host = AsyncHost: size version poll_read poll_ready;
        effe_spawn_host = SpawnHost: size version may_spawn enter leave hold release may_block;
        effe_early_host = EarlyHost: size version end_early;
        effe_trailers_host = TrailersHost: size version request respond;
        effe_duplex_table = DuplexTable:
            size version read poll_read write poll_ready shutdown state poll_away clone drop;
        effe_duplex = Duplex: data table;
        effe_upgrade_host = UpgradeHost: size version offered upgrade;
    }
    all
}

fn numbers() -> BTreeMap<String, u64> {
    macro_rules! numbers {
        ($($name:ident = $value:expr;)*) => {
            BTreeMap::from([$((stringify!($name).to_owned(), u64::from($value))),*])
        };
    }
    numbers! {
        EFFE_ABI_VERSION = c_root::VERSION;
        EFFE_OK = status::OK;
        EFFE_ERROR = status::ERROR;
        EFFE_PANIC = status::PANIC;
        EFFE_GONE = status::GONE;
        EFFE_END = status::END;
        EFFE_UNSUPPORTED = status::UNSUPPORTED;
        EFFE_INVALID = status::INVALID;
        EFFE_TOO_LARGE = status::TOO_LARGE;
        EFFE_TIMEOUT = status::TIMEOUT;
        EFFE_PENDING = status::PENDING;
        EFFE_GOING_AWAY = GOING_AWAY;
        EFFE_LEVEL_CRITICAL = effe_abi::Level::Critical as u32;
        EFFE_LEVEL_ERROR = effe_abi::Level::Error as u32;
        EFFE_LEVEL_WARNING = effe_abi::Level::Warning as u32;
        EFFE_LEVEL_NOTICE = effe_abi::Level::Notice as u32;
        EFFE_LEVEL_INFO = effe_abi::Level::Info as u32;
        EFFE_LEVEL_DEBUG = effe_abi::Level::Debug as u32;
        EFFE_LEVEL_TRACE = raw::TRACE;
        EFFE_HOST_ADDRESS = host_attribute::ADDRESS;
        EFFE_HOST_RESPONSE_LIMIT = host_attribute::RESPONSE_LIMIT;
        EFFE_HOST_SOFTWARE = host_attribute::SOFTWARE;
        EFFE_HOST_PROCESS = PROCESS;
        EFFE_MORE_BODY = raw::MORE_BODY;
        EFFE_MORE = raw::MORE;
        EFFE_REQUEST_ID = attribute::REQUEST_ID;
        EFFE_PEER = attribute::PEER;
        EFFE_SCHEME = attribute::SCHEME;
        EFFE_AUTHORITY = attribute::AUTHORITY;
        EFFE_AWS_REQUEST_ID = aws_attribute::REQUEST_ID;
        EFFE_AWS_DEADLINE_MS = aws_attribute::DEADLINE_MS;
        EFFE_AWS_FUNCTION_ARN = aws_attribute::FUNCTION_ARN;
        EFFE_AWS_TRACE_ID = aws_attribute::TRACE_ID;
        EFFE_AWS_CLIENT_CONTEXT = aws_attribute::CLIENT_CONTEXT;
        EFFE_AWS_COGNITO_IDENTITY = aws_attribute::COGNITO_IDENTITY;
        EFFE_AWS_EVENT = aws_attribute::EVENT;
        EFFE_NEVER_WAITS = plugin_flags::NEVER_WAITS;
        EFFE_WAITS = plugin_flags::WAITS;
        EFFE_STREAM_REQUEST = plugin_flags::STREAM_REQUEST;
        EFFE_STREAM_RESPONSE = plugin_flags::STREAM_RESPONSE;
        EFFE_KEEP_CANCELLED = plugin_flags::KEEP_CANCELLED;
        EFFE_ANSWERS_EARLY = ANSWERS_EARLY;
        EFFE_UPGRADES = UPGRADES;
        EFFE_NOTE_INFO = c_root::NOTE_INFO;
        EFFE_NOTE_BUILD = c_root::NOTE_BUILD;
    }
}

fn texts() -> BTreeMap<String, String> {
    let texts = [
        ("EFFE_H_VERSION", env!("CARGO_PKG_VERSION")),
        ("EFFE_FAIL", FAIL),
        ("EFFE_READY", READY),
        ("EFFE_ASYNC", ASYNC),
        ("EFFE_SPAWN", SPAWN),
        ("EFFE_EARLY", EARLY),
        ("EFFE_TRAILERS", TRAILERS),
        ("EFFE_UPGRADE", extensions::UPGRADE),
    ];
    texts.map(|(name, text)| (name.to_owned(), text.to_owned())).into()
}

/// What the lines of the header say that begin so.
fn defined<'a>(begin: &'a str) -> impl Iterator<Item = (&'static str, &'static str)> + 'a {
    let lines = HEADER.lines().filter_map(move |line| line.strip_prefix(begin));
    lines.filter_map(|line| line.split_once([' ', '(']).or(Some((line, ""))))
}

fn is_number(value: &str) -> bool {
    value.starts_with(|first: char| first.is_ascii_digit())
}

/// A directory for what is compiled here.
fn scratch() -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("header-{}", std::process::id()));
    fs::create_dir_all(&path).unwrap();
    path
}

#[test]
fn nothing_in_the_header_is_left_out_of_these_tests() {
    let in_c: Vec<_> =
        defined("#define ").filter(|(_, value)| is_number(value)).map(|(name, _)| name).collect();
    assert_eq!(in_c.len(), numbers().len(), "{in_c:#?}");
    assert!(in_c.iter().all(|name| numbers().contains_key(*name)), "{in_c:#?}");
    // Those whose first letter is that of a text; `EFFE_BUILD` is put together and no id.
    let is_id = |(name, value): &(&str, &str)| value.starts_with('"') && !name.ends_with("BUILD");
    let ids: Vec<_> =
        defined("#define EFFE_").filter(is_id).map(|(name, _)| format!("EFFE_{name}")).collect();
    let of_compilers = ["EFFE_COMPILER", "EFFE_MACHINE"];
    let ids: Vec<_> = ids.iter().filter(|name| !of_compilers.contains(&name.as_str())).collect();
    assert_eq!(ids.len(), texts().len(), "{ids:#?}");
    assert!(ids.iter().all(|name| texts().contains_key(*name)), "{ids:#?}");
    // The header's own assertions, and the types that it defines.
    let places = |begin: &'static str| HEADER.lines().filter(move |line| line.starts_with(begin)).count();
    let fields = layout().keys().filter(|name| name.contains('.')).count();
    assert_eq!((places("EFFE_AT("), places("EFFE_SIZE(")), (fields, layout().len() - fields));
    let types =
        HEADER.lines().filter(|line| line.starts_with("typedef struct") && line.ends_with('{')).count();
    // `effe_exchange` and `effe_waker` are declared before they are defined.
    assert_eq!(types + 2, layout().len() - fields);
}

#[test]
fn every_compiler_takes_a_lambda_with_all_warnings_as_errors() {
    let scratch = scratch();
    let source = scratch.join("lambda.c");
    fs::write(&source, LAMBDA).unwrap();
    for compiler in Compiler::all() {
        let flags = ["-fPIC", "-fvisibility=hidden", "-c"];
        compiler.compile(&source, &flags, &scratch.join("lambda.o"));
    }
}

#[test]
fn every_compiler_lays_it_out_as_this_crate_does() {
    let scratch = scratch();
    let mut source = "#include <stdio.h>\n#include \"effe.h\"\n\nint main(void) {\n".to_owned();
    let (layout, numbers, texts) = (layout(), numbers(), texts());
    for name in layout.keys() {
        let number = match name.split_once('.') {
            Some((of, field)) => format!("offsetof({of}, {field})"),
            None => format!("sizeof({name})"),
        };
        source += &format!("    printf(\"{name} %zu\\n\", {number});\n");
    }
    for name in numbers.keys() {
        source += &format!("    printf(\"{name} %llu\\n\", 0ull + {name});\n");
    }
    for name in texts.keys() {
        source += &format!("    printf(\"{name} %s\\n\", {name});\n");
    }
    source += "    return 0;\n}\n";
    let expected = layout.iter().map(|(name, size)| format!("{name} {size}"));
    let expected = expected.chain(numbers.iter().map(|(name, number)| format!("{name} {number}")));
    let expected: Vec<_> =
        expected.chain(texts.iter().map(|(name, text)| format!("{name} {text}"))).collect();
    let (file, program) = (scratch.join("layout.c"), scratch.join("layout"));
    fs::write(&file, source).unwrap();
    for compiler in Compiler::all() {
        if compiler.command.iter().any(|word| word == Path::new("c++")) {
            // Its own libc++ would have to be compiled, for nothing: the header's own assertions say the same.
            compiler.compile(&file, &["-c"], &program.with_extension("o"));
            continue;
        }
        compiler.compile(&file, &[], &program);
        let output = Command::new(&program).output().unwrap();
        let found = String::from_utf8(output.stdout).unwrap();
        assert_eq!(found.lines().collect::<Vec<_>>(), expected, "{:?}", compiler.command);
    }
}

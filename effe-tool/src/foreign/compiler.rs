//! The compilers of lambdas that are not Rust: where they are, and the flags that each gets.

use std::{
    env,
    ffi::{OsStr, OsString},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail};

use crate::{
    cli::BuildArgs,
    language::{HEADER, Language},
    target,
};

/// Against mistakes with memory and formats: they end the process, or the build, before a client can make use of them.
const HARDENING: [&str; 6] = [
    "-U_FORTIFY_SOURCE",
    "-D_FORTIFY_SOURCE=2",
    "-fstack-protector-strong",
    "-fstack-clash-protection",
    "-Wformat",
    "-Werror=format-security",
];
/// Flags of the linker: all symbols are bound at the start, and their table is then read-only; no stack is executable;
/// a missing symbol is an error here, and not only in the loader.
const LINKING: &str = "-Wl,-z,relro,-z,now,-z,noexecstack,-z,defs";

/// A compiler and the arguments that come first.
#[derive(Debug)]
pub(super) struct Compiler {
    language: Language,
    /// For messages.
    name: String,
    words: Vec<OsString>,
}

/// A file to compile.
pub(super) struct Job<'a> {
    pub(super) path: &'a Path,
    /// The plugin.
    pub(super) out: &'a Path,
    /// Where to list what was read, if the compiler does that.
    pub(super) rule: &'a Path,
    pub(super) target: &'a Path,
    pub(super) args: &'a BuildArgs,
    /// Whether messages are coloured.
    pub(super) colour: bool,
}

/// The compiler of a language, for this machine or for `target`.
///
/// # Errors
/// There is none.
pub(super) fn of(language: Language, target: Option<&str>) -> Result<Compiler> {
    // As Debian names cross compilers: aarch64-linux-gnu-gcc.
    let cross = |program: &str| target.map(|target| format!("{}-{program}", without_vendor(target)));
    let (variable, cross, usual, remedy): (_, _, &[&[&str]], _) = match language {
        Language::C => ("CC", cross("gcc"), &[&["cc"], &["gcc"], &["clang"]], "gcc or clang"),
        Language::Cpp => ("CXX", cross("g++"), &[&["c++"], &["g++"], &["clang++"]], "g++ or clang"),
        // The wheel of PyPI has no program `zig`. Each Zig compiles for all machines.
        Language::Zig => {
            let usual: &[&[&str]] = &[&["zig"], &["python-zig"], &["python3", "-m", "ziglang"]];
            ("ZIG", None, usual, "zig, or ziglang from PyPI")
        }
    };
    let (candidates, remedy): (Vec<Vec<&str>>, _) = match &cross {
        Some(program) => (vec![vec![program]], program.as_str()),
        None => (usual.iter().map(|words| words.to_vec()).collect(), remedy),
    };
    let given = env::var(variable).unwrap_or_default();
    let given: Vec<_> = given.split_whitespace().collect();
    if let Some(program) = given.first() {
        if !is_there(program) {
            bail!("there is no {program}, which the variable {variable} names");
        }
        return Ok(Compiler::new(language, &given));
    }
    match candidates.iter().find(|words| is_there(words[0]) && (words.len() == 1 || answers(words))) {
        Some(words) => Ok(Compiler::new(language, words)),
        None => bail!(
            "there is no compiler of {} in PATH; install {remedy}, or set {variable} to its path",
            language.name()
        ),
    }
}

impl Compiler {
    fn new(language: Language, words: &[&str]) -> Compiler {
        let name = words.join(" ");
        Compiler { language, name, words: words.iter().map(OsString::from).collect() }
    }

    /// Its command line, for messages.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// The command that does a job.
    ///
    /// # Errors
    /// The header can't be written, or not be translated.
    pub(super) fn build(&self, job: &Job<'_>) -> Result<Command> {
        let include = include_directory(job.target)?;
        match self.language {
            Language::C | Language::Cpp => Ok(self.c(job, &include)),
            Language::Zig => self.zig(job, &include),
        }
    }

    /// The command that preprocesses a file in C or C++.
    pub(super) fn preprocessor(&self, include: &Path) -> Command {
        let mut command = self.command();
        self.add_given(&mut command, include);
        command
    }

    /// Adds what the user has given, which overrides what came before.
    fn add_given(&self, command: &mut Command, include: &Path) {
        command.arg("-I").arg(include).args(words_of("CPPFLAGS")).args(words_of(self.flags()));
    }

    /// The variable with the flags of its language.
    fn flags(&self) -> &'static str {
        match self.language {
            Language::C => "CFLAGS",
            Language::Cpp => "CXXFLAGS",
            Language::Zig => "ZIGFLAGS",
        }
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.words[0]);
        command.args(&self.words[1..]);
        command
    }

    /// As make calls the compiler, with the flags of the user after ours.
    fn c(&self, job: &Job<'_>, include: &Path) -> Command {
        let mut command = self.command();
        command.args(["-shared", "-fPIC", "-fvisibility=hidden", "-Wall"]).args(HARDENING);
        command.args(if job.args.debug { &["-Og", "-g"][..] } else { &["-O2"] });
        if self.language == Language::Cpp {
            // The oldest that the header is for; some compilers take an older one by default.
            command.args(["-std=gnu++17", "-fvisibility-inlines-hidden", "-D_GLIBCXX_ASSERTIONS"]);
        }
        command.arg(format!("-fdiagnostics-color={}", if job.colour { "always" } else { "never" }));
        // The same plugin, wherever its source is.
        if let Some(directory) = job.path.parent().filter(|directory| !directory.as_os_str().is_empty()) {
            command.arg(joined("-ffile-prefix-map=", &[directory.as_os_str(), "/=".as_ref()]));
        }
        self.add_given(&mut command, include);
        command.arg(job.path).arg("-o").arg(job.out).args(["-MMD", "-MT", "plugin", "-MF"]).arg(job.rule);
        command.arg(LINKING).args(words_of("LDFLAGS")).args(words_of("LDLIBS"));
        command
    }

    fn zig(&self, job: &Job<'_>, include: &Path) -> Result<Command> {
        let cache = job.target.join("zig");
        let translated = self.translated(include, &cache)?;
        let mut command = self.command();
        command.args(["build-lib", "-dynamic", "-fPIC", "-lc", "-fno-soname", "-O"]);
        // Without debug information, which is ten times the rest of a plugin and stays in memory with it.
        command.args(if job.args.debug { &["Debug"][..] } else { &["ReleaseSafe", "-fstrip"] });
        command.args(words_of(self.flags()));
        if let Some(target) = &job.args.target {
            command.args(["-target", &without_vendor(target)]);
        }
        command.args(["--color", if job.colour { "on" } else { "off" }, "--cache-dir"]).arg(&cache);
        command.arg(joined("-femit-bin=", &[job.out.as_os_str()]));
        command.args(["--dep", "effe"]).arg(joined("-Mroot=", &[job.path.as_os_str()]));
        command.arg(joined("-Meffe=", &[translated.as_os_str()]));
        Ok(command)
    }

    /// The header as a module of Zig. The compiler keeps what it has translated once, so that only the first time is
    /// long.
    fn translated(&self, include: &Path, cache: &Path) -> Result<PathBuf> {
        let mut command = self.command();
        command.args(["translate-c", "-lc", "--cache-dir"]).arg(cache).arg(include.join("effe.h"));
        let output = command.stdin(Stdio::null()).output();
        let output = output.with_context(|| format!("cannot run {}", self.name))?;
        if !output.status.success() {
            let text = String::from_utf8_lossy(&output.stderr);
            bail!("{} can't translate effe.h: {}", self.name, text.lines().next().unwrap_or_default());
        }
        let path = include.join("effe.zig");
        target::write(&path, &String::from_utf8_lossy(&output.stdout))?;
        Ok(path)
    }
}

/// A directory that holds `effe.h`, and nothing else that a file in C could include.
///
/// # Errors
/// It can't be written.
pub(super) fn include_directory(target: &Path) -> Result<PathBuf> {
    let include = target.join("include");
    target::write(&include.join("effe.h"), HEADER)?;
    Ok(include)
}

/// The words of a variable, divided at spaces.
fn words_of(variable: &str) -> Vec<String> {
    env::var(variable).unwrap_or_default().split_whitespace().map(str::to_owned).collect()
}

/// A target triple as GNU's tools and Zig write it: `aarch64-linux-gnu`.
fn without_vendor(target: &str) -> String {
    target.replace("-unknown-", "-")
}

fn joined(first: &str, rest: &[&OsStr]) -> OsString {
    let mut text = OsString::from(first);
    rest.iter().for_each(|part| text.push(part));
    text
}

/// Whether a program is a file, or in `PATH`.
fn is_there(program: &str) -> bool {
    if program.contains('/') {
        return Path::new(program).is_file();
    }
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path).any(|place| place.join(program).is_file())
}

/// Whether a program that may lack the module that the other words name has it.
fn answers(words: &[&str]) -> bool {
    let mut command = Command::new(words[0]);
    command.args(&words[1..]).arg("version").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

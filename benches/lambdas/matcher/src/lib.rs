//! Tells how many of 200 patterns match a path. Init compiles them; that is the work of a start, about ten milliseconds
//! of CPU. `control-matcher` does the same without effe.

use std::sync::OnceLock;

use effe_abi::{Lambda, Params, Request, Response, Result, StartError, Started, export};
use regex::RegexSet;

static PATTERNS: OnceLock<RegexSet> = OnceLock::new();

/// Compiles the patterns.
///
/// # Errors
/// If one is no pattern.
pub fn compile() -> Result<RegexSet, regex::Error> {
    RegexSet::new((0..200).map(|n| format!("^/(articles|pictures)/{n}[0-9]*/[a-z-]+([.]html?)?$")))
}

/// What is answered.
pub fn tell(patterns: &RegexSet, path: &str) -> String {
    format!("{} of {} patterns\n", patterns.matches(path).iter().count(), patterns.len())
}

struct Matcher {
    patterns: &'static RegexSet,
}

impl Lambda for Matcher {
    fn init(_: Params) -> Result {
        PATTERNS.set(compile()?).map_err(|_| "Init has run before".into())
    }

    fn start(_: Params) -> Result<Self, StartError<Self>> {
        Ok(Matcher { patterns: PATTERNS.get().ok_or("Init comes first")? })
    }

    fn run(matcher: Started<Self>, request: &Request, response: &mut Response) -> Result {
        response.text(tell(matcher?.patterns, request.path()));
        Ok(())
    }
}

export!(Matcher);

//! The tool: makes, compiles, runs, calls, inspects and packs lambdas.

use std::process::ExitCode;

fn main() -> ExitCode {
    effe_tool::main(std::env::args_os())
}

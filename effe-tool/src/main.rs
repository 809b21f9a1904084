//! The program `effe-tool`.

use std::process::ExitCode;

fn main() -> ExitCode {
    effe_tool::main(std::env::args_os())
}

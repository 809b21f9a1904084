//! The program `cargo-effe`, which makes the tool a subcommand of cargo: `cargo effe new hello` runs
//! `cargo-effe effe new hello`.

use std::process::ExitCode;

fn main() -> ExitCode {
    let mut args: Vec<_> = std::env::args_os().collect();
    if args.get(1).is_some_and(|arg| arg == "effe") {
        args.remove(1);
    }
    effe_tool::main(args)
}

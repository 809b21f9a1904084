//! The loader: serves any effe lambda.

use std::process::ExitCode;

fn main() -> ExitCode {
    effe_loader::main(None)
}

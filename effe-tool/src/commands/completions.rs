//! `completions`: prints the script by which a shell completes commands, flags and paths.

use std::process::ExitCode;

use anyhow::Result;
use clap::{Command, CommandFactory, builder::PossibleValue};
use clap_complete::Shell;

use crate::cli::{Cli, CompletionsArgs};

/// Prints the script.
///
/// # Errors
/// stdout is closed.
pub(crate) fn run(args: &CompletionsArgs, output: &mut crate::shell::Shell) -> Result<ExitCode> {
    let mut text = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "effe-tool", &mut text);
    if args.shell == Shell::Bash {
        // clap_complete calls the tool `effe__tool`, and in the names of its commands `effe__subcmd__tool`: without
        // this the script knows no command.
        text = String::from_utf8(text)?.replace("effe__subcmd__tool", "effe__tool").into_bytes();
    }
    if args.shell == Shell::Fish {
        text.extend(fish_values(&Cli::command()).into_bytes());
    }
    output.result(&text)?;
    Ok(ExitCode::SUCCESS)
}

/// The values of arguments without a flag, such as the engine of `route`: clap_complete leaves them out for fish.
fn fish_values(tool: &Command) -> String {
    let mut text = String::new();
    for command in tool.get_subcommands() {
        for argument in command.get_positionals() {
            let values = argument.get_possible_values();
            let values: Vec<_> = values.iter().map(PossibleValue::get_name).collect();
            if !values.is_empty() {
                let (name, values) = (command.get_name(), values.join(" "));
                text.push_str(&format!(
                    "complete -c effe-tool -n \"__fish_effe_tool_using_subcommand {name}; \
                     and not __fish_seen_subcommand_from {values}\" -f -a \"{values}\"\n"
                ));
            }
        }
    }
    text
}

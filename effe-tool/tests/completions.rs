//! Tests of `completions`: each shell is asked what it offers behind a beginning of a line.

use std::{
    fs,
    process::{Command, Stdio},
};

use crate::support::{Scratch, tool, tool::Tool};

/// The beginning of a line, and some of what follows there, in the order of the alphabet.
const LINES: [(&str, &[&str]); 6] = [
    ("effe-tool comp", &["compile", "completions"]),
    ("effe-tool route ", &["compose", "haproxy", "knative", "kubernetes", "systemd"]),
    ("effe-tool completions ", &["bash", "elvish", "fish", "powershell", "zsh"]),
    ("effe-tool compile --di", &["--dirout"]),
    ("effe-tool new shop --template ", &["axum", "database", "hello", "json"]),
    ("effe-tool d x.so --engine ", &["buildah", "docker", "podman"]),
];

/// Has bash call the function that the script has registered.
const BASH: &str = r#"
    source ./completions
    complete -p effe-tool | grep -q -- '-F' || exit 1
    call=$(complete -p effe-tool | sed 's/.*-F \([^ ]*\) .*/\1/')
    read -ra COMP_WORDS <<<"$1"
    [[ $1 == *' ' ]] && COMP_WORDS+=('')
    COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
    "$call" effe-tool "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}" 2>/dev/null
    printf '%s\n' "${COMPREPLY[@]}"
"#;

/// Has a zsh on a terminal of its own complete the line, and waits until its screen has what is expected, in that
/// order.
const ZSH: &str = r#"
    zmodload zsh/zpty
    zpty inner 'TERM=dumb zsh -f -i'
    zpty -w inner "PS1=; autoload -Uz compinit; compinit -u -D; source ./completions; setopt no_beep; print REA''DY"
    zpty -r inner shown '*READY*'
    zpty -w -n inner "$1"$'\t\t'
    zpty -r inner shown "$2"
    print -r -- "$shown"
    zpty -d inner
"#;

/// Runs a shell with a script of ours, if there is such a shell.
fn offers(shell: &str, script: &[&str], args: &[&str], scratch: &Scratch) -> String {
    let mut command = Command::new("timeout");
    command.args(["30", shell]).args(script).args(args);
    Tool::by(command, scratch).run().assert_code(0).stdout
}

fn has(shell: &str) -> bool {
    let status = Command::new(shell).args(["-c", "exit 0"]).stdin(Stdio::null()).status();
    let is_there = status.is_ok_and(|status| status.success());
    if !is_there {
        eprintln!("SKIPPED: there is no {shell} here");
    }
    is_there
}

fn script_for(shell: &str, scratch: &Scratch) {
    let done = tool(scratch).args(["completions", shell]).run().assert_code(0);
    fs::write(scratch.join("completions"), done.stdout).unwrap();
}

#[test]
fn bash_completes_commands_flags_and_values() {
    let scratch = Scratch::new();
    script_for("bash", &scratch);
    for (line, expected) in LINES {
        let offered = offers("bash", &["--norc", "-c", BASH, "bash"], &[line], &scratch);
        let mut offered: Vec<_> = offered.lines().filter(|word| expected.contains(word)).collect();
        offered.sort_unstable();
        assert_eq!(offered, expected, "{line}");
    }
}

#[test]
fn zsh_completes_commands_flags_and_values() {
    if !has("zsh") {
        return;
    }
    let scratch = Scratch::new();
    script_for("zsh", &scratch);
    for (line, expected) in LINES {
        let pattern = format!("*{}*", expected.join("*"));
        let shown = offers("zsh", &["-f", "-c", ZSH, "zsh"], &[line, &pattern], &scratch);
        assert!(expected.iter().all(|word| shown.contains(word)), "{line}: {shown}");
    }
}

#[test]
fn fish_completes_commands_flags_and_values() {
    if !has("fish") {
        return;
    }
    let scratch = Scratch::new();
    script_for("fish", &scratch);
    let script = "source ./completions; complete -C $argv[1]";
    for (line, expected) in LINES {
        let offered = offers("fish", &["--no-config", "-c", script], &[line], &scratch);
        // Each line is a word, a tab, and what it does.
        let words = offered.lines().map(|line| line.split('\t').next().unwrap());
        let mut words: Vec<_> = words.filter(|word| expected.contains(word)).collect();
        words.sort_unstable();
        assert_eq!(words, expected, "{line}");
    }
}

#[test]
fn other_shells_get_their_scripts() {
    let scratch = Scratch::new();
    for shell in ["elvish", "powershell"] {
        let done = tool(&scratch).args(["completions", shell]).run().assert_code(0);
        assert!(done.stdout.contains("effe-tool"), "{shell}");
    }
}

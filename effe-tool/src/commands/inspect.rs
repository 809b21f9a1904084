//! `inspect`: shows a plugin's Info, what it needs, and whether the loader accepts it.

use std::{fs, process::ExitCode};

use anyhow::{Context, Result};
use serde_json::{Map, Value, json};

use super::{columns, size};
use crate::{
    artifact::{Artifact, Info, Kind},
    cli::InspectArgs,
    loader::{self, Verdict},
    sbom,
    shell::Shell,
};

/// Shows a plugin. The exit code is 1 if the loader refuses it.
///
/// # Errors
/// The plugin can't be read, there is no loader, or it is asked for crates that the file doesn't list.
pub(crate) fn run(args: &InspectArgs, shell: &mut Shell) -> Result<ExitCode> {
    if args.sbom {
        let place = || format!("cannot list the crates of {}", args.plugin.display());
        let bytes = fs::read(&args.plugin).with_context(place)?;
        let bill = sbom::of(&bytes).with_context(place)?;
        let bill = bill.with_context(|| format!("{}: build it with `cargo auditable build`", place()))?;
        shell.result(&bill)?;
        return Ok(ExitCode::SUCCESS);
    }
    let artifact = Artifact::read(&args.plugin)?;
    let verdict = loader::ask(&artifact)?;
    let text = match args.json {
        true => format!("{}\n", as_json(&artifact, &verdict)),
        false => as_text(&artifact, &verdict),
    };
    shell.result(text.as_bytes())?;
    Ok(match verdict {
        Verdict::Accepts(_) => ExitCode::SUCCESS,
        Verdict::Refuses(_) => ExitCode::FAILURE,
    })
}

fn as_text(artifact: &Artifact, verdict: &Verdict) -> String {
    let mut rows = Vec::new();
    let mut row = |key: &str, value: String| rows.push(vec![key.to_owned(), value]);
    row("file", artifact.path.display().to_string());
    row("kind", kind(artifact).to_owned());
    row("size", size(artifact.size));
    if let Verdict::Accepts(text) = verdict
        && let Ok(Info(info)) = Info::parse(text)
    {
        for (key, value) in info {
            // Escaped, so that a lambda can't control this terminal or add lines.
            let value =
                value.as_str().map_or_else(|| value.to_string(), |text| text.escape_debug().to_string());
            row(&format!("info {}", key.escape_debug()), value);
        }
    }
    row("abi", abi(artifact).unwrap_or_else(|| "unknown".to_owned()));
    for (key, value) in &artifact.record {
        row(&format!("built with {key}"), value.clone());
    }
    row("machine", artifact.elf.machine.clone());
    let needed = &artifact.elf.needed;
    row("needs", if needed.is_empty() { "no libraries".to_owned() } else { needed.join(", ") });
    row(
        "needs glibc",
        artifact.elf.glibc.map_or("none".to_owned(), |(major, minor)| format!("{major}.{minor}")),
    );
    match verdict {
        // Where there are notes, it has opened nothing.
        Verdict::Accepts(_) if artifact.elf.info.is_some() => {
            row("loader", "takes it, as far as its file shows; effe-loader --check tries it".to_owned());
        }
        Verdict::Accepts(_) => row("loader", "takes it".to_owned()),
        Verdict::Refuses(line) => row("loader", format!("refuses it: {line}")),
    }
    columns(&rows)
}

fn as_json(artifact: &Artifact, verdict: &Verdict) -> Value {
    let (info, refusal) = match verdict {
        Verdict::Accepts(text) => (serde_json::from_str(text).unwrap_or(Value::Null), None),
        Verdict::Refuses(line) => (Value::Null, Some(line)),
    };
    let record = artifact.record.iter().map(|(key, value)| (key.clone(), value.as_str().into()));
    json!({
        "path": artifact.path.to_string_lossy(),
        "kind": kind(artifact),
        "size": artifact.size,
        "info": info,
        "abi": abi(artifact),
        "build": record.collect::<Map<String, Value>>(),
        "machine": artifact.elf.machine,
        "needs": artifact.elf.needed,
        "glibc": artifact.elf.glibc.map(|(major, minor)| format!("{major}.{minor}")),
        "usable": refusal.is_none(),
        "refusal": refusal,
    })
}

fn kind(artifact: &Artifact) -> &'static str {
    match (artifact.kind, artifact.elf.needed.is_empty()) {
        (Kind::Plugin, _) => "plugin",
        (Kind::Executable, false) => "executable",
        (Kind::Executable, true) => "static executable",
    }
}

/// The ABI is the major version of effe-abi.
fn abi(artifact: &Artifact) -> Option<String> {
    let (_, version) = artifact.record.iter().find(|(key, _)| key == "effe-abi")?;
    version.split('.').next().map(str::to_owned)
}

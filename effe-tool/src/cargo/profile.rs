//! The build profile: what a lambda needs beyond the settings of its workspace, and what is refused.

use std::{env, fs, path::Path, process::Command};

use anyhow::{Context, Result, bail};

use crate::cli::BuildArgs;

/// The settings that make a release small, used where the author's profile has none of its own.
///
/// `strip` is not among them: cargo removes debug information unless the profile asks for it, and keeps the symbol
/// table, from which a backtrace in the log takes the names of functions. The table costs 100 kB. Line tables would
/// cost 2 MB, because the standard library's come with them.
const RELEASE: [(&str, &str, &str); 2] = [
    ("lto", "CARGO_PROFILE_RELEASE_LTO", "fat"),
    ("codegen-units", "CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "1"),
];

/// Sets what the workspace's release profile leaves open, and refuses a profile with `panic = "abort"`.
pub(super) fn set(command: &mut Command, workspace: &Path, args: &BuildArgs) -> Result<()> {
    let path = workspace.join("Cargo.toml");
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let manifest: toml::Table = text.parse().with_context(|| format!("{} is no manifest", path.display()))?;
    let name = if args.debug { "dev" } else { "release" };
    let given = |key: &str| manifest.get("profile")?.get(name)?.get(key);
    let variable = format!("CARGO_PROFILE_{}_PANIC", name.to_uppercase());
    let place = match env::var(&variable).as_deref() {
        Ok("abort") => Some(format!("the variable {variable} says")),
        Ok(_) => None,
        Err(_) if given("panic").and_then(toml::Value::as_str) == Some("abort") => {
            Some(format!("[profile.{name}] of {} says", path.display()))
        }
        Err(_) => None,
    };
    if let Some(place) = place {
        bail!(
            "{place} panic = \"abort\": a panic in a lambda must unwind to the fence around its entries, \
             or it ends the server for every client; remove that line"
        );
    }
    for (key, variable, value) in RELEASE {
        if !args.debug && given(key).is_none() && env::var_os(variable).is_none() {
            command.env(variable, value);
        }
    }
    Ok(())
}

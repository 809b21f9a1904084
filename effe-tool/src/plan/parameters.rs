//! The parameters of a lambda: each is a text, or a file's content. This file reads the files, and refuses what no
//! engine can hand on. How an engine hands a parameter on is left to that engine's file.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use serde_json::{Value, value::RawValue};

use crate::cli::Router;

/// The longest `KEY=VALUE` in bytes: Linux refuses to start a program with a longer argument.
const MAX_ARGUMENT: usize = 128 * 1024 - 1;
/// The largest file: Kubernetes and systemd allow no larger secret.
const MAX_SECRET: usize = 1024 * 1024;

/// A parameter's value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Parameter {
    Text(String),
    /// What `KEY=@FILE` names.
    File {
        /// Absolute.
        path: PathBuf,
        /// Without the line feed at its end, as the loader takes it.
        content: String,
    },
}

/// The parameters of a lambda, by key.
pub(crate) type Parameters = BTreeMap<String, Parameter>;

/// Makes parameters of texts, and reads the files that they name.
///
/// # Errors
/// The engine can't hand a key or a value on, or a file can't be read.
pub(super) fn read(set: &BTreeMap<String, String>, engine: Router) -> Result<Parameters> {
    let mut parameters = Parameters::new();
    for (key, text) in set {
        check_key(key)?;
        let parameter = match text.strip_prefix('@') {
            Some(path) => file(key, Path::new(path), engine)?,
            None => {
                check_text(key, text, engine)?;
                Parameter::Text(text.clone())
            }
        };
        parameters.insert(key.clone(), parameter);
    }
    Ok(parameters)
}

/// A text as the member of a JSON object that the loader takes for that text. The loader's `--set` takes JSON that is
/// no string as that JSON, and so does this: what a lambda reads doesn't depend on the engine.
pub(super) fn as_json(text: &str) -> Box<RawValue> {
    let is_typed = text.trim_ascii() == text
        && serde_json::from_str::<Value>(text).is_ok_and(|value| !value.is_string());
    let json = if is_typed { text.to_owned() } else { Value::from(text).to_string() };
    RawValue::from_string(json).expect("it was parsed, or is a string that was written as JSON")
}

fn check_key(key: &str) -> Result<()> {
    if key.is_empty() || key.starts_with('-') || key.contains('=') || key.contains(char::is_control) {
        bail!(
            "the parameter {key:?} can't be set: a key has no `=`, no control character, and no `-` in front"
        );
    }
    Ok(())
}

fn check_text(key: &str, text: &str, engine: Router) -> Result<()> {
    if text.contains('\0') {
        bail!(
            "the parameter {key} holds a NUL, which no command line can hold; put it into a file, and give {key}=@FILE"
        );
    }
    let is_argument = engine != Router::Systemd;
    if is_argument && key.len() + 1 + text.len() > MAX_ARGUMENT {
        bail!(
            "the parameter {key} has {} bytes, and an argument of a program has {MAX_ARGUMENT} at most; put it into a \
             file, and give {key}=@FILE",
            text.len()
        );
    }
    let is_typed = as_json(text).get() == text;
    if engine == Router::Haproxy && is_typed && text.contains(char::is_control) {
        bail!(
            "the parameter {key} is JSON on several lines, and a loader's command line is one; write it on one line, or \
             put it into a file, and give {key}=@FILE"
        );
    }
    Ok(())
}

fn file(key: &str, path: &Path, engine: Router) -> Result<Parameter> {
    let absolute = std::path::absolute(path).with_context(|| format!("the parameter {key}=@"))?;
    let named = || format!("the parameter {key}=@{}", path.display());
    let mut content = fs::read_to_string(&absolute).with_context(named)?;
    if content.ends_with('\n') {
        content.pop();
    }
    if engine == Router::Haproxy {
        if absolute.to_string_lossy().contains(char::is_control) {
            bail!("{}: a command line is one line; give the file another name", named().escape_debug());
        }
        return Ok(Parameter::File { path: absolute, content });
    }
    // The key names the credential, the entry of a Secret, or the file in a container.
    if key.len() > 64
        || key.starts_with('.')
        || !key.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
    {
        bail!(
            "{}: it would become a secret of the name {key:?}, which may have letters, digits, `.`, `_` and `-`, at \
             most 64, the first one no dot",
            named()
        );
    }
    if content.len() >= MAX_SECRET {
        bail!("{}: it has {} bytes, and a secret has fewer than {MAX_SECRET}", named(), content.len());
    }
    Ok(Parameter::File { path: absolute, content })
}

//! An entry that a guest sends: parsed from a form or from JSON, and refused if it is empty or too long.

use effe_abi::{Request, Result};
use serde::Deserialize;

const LONGEST_NAME: usize = 80;
const LONGEST_TEXT: usize = 2000;

/// A checked entry.
#[derive(Debug, Deserialize)]
#[serde(try_from = "Draft")]
pub(crate) struct Entry {
    pub(crate) name: String,
    pub(crate) text: String,
}

/// An entry as the guest sent it.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Draft {
    name: String,
    text: String,
}

impl Entry {
    /// Parses the body of a request. The error tells the guest what to change.
    pub(crate) fn read(request: &Request) -> Result<Entry> {
        let is_json = request.header("content-type").is_some_and(|it| it.starts_with("application/json"));
        if is_json { request.json() } else { request.form() }
    }
}

impl TryFrom<Draft> for Entry {
    type Error = String;

    fn try_from(draft: Draft) -> Result<Entry, String> {
        Ok(Entry {
            name: within("name", &draft.name, LONGEST_NAME)?,
            text: within("text", &draft.text, LONGEST_TEXT)?,
        })
    }
}

fn within(field: &str, value: &str, longest: usize) -> Result<String, String> {
    let value = value.trim();
    match value.chars().count() {
        0 => Err(format!("the {field} is missing")),
        length if length > longest => {
            Err(format!("the {field} has {length} characters; {longest} is the most"))
        }
        _ => Ok(value.to_owned()),
    }
}

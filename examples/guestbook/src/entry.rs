//! What a guest writes: read from a form or from JSON, and refused if it is empty or too long.

use serde::Deserialize;

const LONGEST_NAME: usize = 80;
const LONGEST_TEXT: usize = 2000;

/// An entry fit to be kept.
#[derive(Debug, Deserialize)]
#[serde(try_from = "Draft")]
pub(crate) struct Entry {
    pub(crate) name: String,
    pub(crate) text: String,
}

/// An entry as it came.
#[derive(Default, Deserialize)]
struct Draft {
    name: String,
    text: String,
}

impl Entry {
    /// Reads the body of a request; the error says what the guest can do better.
    pub(crate) fn read(content_type: &str, body: &[u8]) -> Result<Entry, String> {
        match content_type.split(';').next().unwrap_or("").trim().to_ascii_lowercase().as_str() {
            "application/json" => serde_json::from_slice(body).map_err(|err| err.to_string()),
            "application/x-www-form-urlencoded" => {
                let mut draft = Draft::default();
                for (key, value) in form_urlencoded::parse(body) {
                    match &*key {
                        "name" => draft.name = value.into_owned(),
                        "text" => draft.text = value.into_owned(),
                        _ => {}
                    }
                }
                draft.try_into()
            }
            _ => Err("send a form (application/x-www-form-urlencoded) or application/json".to_owned()),
        }
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

//! The operator's parameters: each as text, and all of them as one JSON object.

use std::{collections::BTreeMap, fs, path::PathBuf};

use serde_json::{Map, Value};

/// Where the parameters come from. Files may hold something else each time they are read.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// A file that holds a JSON object.
    pub file: Option<PathBuf>,
    /// `key=value` and `key=@file`, which override the file.
    pub pairs: Vec<String>,
}

impl Sources {
    /// Reads all parameters. An error says in one line what can't be read or understood.
    pub fn read(&self) -> Result<Parameters, String> {
        let mut parameters = Parameters::default();
        if let Some(path) = &self.file {
            let failed = |err: &dyn std::fmt::Display| format!("--params {}: {err}", path.display());
            let text = fs::read_to_string(path).map_err(|err| failed(&err))?;
            parameters.add_object(&text).map_err(|err| failed(&err))?;
        }
        for pair in &self.pairs {
            let Some((key, value)) = pair.split_once('=').filter(|(key, _)| !key.is_empty()) else {
                return Err(format!("--set {pair}: write it as key=value or key=@file"));
            };
            let value = match value.strip_prefix('@') {
                Some(path) => {
                    let text =
                        fs::read_to_string(path).map_err(|err| format!("--set {key}=@{path}: {err}"))?;
                    text.strip_suffix('\n').map(str::to_owned).unwrap_or(text)
                }
                None => value.to_owned(),
            };
            parameters.set(key, &value);
        }
        Ok(parameters)
    }
}

/// Parameters by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Parameters(BTreeMap<String, Parameter>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Parameter {
    /// A text without quotes, anything else as JSON text.
    text: String,
    json: String,
}

impl Parameters {
    /// Sets a parameter from the command line. A value that is JSON and not a string (`3`, `true`, `["a"]`)
    /// is the same JSON in the object. As text, every value is as it was given.
    pub fn set(&mut self, key: &str, value: &str) {
        let json = match serde_json::from_str::<Value>(value) {
            Ok(Value::String(_)) | Err(_) => Value::from(value).to_string(),
            Ok(_) => value.to_owned(),
        };
        self.0.insert(key.to_owned(), Parameter { text: value.to_owned(), json });
    }

    pub fn add_object(&mut self, text: &str) -> Result<(), serde_json::Error> {
        for (key, value) in serde_json::from_str::<Map<String, Value>>(text)? {
            let json = value.to_string();
            let text = if let Value::String(text) = value { text } else { json.clone() };
            self.0.insert(key, Parameter { text, json });
        }
        Ok(())
    }

    /// As [`Parameters::from_json`] takes them: text and JSON of each, to the letter.
    pub fn to_json(&self) -> Value {
        let pair = |parameter: &Parameter| Value::from(vec![&*parameter.text, &*parameter.json]);
        self.0.iter().map(|(key, parameter)| (key.clone(), pair(parameter))).collect::<Map<_, _>>().into()
    }

    pub fn from_json(value: &Value) -> Option<Parameters> {
        let parameter = |pair: &Value| {
            let [Value::String(text), Value::String(json)] = &pair.as_array()?[..] else { return None };
            Some(Parameter { text: text.clone(), json: json.clone() })
        };
        let pairs = value.as_object()?.iter().map(|(key, pair)| Some((key.clone(), parameter(pair)?)));
        pairs.collect::<Option<_>>().map(Parameters)
    }

    /// A parameter as text.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).map(|parameter| parameter.text.as_str())
    }

    /// All parameters as the text of a JSON object.
    pub fn object(&self) -> String {
        let members =
            self.0.iter().map(|(key, parameter)| format!("{}:{}", Value::from(key.as_str()), parameter.json));
        format!("{{{}}}", members.collect::<Vec<_>>().join(","))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_stays_to_the_letter_and_json_stays_json() {
        let mut parameters = Parameters::default();
        parameters.add_object(r#"{"path":"/a b","n":3,"list":["x"],"gone":"1"}"#).unwrap();
        for (key, value) in [("version", "1.0"), ("quoted", "\"x\""), ("flag", "true"), ("gone", "no")] {
            parameters.set(key, value);
        }
        assert_eq!(parameters.get("path"), Some("/a b"));
        assert_eq!((parameters.get("n"), parameters.get("list")), (Some("3"), Some("[\"x\"]")));
        assert_eq!((parameters.get("version"), parameters.get("quoted")), (Some("1.0"), Some("\"x\"")));
        let object =
            r#"{"flag":true,"gone":"no","list":["x"],"n":3,"path":"/a b","quoted":"\"x\"","version":1.0}"#;
        assert_eq!(parameters.object(), object);
        assert!(parameters.add_object("[]").is_err());
    }

    #[test]
    fn any_parameters_are_to_the_letter_and_one_json_object() {
        bolero::check!().with_type::<Vec<(String, String)>>().for_each(|pairs| {
            let mut parameters = Parameters::default();
            pairs.iter().for_each(|(key, value)| parameters.set(key, value));
            let object: Map<String, Value> = serde_json::from_str(&parameters.object()).unwrap();
            let last: BTreeMap<_, _> = pairs.iter().map(|(key, value)| (key, value)).collect();
            assert!(object.keys().eq(last.keys().copied()));
            assert_eq!(Parameters::from_json(&parameters.to_json()), Some(parameters.clone()));
            for (key, value) in last {
                assert_eq!(parameters.get(key), Some(value.as_str()));
                if let Value::String(text) = &object[key] {
                    assert_eq!(text, value);
                }
            }
        });
    }

    #[test]
    fn any_file_is_an_object_that_stays_the_same_or_is_refused_in_one_line() {
        bolero::check!().with_type::<(Vec<u8>, bool)>().for_each(|(bytes, plain)| {
            let json = b"{}[]\":,0e-.tn\\u ";
            let text = match plain {
                true => bytes.iter().map(|byte| char::from(json[usize::from(*byte) % json.len()])).collect(),
                false => String::from_utf8_lossy(bytes).into_owned(),
            };
            let mut parameters = Parameters::default();
            match parameters.add_object(&text) {
                Ok(()) => {
                    let mut again = Parameters::default();
                    again.add_object(&parameters.object()).unwrap();
                    assert_eq!(again, parameters);
                }
                Err(err) => assert!(!err.to_string().contains('\n'), "{err}"),
            }
        });
    }
}

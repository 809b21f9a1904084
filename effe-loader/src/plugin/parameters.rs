//! The operator's parameters: each as text, and all of them as one JSON object.

use std::{collections::BTreeMap, ffi::OsString, fs, path::PathBuf};

use serde_json::{Map, Value, value::RawValue};

/// Where the parameters come from. Files may hold something else each time they are read.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// A JSON object, or a file that holds one.
    pub object: Option<Object>,
    /// `key=value` and `key=@file`, which override the object.
    pub pairs: Vec<String>,
}

/// What `--params` names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Object {
    /// The object itself. On one line it can hold any text, as `key=value` can't.
    Text(String),
    /// A file that holds it.
    File(PathBuf),
}

impl From<OsString> for Object {
    fn from(text: OsString) -> Object {
        match text.into_string() {
            Ok(text) if text.starts_with('{') => Object::Text(text),
            Ok(path) => Object::File(path.into()),
            Err(path) => Object::File(path.into()),
        }
    }
}

impl Sources {
    /// Reads all parameters. An error says in one line what can't be read or understood.
    pub fn read(&self) -> Result<Parameters, String> {
        let mut parameters = Parameters::default();
        match &self.object {
            // The text may hold a secret, and is not repeated.
            Some(Object::Text(text)) => {
                parameters.add_object(text).map_err(|err| format!("--params {{…}}: {err}"))?;
            }
            Some(Object::File(path)) => {
                let failed = |err: &dyn std::fmt::Display| format!("--params {}: {err}", path.display());
                let text = fs::read_to_string(path).map_err(|err| failed(&err))?;
                parameters.add_object(&text).map_err(|err| failed(&err))?;
            }
            None => {}
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
    /// is the same JSON in the object, unless it has space around it. As text, every value is as it was given.
    pub fn set(&mut self, key: &str, value: &str) {
        let json = match serde_json::from_str::<Value>(value) {
            Ok(other) if !other.is_string() && value.trim_ascii() == value => value.to_owned(),
            _ => Value::from(value).to_string(),
        };
        self.0.insert(key.to_owned(), Parameter { text: value.to_owned(), json });
    }

    /// Adds the members of a JSON object. A member that is no string is, as text, what the object's text has for it
    /// (`1.0`, `[1, 2]`): so an object can hold whatever `set` is given.
    pub fn add_object(&mut self, text: &str) -> Result<(), serde_json::Error> {
        let values = serde_json::from_str::<Map<String, Value>>(text)?;
        let mut written = serde_json::from_str::<BTreeMap<String, Box<RawValue>>>(text)?;
        for (key, value) in values {
            let json = written.remove(&key).map_or_else(|| value.to_string(), |raw| raw.get().to_owned());
            let parameter = match value {
                Value::String(text) => Parameter { json: Value::from(text.as_str()).to_string(), text },
                _ => Parameter { text: json.clone(), json },
            };
            self.0.insert(key, parameter);
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
    fn an_object_holds_to_the_letter_whatever_can_be_set() {
        bolero::check!().with_type::<(Vec<u8>, bool)>().for_each(|(bytes, plain)| {
            let letters = b" 1.0e5[],{}\"-tn\n\t\\@%$";
            let text: String = match plain {
                true => {
                    bytes.iter().map(|byte| char::from(letters[usize::from(*byte) % letters.len()])).collect()
                }
                false => String::from_utf8_lossy(bytes).into_owned(),
            };
            let mut given = Parameters::default();
            given.set("key", &text);
            let mut read = Parameters::default();
            read.add_object(&given.object()).unwrap();
            assert_eq!(read, given);
        });
    }

    #[test]
    fn params_are_an_object_or_the_name_of_a_file_that_holds_one() {
        assert_eq!(Object::from(OsString::from("params.json")), Object::File("params.json".into()));
        let read = |text: &str| {
            let object = Some(Object::from(OsString::from(text)));
            Sources { object, pairs: vec!["b=2".to_owned()] }.read()
        };
        let parameters = read("{\"a\":\"1\\n\",\"b\":\"1\",\"c\":1.0}").unwrap();
        let values = ["a", "b", "c"].map(|key| parameters.get(key));
        assert_eq!(values, [Some("1\n"), Some("2"), Some("1.0")]);
        let fault = read("{\"a\":\"secret\"").unwrap_err();
        assert!(fault.starts_with("--params {…}: ") && !fault.contains("secret"), "{fault}");
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

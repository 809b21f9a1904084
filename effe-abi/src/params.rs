//! The operator's parameters, and where the lambda is being served.
//!
//! The values are the host's and are asked for through `calls.rs`.

use std::{error, net::SocketAddr, str::FromStr};

use crate::{
    calls::HostRef,
    error::{Error, Result},
    extensions::PROCESS,
    raw::host_attribute,
};

/// The parameters that the operator gave with `--set key=value` and `--params file.json`. A lambda gets them in Init
/// and in Start, may keep them, and can copy them cheaply.
#[derive(Clone, Copy)]
pub struct Params(HostRef);

impl Params {
    pub(crate) fn new(host: HostRef) -> Params {
        Params(host)
    }

    #[cfg(feature = "tower")]
    pub(crate) fn host(&self) -> HostRef {
        self.0
    }

    /// One parameter: a string as it is, anything else as JSON text (`3`, `true`, `["a","b"]`).
    pub fn get(&self, key: &str) -> Option<&'static str> {
        if key.is_empty() { None } else { self.0.parameter(key) }
    }

    /// One parameter, parsed; `None` if it was not given.
    ///
    /// # Errors
    /// It can't be parsed; the error names the key and the value.
    #[track_caller]
    pub fn parse<T>(&self, key: &str) -> Result<Option<T>>
    where
        T: FromStr<Err: error::Error>,
    {
        match self.get(key).map(|text| (text, text.parse())) {
            None => Ok(None),
            Some((_, Ok(value))) => Ok(Some(value)),
            Some((text, Err(err))) => Err(Error::new(format!("the parameter `{key}` is {text:?}: {err}"))),
        }
    }

    /// One parameter that must be given.
    ///
    /// # Errors
    /// It was not given; the error names it and says how to give it.
    #[track_caller]
    pub fn required(&self, key: &str) -> Result<&'static str> {
        match self.get(key) {
            Some(value) => Ok(value),
            None => Err(Error::new(format!("the parameter `{key}` is missing; give it with --set {key}=…"))),
        }
    }

    /// All parameters, as the text of a JSON object.
    pub fn as_str(&self) -> &'static str {
        self.0.parameter("").unwrap_or("{}")
    }

    /// All parameters, read into a type of the author's. Needs the feature `json`, which is on by default.
    ///
    /// # Errors
    /// They don't fit the type; the error says where.
    #[cfg(feature = "json")]
    #[track_caller]
    pub fn json<T: serde::Deserialize<'static>>(&self) -> Result<T> {
        // A closure would not be `#[track_caller]`, and the error would have this place.
        match serde_json::from_str(self.as_str()) {
            Ok(value) => Ok(value),
            Err(err) => Err(Error::new(format!("the parameters: {err}"))),
        }
    }

    /// The address that is served. `None` in a test and for a Unix socket.
    pub fn address(&self) -> Option<SocketAddr> {
        self.0.attribute(host_attribute::ADDRESS)?.parse().ok()
    }

    /// Which of the processes that serve the lambda this one is, counted from 0, and how many there are: with
    /// `--processes 4` one of (0, 4) to (3, 4), else (0, 1), as in a test. A process that is started in the place of
    /// another has that one's number, and may live beside it for a while.
    pub fn process(&self) -> (usize, usize) {
        let text = self.0.attribute(PROCESS).and_then(|text| text.split_once('/'));
        let numbers = text.and_then(|(index, count)| Some((index.parse().ok()?, count.parse().ok()?)));
        numbers.unwrap_or((0, 1))
    }

    /// The host's name and version, such as `effe-loader/0.1.0`.
    pub fn software(&self) -> &'static str {
        self.0.attribute(host_attribute::SOFTWARE).unwrap_or("")
    }
}

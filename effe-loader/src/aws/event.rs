//! Lambda's events: those that are HTTP become requests, and answers get the shape that their sender expects. Any other
//! event becomes `POST /events` with the event as its body. Pure: nothing is read, sent or logged here.
//!
//! The shapes are those of AWS's Lambda Developer Guide and API Gateway Developer Guide: payload formats 1.0 and 2.0 of
//! API Gateway, Function URLs (which are 2.0), Application Load Balancers with single- and multi-value headers, and VPC
//! Lattice (its User Guide, "Receive events from the VPC Lattice service").

mod fold;
mod percent;
mod shape;

use std::{collections::HashMap, net::IpAddr};

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use http::{Method, uri::PathAndQuery};
use serde_json::{Map, Value, value::RawValue};

use self::percent::{encode, escape};
pub use self::{
    fold::{N_ZEROS, fold, prelude},
    shape::Shape,
};
use crate::{
    http::validate::is_host,
    message::fields::{Fields, checked},
};

/// Where an event that isn't HTTP goes, as AWS's own web adapter has it.
const OTHER_TARGET: &str = "/events";
/// Who is asked, where an event doesn't say.
const DEFAULT_HOST: &str = "lambda";

/// Headers that are about a connection, which an event has none of, or about its body's form in the event.
const NOT_OURS: [&str; 6] =
    ["connection", "content-length", "expect", "trailer", "transfer-encoding", "upgrade"];

/// A request that an event has become.
#[derive(Debug)]
pub struct Unfolded {
    pub shape: Shape,
    pub method: Method,
    pub target: PathAndQuery,
    /// `Host` is one of them, and `Content-Length` where there is a body.
    pub fields: Fields,
    pub body: Bytes,
    /// The client's address, where the event says it.
    pub peer: Option<IpAddr>,
    /// Whether the client has spoken TLS.
    pub is_tls: bool,
}

/// Makes a request of an event.
///
/// # Errors
/// A sentence, where the event is no JSON, or has the shape of a request and says what no request can.
pub fn unfold(event: &Bytes) -> Result<Unfolded, String> {
    let whole: &RawValue =
        serde_json::from_slice(event).map_err(|err| format!("the event is no JSON: {err}"))?;
    // What is no object, or has a name that is no text, is no request.
    let members: HashMap<String, &RawValue> = serde_json::from_str(whole.get()).unwrap_or_default();
    let members = Members(members);
    match members.shape() {
        Some((shape, context)) => members.request(shape, &context),
        None => Ok(other(event.clone())),
    }
}

fn other(event: Bytes) -> Unfolded {
    let mut fields = Fields::NONE;
    fields.append("host", DEFAULT_HOST.as_bytes());
    fields.append("content-type", b"application/json");
    fields.append("content-length", event.len().to_string().as_bytes());
    Unfolded {
        shape: Shape::Other,
        method: Method::POST,
        target: PathAndQuery::from_static(OTHER_TARGET),
        fields,
        body: event,
        peer: None,
        is_tls: false,
    }
}

/// The members of an event, each read only if it is needed: what is not ours to read may be anything.
struct Members<'a>(HashMap<String, &'a RawValue>);

impl Members<'_> {
    fn value(&self, name: &str) -> Option<Value> {
        self.0.get(name).and_then(|raw| serde_json::from_str(raw.get()).ok())
    }

    fn has_text(&self, name: &str) -> bool {
        self.0.get(name).is_some_and(|raw| raw.get().starts_with('"'))
    }

    /// The shape of an event that is HTTP, and its `requestContext`.
    fn shape(&self) -> Option<(Shape, Map<String, Value>)> {
        // The events of authorizers look like requests, but a policy is the answer.
        if self.has_text("methodArn") || self.has_text("routeArn") {
            return None;
        }
        let Some(Value::Object(context)) = self.value("requestContext") else { return None };
        let is_http1 = self.has_text("httpMethod") && self.has_text("path");
        let shape = if self.has_text("rawPath") && context.get("http").is_some_and(Value::is_object) {
            Shape::Gateway2
        } else if is_http1 && context.get("elb").is_some_and(Value::is_object) {
            let many = self.0.get("multiValueHeaders");
            Shape::LoadBalancer { is_multi: many.is_some_and(|raw| raw.get() != "null") }
        } else if self.has_text("method")
            && self.has_text("path")
            && context.contains_key("serviceNetworkArn")
        {
            Shape::Lattice
        } else if is_http1 {
            Shape::Gateway1
        } else {
            return None;
        };
        Some((shape, context))
    }

    fn request(&self, shape: Shape, context: &Map<String, Value>) -> Result<Unfolded, String> {
        let is_v2 = shape == Shape::Gateway2;
        let http = context.get("http").unwrap_or(&Value::Null);
        let method = match shape {
            Shape::Gateway2 => http.get("method").and_then(Value::as_str).map(str::to_owned),
            Shape::Lattice => self.text("method")?,
            _ => self.text("httpMethod")?,
        };
        let method = method.unwrap_or_default();
        let method = Method::from_bytes(method.as_bytes())
            .map_err(|_| format!("the event's method is none: {}", shown(&method)))?;
        let path = self.text(if is_v2 { "rawPath" } else { "path" })?.unwrap_or_default();
        let path = if is_v2 { without_stage(&path, context) } else { &path };
        let mut target = escape(path, b"");
        if !target.starts_with('/') {
            target.insert(0, '/');
        }
        let query = self.query(shape)?;
        if !query.is_empty() {
            target = format!("{target}?{query}");
        }
        let target: PathAndQuery =
            target.parse().map_err(|_| format!("the event's path is none: {}", shown(path)))?;
        let mut fields = self.fields(shape)?;
        let body = self.body()?;
        if !fields.has("host") {
            let host = context.get("domainName").and_then(Value::as_str);
            let host = host.filter(|host| is_host(host.as_bytes())).unwrap_or(DEFAULT_HOST);
            fields.append("host", host.as_bytes());
        }
        if !body.is_empty() {
            fields.append("content-length", body.len().to_string().as_bytes());
        }
        let identity = if is_v2 { http } else { context.get("identity").unwrap_or(&Value::Null) };
        let peer = identity.get("sourceIp").and_then(Value::as_str).and_then(|ip| ip.parse().ok());
        let scheme = fields.get("x-forwarded-proto");
        let is_tls = scheme.is_some_and(|scheme| scheme.eq_ignore_ascii_case(b"https"));
        Ok(Unfolded { shape, method, target, fields, body, peer, is_tls })
    }

    /// The text of a member; `None` if there is none, or null.
    fn text(&self, name: &str) -> Result<Option<String>, String> {
        let Some(raw) = self.0.get(name) else { return Ok(None) };
        let text: Result<Option<String>, _> = serde_json::from_str(raw.get());
        text.map_err(|err| format!("the event's {name} is no text: {err}"))
    }

    /// A member that is an object; an empty one if there is none, or null.
    fn object(&self, name: &str) -> Result<Map<String, Value>, String> {
        let Some(raw) = self.0.get(name) else { return Ok(Map::new()) };
        let object: Result<Option<Map<_, _>>, _> = serde_json::from_str(raw.get());
        object.map(Option::unwrap_or_default).map_err(|err| format!("the event's {name} is no object: {err}"))
    }

    /// All pairs of a member with many values for each name; if there is none, those of its sibling with one each.
    fn pairs(&self, many: &str, one: &str) -> Result<Vec<(String, String)>, String> {
        let name = if self.object(many)?.is_empty() { one } else { many };
        let no_text = |key: &str| format!("the event's {name} has what is no text at {}", shown(key));
        let mut pairs = Vec::new();
        for (key, value) in self.object(name)? {
            match value {
                Value::Null => {}
                Value::String(text) => pairs.push((key, text)),
                Value::Array(values) => {
                    for value in values {
                        match value {
                            Value::String(text) => pairs.push((key.clone(), text)),
                            _ => return Err(no_text(&key)),
                        }
                    }
                }
                _ => return Err(no_text(&key)),
            }
        }
        Ok(pairs)
    }

    fn query(&self, shape: Shape) -> Result<String, String> {
        if shape == Shape::Gateway2 {
            let raw = self.text("rawQueryString")?.unwrap_or_default();
            return Ok(escape(&raw, b"?"));
        }
        // API Gateway decodes parameters; the others send them as they came.
        let encode: fn(&str) -> String = match shape {
            Shape::LoadBalancer { .. } | Shape::Lattice => |text| escape(text, b"?").replace('&', "%26"),
            _ => encode,
        };
        let pairs = self.pairs("multiValueQueryStringParameters", "queryStringParameters")?;
        let pairs = pairs.iter().map(|(name, value)| format!("{}={}", encode(name), encode(value)));
        Ok(pairs.collect::<Vec<_>>().join("&"))
    }

    fn fields(&self, shape: Shape) -> Result<Fields, String> {
        let mut fields = Fields::NONE;
        let many = if shape == Shape::Gateway2 { "" } else { "multiValueHeaders" };
        for (name, value) in self.pairs(many, "headers")? {
            let value = value.trim().as_bytes();
            let Some(key) = checked(name.as_bytes(), value).map(str::to_ascii_lowercase) else {
                return Err(format!("the event has a header that HTTP forbids: {}", shown(&name)));
            };
            // That of the console's own tests is a pattern for one.
            let is_no_host = key == "host" && (fields.has("host") || !is_host(value));
            if !NOT_OURS.contains(&&*key) && !is_no_host {
                fields.append(&key, value);
            }
        }
        if shape == Shape::Gateway2
            && let Some(cookies) = self.cookies()?
        {
            fields.insert("cookie", cookies.as_bytes());
        }
        Ok(fields)
    }

    /// The cookies of payload 2.0, which are not among its headers.
    fn cookies(&self) -> Result<Option<String>, String> {
        let Some(raw) = self.0.get("cookies") else { return Ok(None) };
        let cookies: Result<Option<Vec<String>>, _> = serde_json::from_str(raw.get());
        let cookies = cookies.map_err(|err| format!("the event's cookies are no list of texts: {err}"))?;
        let cookies = cookies.unwrap_or_default().join("; ");
        if cookies.is_empty() {
            return Ok(None);
        }
        match checked(b"cookie", cookies.as_bytes()) {
            Some(_) => Ok(Some(cookies)),
            None => Err("the event has a cookie that HTTP forbids".to_owned()),
        }
    }

    fn body(&self) -> Result<Bytes, String> {
        let body = self.text("body")?.unwrap_or_default();
        if self.0.get("isBase64Encoded").is_none_or(|raw| raw.get() != "true") {
            return Ok(body.into());
        }
        STANDARD.decode(body).map(Bytes::from).map_err(|err| format!("the event's body is no base64: {err}"))
    }
}

/// The path without the stage of an HTTP API, so that a lambda sees the same paths wherever it runs. Under a domain of
/// the operator's own the stage is not in the path.
fn without_stage<'a>(path: &'a str, context: &Map<String, Value>) -> &'a str {
    let text = |name| context.get(name).and_then(Value::as_str);
    let is_default_domain = text("domainName").is_none_or(|domain| domain.contains(".execute-api."));
    let stage = text("stage").filter(|stage| is_default_domain && *stage != "$default" && !stage.is_empty());
    let rest = stage.and_then(|stage| path.strip_prefix('/')?.strip_prefix(stage));
    match rest {
        Some("") => "/",
        Some(rest) if rest.starts_with('/') => rest,
        _ => path,
    }
}

/// Somebody else's text as part of a sentence.
fn shown(text: &str) -> String {
    let short: String = text.chars().take(100).collect();
    format!("{short:?}")
}

#[cfg(test)]
mod tests;

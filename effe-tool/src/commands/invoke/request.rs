//! What `invoke` sends, made from its flags: where it goes, method, headers and body.
//!
//! [`super::client`] sends it.

use std::{
    fs,
    io::{self, Read},
    net::IpAddr,
    path::Path,
};

use anyhow::{Context, Result};
use bytes::Bytes;
use hyper::{
    Method, Request, Uri,
    header::{ACCEPT, CONTENT_LENGTH, CONTENT_TYPE, HOST, HeaderName, HeaderValue, USER_AGENT},
    http::uri::{Authority, PathAndQuery},
};
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};

use crate::{cli::InvokeArgs, shell::Shell, usage::Usage};

/// What a path or query can't hold as it is, beside bytes that are not ASCII.
const NOT_IN_PATHS: &AsciiSet =
    &CONTROLS.add(b' ').add(b'"').add(b'<').add(b'>').add(b'\\').add(b'^').add(b'`');

/// Where a request goes: the part of an `http://` URL before its path.
#[derive(Clone, Debug)]
pub(super) struct Server {
    /// The host and the port, as they are written.
    pub(super) authority: Authority,
    /// A name, or an address without brackets.
    pub(super) host: String,
    pub(super) port: u16,
}

impl Server {
    /// Takes a URL apart into the server and the rest, which is a path, a query, both or nothing.
    ///
    /// # Errors
    /// Wrong usage: it isn't plain HTTP, or host or port are none.
    pub(super) fn of(url: &str) -> Result<(Server, &str)> {
        let usage = |text: String| Usage(format!("{url}: {text}"));
        let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
        if !scheme.eq_ignore_ascii_case("http") {
            let text = "only http:// is supported; TLS is left to a proxy in front of the loader";
            return Err(usage(text.to_owned()).into());
        }
        let rest = rest.split('#').next().unwrap_or_default();
        let (authority, rest) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
        if authority.contains('@') {
            let text = "it has a user; send a user as a header: -H 'authorization: Basic …'";
            return Err(usage(text.to_owned()).into());
        }
        let (host, port) = split_port(authority);
        let port = match port {
            None => 80,
            Some(text) => match text.parse() {
                // `parse` takes a sign, too.
                Ok(port @ 1..) if is_digits(text) => port,
                _ => {
                    return Err(usage(format!("{text:?} is no port; write a number from 1 to 65535")).into());
                }
            },
        };
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let authority = Authority::try_from(authority)
            .ok()
            .filter(|_| !host.is_empty())
            .ok_or_else(|| usage(format!("{authority:?} is no host; write http://HOST:PORT/PATH")))?;
        Ok((Server { authority, host, port }, rest))
    }

    /// Names the server in the request's `Host`, unless a flag did.
    ///
    /// # Errors
    /// The name is no value of a header.
    pub(super) fn address(&self, request: &mut Request<Bytes>) -> Result<()> {
        let host = HeaderValue::from_str(self.authority.as_str()).context("the host is no header")?;
        request.headers_mut().entry(HOST).or_insert(host);
        Ok(())
    }
}

/// Host and port of an authority; the host of an IPv6 address has its brackets.
fn split_port(authority: &str) -> (&str, Option<&str>) {
    // The colons in brackets are those of an address.
    let begin = authority.rfind(']').unwrap_or(0);
    match authority[begin..].find(':') {
        Some(at) => (&authority[..begin + at], Some(&authority[begin + at + 1..])),
        None => (authority, None),
    }
}

fn is_digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// The URL that was meant, if what should be a file looks like a server: `localhost:8080/path`, `:8080`, `[::1]`.
pub(super) fn meant_url(callee: &str) -> Option<String> {
    if Path::new(callee).exists() {
        return None;
    }
    let (authority, rest) = callee.split_at(callee.find(['/', '?']).unwrap_or(callee.len()));
    let (host, port) = split_port(authority);
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let is_address = bare == "localhost" || bare.parse::<IpAddr>().is_ok();
    let has_port = port.is_some_and(is_digits);
    let host = if host.is_empty() { "127.0.0.1" } else { host };
    let port = port.map(|port| format!(":{port}")).unwrap_or_default();
    (is_address || has_port).then(|| format!("http://{host}{port}{rest}"))
}

/// Makes the request that the flags describe; it has no `Host` unless a flag gives it. `rest` is what follows the
/// server in a URL.
///
/// # Errors
/// Wrong usage, or the body can't be read.
pub(super) fn make(args: &InvokeArgs, rest: &str, shell: &mut Shell) -> Result<Request<Bytes>> {
    let body = body(args, shell)?;
    let has_body = args.data.is_some() || args.json.is_some() || !args.form.is_empty();
    let mut request = Request::new(body);
    *request.method_mut() = method(args.method.as_deref(), has_body, shell)?;
    *request.uri_mut() = target(rest, args.path.as_deref())?;
    let headers = request.headers_mut();
    for header in &args.headers {
        let (name, value) = self::header(header)?;
        headers.append(name, value);
    }
    let mut default = |name, value| {
        headers.entry(name).or_insert(HeaderValue::from_static(value));
    };
    default(USER_AGENT, concat!("effe-tool/", env!("CARGO_PKG_VERSION")));
    if args.json.is_some() {
        default(CONTENT_TYPE, "application/json");
        default(ACCEPT, "application/json");
    }
    if !args.form.is_empty() {
        default(CONTENT_TYPE, "application/x-www-form-urlencoded");
    }
    default(ACCEPT, "*/*");
    let len = request.body().len();
    if let Some(given) = request.headers().get(CONTENT_LENGTH)
        && given.as_bytes() != len.to_string().as_bytes()
    {
        let text =
            format!("--header content-length: {given:?} is not the length of the body, {len}; leave it out");
        return Err(Usage(text).into());
    }
    if len > 0 && !request.headers().contains_key(CONTENT_TYPE) {
        shell.note("the body has no content type; --json, --form or -H 'content-type: …' gives it one");
    }
    Ok(request)
}

fn method(given: Option<&str>, has_body: bool, shell: &mut Shell) -> Result<Method> {
    let Some(given) = given else { return Ok(if has_body { Method::POST } else { Method::GET }) };
    let method = Method::from_bytes(given.as_bytes());
    let method =
        method.map_err(|_| Usage(format!("--method {given:?}: write one word, such as GET or PATCH")))?;
    let upper = given.to_ascii_uppercase();
    if upper != given && is_standard(&upper) {
        shell.note(format_args!("{given} is another method than {upper}: case matters"));
    }
    Ok(method)
}

/// Whether HTTP itself defines the method.
fn is_standard(method: &str) -> bool {
    ["CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "TRACE"].contains(&method)
}

fn header(text: &str) -> Result<(HeaderName, HeaderValue)> {
    let usage = |why: &str| Usage(format!("--header {text:?}: {why}"));
    let (name, value) = text.split_once(':').ok_or_else(|| usage("write it as 'name: value'"))?;
    let name = name.trim();
    let value = HeaderValue::from_bytes(value.trim().as_bytes())
        .map_err(|_| usage("its value has a control character, which no header may have"))?;
    let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| {
        usage(&format!("{name:?} is no name of a header; it has letters, digits and hyphens"))
    })?;
    Ok((name, value))
}

/// The path and query: those of the URL, with those of `--path` behind them.
pub(super) fn target(of_url: &str, path: Option<&str>) -> Result<Uri> {
    let text = match path {
        None => of_url.to_owned(),
        Some(path) if of_url.contains('?') => {
            let text = format!("--path {path:?}: the URL has a query already; write all of it in the URL");
            return Err(Usage(text).into());
        }
        Some(path) if path.starts_with('?') => format!("{of_url}{path}"),
        Some(path) => format!("{}/{}", of_url.trim_end_matches('/'), path.strip_prefix('/').unwrap_or(path)),
    };
    let text = if text.starts_with('/') { text } else { format!("/{text}") };
    let encoded = utf8_percent_encode(&text, NOT_IN_PATHS).to_string();
    if encoded != text {
        return Err(Usage(format!("{text:?} is no path: write {encoded}")).into());
    }
    let target = PathAndQuery::try_from(text.as_str());
    Ok(target.map_err(|err| Usage(format!("{text:?} is no path: {err}")))?.into())
}

fn body(args: &InvokeArgs, shell: &mut Shell) -> Result<Bytes> {
    if let Some(json) = &args.json {
        let json = read(json)?;
        if let Err(err) = serde_json::from_slice::<serde::de::IgnoredAny>(&json) {
            shell.warning(format_args!("the body of --json is no JSON: {err}"));
        }
        return Ok(json.into());
    }
    if args.form.is_empty() {
        return Ok(args.data.as_deref().map(read).transpose()?.unwrap_or_default().into());
    }
    let mut form = form_urlencoded::Serializer::new(String::new());
    for field in &args.form {
        let Some((key, value)) = field.split_once('=') else {
            return Err(Usage(format!("--form {field:?}: write it as KEY=VALUE")).into());
        };
        match value.strip_prefix('@') {
            Some(path) => {
                let text = fs::read_to_string(path).with_context(|| format!("cannot read {path} as text"))?;
                form.append_pair(key, &text);
            }
            None => _ = form.append_pair(key, value),
        }
    }
    Ok(form.finish().into())
}

/// The bytes that a flag names: its own, those of a file, or those of standard input.
fn read(data: &str) -> Result<Vec<u8>> {
    if data == "-" {
        let mut body = Vec::new();
        io::stdin().read_to_end(&mut body).context("cannot read standard input")?;
        return Ok(body);
    }
    match data.strip_prefix('@') {
        Some(path) => fs::read(path).with_context(|| format!("cannot read {path}")),
        None => Ok(data.as_bytes().to_vec()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_has_a_host_and_a_port_or_is_refused() {
        for (url, host, port, rest) in [
            ("http://localhost", "localhost", 80, ""),
            ("HTTP://127.0.0.1:8080/a?b#c", "127.0.0.1", 8080, "/a?b"),
            ("http://[::1]:65535?x", "::1", 65535, "?x"),
            ("http://[::1]", "::1", 80, ""),
        ] {
            let (server, after) = Server::of(url).unwrap();
            assert_eq!((server.host.as_str(), server.port, after), (host, port, rest), "{url}");
        }
        for (url, why) in [
            ("http://127.0.0.1:65536/", "\"65536\" is no port"),
            ("http://127.0.0.1:0/", "\"0\" is no port"),
            ("http://localhost:/", "\"\" is no port"),
            ("http://localhost:http/", "\"http\" is no port"),
            ("http://localhost:+80/", "no port"),
            ("http://[::1]:99999", "\"99999\" is no port"),
            ("http://:8080/", "is no host"),
            ("http:///a", "is no host"),
            ("http://a b/", "is no host"),
            ("http://me:secret@localhost/", "as a header"),
            ("https://localhost", "only http://"),
            ("ftp://localhost", "only http://"),
        ] {
            let err = Server::of(url).unwrap_err();
            assert!(err.is::<Usage>() && err.to_string().contains(why), "{url}: {err}");
        }
    }

    #[test]
    fn what_looks_like_a_server_is_told_from_a_file() {
        for (callee, url) in [
            ("127.0.0.1:8080", "http://127.0.0.1:8080"),
            ("localhost:8080/a/b", "http://localhost:8080/a/b"),
            ("localhost", "http://localhost"),
            (":8080", "http://127.0.0.1:8080"),
            ("[::1]:80?x", "http://[::1]:80?x"),
            ("host.example:99999", "http://host.example:99999"),
        ] {
            assert_eq!(meant_url(callee).as_deref(), Some(url), "{callee}");
        }
        for file in ["hello", "x.so", "a/b:8080", "c:d", "src", "a.b.c/d.rs"] {
            assert_eq!(meant_url(file), None, "{file}");
        }
    }

    #[test]
    fn paths_are_joined_and_those_that_are_none_are_shown_as_they_should_be() {
        for (of_url, path, target) in [
            ("", None, "/"),
            ("/a/", None, "/a/"),
            ("?x", None, "/?x"),
            ("/a/", Some("b?c=%20"), "/a/b?c=%20"),
            ("/a", Some("/b"), "/a/b"),
            ("/a", Some("?b"), "/a?b"),
            ("", Some("../x//y"), "/../x//y"),
        ] {
            assert_eq!(super::target(of_url, path).unwrap().to_string(), target, "{of_url} {path:?}");
        }
        for (of_url, path, why) in [
            ("", "/a b", "write /a%20b"),
            ("", "/ä?ö", "write /%C3%A4?%C3%B6"),
            ("/a?b", "/c", "has a query already"),
        ] {
            let err = super::target(of_url, Some(path)).unwrap_err();
            assert!(err.is::<Usage>() && err.to_string().contains(why), "{path}: {err}");
        }
    }
}

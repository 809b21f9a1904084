//! Decides which requests the admin listener answers:
//!
//! - `Host`, and the authority of an absolute target, must name the listener itself, or `localhost`: else a page whose
//!   name resolves to this machine could read it (DNS rebinding). Behind a Unix socket there is no browser, and any
//!   name will do.
//! - An `Origin` other than the listener's own is refused: no page of another site sends orders.
//! - A request that changes something needs the token, or comes over the Unix socket, which only the loader's user can
//!   connect to. On an address that other machines can reach, every request needs the token.

use std::{fmt, net::IpAddr};

use http::Method;

use crate::{
    message::fields::Fields,
    net::{private_listener::Address, token::Token},
};

/// Why a request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    Host,
    Origin,
    /// A token is needed, and the operator has given none.
    NoToken,
    Token,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Refused::Host => "the Host header names neither this listener's address nor localhost",
            Refused::Origin => "requests from pages of another origin are refused",
            Refused::NoToken => {
                "changing something needs a token: start the loader with --admin-token-file FILE, or with \
                 --admin unix:PATH"
            }
            Refused::Token => "the token is missing or wrong: send Authorization: Bearer TOKEN",
        })
    }
}

pub struct AccessRules {
    place: Place,
    token: Option<Token>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Loopback(IpAddr),
    Network,
    Unix,
}

impl AccessRules {
    pub fn new(address: &Address, token: Option<Token>) -> AccessRules {
        let place = match address {
            Address::Unix(_) => Place::Unix,
            Address::Tcp(address) if address.ip().is_loopback() => Place::Loopback(address.ip()),
            Address::Tcp(_) => Place::Network,
        };
        AccessRules { place, token }
    }

    /// Whether a request may be answered; `target` is the authority of an absolute target, `local` our own address that
    /// its client has connected to.
    pub fn admit(
        &self,
        method: &Method,
        target: Option<&str>,
        fields: &Fields,
        local: Option<IpAddr>,
    ) -> Result<(), Refused> {
        let host = only(fields, "host");
        let own = match self.place {
            Place::Unix => None,
            Place::Loopback(address) => Some(address),
            Place::Network => local,
        };
        let is_ours = |host| is_ours(host, own);
        if self.place != Place::Unix && !(host.is_some_and(is_ours) && target.is_none_or(is_ours)) {
            return Err(Refused::Host);
        }
        if fields.has("origin") {
            let origin = only(fields, "origin").and_then(|origin| origin.strip_prefix("http://"));
            if !origin.zip(host).is_some_and(|(origin, host)| origin.eq_ignore_ascii_case(host)) {
                return Err(Refused::Origin);
            }
        }
        let reads = matches!(*method, Method::GET | Method::HEAD);
        let is_free = match self.place {
            Place::Unix => true,
            Place::Loopback(_) => reads,
            Place::Network => false,
        };
        if is_free {
            return Ok(());
        }
        let token = self.token.as_ref().ok_or(Refused::NoToken)?;
        let shown = only(fields, "authorization").and_then(|value| {
            let (scheme, token) = value.split_once(' ')?;
            scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
        });
        if shown.is_some_and(|shown| token.is(shown.as_bytes())) { Ok(()) } else { Err(Refused::Token) }
    }
}

/// The value of a header that must not be there twice.
fn only<'a>(fields: &'a Fields, name: &'a str) -> Option<&'a str> {
    fields.only(name).and_then(|value| std::str::from_utf8(value).ok())
}

/// Whether a `Host` is `localhost` or the address itself, on any port: a forwarded port keeps the name.
fn is_ours(host: &str, own: Option<IpAddr>) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => host,
    };
    let address = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
    name.eq_ignore_ascii_case("localhost")
        || address.parse::<IpAddr>().is_ok_and(|address| Some(address.to_canonical()) == own)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> Fields {
        pairs.iter().map(|(name, value)| (*name, value.as_bytes())).collect()
    }

    fn rules(address: &str, token: Option<&Token>) -> AccessRules {
        AccessRules::new(&address.parse().unwrap(), token.cloned())
    }

    fn token(name: &str) -> Token {
        let path = std::env::temp_dir().join(format!("effe-token-{}-{name}", std::process::id()));
        fs::write(&path, "s3cret\n").unwrap();
        Token::in_file(&path).unwrap()
    }

    #[test]
    fn the_host_must_be_the_listeners_own() {
        let rules = rules("127.0.0.1:9090", None);
        let admit = |host: &'static str| rules.admit(&Method::GET, None, &headers(&[("host", host)]), None);
        for good in ["127.0.0.1:9090", "127.0.0.1", "localhost:9090", "LOCALHOST", "localhost:18080"] {
            assert_eq!(admit(good), Ok(()), "{good}");
        }
        for bad in
            ["evil.example", "evil.example:9090", "127.0.0.2", "[::1]:9090", "localhost.evil", "", ":80"]
        {
            assert_eq!(admit(bad), Err(Refused::Host), "{bad}");
        }
        assert_eq!(rules.admit(&Method::GET, None, &headers(&[]), None), Err(Refused::Host));
        let at = |target| rules.admit(&Method::GET, Some(target), &headers(&[("host", "localhost")]), None);
        assert_eq!(at("127.0.0.1:9090"), Ok(()));
        assert_eq!(at("evil.example"), Err(Refused::Host), "an absolute target names another host");
        let twice = headers(&[("host", "localhost"), ("host", "evil.example")]);
        assert_eq!(rules.admit(&Method::GET, None, &twice, None), Err(Refused::Host));
    }

    #[test]
    fn a_host_that_is_ours_is_nobody_elses_to_a_client() {
        let own = IpAddr::from([127, 0, 0, 1]);
        bolero::check!().with_type::<(Vec<u8>, u8, u8)>().for_each(|(noise, at, kind)| {
            // Any text, and our own names with something in between.
            let noise = String::from_utf8_lossy(noise);
            let name = ["", "localhost", "127.0.0.1", "[::ffff:127.0.0.1]"][usize::from(*kind) % 4];
            let at = usize::from(*at) % (name.len() + 1);
            let host = format!("{}{noise}{}", &name[..at], &name[at..]);
            if is_ours(&host, Some(own)) {
                let uri: http::Uri = format!("http://{host}/").parse().expect("it stands in a URI");
                let name = uri.host().unwrap_or_default().trim_matches(['[', ']']);
                let address = name.parse::<IpAddr>().map(|address| address.to_canonical());
                assert!(name.eq_ignore_ascii_case("localhost") || address == Ok(own), "{host:?}");
            }
        });
    }

    #[test]
    fn an_origin_must_be_the_listeners_own() {
        let rules = rules("[::1]:9090", None);
        let admit = |origin| {
            rules.admit(&Method::GET, None, &headers(&[("host", "[::1]:9090"), ("origin", origin)]), None)
        };
        assert_eq!(admit("http://[::1]:9090"), Ok(()));
        for bad in ["http://evil.example", "https://[::1]:9090", "http://[::1]:3000", "null", ""] {
            assert_eq!(admit(bad), Err(Refused::Origin), "{bad}");
        }
    }

    #[test]
    fn on_loopback_a_change_needs_the_token() {
        let token = token("change");
        let with = rules("127.0.0.1:9090", Some(&token));
        let without = rules("127.0.0.1:9090", None);
        let shown = |value| headers(&[("host", "localhost"), ("authorization", value)]);
        assert_eq!(with.admit(&Method::POST, None, &shown("Bearer s3cret"), None), Ok(()));
        assert_eq!(with.admit(&Method::POST, None, &shown("bearer s3cret"), None), Ok(()));
        for bad in ["Bearer s3cre", "Bearer s3cret2", "Bearer ", "Basic s3cret", "s3cret"] {
            assert_eq!(with.admit(&Method::POST, None, &shown(bad), None), Err(Refused::Token), "{bad}");
        }
        let bare = headers(&[("host", "localhost")]);
        assert_eq!(with.admit(&Method::POST, None, &bare, None), Err(Refused::Token));
        assert_eq!(without.admit(&Method::POST, None, &shown("Bearer s3cret"), None), Err(Refused::NoToken));
        assert_eq!(with.admit(&Method::GET, None, &bare, None), Ok(()));
        // Every method that isn't known to change nothing counts as one that does.
        assert_eq!(without.admit(&Method::DELETE, None, &bare, None), Err(Refused::NoToken));
        fs::remove_file(&token.path).unwrap();
    }

    #[test]
    fn on_the_network_everything_needs_the_token() {
        let token = token("network");
        let rules = rules("0.0.0.0:9090", Some(&token));
        let local = Some(IpAddr::from([10, 0, 0, 5]));
        let bare = headers(&[("host", "10.0.0.5:9090")]);
        assert_eq!(rules.admit(&Method::GET, None, &bare, local), Err(Refused::Token));
        let shown = headers(&[("host", "10.0.0.5:9090"), ("authorization", "Bearer s3cret")]);
        assert_eq!(rules.admit(&Method::GET, None, &shown, local), Ok(()));
        let elsewhere = headers(&[("host", "10.0.0.6:9090"), ("authorization", "Bearer s3cret")]);
        assert_eq!(rules.admit(&Method::GET, None, &elsewhere, local), Err(Refused::Host));
        fs::remove_file(&token.path).unwrap();
    }

    #[test]
    fn behind_a_unix_socket_its_mode_is_the_lock() {
        let rules = rules("unix:/run/effe.sock", None);
        assert_eq!(rules.admit(&Method::POST, None, &headers(&[("host", "effe")]), None), Ok(()));
        let page = headers(&[("host", "effe"), ("origin", "http://evil.example")]);
        assert_eq!(rules.admit(&Method::POST, None, &page, None), Err(Refused::Origin));
    }
}

//! Where the Runtime API is, as the environment says it.

use std::fmt;

/// `HOST:PORT`, as Lambda has it; or with a path before the API's own, and `http://`, as emulators of Lambda have it
/// that serve several functions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// `HOST:PORT`
    pub authority: String,
    /// What comes before the API's own paths: nothing, or `/PATH`.
    pub base: String,
}

impl Endpoint {
    /// `None` if it is no place for plain HTTP.
    pub fn parse(text: &str) -> Option<Endpoint> {
        let text = text.strip_prefix("http://").unwrap_or(text);
        let (authority, base) = text.find('/').map_or((text, ""), |at| text.split_at(at));
        let is_authority =
            authority.parse().is_ok_and(|parsed: http::uri::Authority| parsed.port().is_some());
        let is_path =
            |path: &str| path.parse().is_ok_and(|path: http::uri::PathAndQuery| path.query().is_none());
        let is_base = base.is_empty() || is_path(base);
        (is_authority && is_base).then(|| Endpoint {
            authority: authority.to_owned(),
            base: base.trim_end_matches('/').to_owned(),
        })
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.authority, self.base)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_may_have_a_path() {
        for (text, authority, base) in [
            ("127.0.0.1:9001", "127.0.0.1:9001", ""),
            ("127.0.0.1:9001/", "127.0.0.1:9001", ""),
            ("http://[::1]:9000/.rt", "[::1]:9000", "/.rt"),
            ("localhost:9000/.rt/f/", "localhost:9000", "/.rt/f"),
        ] {
            let endpoint = Endpoint::parse(text).unwrap();
            assert_eq!((endpoint.authority.as_str(), endpoint.base.as_str()), (authority, base), "{text}");
        }
        for bad in ["", "127.0.0.1", "https://a:1", "a:1/b c", "a:1/b?c", "a b:1", "http://", ":1/\n"] {
            assert_eq!(Endpoint::parse(bad), None, "{bad:?}");
        }
    }
}

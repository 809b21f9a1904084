//! The cookies of a request, and those that an answer sets.
//!
//! This file owns how a request's cookies are read, and which cookies are safe to send. The `cookie` crate writes them.

use cookie::Cookie;

use crate::{request::Request, response::Response};

impl Request {
    /// The value of the first cookie of that name; `None` also if it isn't UTF-8. Case matters in the name. Needs the
    /// feature `cookies`.
    ///
    /// The value is as it came, without the quotes around it if there are any. A client can send any cookie: sign those
    /// that it must not change.
    pub fn cookie(&self, name: &str) -> Option<&str> {
        self.cookies().find_map(|(other, value)| (other == name).then_some(value))
    }

    /// All cookies, name and value, in the order that they came in, from all `Cookie` headers. Those that have no `=`,
    /// no name, or aren't UTF-8 are left out. Needs the feature `cookies`.
    pub fn cookies(&self) -> impl Iterator<Item = (&str, &str)> {
        self.header_values("cookie").flat_map(|header| header.split(|&byte| byte == b';')).filter_map(pair)
    }
}

/// Reads one `name=value`, as RFC 6265, section 5.4, has a client write it.
fn pair(bytes: &[u8]) -> Option<(&str, &str)> {
    let (name, value) = std::str::from_utf8(bytes).ok()?.split_once('=')?;
    let (name, value) = (name.trim_matches([' ', '\t']), value.trim_matches([' ', '\t']));
    let value = value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).unwrap_or(value);
    (!name.is_empty()).then_some((name, value))
}

impl Response<'_> {
    /// Sets a cookie; cookies that were set before stay. Needs the feature `cookies`.
    ///
    /// ```
    /// use effe_abi::{Request, Response, Result, cookie::{Cookie, SameSite}};
    ///
    /// fn count(request: &Request, response: &mut Response) -> Result {
    ///     let visits = request.cookie("visits").and_then(|value| value.parse().ok()).unwrap_or(0u64) + 1;
    ///     let cookie = Cookie::build(("visits", visits.to_string())).path("/").http_only(true);
    ///     response.set_cookie(cookie.same_site(SameSite::Lax)).text(format!("visit {visits}\n"));
    ///     Ok(())
    /// }
    ///
    /// fn forget(response: &mut Response) {
    ///     response.set_cookie(Cookie::build("visits").path("/").removal());
    /// }
    /// # use effe_abi::{Lambda, Params, StartError, Started, export, testing::{Call, Effe}};
    /// # struct Counter;
    /// # impl Lambda for Counter {
    /// #     fn start(_: Params) -> Result<Self, StartError<Self>> { Ok(Counter) }
    /// #     fn run(counter: Started<Self>, request: &Request, response: &mut Response) -> Result {
    /// #         counter?;
    /// #         if request.path() == "/forget" { return Ok(forget(response)) }
    /// #         count(request, response)
    /// #     }
    /// # }
    /// # export!(Counter);
    /// # fn main() {
    /// # let effe = Effe::of(&LAMBDA);
    /// # let answer = effe.call(Call::get("/").header("cookie", "a=b; visits=41"));
    /// # assert_eq!(answer.header("set-cookie"), Some("visits=42; HttpOnly; SameSite=Lax; Path=/"));
    /// # assert!(effe.get("/forget").header("set-cookie").unwrap().starts_with("visits=; Path=/; Max-Age=0; "));
    /// # }
    /// ```
    ///
    /// A cookie that would not come back as it was set makes the run fail, as a bad header does. Its name must be a
    /// token. Its value must have no `;`, no control character, nothing beyond ASCII, and no white space at either end:
    /// encode a value that may have such.
    #[track_caller]
    pub fn set_cookie<'c>(&mut self, cookie: impl Into<Cookie<'c>>) -> &mut Self {
        let cookie = cookie.into();
        if is_fit(&cookie) {
            self.add_header("set-cookie", cookie.to_string())
        } else {
            self.refuse_cookie(cookie.name())
        }
    }
}

/// Whether the client will read exactly this cookie, and send it back unchanged.
fn is_fit(cookie: &Cookie<'_>) -> bool {
    let is_clean = |text: &str| text.bytes().all(|byte| matches!(byte, b' '..=b'~') && byte != b';');
    crate::headers::is_token(cookie.name())
        && is_clean(cookie.value())
        && cookie.value().trim() == cookie.value()
        && cookie.path().is_none_or(is_clean)
        && cookie.domain().is_none_or(is_clean)
}

//! The opening handshake (RFC 6455, section 4.2).

use crate::{
    error::{Error, Level, Result},
    request::Request,
    response::Response,
    upgraded::Upgraded,
};

/// Checks a request, and answers it with 101; or makes the response what the client is to be told.
#[track_caller]
pub(super) fn accept(request: &Request, response: &mut Response<'_>) -> Result<Upgraded> {
    let offers = |protocols: &str| {
        protocols.split(',').any(|protocol| protocol.trim().eq_ignore_ascii_case("websocket"))
    };
    if !response.offered_protocols().is_some_and(offers) {
        if response.may_upgrade() {
            response.status(426).header("upgrade", "websocket").header("sec-websocket-version", "13");
            response.text("this is for WebSocket\n");
            return Err(no_handshake("the request offers no WebSocket"));
        }
        // Says what is missing.
        return Ok(response.upgrade("websocket")?);
    }
    if request.header("sec-websocket-version").map(str::trim) != Some("13") {
        response.status(426).header("upgrade", "websocket").header("sec-websocket-version", "13");
        response.text("version 13 of WebSocket is spoken here\n");
        return Err(no_handshake("the request is for another version of WebSocket"));
    }
    let mut keys = request.header_values("sec-websocket-key");
    let key = match (keys.next(), keys.next()) {
        (Some(key), None) if request.method() == "GET" && is_key(key) => key,
        _ => {
            response.status(400).header("sec-websocket-version", "13");
            response.text("this is no WebSocket handshake\n");
            return Err(no_handshake("the request is no WebSocket handshake"));
        }
    };
    let accept = tungstenite::handshake::derive_accept_key(key);
    response.header("sec-websocket-accept", accept);
    Ok(response.upgrade("websocket")?)
}

/// Whether these are 16 bytes in base64.
fn is_key(key: &[u8]) -> bool {
    matches!(key, [text @ .., b'=', b'='] if text.len() == 22
        && text.iter().all(|byte| byte.is_ascii_alphanumeric() || b"+/".contains(byte)))
}

/// The error of a request that is no handshake: its answer is said already, so it is no fault of the lambda's.
#[track_caller]
fn no_handshake(why: &'static str) -> Error {
    Error::new(why).at_level(Level::Debug)
}

#[cfg(test)]
mod tests {
    use super::is_key;

    #[test]
    fn a_key_is_sixteen_bytes_in_base64() {
        assert!(is_key(b"dGhlIHNhbXBsZSBub25jZQ=="));
        for bad in [
            "",
            "dGhlIHNhbXBsZSBub25jZQ=",
            "dGhlIHNhbXBsZSBub25jZQ",
            "dGhlIHNhbXBsZSBub25j!Q==",
            "==========",
        ] {
            assert!(!is_key(bad.as_bytes()), "{bad}");
        }
    }
}

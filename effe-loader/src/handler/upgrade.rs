//! Which requests offer to switch their connection to another protocol, and to which (RFC 9110, section 7.8). One of
//! HTTP/2 (RFC 8441) comes in the form of HTTP/1.1.

use std::sync::Arc;

use http::Version;

use crate::{
    body::duplex::Offer,
    effe::generation::Generation,
    message::{
        fields::{Fields, is_tchar},
        request::RequestHead,
    },
};

/// Whether a request may offer something. What of it is a protocol is left to `offer`.
pub fn is_offered(head: &RequestHead) -> bool {
    // In HTTP/1.0 it is to be ignored, and a `Connection: close` means that nothing follows. Over HTTP/2 no client can
    // send these headers: only what the protocol has made of an extended CONNECT has them.
    matches!(head.version, Version::HTTP_11 | Version::HTTP_2)
        && head.connection.upgrade
        && !head.connection.close
        && head.fields.has("upgrade")
}

/// What a request offers.
pub fn offer(head: &RequestHead, generation: &Arc<Generation>) -> Option<Box<Offer>> {
    let protocols = if is_offered(head) { protocols(&head.fields)? } else { return None };
    Some(Box::new(Offer { protocols, holder: Arc::<Generation>::clone(generation) }))
}

/// All protocols that are offered, from however many headers, without those that are HTTP itself: these are the
/// loader's business, and it doesn't speak them so. `None` if there are none, or one is malformed.
fn protocols(fields: &Fields) -> Option<String> {
    let mut protocols = Vec::new();
    for value in fields.get_all("upgrade") {
        for protocol in
            std::str::from_utf8(value).ok()?.split(',').map(str::trim).filter(|one| !one.is_empty())
        {
            let (name, version) = protocol.split_once('/').unwrap_or((protocol, "1"));
            if !is_token(name) || !is_token(version) {
                return None;
            }
            if !["h2c", "h2", "http", "tls"].iter().any(|own| name.eq_ignore_ascii_case(own)) {
                protocols.push(protocol);
            }
        }
    }
    (!protocols.is_empty()).then(|| protocols.join(", "))
}

fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(is_tchar)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn protocols_are_a_list_without_http_itself() {
        for (values, expected) in [
            (&["websocket"][..], Some("websocket")),
            (&["WebSocket , foo/2"], Some("WebSocket, foo/2")),
            (&["foo", "bar"], Some("foo, bar")),
            (&["h2c"], None),
            (&["H2C, websocket, HTTP/2.0, TLS/1.0"], Some("websocket")),
            (&[""], None),
            (&[","], None),
            (&["a b"], None),
            (&["a/"], None),
            (&["a/b/c"], None),
            (&["websocket\u{e9}"], None),
        ] {
            let fields: Fields = values.iter().map(|value| ("upgrade", value.as_bytes())).collect();
            assert_eq!(protocols(&fields).as_deref(), expected, "{values:?}");
        }
    }
}

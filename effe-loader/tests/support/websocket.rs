//! WebSockets as bytes: frames as a client sends them, and those that come back.

use std::{
    io::{Read, Write},
    net::TcpStream,
};

use super::{LONG, Server};

/// An opcode.
pub const TEXT: u8 = 1;
/// An opcode.
pub const BINARY: u8 = 2;
/// An opcode.
pub const CLOSE: u8 = 8;
/// An opcode.
pub const PING: u8 = 9;
/// An opcode.
pub const PONG: u8 = 10;
/// The bit that says that a frame is its message's last.
pub const FIN: u8 = 0x80;

/// The key of the example of RFC 6455.
pub const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

/// The client's end of a WebSocket, over whatever carries it.
pub struct Socket<S = TcpStream>(pub S);

/// The request that asks for one.
pub fn handshake(path: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nHost: h\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n\r\n"
    )
}

/// A frame as a client sends it. `first` is the opcode, with [`FIN`] or without.
pub fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![first];
    match payload.len() {
        n @ 0..126 => frame.push(0x80 | n as u8),
        n @ 126..65536 => {
            frame.push(0x80 | 126);
            frame.extend((n as u16).to_be_bytes());
        }
        n => {
            frame.push(0x80 | 127);
            frame.extend((n as u64).to_be_bytes());
        }
    }
    let mask = [1, 2, 3, 250];
    frame.extend(mask);
    frame.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    frame
}

impl Socket {
    /// Over a connection of its own.
    #[track_caller]
    pub fn open(server: &Server, path: &str) -> Socket {
        let socket = TcpStream::connect(server.address).unwrap();
        socket.set_read_timeout(Some(LONG)).unwrap();
        socket.set_nodelay(true).unwrap();
        Socket::over(socket, path)
    }
}

impl<S: Read + Write> Socket<S> {
    /// Over a connection of HTTP/1.1, by a handshake that must be taken.
    #[track_caller]
    pub fn over(mut stream: S, path: &str) -> Socket<S> {
        stream.write_all(handshake(path).as_bytes()).unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).expect("a head comes");
            head.push(byte[0]);
        }
        let head = String::from_utf8(head).unwrap();
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        // The example of RFC 6455, section 1.3.
        assert!(head.contains("sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"), "{head}");
        Socket(stream)
    }

    /// Sends a frame; `first` is the opcode, with [`FIN`] or without.
    #[track_caller]
    pub fn sends(&mut self, first: u8, payload: &[u8]) -> &mut Socket<S> {
        self.0.write_all(&frame(first, payload)).unwrap();
        self
    }

    /// The next frame: its first byte and its payload; `None` at the end.
    pub fn next(&mut self) -> Option<(u8, Vec<u8>)> {
        let mut head = [0; 2];
        self.0.read_exact(&mut head).ok()?;
        assert_eq!(head[1] & 0x80, 0, "a server masks nothing");
        let len = match head[1] {
            126 => {
                let mut len = [0; 2];
                self.0.read_exact(&mut len).ok()?;
                usize::from(u16::from_be_bytes(len))
            }
            127 => {
                let mut len = [0; 8];
                self.0.read_exact(&mut len).ok()?;
                u64::from_be_bytes(len) as usize
            }
            len => usize::from(len),
        };
        let mut payload = vec![0; len];
        self.0.read_exact(&mut payload).ok()?;
        Some((head[0], payload))
    }

    /// The next frame, which is a whole message.
    #[track_caller]
    pub fn hears(&mut self, opcode: u8, payload: &[u8]) -> &mut Socket<S> {
        let (first, found) = self.next().expect("a frame comes");
        let same = first == FIN | opcode && found == payload;
        assert!(same, "{first:#x} {:.200}", found.escape_ascii().to_string());
        self
    }

    /// Waits for a close frame and the end behind it; the code, 1005 for none, 1006 if no frame comes.
    pub fn closes(&mut self) -> u16 {
        let mut code = 1006;
        while let Some((first, payload)) = self.next() {
            if first == FIN | CLOSE {
                code = payload.first_chunk().map_or(1005, |code| u16::from_be_bytes(*code));
                // A client that agrees.
                let _ = self.0.write_all(&frame(FIN | CLOSE, &payload));
            }
        }
        code
    }
}

//! The link between a supervisor and one of its processes: a Unix socket, the process's stdin. It begins with
//! descriptors and an [`Assignment`], then carries orders one way and reports the other, each a line of JSON.
//!
//! The supervisor takes what comes from a process for hostile: the lambda may have written it.

use std::{
    ffi::{OsStr, OsString},
    io::{self, IoSlice, IoSliceMut, Read, Write},
    mem::MaybeUninit,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::net::UnixStream,
    },
    sync::{Arc, Mutex, PoisonError},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    net::{
        RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
        SendFlags, recvmsg, sendmsg,
    },
};
use serde_json::{Value, json};

use crate::{journal::Severity, plugin::parameters::Parameters};

/// The first argument of a process that a supervisor has started. It is no part of the command line.
pub const ARGUMENT: &str = "--supervised";
/// Of all that a supervisor and its processes say to each other, what they share, and what a supervisor hands to the
/// program that takes its place. To be raised with every change to it: an upgrade between two versions is refused.
pub const VERSION: u64 = 1;
/// Bytes of a line that the supervisor reads from a process.
pub const MAX_LINE: usize = 4 << 20;
/// How long a supervisor may not read.
const PATIENCE: Timespec = Timespec { tv_sec: 1, tv_nsec: 0 };
/// Descriptors that one message may carry; the system takes 253.
const MAX_DESCRIPTORS: usize = 250;

/// What a process is to serve.
#[derive(Debug)]
pub struct Assignment {
    /// Which of the effe's processes it is, counted from 0, and how many there are.
    pub place: usize,
    pub n_places: usize,
    /// The number of the generation.
    pub generation: u64,
    pub parameters: Parameters,
    /// Of the log.
    pub level: Severity,
    /// Bytes that the plugin's image takes.
    pub image: u64,
    /// The sockets to accept connections from.
    pub listeners: Vec<OwnedFd>,
    /// The sealed copy of the plugin; `None` in a program that holds its lambda.
    pub plugin: Option<OwnedFd>,
    /// The memory of the scoreboard, and the process's end of the escrow.
    pub rescue: Option<(OwnedFd, OwnedFd)>,
}

/// What the supervisor tells a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Order {
    /// Accept connections.
    Serve,
    /// A stop will come: connections are still accepted, and told to close.
    AnnounceStop,
    /// Finish what runs, within so many milliseconds, and end.
    Stop {
        left: u64,
    },
    /// Leave the connections to others, as soon as each is at rest; else as `Stop`.
    HandOver {
        left: u64,
    },
    /// End at once; why.
    Leave(String),
    SetLevel(Severity),
    /// Take another certificate and its key, as PEM: a confined process can't read them. Without a line in the log,
    /// which has the supervisor's.
    TakeCertificate {
        cert: String,
        key: String,
    },
    /// Answer with a report of this number.
    Report(u64),
}

/// What a process tells its supervisor.
#[derive(Clone, Debug, PartialEq)]
pub enum Message {
    /// Init has succeeded; why the first Start has not, if it has not. And what the process takes for [`VERSION`].
    Ready { failed: Option<String>, version: u64 },
    /// It accepts connections.
    Serving,
    /// It accepts no connection any more.
    Deaf,
    /// A first Start has succeeded after all.
    Warm,
    /// What the operator is to hear, once from all of them.
    Warning(String),
    /// It can't serve, and ends.
    Failed { code: u8, text: String },
    /// The report of a number.
    Report(u64, Value),
    /// It has drained, and ends; its last numbers.
    Ended(Ended, Value),
}

/// How a process has drained.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ended {
    /// Contexts that were started in its life.
    pub started: u64,
    /// Contexts that were not stopped.
    pub abandoned: u64,
    /// Runs that were cut off.
    pub cut_off: u64,
}

/// Whether this process was started by a supervisor.
pub fn is_supervised(mut args: impl Iterator<Item = OsString>) -> bool {
    args.nth(1).as_deref() == Some(OsStr::new(ARGUMENT))
}

impl Assignment {
    /// Sends the descriptors; the line that [`Assignment::line`] makes is to follow.
    pub fn send_descriptors(
        link: BorrowedFd<'_>,
        listeners: &[BorrowedFd<'_>],
        plugin: Option<BorrowedFd<'_>>,
        rescue: [BorrowedFd<'_>; 2],
    ) -> io::Result<()> {
        let all: Vec<BorrowedFd<'_>> = listeners.iter().copied().chain(plugin).chain(rescue).collect();
        if all.len() > MAX_DESCRIPTORS {
            return Err(io::Error::other("too many sockets"));
        }
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        ancillary.push(SendAncillaryMessage::ScmRights(&all));
        sendmsg(link, &[IoSlice::new(b"\n")], &mut ancillary, SendFlags::NOSIGNAL)?;
        Ok(())
    }

    /// All but the descriptors, as a line; `has_plugin` says whether the last of them is a plugin's.
    pub fn line(&self, has_plugin: bool) -> String {
        let assignment = json!({
            "version": VERSION,
            "place": self.place,
            "n_places": self.n_places,
            "generation": self.generation,
            "parameters": self.parameters.to_json(),
            "level": self.level as u32,
            "image": self.image,
            "has_plugin": has_plugin,
        });
        format!("{assignment}\n")
    }

    fn parse(line: &str, mut descriptors: Vec<OwnedFd>) -> Option<Assignment> {
        let value: Value = serde_json::from_str(line).ok()?;
        let number = |key: &str| value.get(key)?.as_u64();
        let (escrow, memory) = (descriptors.pop()?, descriptors.pop()?);
        let has_plugin = value.get("has_plugin")?.as_bool()?;
        let plugin = if has_plugin { Some(descriptors.pop()?) } else { None };
        Some(Assignment {
            place: usize::try_from(number("place")?).ok()?,
            n_places: usize::try_from(number("n_places")?).ok()?,
            generation: number("generation")?,
            parameters: Parameters::from_json(value.get("parameters")?)?,
            level: Severity::from(u32::try_from(number("level")?).ok()?),
            image: number("image")?,
            listeners: descriptors,
            plugin,
            rescue: Some((memory, escrow)),
        })
    }
}

impl Order {
    pub fn line(&self) -> String {
        let order = match self {
            Order::Serve => json!({ "order": "serve" }),
            Order::AnnounceStop => json!({ "order": "announce-stop" }),
            Order::Stop { left } => json!({ "order": "stop", "left": left }),
            Order::HandOver { left } => json!({ "order": "hand-over", "left": left }),
            Order::Leave(why) => json!({ "order": "leave", "why": why }),
            Order::SetLevel(level) => json!({ "order": "set-level", "level": *level as u32 }),
            Order::TakeCertificate { cert, key } => {
                json!({ "order": "take-certificate", "cert": cert, "key": key })
            }
            Order::Report(id) => json!({ "order": "report", "id": id }),
        };
        format!("{order}\n")
    }

    pub fn parse(line: &str) -> Option<Order> {
        let value: Value = serde_json::from_str(line).ok()?;
        let number = |key: &str| value.get(key)?.as_u64();
        let text = |key: &str| Some(value.get(key)?.as_str()?.to_owned());
        Some(match value.get("order")?.as_str()? {
            "serve" => Order::Serve,
            "announce-stop" => Order::AnnounceStop,
            "stop" => Order::Stop { left: number("left")? },
            "hand-over" => Order::HandOver { left: number("left")? },
            "leave" => Order::Leave(text("why")?),
            "set-level" => Order::SetLevel(Severity::from(u32::try_from(number("level")?).ok()?)),
            "take-certificate" => Order::TakeCertificate { cert: text("cert")?, key: text("key")? },
            "report" => Order::Report(number("id")?),
            _ => return None,
        })
    }
}

impl Message {
    pub fn line(&self) -> String {
        let message = match self {
            Message::Ready { failed, version } => {
                json!({ "says": "ready", "failed": failed, "version": version })
            }
            Message::Serving => json!({ "says": "serving" }),
            Message::Deaf => json!({ "says": "deaf" }),
            Message::Warm => json!({ "says": "warm" }),
            Message::Warning(text) => json!({ "says": "warning", "text": text }),
            Message::Failed { code, text } => json!({ "says": "failed", "code": code, "text": text }),
            Message::Report(id, report) => json!({ "says": "report", "id": id, "report": report }),
            Message::Ended(Ended { started, abandoned, cut_off }, scrape) => json!({
                "says": "ended", "started": started, "abandoned": abandoned, "cut_off": cut_off, "scrape": scrape,
            }),
        };
        format!("{message}\n")
    }

    pub fn parse(line: &[u8]) -> Option<Message> {
        let mut value: Value = serde_json::from_slice(line).ok()?;
        let number = |key: &str| value.get(key)?.as_u64();
        let text = |key: &str| Some(value.get(key)?.as_str()?.to_owned());
        Some(match value.get("says")?.as_str()? {
            "ready" => Message::Ready { failed: text("failed"), version: number("version").unwrap_or(0) },
            "serving" => Message::Serving,
            "deaf" => Message::Deaf,
            "warm" => Message::Warm,
            "warning" => Message::Warning(text("text")?),
            "failed" => Message::Failed { code: u8::try_from(number("code")?).ok()?, text: text("text")? },
            "report" => Message::Report(number("id")?, value.get_mut("report")?.take()),
            "ended" => {
                let (started, abandoned, cut_off) =
                    (number("started")?, number("abandoned")?, number("cut_off")?);
                Message::Ended(Ended { started, abandoned, cut_off }, value.get_mut("scrape")?.take())
            }
            _ => return None,
        })
    }
}

/// A process's end of the link.
pub struct Link {
    pub socket: UnixStream,
    pub sender: LinkSender,
}

/// Tells the supervisor something, from any thread.
#[derive(Clone)]
pub struct LinkSender(Arc<Mutex<UnixStream>>);

impl LinkSender {
    /// One that has gone is told nothing: the link's other end notices.
    pub fn send(&self, message: &Message) {
        let mut socket = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (line, mut n_written) = (message.line(), 0);
        while n_written < line.len() {
            match socket.write(&line.as_bytes()[n_written..]) {
                Ok(n @ 1..) => n_written += n,
                Err(err) if err.kind() == io::ErrorKind::Interrupted => {}
                // The socket doesn't block once its other half is read by a task.
                Err(err) if err.kind() == io::ErrorKind::WouldBlock => {
                    let mut polled = [PollFd::new(&*socket, PollFlags::OUT)];
                    if poll(&mut polled, Some(&PATIENCE)) == Ok(0) {
                        return;
                    }
                }
                _ => return,
            }
        }
    }
}

impl Link {
    /// Takes the link from stdin, and what it begins with. Fails if stdin is no link: somebody else has started this
    /// process with [`ARGUMENT`].
    pub fn take() -> io::Result<(Assignment, Link)> {
        let mut socket = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
        // What the lambda reads from its stdin is nobody's business.
        rustix::stdio::dup2_stdin(std::fs::File::open("/dev/null")?)?;
        let descriptors = receive_descriptors(&socket)?;
        // To the end of the line and no further: what follows is read by whoever gets the socket.
        let (mut line, mut byte) = (Vec::new(), [0]);
        loop {
            socket.read_exact(&mut byte)?;
            match byte[0] {
                b'\n' => break,
                byte => line.push(byte),
            }
        }
        let invalid = || io::Error::new(io::ErrorKind::InvalidData, "it is no link to a supervisor");
        let line = String::from_utf8(line).map_err(|_| invalid())?;
        let version = serde_json::from_str::<Value>(&line).ok().and_then(|line| line["version"].as_u64());
        if version.is_some_and(|version| version != VERSION) {
            let text =
                "its supervisor is a loader of another version, which speaks to its processes in another way";
            return Err(io::Error::new(io::ErrorKind::InvalidData, text));
        }
        let assignment = Assignment::parse(&line, descriptors).ok_or_else(invalid)?;
        let writer = socket.try_clone()?;
        Ok((assignment, Link { socket, sender: LinkSender(Arc::new(Mutex::new(writer))) }))
    }
}

fn receive_descriptors(socket: &UnixStream) -> io::Result<Vec<OwnedFd>> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0];
    let got = recvmsg(socket, &mut [IoSliceMut::new(&mut byte)], &mut ancillary, RecvFlags::CMSG_CLOEXEC)?;
    if got.bytes == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let mut descriptors = Vec::new();
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            descriptors.extend(rights);
        }
    }
    Ok(descriptors)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_and_messages_are_read_as_they_are_written() {
        let orders = [
            Order::Serve,
            Order::AnnounceStop,
            Order::Stop { left: 7 },
            Order::HandOver { left: 8 },
            Order::Leave("a \"reason\"\nof two lines".to_owned()),
            Order::SetLevel(Severity::Debug),
            Order::TakeCertificate { cert: "a\nb\n".to_owned(), key: "c".to_owned() },
            Order::Report(u64::MAX),
        ];
        for order in orders {
            let line = order.line();
            assert_eq!(line.find('\n'), Some(line.len() - 1), "one line: {line}");
            assert_eq!(Order::parse(&line), Some(order));
        }
        let messages = [
            Message::Ready { failed: None, version: VERSION },
            Message::Ready { failed: Some("why\n".to_owned()), version: 0 },
            Message::Serving,
            Message::Deaf,
            Message::Warm,
            Message::Warning("it".to_owned()),
            Message::Failed { code: 78, text: "it".to_owned() },
            Message::Report(3, json!({ "a": [1, 2] })),
            Message::Ended(Ended { started: 1, abandoned: 2, cut_off: 3 }, json!({ "b": null })),
        ];
        for message in messages {
            let line = message.line();
            assert_eq!(line.find('\n'), Some(line.len() - 1), "one line: {line}");
            assert_eq!(Message::parse(line.as_bytes()), Some(message));
        }
    }

    #[test]
    fn whatever_a_process_says_the_supervisor_outlives() {
        bolero::check!().with_type::<Vec<u8>>().for_each(|bytes| {
            let _ = Message::parse(bytes);
        });
        for line in ["{}", "[]", r#"{"says":"ready"}x"#, r#"{"says":"failed","code":256,"text":""}"#] {
            assert_eq!(Message::parse(line.as_bytes()), None, "{line}");
        }
    }
}

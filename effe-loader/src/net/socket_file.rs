//! The file of a Unix socket: this process removes the one that it has made, and one that a dead process has left.

use std::{
    ffi::OsString,
    fs, io,
    os::unix::{
        ffi::{OsStrExt, OsStringExt},
        fs::{FileTypeExt, MetadataExt},
    },
    path::{Path, PathBuf},
};

use rustix::fs::{Mode, fchmod};
use serde_json::{Value, json};
use socket2::{Domain, SockAddr, Socket, Type};

/// The file of a Unix socket that this process has made.
pub struct SocketFile {
    path: PathBuf,
    id: FileId,
}

/// Device, inode and time of birth: a successor may have put its own socket in the same place, and systems give the
/// number of a removed file to the next one.
#[derive(PartialEq)]
struct FileId(u64, u64, i64, i64);

impl FileId {
    fn of(file: &fs::Metadata) -> FileId {
        FileId(file.dev(), file.ino(), file.mtime(), file.mtime_nsec())
    }
}

impl SocketFile {
    /// The file that was made just now.
    fn of(path: &Path) -> io::Result<SocketFile> {
        Ok(SocketFile { path: path.to_owned(), id: FileId::of(&fs::symlink_metadata(path)?) })
    }

    /// For [`SocketFile::from_json`] in a program that goes on in this one's place.
    pub fn to_json(&self) -> Value {
        let FileId(device, inode, seconds, nanoseconds) = self.id;
        let path = self.path.as_os_str().as_bytes();
        json!({ "path": path, "file": [device, inode], "time": [seconds, nanoseconds] })
    }

    pub fn from_json(value: &Value) -> Option<SocketFile> {
        let bytes = value["path"].as_array()?.iter().map(|byte| u8::try_from(byte.as_u64()?).ok());
        let path = OsString::from_vec(bytes.collect::<Option<_>>()?).into();
        let (file, time) = (&value["file"], &value["time"]);
        let id = FileId(file[0].as_u64()?, file[1].as_u64()?, time[0].as_i64()?, time[1].as_i64()?);
        Some(SocketFile { path, id })
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if fs::symlink_metadata(&self.path).is_ok_and(|file| FileId::of(&file) == self.id) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Binds a socket to `path`, in the place of one that a dead process has left. With a `mode`, the socket has it before
/// it has a name, so nobody can connect whom it keeps out. Fails if a process listens there, or there is something
/// else.
pub fn bind(path: &Path, mode: Option<Mode>) -> io::Result<(Socket, SocketFile)> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    if let Some(mode) = mode {
        fchmod(&socket, mode)?;
    }
    let name = SockAddr::unix(path)?;
    if let Err(err) = socket.bind(&name) {
        if err.kind() != io::ErrorKind::AddrInUse {
            return Err(err);
        }
        remove_dead(path)?;
        socket.bind(&name)?;
    }
    let file = SocketFile::of(path)?;
    Ok((socket, file))
}

/// Removes the socket of a process that has ended; fails if there is something else, or a process listens there.
fn remove_dead(path: &Path) -> io::Result<()> {
    let in_use = |text: &str| io::Error::new(io::ErrorKind::AddrInUse, text);
    if !fs::symlink_metadata(path)?.file_type().is_socket() {
        return Err(in_use("there is a file that is no socket"));
    }
    // Without waiting: a process that is stopped, or busy, may have its queue full for ever.
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    match socket.connect(&SockAddr::unix(path)?) {
        Err(err) if err.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path),
        Err(err) if err.kind() != io::ErrorKind::WouldBlock => Err(err),
        _ => Err(in_use("a process listens there")),
    }
}

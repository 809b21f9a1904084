//! Descriptors that outlive the program of this process: whoever goes on with them is told their numbers.
#![expect(unsafe_code, reason = "numbers become owners of descriptors")]

use std::{
    collections::BTreeMap,
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
    time::{Duration, Instant},
};

use rustix::io::{FdFlags, fcntl_getfd, fcntl_setfd};
use serde_json::Value;

/// Descriptors for another program.
#[derive(Default)]
pub struct Outgoing<'a>(Vec<BorrowedFd<'a>>);

impl<'a> Outgoing<'a> {
    /// Its number.
    pub fn put(&mut self, descriptor: &'a impl AsFd) -> i32 {
        let descriptor = descriptor.as_fd();
        self.0.push(descriptor);
        descriptor.as_raw_fd()
    }

    /// From now on a program that is executed gets all of them: this process must start no other.
    pub fn open_to_others(&self) -> io::Result<()> {
        for descriptor in &self.0 {
            fcntl_setfd(descriptor, FdFlags::empty())?;
        }
        Ok(())
    }

    /// As it was before.
    pub fn close_to_others(&self) {
        for descriptor in &self.0 {
            let _ = fcntl_setfd(descriptor, FdFlags::CLOEXEC);
        }
    }

    /// Their numbers, for [`Incoming::of`].
    pub fn numbers(&self) -> Vec<i32> {
        self.0.iter().map(AsRawFd::as_raw_fd).collect()
    }
}

/// Descriptors that another program has left, by their numbers.
pub struct Incoming(BTreeMap<i32, OwnedFd>);

impl Incoming {
    /// Takes all of them. From here on no program that is executed gets any. Fails if one is not open.
    pub fn of(numbers: &Value) -> Option<Incoming> {
        let numbers = numbers.as_array()?.iter().map(|number| i32::try_from(number.as_i64()?).ok());
        let numbers: BTreeMap<i32, ()> = numbers.map(|number| Some((number?, ()))).collect::<Option<_>>()?;
        let owned = numbers.into_keys().map(|number| Some((number, own(number).ok()?)));
        owned.collect::<Option<_>>().map(Incoming)
    }

    /// The descriptor of this number, once.
    pub fn take(&mut self, number: &Value) -> Option<OwnedFd> {
        self.0.remove(&i32::try_from(number.as_i64()?).ok()?)
    }

    /// A copy of it, for one of several that have it.
    pub fn copy(&self, number: &Value) -> Option<OwnedFd> {
        self.0.get(&i32::try_from(number.as_i64()?).ok()?)?.try_clone().ok()
    }
}

/// Takes a descriptor by its number, which whoever ran this process before has given; fails if it is not open. To be
/// called once for each, while this process has opened none of its own under these numbers.
pub fn own(number: i32) -> io::Result<OwnedFd> {
    if number <= 2 {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    // SAFETY: it is only looked at; a number that is none is an error.
    let borrowed = unsafe { BorrowedFd::borrow_raw(number) };
    fcntl_getfd(borrowed)?;
    fcntl_setfd(borrowed, FdFlags::CLOEXEC)?;
    // SAFETY: it is open; it was left for whoever reads this number, and nobody else in this program has it.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// How long ago something was: the clock goes on, and an instant can't be written down.
pub fn ago(then: Instant) -> u64 {
    u64::try_from(then.elapsed().as_micros()).unwrap_or(u64::MAX)
}

/// When that was.
pub fn then(ago: &Value) -> Option<Instant> {
    let now = Instant::now();
    Some(now.checked_sub(Duration::from_micros(ago.as_u64()?)).unwrap_or(now))
}

/// Bytes that are written as a list of numbers.
pub fn bytes(value: &Value) -> Option<Vec<u8>> {
    value.as_array()?.iter().map(|byte| u8::try_from(byte.as_u64()?).ok()).collect()
}

#[cfg(test)]
mod tests {
    use std::{fs::File, os::fd::IntoRawFd};

    use serde_json::json;

    use super::*;

    #[test]
    fn a_number_that_is_no_descriptor_is_none() {
        for bad in [-1, 0, 2, i32::MAX] {
            assert!(own(bad).is_err(), "{bad}");
            assert!(Incoming::of(&json!([bad])).is_none(), "{bad}");
        }
    }

    #[test]
    fn each_descriptor_has_one_owner() {
        let file = File::open("/dev/null").unwrap();
        let number = file.into_raw_fd();
        let mut incoming = Incoming::of(&json!([number, number])).unwrap();
        let copy = incoming.copy(&json!(number)).unwrap();
        assert!(copy.as_raw_fd() != number);
        let taken = incoming.take(&json!(number)).unwrap();
        assert!(fcntl_getfd(&taken).unwrap().contains(FdFlags::CLOEXEC));
        assert!(incoming.take(&json!(number)).is_none() && incoming.copy(&json!(number)).is_none());
    }
}

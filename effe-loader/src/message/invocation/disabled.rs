//! Invocations in a loader that is built without AWS: there are none, and a request holds nothing of them.

use crate::rt::clock::Moment;

pub enum Invocation {}

impl Invocation {
    pub fn attribute(&self, _: u32) -> Option<&str> {
        match *self {}
    }

    pub fn note(&self, _: &'static str, _: bool) {
        match *self {}
    }
}

#[derive(Clone, Copy, Debug, Default)]
pub struct Invoked(());

impl Invoked {
    pub const NONE: Invoked = Invoked(());

    pub fn invocation(&self) -> Option<&Invocation> {
        None
    }

    pub fn deadline(&self, given: Option<Moment>) -> Option<Moment> {
        given
    }
}

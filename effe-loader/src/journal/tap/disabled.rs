//! Without AWS nobody asks for a request's lines.

use super::record::Record;

pub(super) fn copy(_: &Record) {}

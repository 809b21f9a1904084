//! Makes a journal the place where the program's panics and the records of the `log` crate go.

use super::{
    dependencies::{self, LinkedLambda},
    handle::Journal,
    panics,
};

impl Journal {
    /// Makes this journal the program's logger: warnings and errors of dependencies are logged as the
    /// loader's, and panics as critical lines. If a lambda is part of the program, what its crate logs is the
    /// lambda's. A program that has a logger already keeps it.
    pub fn install(&self, lambda: Option<LinkedLambda>) {
        panics::install(self);
        if dependencies::install(self, lambda) {
            let _ = self.state().set_log_level.set(dependencies::follow);
            dependencies::follow(self.level());
        }
    }
}

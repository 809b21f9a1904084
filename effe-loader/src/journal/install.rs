//! Makes a journal the place where the program's panics and the records of the `log` crate go.

use super::{
    dependencies::{self, LinkedLambda},
    handle::Journal,
    panics,
};

impl Journal {
    /// Makes this journal the logger of the loader's dependencies: their warnings and errors become the loader's, and
    /// panics critical lines. In a program that holds a lambda, what its crate logs is the lambda's. A program that has a
    /// logger keeps it.
    pub fn install(&self, lambda: Option<LinkedLambda>) {
        panics::install(self);
        if dependencies::install(self, lambda) {
            let _ = self.gauges().set_log_level.set(dependencies::follow);
            dependencies::follow(self.level());
        }
    }
}

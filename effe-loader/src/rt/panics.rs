//! Panics that a thread outlives, and what those of dependencies say.

use std::{
    cell::RefCell,
    io,
    panic::{self, AssertUnwindSafe, PanicHookInfo},
};

thread_local! {
    /// What panics of this thread say, while [`held`] keeps them from the log.
    static HELD: RefCell<Option<Vec<String>>> = const { RefCell::new(None) };
}

/// What `step` returns, or that it has panicked. Where, the program's panic hook has logged. What `step` changes must
/// be left in order by a panic: locks that are poisoned are ignored everywhere.
pub fn survive<T>(step: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    panic::catch_unwind(AssertUnwindSafe(step))
        .unwrap_or_else(|_| Err("the loader itself has panicked; a line of the log says where".to_owned()))
}

/// What `step` returns, or the error of the system's that it panics for. Dependencies panic where the system refuses
/// them something; such a panic is not logged.
pub fn held<T>(step: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    HELD.set(Some(Vec::new()));
    let outcome = panic::catch_unwind(AssertUnwindSafe(step));
    let texts = HELD.take().unwrap_or_default();
    outcome.unwrap_or_else(|_| Err(reason(&texts)))
}

/// To be asked by the panic hook: whether what a panic of this thread says goes to [`held`], and not to the log.
pub fn is_held(info: &PanicHookInfo<'_>) -> bool {
    HELD.with_borrow_mut(|held| held.as_mut().map(|texts| texts.push(panic_text(info).to_owned())).is_some())
}

/// What a panic says.
pub fn panic_text<'a>(info: &'a PanicHookInfo<'_>) -> &'a str {
    let text = info.payload().downcast_ref::<String>().map(String::as_str);
    text.or_else(|| info.payload().downcast_ref().copied()).unwrap_or("(no message)")
}

/// The error of the system's that the first of some panics tells of, if one does.
pub fn reason(panics: &[String]) -> io::Error {
    let code = |text: &String| {
        let (_, code) = text.split_once("Os { code: ")?;
        code.split(',').next()?.parse().ok()
    };
    match panics.iter().find_map(code) {
        Some(code) => io::Error::from_raw_os_error(code),
        None => io::Error::other(panics.join("; ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_of_a_dependency_tells_the_systems_error() {
        let said = |texts: &[&str]| reason(&texts.iter().map(|&text| text.to_owned()).collect::<Vec<_>>());
        let texts = [
            "called `Result::unwrap()` on an `Err` value: Os { code: 24, kind: Uncategorized, message: \"Too many\" }",
            "called `Result::unwrap()` on an `Err` value: RecvError",
        ];
        assert_eq!(said(&texts).raw_os_error(), Some(24));
        assert_eq!(said(&["one", "two"]).to_string(), "one; two");
    }
}

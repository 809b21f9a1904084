//! Checks the root of C, `effe_lambda_v1`, which no compiler has checked: a size, a version, entries and texts that the
//! loader can't use are refused in one line, in the words of `effe.h`.
#![expect(unsafe_code, reason = "the root is where the plugin's symbol says")]

use std::{slice, str};

use effe_abi::c_root::{OPTIONAL_FLAGS, Root, Text, VERSION};

use super::entries::Entries;

/// More than any Info has. A longer one is damaged: to look at all of it would take the trial's time.
const MAX_TEXT: usize = 16 << 20;

/// What a root says before its fields are known to be there.
#[repr(C)]
struct Head {
    size: u32,
    version: u32,
}

/// The entries of a root.
///
/// # Safety
/// It is the plugin's symbol `effe_lambda_v1`, mapped for ever. A file that is damaged so that the symbol, or a text,
/// is nowhere kills the process: that is what the trial is for.
pub unsafe fn entries(root: *const Root) -> Result<Entries, String> {
    let damaged = "its effe_lambda_v1 is damaged; copy or build it again";
    if !root.is_aligned() {
        return Err(damaged.to_owned());
    }
    // SAFETY: the caller's promise; it is aligned.
    let Head { size, version } = unsafe { root.cast::<Head>().read() };
    if version != VERSION {
        return Err(format!(
            "its effe_lambda_v1.version is {version} where this loader knows {VERSION}; \
             set it to EFFE_ABI_VERSION, or use a loader that knows {version}"
        ));
    }
    if (size as usize) < size_of::<Root>() {
        return Err(format!(
            "its effe_lambda_v1.size is {size} where {} is the least; set it to sizeof(effe_lambda)",
            size_of::<Root>()
        ));
    }
    // SAFETY: as above; it says that it is as large as a `Root`, any bytes of which are one.
    let root: &'static Root = unsafe { &*root };
    let unknown = root.flags & !OPTIONAL_FLAGS;
    if unknown != 0 {
        return Err(format!(
            "its effe_lambda_v1.flags has {unknown:#x}, which this loader doesn't know and may not ignore; \
             use a newer loader, or clear it"
        ));
    }
    Ok(Entries {
        flags: root.flags,
        // SAFETY: the caller's promise.
        info: unsafe { text(root.info, "info") }?,
        // SAFETY: as above.
        build: unsafe { text(root.build, "build") }?,
        init: there(root.init, "init")?,
        start: there(root.start, "start")?,
        run: there(root.run, "run")?,
        stop: there(root.stop, "stop")?,
        retire: there(root.retire, "retire")?,
        extension: there(root.extension, "extension")?,
    })
}

fn there<T>(entry: Option<T>, name: &str) -> Result<T, String> {
    entry.ok_or_else(|| format!("its effe_lambda_v1.{name} is null; give it all six entries"))
}

/// # Safety
/// Its bytes are mapped for ever, or none are and the process may die.
unsafe fn text(text: Text, name: &str) -> Result<&'static str, String> {
    let Text { ptr, len } = text;
    let bytes = match len {
        0 => &[],
        _ if ptr.is_null() => return Err(format!("its effe_lambda_v1.{name} is null; point it to its text")),
        // SAFETY: the caller's promise; no longer than that, it doesn't wrap around.
        1..=MAX_TEXT => unsafe { slice::from_raw_parts(ptr, len) },
        _ => {
            return Err(format!(
                "its effe_lambda_v1.{name} has {len} bytes where {MAX_TEXT} are the most; set its len"
            ));
        }
    };
    str::from_utf8(bytes).map_err(|err| {
        let at = err.valid_up_to();
        format!("its effe_lambda_v1.{name} is not UTF-8 at byte {at}; correct it, or its len")
    })
}

#[cfg(test)]
mod tests {
    use std::ptr;

    use super::*;
    use crate::plugin::testing::NOTHING;

    fn good() -> Root {
        let Entries { init, start, run, stop, retire, extension, .. } = NOTHING;
        Root {
            size: size_of::<Root>() as u32,
            version: VERSION,
            flags: 0,
            info: Text::new("{}"),
            build: Text::new(""),
            init: Some(init),
            start: Some(start),
            run: Some(run),
            stop: Some(stop),
            retire: Some(retire),
            extension: Some(extension),
        }
    }

    fn checked(change: impl FnOnce(&mut Root)) -> Result<Entries, String> {
        let root = Box::leak(Box::new(good()));
        change(root);
        // SAFETY: it is leaked, and so are its texts.
        unsafe { entries(root) }
    }

    #[test]
    fn what_later_headers_may_have_is_taken() {
        assert!(checked(|_| {}).is_ok());
        assert!(checked(|root| root.size += 8).is_ok_and(|entries| entries.info == "{}"));
        assert!(
            checked(|root| root.flags = OPTIONAL_FLAGS).is_ok_and(|entries| entries.flags == OPTIONAL_FLAGS)
        );
        assert!(checked(|root| root.build = Text { ptr: ptr::null(), len: 0 }).is_ok());
    }

    #[test]
    fn a_breach_of_the_contract_is_told_with_the_field() {
        let refused = |change: fn(&mut Root), part: &str| {
            let why = checked(change).err().expect(part);
            assert!(why.contains(part) && !why.contains('\n'), "{part}: {why}");
        };
        refused(|root| root.size -= 1, "size is 95 where 96");
        refused(|root| root.version = 2, "version is 2 where this loader knows 1");
        refused(|root| root.flags = 1 << 32, "flags has 0x100000000");
        refused(|root| root.init = None, "init is null");
        refused(|root| root.start = None, "start is null");
        refused(|root| root.run = None, "run is null");
        refused(|root| root.stop = None, "stop is null");
        refused(|root| root.retire = None, "retire is null");
        refused(|root| root.extension = None, "extension is null");
        refused(|root| root.info = Text { ptr: ptr::null(), len: 1 }, "info is null");
        refused(|root| root.info.len = usize::MAX, "info has 18446744073709551615 bytes");
        refused(|root| root.build = Text { ptr: b"ab\xff".as_ptr(), len: 3 }, "build is not UTF-8 at byte 2");
        // SAFETY: nothing of it is read.
        let why = unsafe { entries(ptr::without_provenance(97)) }.err().unwrap();
        assert!(why.contains("damaged"), "{why}");
    }
}

//! What a place in a library is called: the function, and where the debugging information has it, the file and the
//! line. The supervisor reads the copy that its processes have mapped; a process that dies reads nothing of the kind.

use std::{
    borrow::Cow,
    fs::File,
    io::{self, Read, Seek, SeekFrom},
    os::unix::fs::FileExt,
};

use addr2line::{
    Context,
    gimli::{Dwarf, EndianSlice, NativeEndian, SectionId},
};
use object::{Endianness, Object, ObjectSection, ObjectSymbol, ReadCache, read::elf::ElfFile64};

/// No image is as large.
const MAX_PLACE: u64 = 1 << 47;
/// Bytes of a function's name that are kept: types may make it very long.
const MAX: usize = 200;

type Library<'a> = ElfFile64<'a, Endianness, &'a ReadCache<Reader<'a>>>;

/// Where in the author's text something has happened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Location {
    pub function: Option<String>,
    /// File and line.
    pub line: Option<(String, u32)>,
}

/// What a library has at `place`, an address as the library itself counts them. It may take a while, and finds what it
/// finds: a stripped library has nothing.
pub fn locate(library: &File, place: u64) -> Option<Location> {
    // Whoever tells of it may say anything, and sums with it must not overflow.
    if place > MAX_PLACE {
        return None;
    }
    let cache = ReadCache::new(Reader { library, at: 0 });
    let elf = ElfFile64::<Endianness, _>::parse(&cache).ok()?;
    let location = by_lines(&elf, place).unwrap_or_default();
    let function = location.function.or_else(|| by_symbols(&elf, place));
    let location = Location { function, ..location };
    (location != Location::default()).then_some(location)
}

/// Reads from a place of its own: that of the file itself is the same for all of its copies, and another thread may be
/// looking something up, too.
struct Reader<'a> {
    library: &'a File,
    at: u64,
}

impl Read for Reader<'_> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let n = self.library.read_at(bytes, self.at)?;
        self.at += n as u64;
        Ok(n)
    }
}

impl Seek for Reader<'_> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let (from, by) = match to {
            SeekFrom::Start(at) => (at, 0),
            SeekFrom::Current(by) => (self.at, by),
            SeekFrom::End(by) => (self.library.metadata()?.len(), by),
        };
        self.at = from.checked_add_signed(by).ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.at)
    }
}

fn by_lines<'a>(elf: &Library<'a>, place: u64) -> Option<Location> {
    let section = |id: SectionId| {
        let section = elf.section_by_name(id.name());
        let bytes = section.and_then(|section| section.data().ok()).unwrap_or_default();
        Ok::<_, addr2line::gimli::Error>(EndianSlice::new(bytes, NativeEndian))
    };
    let context = Context::from_dwarf(Dwarf::load(section).ok()?).ok()?;
    let mut frames = context.find_frames(place).skip_all_loads().ok()?;
    let mut innermost = None;
    while let Ok(Some(frame)) = frames.next() {
        let line = frame.location.and_then(|location| Some((location.file?.to_owned(), location.line?)));
        // What was written in place of a call is the library's that it is from: the author looks for the call.
        let is_std =
            line.as_ref().is_some_and(|(file, _)| file.starts_with("/rustc/") || file.contains("/library/"));
        let function = frame.function.and_then(|function| function.demangle().map(Cow::into_owned).ok());
        let location = Location { function: function.as_deref().map(shortened), line };
        if !is_std {
            return Some(location);
        }
        innermost.get_or_insert(location);
    }
    innermost
}

fn by_symbols<'a>(elf: &Library<'a>, place: u64) -> Option<String> {
    let symbols = elf.symbols().chain(elf.dynamic_symbols());
    let holds = symbols
        .filter(|symbol| symbol.is_definition() && symbol.size() > 0)
        .find(|symbol| place.checked_sub(symbol.address()).is_some_and(|offset| offset < symbol.size()));
    let name = holds?.name().ok()?;
    Some(shortened(&format!("{:#}", rustc_demangle::demangle(name))))
}

/// Without the hash that rustc puts behind a name, and on one line of a log.
fn shortened(name: &str) -> String {
    let name = match name.rsplit_once("::h") {
        Some((before, hash)) if hash.len() == 16 && hash.bytes().all(|byte| byte.is_ascii_hexdigit()) => {
            before
        }
        _ => name,
    };
    let end = name.char_indices().nth(MAX).map_or(name.len(), |(at, _)| at);
    name[..end].replace(char::is_control, " ")
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    #[test]
    fn a_name_is_short() {
        assert_eq!(shortened("a::b::h0123456789abcdef"), "a::b");
        assert_eq!(shortened("a::b::hello"), "a::b::hello");
        assert_eq!(shortened(&"x".repeat(1_000)).len(), MAX);
    }

    #[test]
    fn two_that_look_up_at_once_find_what_one_finds() {
        // By its symbols alone: to read all lines of this program takes seconds.
        let function = |library: &File| {
            let cache = ReadCache::new(Reader { library, at: 0 });
            let elf = Library::parse(&cache).ok()?;
            let named = elf.symbols().filter(|symbol| symbol.is_definition() && symbol.size() > 0);
            let place = named.last()?.address();
            by_symbols(&elf, place)
        };
        let this = File::open(std::env::current_exe().unwrap()).unwrap();
        let found = function(&this);
        assert!(found.is_some());
        thread::scope(|scope| {
            for _ in 0..4 {
                let copy = this.try_clone().unwrap();
                let (found, function) = (&found, &function);
                scope.spawn(move || (0..10).for_each(|_| assert_eq!(&function(&copy), found)));
            }
        });
    }

    #[test]
    fn what_is_no_library_has_no_places() {
        let this = File::open(std::env::current_exe().unwrap()).unwrap();
        assert_eq!(locate(&this, u64::MAX), None);
        let _ = (locate(&this, 0), locate(&this, MAX_PLACE));
        assert_eq!(locate(&File::open("/proc/self/cmdline").unwrap(), 1), None);
    }
}

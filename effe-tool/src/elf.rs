//! Reads from an ELF file what it says of itself: its headers, and the notes that `effe.h` and `export!` write. Finds
//! the libraries that it needs on this machine.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, anyhow, bail};
use object::{
    Endianness, elf,
    read::elf::{Dyn, FileHeader, ProgramHeader},
};

/// The directories that the dynamic linker searches by default.
const DEFAULT_DIRS: [&str; 8] = [
    "/lib/x86_64-linux-gnu",
    "/usr/lib/x86_64-linux-gnu",
    "/lib/aarch64-linux-gnu",
    "/usr/lib/aarch64-linux-gnu",
    "/lib64",
    "/usr/lib64",
    "/lib",
    "/usr/lib",
];

/// The name of the notes of a lambda, and the types of the one with Info and of the one with the build record.
const NOTE_NAME: &[u8] = b"effe";
const NOTE_INFO: u32 = 1;
const NOTE_BUILD: u32 = 2;

/// The headers and notes of a library or an executable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Elf {
    /// `x86_64`, `aarch64`, …
    pub(crate) machine: String,
    /// Whether it is a program, with an entry point.
    pub(crate) executable: bool,
    /// The path of the dynamic linker that it asks for.
    pub(crate) interpreter: Option<PathBuf>,
    /// The names of the libraries that it needs.
    pub(crate) needed: Vec<String>,
    /// The directories in which it wants them searched first.
    pub(crate) run_path: Vec<String>,
    /// The highest version of glibc that one of its symbols needs.
    pub(crate) glibc: Option<(u32, u32)>,
    /// Info, from its note.
    pub(crate) info: Option<String>,
    /// The build record, from its note.
    pub(crate) build: Option<String>,
}

impl Elf {
    /// Reads the headers.
    ///
    /// # Errors
    /// The bytes are not a 64-bit ELF file, or a damaged one.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Elf> {
        if !bytes.starts_with(&elf::ELFMAG) {
            bail!("it is neither a library nor an executable of Linux");
        }
        if bytes.get(4).copied().map(elf::FileClass) != Some(elf::ELFCLASS64) {
            bail!("it is not a 64-bit ELF file");
        }
        read(bytes).map_err(|err| anyhow!("its ELF headers are damaged ({err}); copy or build it again"))
    }
}

fn read(bytes: &[u8]) -> object::read::Result<Elf> {
    let header = elf::FileHeader64::<Endianness>::parse(bytes)?;
    let endian = header.endian()?;
    let (mut interpreter, mut info, mut build) = (None, None, None);
    for segment in header.program_headers(endian, bytes)? {
        if let Some(path) = segment.interpreter(endian, bytes)? {
            interpreter = Some(PathBuf::from(String::from_utf8_lossy(path).into_owned()));
        }
        let Some(mut notes) = segment.notes(endian, bytes)? else { continue };
        while let Some(note) = notes.next()? {
            if note.name() != NOTE_NAME {
                continue;
            }
            let text = note.desc().strip_suffix(b"\0").and_then(|text| std::str::from_utf8(text).ok());
            match note.n_type(endian).0 {
                NOTE_INFO => info = text.map(str::to_owned),
                NOTE_BUILD => build = text.map(str::to_owned),
                _ => {}
            }
        }
    }
    let sections = header.sections(endian, bytes)?;
    let (mut needed, mut run_path) = (Vec::new(), Vec::new());
    let mut glibc = None;
    if let Some((entries, link)) = sections.dynamic(endian, bytes)? {
        let strings = sections.strings(endian, bytes, link)?;
        for entry in entries {
            let tag = entry.tag(endian);
            if tag == elf::DT_NULL {
                break;
            }
            if ![elf::DT_NEEDED, elf::DT_RUNPATH, elf::DT_RPATH].contains(&tag) {
                continue;
            }
            let text = String::from_utf8_lossy(entry.string(endian, strings)?).into_owned();
            match tag == elf::DT_NEEDED {
                true => needed.push(text),
                false => run_path.extend(text.split(':').map(str::to_owned)),
            }
        }
    }
    if let Some((mut libraries, link)) = sections.gnu_verneed(endian, bytes)? {
        let strings = sections.strings(endian, bytes, link)?;
        while let Some((_, mut versions)) = libraries.next()? {
            while let Some(version) = versions.next()? {
                let name = String::from_utf8_lossy(version.name(endian, strings)?).into_owned();
                glibc = glibc.max(glibc_version(&name));
            }
        }
    }
    Ok(Elf {
        machine: machine(header.e_machine(endian)),
        executable: header.e_entry(endian) != 0,
        interpreter,
        needed,
        run_path,
        glibc,
        info,
        build,
    })
}

/// The names of all functions in the symbol table, which a stripped file doesn't have.
///
/// # Errors
/// The bytes are not a 64-bit ELF file, or a damaged one.
pub(crate) fn functions(bytes: &[u8]) -> Result<Vec<String>> {
    let read = || -> object::read::Result<Vec<String>> {
        let header = elf::FileHeader64::<Endianness>::parse(bytes)?;
        let endian = header.endian()?;
        let symbols = header.sections(endian, bytes)?.symbols(endian, bytes, elf::SHT_SYMTAB)?;
        let functions = symbols.iter().filter(|symbol| symbol.st_type() == elf::STT_FUNC);
        functions
            .map(|symbol| Ok(String::from_utf8_lossy(symbols.symbol_name(endian, symbol)?).into_owned()))
            .collect()
    };
    read().map_err(|err| anyhow!("its ELF headers are damaged ({err}); copy or build it again"))
}

fn glibc_version(name: &str) -> Option<(u32, u32)> {
    let mut numbers = name.strip_prefix("GLIBC_")?.split('.').map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

fn machine(machine: elf::Machine) -> String {
    match machine {
        elf::EM_X86_64 => "x86_64".to_owned(),
        elf::EM_AARCH64 => "aarch64".to_owned(),
        elf::EM_RISCV => "riscv64".to_owned(),
        elf::Machine(number) => format!("machine {number}"),
    }
}

/// The libraries of this machine that some files need, directly and indirectly.
#[derive(Debug, Default)]
pub(crate) struct Libraries {
    /// The file of each library, by the library's name; symbolic links are resolved.
    pub(crate) files: BTreeMap<String, PathBuf>,
    /// The dynamic linker: the path that it must have, and the file.
    pub(crate) linker: Option<(PathBuf, PathBuf)>,
    /// A directory that the dynamic linker searches by default: that of libc.
    pub(crate) directory: Option<PathBuf>,
}

/// Finds all libraries that the files need.
///
/// # Errors
/// A library is missing on this machine, or a file can't be read.
pub(crate) fn libraries(files: &[&Path]) -> Result<Libraries> {
    let mut found = Libraries::default();
    let mut todo: Vec<PathBuf> = files.iter().map(|path| path.to_path_buf()).collect();
    let mut cache = None;
    while let Some(path) = todo.pop() {
        let bytes = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let elf = Elf::parse(&bytes).with_context(|| path.display().to_string())?;
        if let Some(linker) = elf.interpreter
            && found.linker.is_none()
        {
            let file = linker.canonicalize();
            let file = file.with_context(|| {
                format!("{} needs {}, which this machine lacks", path.display(), linker.display())
            })?;
            found.linker = Some((linker, file));
        }
        for name in elf.needed {
            // The dynamic linker is listed as a library, too, but is loaded already when it searches for libraries.
            if name.starts_with("ld-linux") || found.files.contains_key(&name) {
                continue;
            }
            let origin = path.parent().unwrap_or(Path::new("/")).to_string_lossy().into_owned();
            let own = elf
                .run_path
                .iter()
                .map(|place| PathBuf::from(place.replace("$ORIGIN", &origin).replace("${ORIGIN}", &origin)));
            let places = own.chain(DEFAULT_DIRS.iter().map(PathBuf::from)).map(|place| place.join(&name));
            let file = places.into_iter().find(|file| is_for(file, &elf.machine)).or_else(|| {
                let cache = cache.get_or_insert_with(linker_cache);
                cache
                    .iter()
                    .map(PathBuf::from)
                    .find(|file| file.ends_with(&name) && is_for(file, &elf.machine))
            });
            let Some(file) = file else {
                bail!("{} needs {name}, which this machine lacks; install it", path.display());
            };
            if name.starts_with("libc.so") {
                found.directory = file.parent().map(Path::to_owned);
            }
            let file = file.canonicalize().with_context(|| format!("cannot find {}", file.display()))?;
            todo.push(file.clone());
            found.files.insert(name, file);
        }
    }
    Ok(found)
}

fn is_for(file: &Path, machine: &str) -> bool {
    fs::read(file).is_ok_and(|bytes| Elf::parse(&bytes).is_ok_and(|elf| elf.machine == machine))
}

/// The paths in the dynamic linker's own cache.
fn linker_cache() -> Vec<String> {
    let output = ["/sbin/ldconfig", "/usr/sbin/ldconfig", "ldconfig"]
        .iter()
        .find_map(|program| Command::new(program).arg("-p").output().ok());
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    text.lines().filter_map(|line| line.split(" => ").nth(1)).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::{Mutex, PoisonError};

    use super::*;

    #[test]
    fn this_test_needs_libc_and_names_its_linker() {
        let path = std::env::current_exe().unwrap();
        let elf = Elf::parse(&fs::read(&path).unwrap()).unwrap();
        assert!(elf.executable && elf.interpreter.is_some() && elf.glibc.unwrap() >= (2, 17), "{elf:?}");
        let libraries = libraries(&[&path]).unwrap();
        assert!(libraries.files.contains_key("libc.so.6") && libraries.directory.is_some(), "{libraries:?}");
    }

    #[test]
    fn what_is_no_elf_file_is_refused_and_not_believed() {
        let path = std::env::current_exe().unwrap();
        let bytes = fs::read(&path).unwrap();
        for bad in [&b""[..], b"\x7fELF", b"#!/bin/sh\n", &bytes[..100]] {
            assert!(Elf::parse(bad).is_err());
        }
    }

    #[test]
    fn any_damaged_file_is_read_or_refused_in_one_line() {
        let bytes = Mutex::new(fs::read(std::env::current_exe().unwrap()).unwrap());
        // Headers are at both ends: of segments in front, of sections behind.
        let damage = bolero::generator::produce::<(Vec<(u16, u8)>, Option<u16>)>();
        bolero::check!().with_generator(damage).for_each(|(changes, end)| {
            let mut bytes = bytes.lock().unwrap_or_else(PoisonError::into_inner);
            let mut undone = Vec::new();
            for (at, byte) in changes {
                let at = usize::from(at % 8192);
                let at = if at < 4096 { at } else { bytes.len() - (at - 4095) };
                undone.push((at, std::mem::replace(&mut bytes[at], *byte)));
            }
            let read = Elf::parse(&bytes[..end.map_or(bytes.len(), usize::from)]);
            undone.into_iter().rev().for_each(|(at, byte)| bytes[at] = byte);
            if let Err(err) = read {
                assert!(!err.to_string().contains('\n'), "{err}");
            }
        });
    }

    #[test]
    fn versions_compare_as_numbers() {
        assert!(glibc_version("GLIBC_2.34") > glibc_version("GLIBC_2.4"));
        assert_eq!(glibc_version("GLIBC_2.2.5"), Some((2, 2)));
        assert_eq!((glibc_version("GLIBC_PRIVATE"), glibc_version("GCC_3.0")), (None, None));
    }
}

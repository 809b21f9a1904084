//! Checks a library's ELF headers before the dynamic linker reads them: the linker crashes on a file that
//! ends early, and reports another machine's library as "no such file".

use std::{fs, iter, path::Path, str};

use effe_abi::c_root::NOTE_NAME;
use object::{
    Endian, Endianness, ReadRef, elf,
    read::elf::{Dyn, FileHeader, Note, ProgramHeader},
};

const DAMAGED_HEADER: &str = "its ELF header is damaged; copy or build it again";
const DAMAGED_SEGMENTS: &str = "its program headers are damaged; copy or build it again";

/// Bytes of memory that an image may have beyond what is in its file.
const MAX_EMPTY: u64 = 1 << 30;

/// The machine this loader is built for.
const MACHINE: elf::Machine = match () {
    () if cfg!(target_arch = "x86_64") => elf::EM_X86_64,
    () if cfg!(target_arch = "aarch64") => elf::EM_AARCH64,
    () if cfg!(target_arch = "riscv64") => elf::EM_RISCV,
    () => elf::EM_NONE,
};

/// Checks that a file has the headers of a library that this machine can map. Returns how many bytes of memory
/// its image takes; an error says what differs, and what to do.
pub fn check<'file>(file: impl ReadRef<'file>) -> Result<u64, String> {
    let length = file.len().map_err(|()| "it can't be read; copy or build it again")?;
    let ident = file.read_bytes_at(0, length.min(5)).unwrap_or_default();
    if ident.get(..4) != Some(&elf::ELFMAG) {
        let begin = ident.get(..4).unwrap_or(ident).escape_ascii();
        let begin = if ident.is_empty() { "is empty".to_owned() } else { format!("starts with \"{begin}\"") };
        return Err(format!(
            "it is not a shared library (it {begin}); build one with crate-type = [\"cdylib\"]"
        ));
    }
    match ident.get(4).copied().map(elf::FileClass) {
        Some(elf::ELFCLASS64) if cfg!(target_pointer_width = "64") => {}
        Some(elf::ELFCLASS32) => return Err(machine("it is a 32-bit library")),
        _ => return Err(DAMAGED_HEADER.to_owned()),
    }
    let damaged = |_| DAMAGED_HEADER;
    let header = elf::FileHeader64::<Endianness>::parse(file).map_err(|_| truncated(64, length))?;
    let endian = header.endian().map_err(damaged)?;
    if endian.is_big_endian() != cfg!(target_endian = "big") {
        return Err(machine("it is built for another byte order"));
    }
    let built_for = header.e_machine(endian);
    if built_for != MACHINE {
        return Err(machine(&format!("it is built for {}", machine_name(built_for))));
    }
    let has = |end: u64| if end <= length { Ok(()) } else { Err(truncated(end, length)) };
    let has_table = |at: u64, n: u16, size: u16| has(at.saturating_add(u64::from(n) * u64::from(size)));
    has_table(header.e_phoff(endian), header.e_phnum(endian), header.e_phentsize(endian))?;
    let segments = header.program_headers(endian, file).map_err(damaged)?;
    for segment in segments {
        let end = segment.p_offset(endian).checked_add(segment.p_filesz(endian));
        has(end.ok_or(DAMAGED_SEGMENTS)?)?;
    }
    // A program has an interpreter. So has a library that can also be run (libc.so.6), but no lambda has.
    let program = header.e_type(endian) == elf::ET_EXEC
        || segments.iter().any(|segment| segment.p_type(endian) == elf::PT_INTERP);
    if program {
        return Err("it is a program, not a library; set crate-type = [\"cdylib\"] under [lib]".to_owned());
    }
    if header.e_type(endian) != elf::ET_DYN {
        return Err("it is an object file or a core, not a library; name the built lib*.so".to_owned());
    }
    if !segments.iter().any(|segment| segment.p_type(endian) == elf::PT_LOAD) {
        return Err(DAMAGED_SEGMENTS.to_owned());
    }
    has_table(header.e_shoff(endian), header.e_shnum(endian), header.e_shentsize(endian))?;
    let loaded = segments.iter().filter(|segment| segment.p_type(endian) == elf::PT_LOAD);
    let ends = loaded.clone().map(|segment| segment.p_vaddr(endian).saturating_add(segment.p_memsz(endian)));
    let image = ends.max().and_then(|end| end.checked_next_multiple_of(4096)).unwrap_or(u64::MAX);
    // What is made read-only after relocation is a part of the image, up to the largest page there is.
    let relro = segments.iter().filter(|segment| segment.p_type(endian) == elf::PT_GNU_RELRO);
    let mut ends = relro.map(|segment| segment.p_vaddr(endian).saturating_add(segment.p_memsz(endian)));
    if ends.any(|end| end > image.saturating_add(64 * 1024)) {
        return Err(DAMAGED_SEGMENTS.to_owned());
    }
    // As ELF has it. The linker takes the memory from the first one's begin to the last one's end, wherever those are.
    let begins = loaded.clone().map(|segment| segment.p_vaddr(endian));
    if !begins.is_sorted() {
        return Err(DAMAGED_SEGMENTS.to_owned());
    }
    let most_aligned = loaded.map(|segment| segment.p_align(endian)).max().unwrap_or_default();
    // The linker would say that there is no memory for it, which may also be the machine's fault.
    if image.max(most_aligned) > length.saturating_add(MAX_EMPTY) {
        return Err(DAMAGED_SEGMENTS.to_owned());
    }
    Ok(image)
}

/// The text of the ELF note of this type and of the name `effe`: what the plugin says of itself in its file. `None` if
/// there is none that is a text. The file was checked before.
pub fn note<'file>(file: impl ReadRef<'file>, kind: u32) -> Option<&'file str> {
    let header = elf::FileHeader64::<Endianness>::parse(file).ok()?;
    let endian = header.endian().ok()?;
    let segments = header.program_headers(endian, file).ok()?;
    let notes = segments.iter().filter_map(|segment| segment.notes(endian, file).ok().flatten());
    let mut notes = notes.flat_map(|mut notes| iter::from_fn(move || notes.next().ok().flatten()));
    let is_it = |note: &Note<'_, _>| note.name() == &NOTE_NAME[..4] && note.n_type(endian).0 == kind;
    let text = notes.find(is_it)?.desc().strip_suffix(b"\0")?;
    str::from_utf8(text).ok()
}

/// Whether a library has the dynamic linker look for other libraries in places that are named after its own directory.
/// The file was checked before.
pub fn looks_beside_itself(path: &Path) -> bool {
    let Ok(bytes) = fs::read(path) else { return false };
    run_paths(&bytes)
        .is_ok_and(|paths| paths.iter().any(|path| path.contains("$ORIGIN") || path.contains("${ORIGIN}")))
}

fn run_paths(bytes: &[u8]) -> object::read::Result<Vec<String>> {
    let header = elf::FileHeader64::<Endianness>::parse(bytes)?;
    let endian = header.endian()?;
    let sections = header.sections(endian, bytes)?;
    let Some((entries, link)) = sections.dynamic(endian, bytes)? else { return Ok(Vec::new()) };
    let strings = sections.strings(endian, bytes, link)?;
    let is_path =
        |entry: &&elf::Dyn64<Endianness>| [elf::DT_RUNPATH, elf::DT_RPATH].contains(&entry.tag(endian));
    let text = |entry: &elf::Dyn64<Endianness>| {
        Ok(String::from_utf8_lossy(entry.string(endian, strings)?).into_owned())
    };
    entries.iter().filter(is_path).map(text).collect()
}

fn truncated(needed: u64, has: u64) -> String {
    format!("it is truncated: its headers need {needed} bytes, it has {has}; copy or build it again")
}

fn machine(what: &str) -> String {
    let arch = std::env::consts::ARCH;
    format!("{what}, this loader is built for {arch}; build it with --target {arch}-unknown-linux-gnu")
}

fn machine_name(machine: elf::Machine) -> String {
    match machine {
        elf::EM_X86_64 => "x86_64".to_owned(),
        elf::EM_AARCH64 => "aarch64".to_owned(),
        elf::EM_386 => "x86".to_owned(),
        elf::EM_ARM => "arm".to_owned(),
        elf::EM_RISCV => "riscv".to_owned(),
        elf::EM_PPC64 => "powerpc64".to_owned(),
        elf::EM_S390 => "s390x".to_owned(),
        other => format!("machine {}", other.0),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Mutex, PoisonError};

    use super::*;

    /// This very test is a program of this machine.
    fn program() -> Vec<u8> {
        std::fs::read(std::env::current_exe().unwrap()).unwrap()
    }

    /// The same without the interpreter that makes it a program.
    fn library() -> Vec<u8> {
        let mut bytes = program();
        let header = elf::FileHeader64::<Endianness>::parse(&*bytes).unwrap();
        let endian = header.endian().unwrap();
        let segments = header.program_headers(endian, &*bytes).unwrap();
        let interpreter =
            segments.iter().position(|segment| segment.p_type(endian) == elf::PT_INTERP).unwrap();
        let at = header.e_phoff(endian) as usize + interpreter * size_of_val(&segments[0]);
        bytes[at..at + 4].fill(0);
        bytes
    }

    fn reason(bytes: &[u8]) -> String {
        check(bytes).unwrap_err()
    }

    #[test]
    fn what_is_no_library_is_told_apart() {
        assert!(reason(b"").contains("is empty"));
        assert!(reason(b"hello").contains("starts with \"hell\""));
        assert!(reason(b"\x7fELF").contains("damaged"));
        assert!(reason(&program()).contains("is a program"));
        assert!(reason(&program()[..40]).contains("truncated"));
        assert!(reason(&program()[..5000]).contains("truncated"));
    }

    #[test]
    fn another_machine_is_named() {
        let mut bytes = program();
        bytes[4] = elf::ELFCLASS32.0;
        assert!(reason(&bytes).contains("32-bit"));
        let mut bytes = program();
        bytes[18..20].copy_from_slice(&elf::EM_S390.0.to_le_bytes());
        assert!(reason(&bytes).contains("built for s390x"), "{}", reason(&bytes));
        bytes[18..20].copy_from_slice(&0x1234_u16.to_le_bytes());
        assert!(reason(&bytes).contains("machine 4660"));
    }

    #[test]
    fn an_image_of_absurd_size_is_damaged() {
        let good = library();
        let header = elf::FileHeader64::<Endianness>::parse(&*good).unwrap();
        let endian = header.endian().unwrap();
        let segments = header.program_headers(endian, &*good).unwrap();
        let loaded = segments.iter().position(|segment| segment.p_type(endian) == elf::PT_LOAD).unwrap();
        let at = header.e_phoff(endian) as usize + loaded * size_of_val(&segments[0]);
        // p_vaddr, p_memsz, p_align
        for field in [16, 40, 48] {
            let mut bytes = good.clone();
            bytes[at + field + 4] = 1;
            assert_eq!(reason(&bytes), DAMAGED_SEGMENTS, "{field}");
        }
    }

    #[test]
    fn segments_that_are_not_in_their_order_are_damaged() {
        let mut bytes = library();
        let header = elf::FileHeader64::<Endianness>::parse(&*bytes).unwrap();
        let endian = header.endian().unwrap();
        let segments = header.program_headers(endian, &*bytes).unwrap();
        let is_loaded = |segment: &&elf::ProgramHeader64<Endianness>| segment.p_type(endian) == elf::PT_LOAD;
        let last = segments.iter().filter(is_loaded).map(|segment| segment.p_vaddr(endian)).max().unwrap();
        let first = segments.iter().position(|segment| segment.p_type(endian) == elf::PT_LOAD).unwrap();
        let at = header.e_phoff(endian) as usize + first * size_of_val(&segments[0]) + 16;
        bytes[at..at + 8].copy_from_slice(&(last + 1).to_ne_bytes());
        assert_eq!(reason(&bytes), DAMAGED_SEGMENTS);
    }

    #[test]
    fn what_becomes_read_only_lies_in_the_image() {
        let mut bytes = library();
        let header = elf::FileHeader64::<Endianness>::parse(&*bytes).unwrap();
        let endian = header.endian().unwrap();
        let segments = header.program_headers(endian, &*bytes).unwrap();
        let relro = segments.iter().position(|segment| segment.p_type(endian) == elf::PT_GNU_RELRO).unwrap();
        let at = header.e_phoff(endian) as usize + relro * size_of_val(&segments[0]) + 16;
        bytes[at + 3] ^= 0x7f;
        assert_eq!(reason(&bytes), DAMAGED_SEGMENTS);
    }

    #[test]
    fn a_file_of_any_headers_is_taken_with_its_size_or_refused_in_one_line() {
        let library = library();
        assert!(check(&*library).is_ok());
        let library = Mutex::new(library);
        // Bytes that are changed, most of them in the headers, and where the file ends.
        let damage = bolero::generator::produce::<(Vec<(u16, u8)>, Option<u16>)>();
        bolero::check!().with_generator(damage).for_each(|(changes, end)| {
            let mut bytes = library.lock().unwrap_or_else(PoisonError::into_inner);
            let mut undone = Vec::new();
            for (at, byte) in changes {
                let at = usize::from(if at & 1 == 0 { at >> 8 } else { *at });
                undone.push((at, std::mem::replace(&mut bytes[at], *byte)));
            }
            let verdict = check(&bytes[..end.map_or(bytes.len(), usize::from)]);
            undone.into_iter().rev().for_each(|(at, byte)| bytes[at] = byte);
            match verdict {
                Ok(size) => assert!(size % 4096 == 0, "{size}"),
                Err(why) => assert!(!why.is_empty() && !why.contains(char::is_control), "{why}"),
            }
        });
    }

    #[test]
    fn no_damage_to_the_headers_makes_it_panic() {
        let mut bytes = program();
        for at in 0..512 {
            let good: [u8; 8] = bytes[at..at + 8].try_into().unwrap();
            for bit in 0..8 {
                bytes[at] ^= 1 << bit;
                let _ = check(&*bytes);
                bytes[at] ^= 1 << bit;
            }
            bytes[at..at + 8].fill(0xff);
            let _ = check(&*bytes);
            bytes[at..at + 8].copy_from_slice(&good);
        }
    }
}

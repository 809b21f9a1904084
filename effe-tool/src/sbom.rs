//! The crates that a program or library is made of, as a bill of materials in the format CycloneDX. `cargo auditable`
//! puts their list into the file, in a section that `strip` leaves there; scanners read the section, too.

use std::io::Read;

use anyhow::{Context, Result, anyhow};
use flate2::read::ZlibDecoder;
use object::{
    Endianness, elf,
    read::elf::{FileHeader, SectionHeader},
};
use serde::Deserialize;
use serde_json::{Value, json};

/// The section that holds the list.
const SECTION: &[u8] = b".dep-v0";
/// More than the list of any program takes: what unpacks to more isn't one.
const MAX_LIST: u64 = 8 << 20;

/// What the section holds, packed by zlib.
#[derive(Deserialize)]
struct List {
    packages: Vec<Package>,
}

#[derive(Deserialize)]
struct Package {
    name: String,
    version: String,
    source: String,
    /// `build` for what ran during the build alone.
    kind: Option<String>,
    /// Places in the list.
    #[serde(default)]
    dependencies: Vec<usize>,
    /// The crate that the file is built from.
    #[serde(default)]
    root: bool,
}

impl Package {
    /// Tells it from all others of the list.
    fn reference(&self) -> String {
        match self.source.as_str() {
            "crates.io" => format!("pkg:cargo/{}@{}", self.name, self.version),
            source => format!("{}@{} ({source})", self.name, self.version),
        }
    }

    fn component(&self) -> Value {
        let kind = if self.root { "application" } else { "library" };
        let mut component = json!({
            "type": kind,
            "bom-ref": self.reference(),
            "name": self.name,
            "version": self.version,
            "purl": format!("pkg:cargo/{}@{}", self.name, self.version),
        });
        if self.kind.as_deref() == Some("build") {
            component["scope"] = "excluded".into();
        }
        component
    }
}

/// The bill of materials of an ELF file; `None` if it holds no list.
///
/// # Errors
/// Its headers are damaged, or the list isn't one.
pub(crate) fn of(bytes: &[u8]) -> Result<Option<Vec<u8>>> {
    let section = section(bytes).map_err(|err| anyhow!("its ELF headers are damaged ({err})"))?;
    let Some(section) = section else { return Ok(None) };
    let mut text = Vec::new();
    ZlibDecoder::new(section)
        .take(MAX_LIST)
        .read_to_end(&mut text)
        .context("its list of crates is damaged")?;
    let List { packages } = serde_json::from_slice(&text).context("its list of crates is damaged")?;
    let references: Vec<_> = packages.iter().map(Package::reference).collect();
    let dependencies = packages.iter().zip(&references).map(|(package, reference)| {
        let on = package.dependencies.iter().filter_map(|at| references.get(*at));
        json!({"ref": reference, "dependsOn": on.collect::<Vec<_>>()})
    });
    let bill = json!({
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {"component": packages.iter().find(|package| package.root).map(Package::component)},
        "components": packages.iter().filter(|package| !package.root).map(Package::component).collect::<Vec<_>>(),
        "dependencies": dependencies.collect::<Vec<_>>(),
    });
    Ok(Some(format!("{bill:#}\n").into_bytes()))
}

fn section(bytes: &[u8]) -> object::read::Result<Option<&[u8]>> {
    let header = elf::FileHeader64::<Endianness>::parse(bytes)?;
    let endian = header.endian()?;
    let sections = header.sections(endian, bytes)?;
    match sections.section_by_name(endian, SECTION) {
        Some((_, section)) => section.data(endian, bytes).map(Some),
        None => Ok(None),
    }
}

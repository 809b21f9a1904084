//! Several archives of one image, each for another machine, as one: an index from which an engine takes the image for
//! its own machine.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{Read, Write},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use oci_spec::image::{
    Descriptor, ImageIndex, ImageIndexBuilder, MediaType, OciLayoutBuilder, SCHEMA_VERSION,
};

use super::{NAMES, archive, blob, sorted};
use crate::image::Part;

/// Writes the archive. Returns the image's tag and the machines.
///
/// # Errors
/// A file can't be read, or holds anything but one image; two of them are for one machine, or have other tags.
pub(crate) fn merge(archives: &[PathBuf], out: impl Write) -> Result<(String, Vec<String>)> {
    let mut blobs = Vec::new();
    let mut manifests = Vec::<Descriptor>::new();
    let mut tag = None;
    let mut machines = BTreeMap::new();
    for path in archives {
        let place = || path.display().to_string();
        let Archive { mut manifest, files } = Archive::read(path).with_context(place)?;
        let annotations = manifest.annotations().clone().unwrap_or_default();
        let name = annotations.get(NAMES[1]).cloned().unwrap_or_default();
        let machine = manifest.platform().as_ref().map(|platform| platform.architecture().to_string());
        let Some(machine) = machine else { bail!("{}: it doesn't say for which machine it is", place()) };
        if let Some(other) = machines.insert(machine.clone(), path) {
            bail!(
                "{} and {} are both for {machine}; merge images for different machines",
                other.display(),
                place()
            );
        }
        match &tag {
            None => tag = Some((name, annotations)),
            Some((known, _)) if *known == name => {}
            Some((known, _)) => {
                bail!(
                    "{} is {name}, and {} is {known}; pack both with one --tag",
                    place(),
                    archives[0].display()
                )
            }
        }
        manifest.set_annotations(None);
        manifests.push(manifest);
        blobs.extend(files.into_iter().filter(|(path, _)| path.starts_with("blobs/")));
    }
    let (tag, annotations) = tag.context("there is nothing to merge")?;
    let index = |manifests: Vec<Descriptor>| {
        ImageIndexBuilder::default()
            .schema_version(SCHEMA_VERSION)
            .media_type(MediaType::ImageIndex)
            .manifests(manifests)
            .build()
    };
    let mut all = blob(&mut blobs, MediaType::ImageIndex, sorted(serde_json::to_value(index(manifests)?)?))?;
    all.set_annotations(Some(annotations));
    blobs.push(("index.json".to_owned(), sorted(serde_json::to_value(index(vec![all])?)?)));
    let layout = OciLayoutBuilder::default().image_layout_version("1.0.0").build()?;
    blobs.push(("oci-layout".to_owned(), sorted(serde_json::to_value(layout)?)));
    blobs.sort();
    blobs.dedup();
    let parts = blobs.into_iter().map(|(path, bytes)| Part { what: String::new(), path, bytes, mode: 0o644 });
    archive(&parts.collect::<Vec<_>>(), tar::Builder::new(out)).context("cannot write the archive")?;
    Ok((tag, machines.into_keys().collect()))
}

/// An archive of one image.
struct Archive {
    manifest: Descriptor,
    /// All files, by their paths.
    files: Vec<(String, Vec<u8>)>,
}

impl Archive {
    fn read(path: &Path) -> Result<Archive> {
        let mut files = Vec::new();
        for entry in tar::Archive::new(File::open(path)?).entries()? {
            let mut entry = entry.context("it is no archive")?;
            if !entry.header().entry_type().is_file() {
                continue;
            }
            let path = entry.path()?.to_string_lossy().into_owned();
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes)?;
            files.push((path, bytes));
        }
        let index = files.iter().find(|(path, _)| path == "index.json");
        let (_, index) = index.context("it is no archive that effe-tool docker --oci has written")?;
        let index: ImageIndex = serde_json::from_slice(index).context("its index.json is none")?;
        match &index.manifests()[..] {
            [manifest] => Ok(Archive { manifest: manifest.clone(), files }),
            manifests => bail!("it holds {} images, and one is merged of each file", manifests.len()),
        }
    }
}

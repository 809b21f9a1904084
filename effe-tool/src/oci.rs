//! Writes an image as an archive: an OCI layout that also has the index of `docker save`, so that every engine loads
//! it.
//!
//! The same parts always give the same bytes: entries are sorted, and times and owners are zero. What is in the image
//! is decided in [`crate::image`].

pub(crate) mod merged;

use std::{collections::BTreeSet, io::Write};

use anyhow::{Context, Result, bail};
use flate2::{Compression, GzBuilder};
use oci_spec::image::{
    Arch, ConfigBuilder, Descriptor, ImageConfigurationBuilder, ImageIndexBuilder, ImageManifestBuilder,
    MediaType, OciLayoutBuilder, Os, PlatformBuilder, RootFsBuilder, SCHEMA_VERSION, Sha256Digest,
};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tar::{EntryType, Header};

use crate::{
    image::{DATA, Image, Part, STOP_SIGNAL, USER},
    loader::PORT,
    package::hex,
};

/// The time of creation that every image has, so that the bytes don't depend on when it was made.
const CREATED: &str = "1970-01-01T00:00:00Z";
/// The annotations that name an image in an index: for containerd and docker, and for podman and skopeo.
const NAMES: [&str; 2] = ["io.containerd.image.name", "org.opencontainers.image.ref.name"];

/// Writes the archive.
///
/// # Errors
/// It can't be written, or the image is for a machine that OCI has no name for.
pub(crate) fn write(image: &Image, out: impl Write) -> Result<()> {
    let mut blobs = Vec::new();
    let mut diff_ids = Vec::new();
    let mut layers = Vec::new();
    for (n, parts) in image.layers.iter().enumerate() {
        let is_last = n + 1 == image.layers.len();
        let tar = layer(parts, is_last).context("cannot make a layer")?;
        diff_ids.push(format!("sha256:{}", hex(&Sha256::digest(&tar))));
        let mut gzip = GzBuilder::new().mtime(0).write(Vec::new(), Compression::best());
        let packed = gzip.write_all(&tar).and_then(|()| gzip.finish()).context("cannot make a layer")?;
        layers.push(blob(&mut blobs, MediaType::ImageLayerGzip, packed)?);
    }
    let arch = match image.machine.as_str() {
        "x86_64" => Arch::Amd64,
        "aarch64" => Arch::ARM64,
        "riscv64" => Arch::RISCV64,
        machine => bail!("there are no images for {machine}"),
    };
    let config = ConfigBuilder::default()
        .user(format!("{USER}:{USER}"))
        .exposed_ports([format!("{PORT}/tcp")])
        .entrypoint(image.entrypoint.clone())
        .working_dir("/")
        .labels(image.labels.iter().cloned().collect::<std::collections::HashMap<_, _>>())
        .stop_signal(STOP_SIGNAL)
        .build()?;
    let configuration = ImageConfigurationBuilder::default()
        .created(CREATED)
        .architecture(arch.clone())
        .os(Os::Linux)
        .config(config)
        .rootfs(RootFsBuilder::default().typ("layers").diff_ids(diff_ids).build()?)
        .build()?;
    let config = blob(&mut blobs, MediaType::ImageConfig, sorted(serde_json::to_value(configuration)?))?;
    let docker = json!([{
        "Config": path(&config),
        "RepoTags": [image.tag],
        "Layers": layers.iter().map(path).collect::<Vec<_>>(),
    }]);
    let manifest = ImageManifestBuilder::default()
        .schema_version(SCHEMA_VERSION)
        .media_type(MediaType::ImageManifest)
        .config(config)
        .layers(layers)
        .build()?;
    let mut manifest = blob(&mut blobs, MediaType::ImageManifest, sorted(serde_json::to_value(manifest)?))?;
    let names = [full_name(&image.tag), image.tag.clone()];
    manifest.set_annotations(Some(NAMES.map(str::to_owned).into_iter().zip(names).collect()));
    manifest.set_platform(Some(PlatformBuilder::default().architecture(arch).os(Os::Linux).build()?));
    let index = ImageIndexBuilder::default()
        .schema_version(SCHEMA_VERSION)
        .media_type(MediaType::ImageIndex)
        .manifests([manifest])
        .build()?;
    let layout = OciLayoutBuilder::default().image_layout_version("1.0.0").build()?;

    let mut files: Vec<(String, Vec<u8>)> = blobs;
    files.push(("index.json".to_owned(), sorted(serde_json::to_value(index)?)));
    files.push(("manifest.json".to_owned(), sorted(docker)));
    files.push(("oci-layout".to_owned(), sorted(serde_json::to_value(layout)?)));
    files.sort();
    files.dedup();
    let parts = files.into_iter().map(|(path, bytes)| Part { what: String::new(), path, bytes, mode: 0o644 });
    archive(&parts.collect::<Vec<_>>(), tar::Builder::new(out)).context("cannot write the archive")?;
    Ok(())
}

/// Adds bytes as a blob, under their digest.
fn blob(blobs: &mut Vec<(String, Vec<u8>)>, kind: MediaType, bytes: Vec<u8>) -> Result<Descriptor> {
    let digest: Sha256Digest = hex(&Sha256::digest(&bytes)).parse()?;
    let descriptor = Descriptor::new(kind, bytes.len() as u64, digest);
    blobs.push((path(&descriptor), bytes));
    Ok(descriptor)
}

fn path(descriptor: &Descriptor) -> String {
    format!("blobs/sha256/{}", descriptor.digest().digest())
}

/// A tag with its registry, as docker and containerd complete it.
fn full_name(tag: &str) -> String {
    let first = tag.split('/').next().unwrap_or(tag);
    match tag.split_once('/') {
        Some(_) if first.contains(['.', ':']) || first == "localhost" => tag.to_owned(),
        Some(_) => format!("docker.io/{tag}"),
        None => format!("docker.io/library/{tag}"),
    }
}

/// JSON with its keys sorted at every depth, because labels come from a hash map.
fn sorted(value: Value) -> Vec<u8> {
    fn order(value: Value) -> Value {
        match value {
            Value::Object(members) => {
                let mut members: Vec<_> = members.into_iter().collect();
                members.sort_by(|(one, _), (other, _)| one.cmp(other));
                members.into_iter().map(|(key, value)| (key, order(value))).collect()
            }
            Value::Array(values) => values.into_iter().map(order).collect(),
            value => value,
        }
    }
    order(value).to_string().into_bytes()
}

/// The tar of a layer; the last one also has the directory for data.
fn layer(parts: &[Part], has_data: bool) -> std::io::Result<Vec<u8>> {
    let mut tar = tar::Builder::new(Vec::new());
    if has_data {
        let mut header = header(EntryType::Directory, 0o755, 0);
        header.set_uid(USER.into());
        header.set_gid(USER.into());
        tar.append_data(&mut header, format!("{DATA}/"), &[][..])?;
    }
    archive(parts, tar)
}

/// Adds parts and their parent directories to a tar, and ends it.
fn archive<W: Write>(parts: &[Part], mut tar: tar::Builder<W>) -> std::io::Result<W> {
    let mut directories = BTreeSet::new();
    for part in parts {
        let above = part.path.match_indices('/').map(|(at, _)| &part.path[..=at]);
        for directory in
            above.filter(|directory| directories.insert((*directory).to_owned())).collect::<Vec<_>>()
        {
            tar.append_data(&mut header(EntryType::Directory, 0o755, 0), directory, &[][..])?;
        }
        let mut header = header(EntryType::Regular, part.mode, part.bytes.len() as u64);
        tar.append_data(&mut header, &part.path, &part.bytes[..])?;
    }
    tar.into_inner()
}

fn header(kind: EntryType, mode: u32, size: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(size);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header
}

#[cfg(test)]
mod tests {
    use super::{merged::merge, *};

    fn image() -> Image {
        let part = |path: &str| Part {
            what: String::new(),
            path: path.to_owned(),
            bytes: path.as_bytes().to_vec(),
            mode: 0o755,
        };
        Image {
            tag: "hello:0.1.0".to_owned(),
            machine: "x86_64".to_owned(),
            labels: (0..9).map(|n| (format!("label{n}"), "x".to_owned())).collect(),
            entrypoint: vec!["/bin/effe-loader".to_owned()],
            layers: vec![vec![part("bin/effe-loader"), part("lib/a/b.so")], vec![part("lambda/hello.so")]],
        }
    }

    #[test]
    fn the_same_parts_give_the_same_bytes() {
        let (mut one, mut other) = (Vec::new(), Vec::new());
        write(&image(), &mut one).unwrap();
        write(&image(), &mut other).unwrap();
        assert!(one == other && !one.is_empty());
    }

    #[test]
    fn every_digest_is_that_of_its_blob() {
        let mut bytes = Vec::new();
        write(&image(), &mut bytes).unwrap();
        let mut n_blobs = 0;
        for entry in tar::Archive::new(&bytes[..]).entries().unwrap() {
            let mut entry = entry.unwrap();
            let path = entry.path().unwrap().to_string_lossy().into_owned();
            let Some(digest) = path.strip_prefix("blobs/sha256/").filter(|digest| !digest.is_empty()) else {
                continue;
            };
            let mut blob = Vec::new();
            std::io::Read::read_to_end(&mut entry, &mut blob).unwrap();
            assert_eq!(digest, hex(&Sha256::digest(&blob)));
            n_blobs += 1;
        }
        assert_eq!(n_blobs, 4, "two layers, a configuration and a manifest");
    }

    #[test]
    fn images_for_several_machines_become_one() {
        let directory = tempfile::tempdir().unwrap();
        let archive = |name: &str, machine: &str, tag: &str| {
            let path = directory.path().join(name);
            let image = Image { machine: machine.to_owned(), tag: tag.to_owned(), ..image() };
            write(&image, std::fs::File::create(&path).unwrap()).unwrap();
            path
        };
        let (one, other) = (archive("one", "x86_64", "hello:1"), archive("other", "aarch64", "hello:1"));
        let mut bytes = Vec::new();
        let (tag, machines) = merge(&[one.clone(), other.clone()], &mut bytes).unwrap();
        assert_eq!((tag.as_str(), machines), ("hello:1", vec!["amd64".to_owned(), "arm64".to_owned()]));

        let mut files = std::collections::BTreeMap::new();
        for entry in tar::Archive::new(&bytes[..]).entries().unwrap() {
            let mut entry = entry.unwrap();
            let mut content = Vec::new();
            std::io::Read::read_to_end(&mut entry, &mut content).unwrap();
            files.insert(entry.path().unwrap().to_string_lossy().into_owned(), content);
        }
        let json = |path: &str| serde_json::from_slice::<Value>(&files[path]).unwrap();
        let below = |descriptor: &Value| {
            json(&format!("blobs/{}", descriptor["digest"].as_str().unwrap().replace(':', "/")))
        };
        let index = json("index.json");
        assert_eq!(index["manifests"][0]["annotations"][NAMES[1]], "hello:1");
        let images = below(&index["manifests"][0]);
        for (at, machine) in ["amd64", "arm64"].into_iter().enumerate() {
            let image = &images["manifests"][at];
            assert_eq!(image["platform"]["architecture"], machine);
            assert_eq!(below(&below(image)["config"])["architecture"], machine);
        }

        let refused =
            |archives: &[std::path::PathBuf]| format!("{:#}", merge(archives, Vec::new()).unwrap_err());
        assert!(refused(&[one.clone(), one.clone()]).contains("are both for amd64"));
        let shop = archive("shop", "aarch64", "shop:1");
        assert!(refused(&[one, shop]).contains("is shop:1, and "));
        assert!(refused(&[directory.path().join("none")]).contains("none"));
    }

    #[test]
    fn names_are_written_out_as_engines_do() {
        let cases = [
            ("hello:1", "docker.io/library/hello:1"),
            ("me/hello:1", "docker.io/me/hello:1"),
            ("localhost:5000/hello:1", "localhost:5000/hello:1"),
            ("registry.example/a/b:1", "registry.example/a/b:1"),
        ];
        for (tag, expected) in cases {
            assert_eq!(full_name(tag), expected);
        }
    }
}

//! Tests of `docker`: what is in an image, how large it is, and that it serves with nothing else around it.

use std::{
    collections::BTreeMap,
    fs,
    io::{Read, Write},
    net::{SocketAddr, TcpListener},
    os::unix::fs::MetadataExt,
    path::Path,
    process::{Command, Stdio},
    sync::Arc,
    thread,
};

use flate2::read::GzDecoder;
use rcgen::{CertificateParams, CertifiedIssuer, KeyPair};
use rustls::{ServerConfig, ServerConnection, StreamOwned, pki_types::PrivateKeyDer};
use serde_json::{Value, json};

use crate::support::{
    Loader, Scratch, tool,
    tool::{Tool, release_loader, workspace},
};

/// The size of the image of 2016 in bytes, uncompressed.
const IMAGE_OF_2016: u64 = 5_735_000;
/// The size limit of a stripped loader with default features, in bytes.
const LOADER: u64 = 2_800_000;

/// The files of an archive.
fn unpacked(archive: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    for entry in tar::Archive::new(fs::File::open(archive).unwrap()).entries().unwrap() {
        let mut entry = entry.unwrap();
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).unwrap();
        files.insert(entry.path().unwrap().to_string_lossy().into_owned(), bytes);
    }
    files
}

/// Unpacks an image's layers as an engine does. Returns its configuration.
fn unpack(archive: &Path, root: &Path) -> Value {
    let files = unpacked(archive);
    let json = |path: &str| serde_json::from_slice::<Value>(&files[path]).unwrap();
    let blob =
        |descriptor: &Value| format!("blobs/{}", descriptor["digest"].as_str().unwrap().replace(':', "/"));
    assert_eq!(json("oci-layout")["imageLayoutVersion"], "1.0.0");
    let manifest = json(&blob(&json("index.json")["manifests"][0]));
    for layer in manifest["layers"].as_array().unwrap() {
        let layer = GzDecoder::new(&files[&blob(layer)][..]);
        tar::Archive::new(layer).unpack(root).unwrap();
    }
    // The index of `docker save` names the same blobs.
    assert_eq!(json("manifest.json")[0]["Config"], blob(&manifest["config"]));
    json(&blob(&manifest["config"]))
}

/// The image's entry point, run with the image as its root and as the image's user. `None` if this test may not do
/// that.
fn contained(root: &Path, config: &Value, args: &[&str]) -> Option<Loader> {
    let unshare = |script: &str| {
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", script, "sh"]).arg(root);
        command
    };
    fs::create_dir_all(root.join("proc")).unwrap();
    let probe = unshare("mount -t proc proc \"$1/proc\"").stderr(Stdio::null()).status();
    if !probe.is_ok_and(|status| status.success()) {
        eprintln!("SKIPPED: chroot and mounts are for root alone, and this is not root");
        return None;
    }
    assert_eq!(config["config"]["User"], "65532:65532");
    let mut command = unshare(
        "root=$1; shift; mount -t proc proc \"$root/proc\"; \
         exec env -i \"$(command -v chroot)\" --userspec=65532:65532 \"$root\" \"$@\"",
    );
    for word in config["config"]["Entrypoint"].as_array().unwrap() {
        command.arg(word.as_str().unwrap());
    }
    command.args(args);
    Some(Loader::by(command))
}

/// The tool, with a release build of the loader.
fn packer(scratch: &Scratch) -> Tool {
    tool(scratch).env("EFFE_LOADER", release_loader())
}

/// Compiles hello.
fn hello(scratch: &Scratch) {
    tool(scratch).args(["new", "hello"]).run().assert_code(0);
    tool(scratch).args(["compile", "hello"]).run().assert_code(0);
}

#[test]
fn hello_serves_from_an_image_that_holds_nothing_else() {
    let scratch = Scratch::new();
    tool(&scratch).args(["new", "hello"]).run().assert_code(0);
    tool(&scratch).args(["compile", "hello"]).optimized().run().assert_code(0);
    let plugin = "out/hello_v0.1.0.so";
    let done = packer(&scratch).args(["docker", plugin, "--oci", "images/hello.tar"]).run().assert_code(0);
    eprintln!("{}", done.stdout);
    let root = scratch.join("root");
    let config = unpack(&scratch.join("images/hello.tar"), &root);

    assert_eq!(config["config"]["Labels"]["org.opencontainers.image.title"], "hello");
    assert_eq!(config["config"]["Labels"]["org.opencontainers.image.version"], "0.1.0");
    assert_eq!(config["config"]["StopSignal"], "SIGTERM");
    assert!(config["config"]["ExposedPorts"]["8080/tcp"].is_object());
    let files = walkdir::WalkDir::new(&root).into_iter().map(Result::unwrap);
    let files: Vec<_> = files.filter(|entry| entry.file_type().is_file()).collect();
    assert!(
        done.stdout.contains("hello:0.1.0") && done.stdout.contains("CA certificates"),
        "{}",
        done.stdout
    );
    assert_eq!(files.len(), 6, "loader, libc, libgcc_s, ld.so, certificates, plugin: {files:?}");
    let size: u64 = files.iter().map(|file| file.metadata().unwrap().len()).sum();
    assert!(size < IMAGE_OF_2016, "{size} bytes: {}", done.stdout);
    let loader = fs::metadata(root.join("bin/effe-loader")).unwrap().len();
    assert!(loader < LOADER, "the loader has {loader} bytes");

    packer(&scratch).args(["docker", plugin, "--oci", "again.tar"]).run().assert_code(0);
    assert!(
        fs::read(scratch.join("again.tar")).unwrap() == fs::read(scratch.join("images/hello.tar")).unwrap()
    );

    let Some(loader) = contained(&root, &config, &["--set", "greeting=Ciao"]) else { return };
    let server = loader.serve();
    assert_eq!(server.get("/world").text(), "Ciao from effe: /world\n");
    server.stop();
}

#[test]
fn a_static_program_serves_from_an_image_of_two_files() {
    let scratch = Scratch::new();
    tool(&scratch).args(["new", "hello"]).run().assert_code(0);
    tool(&scratch).args(["compile", "--exe", "--static", "hello"]).small().run().assert_code(0);
    let json = tool(&scratch).args(["inspect", "--json", "out/hello_v0.1.0"]).run().assert_code(0).json();
    assert_eq!((&json["kind"], json["needs"].as_array().unwrap().len()), (&"static executable".into(), 0));
    let done =
        tool(&scratch).args(["docker", "out/hello_v0.1.0", "--oci", "x.tar", "--json"]).run().assert_code(0);
    let image = &done.json()[0];
    assert_eq!(image["parts"].as_array().unwrap().len(), 2, "{image}");
    assert!(image["size"].as_u64().unwrap() < IMAGE_OF_2016, "{image}");
    let root = scratch.join("root");
    let config = unpack(&scratch.join("x.tar"), &root);
    let Some(loader) = contained(&root, &config, &[]) else { return };
    let server = loader.serve();
    assert_eq!(server.get("/world").text(), "Hello from effe: /world\n");
    server.stop();
}

#[test]
fn a_lambda_in_cpp_serves_from_an_image_with_its_own_libraries_in_its_own_layer() {
    let scratch = Scratch::new();
    for example in ["c/hello.c", "cpp/kv.cc"] {
        let source = workspace().join("examples").join(example);
        tool(&scratch).arg("compile").arg(source).run().assert_code(0);
    }
    let parts = |plugin: &str| {
        let done = tool(&scratch).args(["docker", plugin, "--oci", "x.tar", "--json"]).run().assert_code(0);
        let parts = done.json()[0]["parts"].as_array().unwrap().clone();
        parts.iter().map(|part| part["part"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let (c, cpp) = (parts("out/hello_v0.1.0.so"), parts("out/kv_v0.1.0.so"));
    let n_shared = c.len() - 1;
    assert_eq!((&c[n_shared..], &c[..n_shared]), (&["plugin".to_owned()][..], &cpp[..n_shared]));
    assert!(cpp[n_shared..].iter().any(|part| part.starts_with("libstdc++")), "{cpp:?}");

    let root = scratch.join("root");
    let config = unpack(&scratch.join("x.tar"), &root);
    let Some(loader) = contained(&root, &config, &[]) else { return };
    let server = loader.serve();
    assert_eq!(server.get("/none").text(), "no such key\n");
    server.stop();
}

/// A lambda that panics in a function of its own, which the compiler does not inline.
const PANICKING: &str = r#"
use effe_abi::{Lambda, Params, Request, Response, Result, StartError, Started, export};
struct Scale;
impl Lambda for Scale {
    fn start(_: Params) -> Result<Self, StartError<Self>> { Ok(Scale) }
    fn run(scale: Started<Self>, request: &Request, response: &mut Response) -> Result {
        scale?;
        response.text(weigh(request.path()));
        Ok(())
    }
}
#[inline(never)]
fn weigh(path: &str) -> String {
    let n: usize = path.trim_start_matches('/').parse().unwrap();
    format!("{n} grams\n")
}
export!(Scale);
"#;

/// Serves a plugin, makes it panic, and returns what the log says of it: its lines.
fn panic_of(plugin: &Path) -> Vec<String> {
    let mut command = Command::new(tool::loader());
    command.arg("--plugin").arg(plugin).args(["--syslog", "none", "--log-format", "json"]);
    let server = Loader::by(command).serve();
    assert_eq!(server.get("/x").status, 500);
    let (line, _) = server.wait_for_line(&["panicked at "]);
    server.stop();
    let line: Value = serde_json::from_str(&line).unwrap();
    line["message"].as_str().unwrap().lines().map(str::to_owned).collect()
}

#[test]
fn a_panic_in_a_release_and_in_an_image_of_it_is_logged_with_the_names_of_functions() {
    let scratch = Scratch::new();
    scratch.write("scale.rs", PANICKING);
    tool(&scratch).args(["compile", "scale.rs"]).optimized().run().assert_code(0);
    let compiled = scratch.join("out/scale_v0.0.0.so");
    tool(&scratch).args(["docker", "out/scale_v0.0.0.so", "--oci", "scale.tar"]).run().assert_code(0);
    unpack(&scratch.join("scale.tar"), &scratch.join("root"));
    for plugin in [compiled, scratch.join("root/lambda/scale_v0.0.0.so")] {
        let lines = panic_of(&plugin);
        assert!(lines[0].contains("scale.rs:14:57"), "{lines:#?}");
        assert!(lines.contains(&"in scale::weigh".to_owned()), "{lines:#?}");
    }
}

#[test]
fn an_author_who_asks_for_line_tables_finds_file_and_line_of_each_call_in_the_log() {
    let scratch = Scratch::new();
    let front = "---cargo\n[profile.release]\ndebug = \"line-tables-only\"\n---";
    scratch.write("scale.rs", format!("{front}{PANICKING}"));
    tool(&scratch).args(["compile", "scale.rs"]).run().assert_code(0);
    let lines = panic_of(&scratch.join("out/scale_v0.0.0.so"));
    // What is compiled is a copy of the file, without the block at its top; messages name the file.
    assert!(lines[0].starts_with("panicked at scale.rs:17:57: "), "{lines:#?}");
    let is_weigh = |line: &String| line.contains("weigh at ") && line.contains("/scale.rs:17:");
    assert!(lines.iter().any(is_weigh), "{lines:#?}");
}

/// Starts a TLS server with a certificate of an unknown authority. Returns its address and the authority's certificate.
fn serve_tls() -> (SocketAddr, String) {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(["127.0.0.1".to_owned()]).unwrap();
    let certificate = params.signed_by(&key, &authority).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![certificate.der().clone()],
            PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
        )
        .unwrap();
    let config = Arc::new(config);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream =
                StreamOwned::new(ServerConnection::new(config.clone()).unwrap(), stream.unwrap());
            let mut request = [0; 4096];
            if stream.read(&mut request).is_ok() {
                let _ = stream
                    .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\nconnection: close\r\n\r\nsecret");
                let _ = stream.flush();
            }
        }
    });
    (address, authority.pem())
}

#[test]
fn fetch_trusts_the_authorities_in_the_image() {
    let scratch = Scratch::new();
    let (address, authority) = serve_tls();
    scratch.write("authority.pem", authority);
    tool(&scratch).arg("compile").arg(workspace().join("examples/fetch")).run().assert_code(0);
    let plugin = "out/fetch_v0.1.0.so";
    let status = |flags: &[&str], name: &str| {
        tool(&scratch).args(["docker", plugin, "--oci", name]).args(flags).run().assert_code(0);
        let root = scratch.join(&format!("{name}-root"));
        let config = unpack(&scratch.join(name), &root);
        let url = format!("url=https://{address}/");
        let server = contained(&root, &config, &["--set", &url])?.serve();
        let reply = server.get("/");
        let answer = (reply.status, reply.text().to_owned());
        server.stop();
        Some(answer)
    };
    let Some(trusting) = status(&["--ca", "authority.pem"], "trusting.tar") else { return };
    assert_eq!(trusting, (200, "secret".to_owned()));
    assert_eq!(status(&[], "wary.tar").unwrap().0, 502, "the system's authorities don't know it");

    let done = tool(&scratch).args(["docker", plugin, "--oci", "x", "--ca", plugin]).run().assert_code(1);
    done.assert_says(&[plugin, "holds no certificate"]);
}

/// Adds a list of crates to a copy of a program or library, as `cargo auditable` does.
fn with_crates(scratch: &Scratch, file: &Path, name: &str) -> String {
    let list = json!({"packages": [
        {"name": "log", "version": "0.4.29", "source": "crates.io"},
        {"name": name, "version": "0.1.0", "source": "local", "root": true, "dependencies": [0]},
    ]});
    let mut packed = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
    packed.write_all(list.to_string().as_bytes()).unwrap();
    scratch.write("list", packed.finish().unwrap());
    let mut objcopy = Command::new("objcopy");
    objcopy.arg(format!("--add-section=.dep-v0={}", scratch.join("list").display())).arg(file);
    let status = objcopy.arg(scratch.join(name)).status();
    assert!(status.is_ok_and(|status| status.success()), "objcopy, of binutils, adds a section");
    name.to_owned()
}

#[test]
fn the_loader_alone_serves_what_is_added_and_says_what_it_is_made_of() {
    let scratch = Scratch::new();
    hello(&scratch);
    let loader = with_crates(&scratch, &release_loader(), "effe-loader");
    let packer = || tool(&scratch).env("EFFE_LOADER", scratch.join(&loader));
    packer().args(["docker", "--loader-only", "--oci", "loader.tar"]).run().assert_code(0);
    let root = scratch.join("root");
    let config = unpack(&scratch.join("loader.tar"), &root);
    let bill = fs::read_to_string(root.join("usr/share/sbom/effe-loader.cdx.json")).unwrap();
    let bill: Value = serde_json::from_str(&bill).unwrap();
    assert_eq!(
        (&bill["bomFormat"], &bill["metadata"]["component"]["name"]),
        (&"CycloneDX".into(), &"effe-loader".into())
    );
    assert_eq!(bill["components"][0]["purl"], "pkg:cargo/log@0.4.29");
    assert_eq!(bill["dependencies"][1]["dependsOn"][0], bill["components"][0]["bom-ref"]);
    // As `FROM effe-loader` and `COPY` make an image of it.
    fs::copy(scratch.join("out/hello_v0.1.0.so"), root.join("lambda.so")).unwrap();
    if let Some(loader) = contained(&root, &config, &["--set", "greeting=Ciao"]) {
        let server = loader.serve();
        assert_eq!(server.get("/world").text(), "Ciao from effe: /world\n");
        server.stop();
    }

    // An image with a lambda has the lists of both.
    let plugin = with_crates(&scratch, &scratch.join("out/hello_v0.1.0.so"), "hello.so");
    packer().args(["docker", &plugin, "--oci", "hello.tar"]).run().assert_code(0);
    let root = scratch.join("hello-root");
    unpack(&scratch.join("hello.tar"), &root);
    for name in ["effe-loader", "hello_v0.1.0.so"] {
        assert!(root.join(format!("usr/share/sbom/{name}.cdx.json")).is_file(), "{name}");
    }
    let done = tool(&scratch).args(["inspect", "--sbom", &plugin]).run().assert_code(0);
    assert!(done.stdout.contains("pkg:cargo/log@0.4.29"), "{}", done.stdout);
    let done = tool(&scratch).args(["inspect", "--sbom", "out/hello_v0.1.0.so"]).run().assert_code(1);
    done.assert_says(&["cargo auditable build"]);
}

#[test]
fn a_directory_of_plugins_becomes_a_directory_of_images() {
    let scratch = Scratch::new();
    hello(&scratch);
    fs::create_dir(scratch.join("out/more")).unwrap();
    fs::copy(scratch.join("out/hello_v0.1.0.so"), scratch.join("out/more/copy.so")).unwrap();
    scratch.write("out/notes", "");
    tool(&scratch)
        .args(["docker", "out", "--tag", "x"])
        .run()
        .assert_code(2)
        .assert_says(&["--tag x names one"]);
    // The second image would overwrite the first.
    let done = tool(&scratch).args(["docker", "out", "--oci", "images"]).run().assert_code(1);
    done.assert_says(&["out/hello_v0.1.0.so and out/more/copy.so would both be hello:0.1.0"]);
    assert!(!scratch.join("images").exists());
    fs::remove_file(scratch.join("out/more/copy.so")).unwrap();
    tool(&scratch).args(["new", "other.rs"]).run().assert_code(0);
    tool(&scratch).args(["compile", "other.rs", "--dirout", "out/more"]).run().assert_code(0);
    tool(&scratch).args(["docker", "out", "--oci", "images"]).run().assert_code(0);
    let mut images = fs::read_dir(scratch.join("images")).unwrap().map(|image| image.unwrap().file_name());
    assert_eq!(images.by_ref().count(), 2);
    assert!(scratch.join("images/hello_0.1.0.tar").is_file());
    fs::create_dir(scratch.join("empty")).unwrap();
    let done = tool(&scratch).args(["docker", "empty", "--oci", "x"]).run().assert_code(1);
    done.assert_says(&["empty holds no plugin", "effe-tool compile empty"]);
}

/// The files that a Dockerfile copies, by their place in the image, as the documentation of COPY says: a source is
/// below the context.
fn copied(context: &Path) -> BTreeMap<String, Vec<u8>> {
    let dockerfile = fs::read_to_string(context.join("Dockerfile")).unwrap();
    let mut files = BTreeMap::new();
    for line in dockerfile.lines().filter_map(|line| line.strip_prefix("COPY ")) {
        let words: Vec<_> = line.split(' ').filter(|word| !word.starts_with("--")).collect();
        let [source, place] = words[..] else { panic!("{line}") };
        for entry in walkdir::WalkDir::new(context.join(source)).into_iter().map(Result::unwrap) {
            if entry.file_type().is_file() {
                files.insert(place.trim_start_matches('/').to_owned(), fs::read(entry.path()).unwrap());
            }
        }
    }
    files
}

#[test]
fn a_dockerfile_comes_with_all_that_it_copies() {
    let scratch = Scratch::new();
    hello(&scratch);
    let write = |place: &str, flags: &[&str]| {
        let args = ["docker", "out/hello_v0.1.0.so", "--dockerfile", place];
        let done = tool(&scratch).args(args).args(flags).run().assert_code(0);
        done.assert_says(&[&format!("docker build --tag hello:0.1.0 {place}")]);
        fs::read_to_string(scratch.join(place).join("Dockerfile")).unwrap()
    };
    let text = write("context", &[]);
    for line in ["FROM scratch\n", "USER 65532:65532\n", "STOPSIGNAL SIGTERM\n", "EXPOSE 8080/tcp\n"] {
        assert!(text.contains(line), "{line}:\n{text}");
    }
    // The same files as in the image that needs no engine.
    tool(&scratch).args(["docker", "out/hello_v0.1.0.so", "--oci", "hello.tar"]).run().assert_code(0);
    let root = scratch.join("root");
    unpack(&scratch.join("hello.tar"), &root);
    let mut files = BTreeMap::new();
    for entry in walkdir::WalkDir::new(&root).into_iter().map(Result::unwrap) {
        if entry.file_type().is_file() {
            let place = entry.path().strip_prefix(&root).unwrap().to_string_lossy().into_owned();
            files.insert(place, fs::read(entry.path()).unwrap());
        }
    }
    assert!(files.len() == 6 && copied(&scratch.join("context")) == files, "{:?}", files.keys());
    let owner = |path: &str| fs::metadata(root.join(path)).map(|data| (data.is_dir(), data.uid())).unwrap();
    // Only root can give a file to another user.
    assert!(
        [(true, 65532), (true, rustix::process::getuid().as_raw())].contains(&owner("data")),
        "{:?}",
        owner("data")
    );

    let text = write("upon", &["--base", "debian:12-slim"]);
    assert!(text.starts_with("FROM debian:12-slim\n") && !text.contains("libc.so.6"), "{text}");

    let done = tool(&scratch).args(["docker", "out", "--dockerfile", "several"]).run().assert_code(0);
    assert!(
        done.stdout.contains("hello:0.1.0") && scratch.join("several/Dockerfile").is_file(),
        "{}",
        done.stdout
    );
}

#[test]
fn an_archive_goes_to_standard_output_alone() {
    let scratch = Scratch::new();
    hello(&scratch);
    let plugin = "out/hello_v0.1.0.so";
    tool(&scratch).args(["docker", plugin, "--oci", "hello.tar"]).run().assert_code(0);
    let done = tool(&scratch).args(["docker", plugin, "--oci", "-"]).run().assert_code(0);
    assert!(done.bytes == fs::read(scratch.join("hello.tar")).unwrap(), "{} bytes", done.bytes.len());
    assert!(!scratch.join("-").exists());
    let refused = |args: &[&str], says: &str| {
        let done = tool(&scratch).arg("docker").args(args).args(["--oci", "-"]).run().assert_code(2);
        assert_eq!(done.assert_says(&["--oci -", says]).stdout, "");
    };
    refused(&[plugin, "--json"], "--json");
    tool(&scratch).args(["new", "other.rs"]).run().assert_code(0);
    tool(&scratch).args(["compile", "other.rs"]).run().assert_code(0);
    refused(&["out"], "here are 2");
    let done = tool(&scratch).args(["docker", plugin, "--oci", "x", "--tag", "a:1:2"]).run().assert_code(2);
    done.assert_says(&["--tag a:1:2", "name:tag"]);
    assert!(!scratch.join("x").exists());
}

#[test]
fn without_an_engine_the_remedy_is_said() {
    let scratch = Scratch::new();
    hello(&scratch);
    let empty = scratch.join("empty");
    fs::create_dir(&empty).unwrap();
    let done =
        tool(&scratch).args(["docker", "out/hello_v0.1.0.so"]).env("PATH", &empty).run().assert_code(1);
    done.assert_says(&["neither docker nor podman nor buildah answers", "--oci FILE"]);
    // A client without its daemon counts as absent.
    let nobody = scratch.join("no.sock");
    let done = tool(&scratch)
        .args(["docker", "out/hello_v0.1.0.so", "--engine", "docker"])
        .env("DOCKER_HOST", format!("unix://{}", nobody.display()))
        .run()
        .assert_code(1);
    done.assert_says(&["docker does not answer"]);
}

#[test]
fn an_engine_takes_the_image() {
    let scratch = Scratch::new();
    hello(&scratch);
    let engine = ["podman", "buildah"].into_iter().find(|engine| {
        let mut command = Tool::by(Command::new(engine), &scratch).into_command();
        command.arg("info").stdout(Stdio::null()).stderr(Stdio::null());
        command.status().is_ok_and(|status| status.success())
    });
    let Some(engine) = engine else {
        eprintln!("SKIPPED: neither podman nor buildah answers here");
        return;
    };
    let run = |args: &[&str]| Tool::by(Command::new(engine), &scratch).args(args).run();
    let tag = "effe-tool-test:1";
    let done = tool(&scratch).args(["docker", "hello", "--engine", engine, "--tag", tag]).run();
    let done = done.assert_code(0).assert_says(&[tag, engine]);
    assert!(done.stdout.contains("libc.so.6"), "{}", done.stdout);
    let inspected = run(&["inspect", "--type", "image", tag]).assert_code(0).stdout;
    assert!(inspected.contains("65532:65532") && inspected.contains("SIGTERM"), "{inspected}");
    // The same image as a base, which needs a build.
    let done = tool(&scratch).args([
        "docker",
        "hello",
        "--engine",
        engine,
        "--base",
        tag,
        "--tag",
        "effe-tool-test:2",
    ]);
    done.run().assert_code(0);
    // Without the tool: what it writes can be built as it stands.
    tool(&scratch).args(["docker", "hello", "--dockerfile", "context"]).run().assert_code(0);
    run(&["build", "--tag", "effe-tool-test:3", "context"]).assert_code(0);
    let inspected = run(&["inspect", "--type", "image", "effe-tool-test:3"]).assert_code(0).stdout;
    assert!(inspected.contains("65532:65532") && inspected.contains("SIGTERM"), "{inspected}");
    for tag in ["effe-tool-test:3", "effe-tool-test:2", "effe-tool-test:1"] {
        run(&["rmi", "--force", tag]);
    }
}

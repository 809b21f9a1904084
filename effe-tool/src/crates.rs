//! Turns a source into a crate that cargo can build. For a single file, and for an executable, this file writes such a
//! crate into the target directory. [`crate::cargo`] builds it.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, anyhow, bail};

use crate::{
    cargo,
    cli::BuildArgs,
    effe_abi::EffeAbi,
    frontmatter,
    package::{Crate, package_name, short_hash},
    shell::Shell,
    target::{absolute, write},
};

/// The crate in a directory.
///
/// # Errors
/// The crate has no library or doesn't depend on effe-abi, or the manifest is wrong.
pub(crate) fn in_directory(directory: &Path, args: &BuildArgs) -> Result<Crate> {
    read(&absolute(&directory.join("Cargo.toml"))?, args)
}

fn read(manifest: &Path, args: &BuildArgs) -> Result<Crate> {
    let metadata = cargo::metadata(manifest, args)?;
    let package = metadata.packages.iter().find(|package| package.manifest_path == manifest);
    let Some(package) = package else {
        bail!("{} is a workspace without a package; name the directory of a member", manifest.display());
    };
    let library = package.targets.iter().find(|target| {
        target.is_lib()
            || target.is_rlib()
            || target.is_cdylib()
            || target.is_dylib()
            || target.is_staticlib()
    });
    let Some(library) = library else {
        bail!(
            "{} has no library; a lambda is a src/lib.rs with effe_abi::export!(YourType)",
            manifest.display()
        );
    };
    let effe_abi = package.dependencies.iter().find(|dependency| dependency.name == "effe-abi");
    let Some(effe_abi) = effe_abi else {
        bail!("{} doesn't depend on effe-abi; add it: cargo add effe-abi", manifest.display());
    };
    Ok(Crate {
        manifest: manifest.to_owned(),
        directory: manifest.parent().unwrap_or(Path::new("/")).to_owned(),
        package: package.name.to_string(),
        version: package.version.to_string(),
        library: library.name.clone(),
        links: library.is_lib() || library.is_rlib(),
        crate_types: library.crate_types.iter().map(ToString::to_string).collect(),
        workspace: metadata.workspace_root.clone().into(),
        effe_abi: match &effe_abi.path {
            Some(path) => EffeAbi::Path(path.clone().into()),
            None => EffeAbi::Version(effe_abi.req.to_string()),
        },
        stands_for: None,
    })
}

/// Makes a crate for a file that has its manifest at its top.
///
/// # Errors
/// As [`in_directory`].
pub(crate) fn of_file(file: &Path, target: &Path, args: &BuildArgs) -> Result<Crate> {
    let file = &absolute(file)?;
    let text = fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    let parts = frontmatter::split(&text).map_err(|err| err.context(format!("{}", file.display())))?;
    let mut manifest: toml::Table = parts
        .manifest
        .parse()
        .with_context(|| format!("{}: the block at its top is no manifest", file.display()))?;
    let allowed = ["package", "dependencies", "build-dependencies", "features", "lints", "patch", "profile"];
    if let Some(key) = manifest.keys().find(|key| !allowed.contains(&key.as_str())) {
        bail!("{}: a single file has no [{key}]; make it a crate: effe-tool new NAME", file.display());
    }
    let stem = file.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
    let directory = file.parent().unwrap_or(Path::new("/"));
    let made = target.join("crates").join(format!("{}-{}", package_name(&stem), short_hash(file)));

    let package = table(&mut manifest, "package")?;
    for (key, value) in [("name", package_name(&stem).as_str()), ("version", "0.0.0"), ("edition", "2024")] {
        package.entry(key).or_insert_with(|| value.into());
    }
    package.insert("publish".to_owned(), false.into());
    package.insert("autobins".to_owned(), false.into());
    // The copy below may be called build.rs.
    package.entry("build").or_insert_with(|| false.into());
    let dependencies = table(&mut manifest, "dependencies")?;
    if !dependencies.contains_key("effe-abi") || args.effe_abi.is_some() {
        let features = dependencies.get("effe-abi").cloned();
        let mut effe_abi = EffeAbi::chosen(args.effe_abi.as_deref())?.to_toml();
        if let (Some(toml::Value::Table(given)), toml::Value::Table(chosen)) = (features, &mut effe_abi) {
            let kept = given.into_iter().filter(|(key, _)| key.contains("features"));
            chosen.extend(kept);
        }
        dependencies.insert("effe-abi".to_owned(), effe_abi);
    }
    // Paths of dependencies are relative to the file.
    for key in ["dependencies", "build-dependencies"] {
        if let Some(toml::Value::Table(dependencies)) = manifest.get_mut(key) {
            for (_, dependency) in dependencies.iter_mut() {
                if let Some(toml::Value::String(path)) = dependency.get_mut("path") {
                    *path = directory.join(&*path).to_string_lossy().into_owned();
                }
            }
        }
    }
    // Under the file's own name, which messages of the compiler and of the lambda have.
    let copy = made.join(file.file_name().unwrap_or_else(|| "lib.rs".as_ref()));
    let root = match &parts.source {
        Some(source) => {
            write(&copy, source)?;
            &copy
        }
        None => file,
    };
    let mut library = toml::Table::new();
    library.insert("path".to_owned(), root.to_string_lossy().into_owned().into());
    library.insert("crate-type".to_owned(), vec!["cdylib", "rlib"].into());
    manifest.insert("lib".to_owned(), library.into());
    manifest.insert("workspace".to_owned(), toml::Table::new().into());
    write(&made.join("Cargo.toml"), &toml::to_string(&manifest)?)?;

    let stands_for = parts.source.is_some().then(|| (copy, file.to_owned()));
    let found = read(&made.join("Cargo.toml"), args)
        .with_context(|| format!("{}: the block at its top", file.display()))?;
    Ok(Crate { directory: directory.to_owned(), stands_for, ..found })
}

/// Makes a crate whose `main` is the loader's and which links the lambda. Returns its manifest's path.
///
/// # Errors
/// The lambda's crate can't be linked.
pub(crate) fn executable(
    lambda: &Crate,
    target: &Path,
    args: &BuildArgs,
    shell: &mut Shell,
) -> Result<PathBuf> {
    if !lambda.links {
        bail!(
            "{}: its crate-type is {:?} alone, which no program can link; \
             write crate-type = [\"cdylib\", \"rlib\"] in its [lib]",
            lambda.manifest.display(),
            lambda.crate_types
        );
    }
    let made = target.join("crates").join(format!("{}-exe-{}", lambda.package, short_hash(&lambda.manifest)));
    let mut dependency = toml::Table::new();
    dependency.insert("package".to_owned(), lambda.package.clone().into());
    let directory = lambda.manifest.parent().ok_or_else(|| anyhow!("a manifest without a directory"))?;
    dependency.insert("path".to_owned(), directory.to_string_lossy().into_owned().into());
    dependency.insert("default-features".to_owned(), (!args.no_default_features).into());
    let features = args.features.iter().flat_map(|features| features.split([',', ' ']));
    let mut features: Vec<String> =
        features.filter(|feature| !feature.is_empty()).map(str::to_owned).collect();
    if args.all_features {
        let metadata = cargo::metadata(&lambda.manifest, args)?;
        let package = metadata.packages.iter().find(|package| package.manifest_path == lambda.manifest);
        features.extend(package.into_iter().flat_map(|package| package.features.keys().cloned()));
    }
    dependency.insert("features".to_owned(), features.into());
    let manifest = format!(
        "[package]\nname = \"{}-exe\"\nversion = \"{}\"\nedition = \"2024\"\npublish = false\n\n\
         [[bin]]\nname = \"{}-exe\"\npath = \"main.rs\"\n\n\
         [dependencies]\neffe-loader = {}\nthe_lambda = {}\n\n[workspace]\n",
        lambda.package,
        lambda.version,
        lambda.package,
        lambda.effe_abi.loader(),
        toml::Value::Table(dependency),
    );
    let main = "//! A lambda with its loader.\n\nfn main() -> std::process::ExitCode {\n    \
                effe_loader::main(Some(&the_lambda::LAMBDA))\n}\n";
    write(&made.join("Cargo.toml"), &manifest)?;
    write(&made.join("main.rs"), main)?;
    // The program gets the same versions as the plugin; cargo adds the dependencies of the loader.
    let (theirs, ours) = (lambda.workspace.join("Cargo.lock"), made.join("Cargo.lock"));
    let modified = |path: &Path| fs::metadata(path).and_then(|metadata| metadata.modified()).ok();
    if modified(&theirs) > modified(&ours) {
        fs::copy(&theirs, &ours).with_context(|| format!("cannot copy {}", theirs.display()))?;
    }
    if args.locked {
        shell.note("--locked holds for the lambda's own versions; those of the loader are added to them");
    }
    Ok(made.join("Cargo.toml"))
}

fn table<'a>(manifest: &'a mut toml::Table, key: &str) -> Result<&'a mut toml::Table> {
    let value = manifest.entry(key).or_insert_with(|| toml::Table::new().into());
    value.as_table_mut().ok_or_else(|| anyhow!("`{key}` is not a table"))
}

//! What may be loaded: by who may change it, and by what is in it.

use std::{
    env, fs,
    os::unix::fs::{MetadataExt, PermissionsExt, symlink},
    path::{Path, PathBuf},
    process::Command,
};

use rustix::process::{Signal, geteuid};

use crate::support::{
    Loader, Scratch,
    loader::Done,
    plugins::{c, patched, probe},
};

/// Exit code EX_CONFIG: a supervisor need not try again.
const CONFIG: i32 = 78;

/// Some digest that no file has.
const OTHER: &str = "0000000000000000000000000000000000000000000000000000000000000000";

fn chmod(path: impl AsRef<Path>, mode: u32) {
    fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
}

/// The probe in a directory of its own, with the modes of both.
fn placed(scratch: &Scratch, file: u32, directory: u32) -> PathBuf {
    let plugin = scratch.write("place/libfoo.so", fs::read(probe()).unwrap());
    chmod(&plugin, file);
    chmod(plugin.parent().unwrap(), directory);
    plugin
}

/// Tries a plugin as root, if the test is, and as somebody who isn't.
fn checked(plugin: &Path, args: &[&str]) -> (Option<Done>, Done) {
    let scratch = Scratch::new();
    let loaders = [geteuid().is_root().then(Loader::bare), Some(Loader::without_rights(&scratch))];
    let [root, other] = loaders.map(|loader| {
        let common = ["--check", "--syslog", "none", "--log-format", "text"];
        Some(loader?.arg("--plugin").arg(plugin).args(common).args(args).run())
    });
    (root, other.unwrap())
}

#[track_caller]
fn assert_fine(plugin: &Path, args: &[&str]) {
    let (root, other) = checked(plugin, args);
    for done in [root, Some(other)].into_iter().flatten() {
        assert_eq!(done.assert_code(0).stderr, "");
    }
}

/// Refused as root, one line of warning for others.
#[track_caller]
fn assert_doubted(plugin: &Path, why: &str) {
    let (root, other) = checked(plugin, &[]);
    if let Some(done) = root {
        let done = done.assert_code(CONFIG);
        assert!(done.one_line().contains(why) && done.one_line().ends_with("and the loader runs as root"));
    }
    let done = other.assert_code(0);
    let warning = format!("effe-loader: warning: {}: {why}", plugin.display());
    assert!(done.one_line().contains(&warning), "{done:#?}");
}

#[track_caller]
fn assert_refused(plugin: &Path, args: &[&str], why: &str) {
    let (root, other) = checked(plugin, args);
    for done in [root, Some(other)].into_iter().flatten() {
        let done = done.assert_code(CONFIG);
        let begin = format!("effe-loader: cannot load {}: ", plugin.display());
        assert!(done.one_line().starts_with(&begin) && done.one_line().contains(why), "{why}: {done:#?}");
    }
}

fn sha256(path: &Path) -> String {
    let output = Command::new("sha256sum").arg(path).output().expect("coreutils are there");
    String::from_utf8(output.stdout).unwrap()
}

fn digest(path: &Path) -> String {
    sha256(path)[..64].to_owned()
}

#[test]
fn what_anyone_may_write_is_refused_as_root_and_warned_of_otherwise() {
    let scratch = Scratch::new();
    assert_doubted(&placed(&scratch, 0o666, 0o755), "anyone may write it (mode 0666; chmod o-w mends that)");
    let directory = format!("its directory {} has mode 0777", scratch.join("place").display());
    assert_doubted(&placed(&scratch, 0o644, 0o777), &format!("anyone may replace it: {directory}"));
}

#[test]
fn what_the_group_may_write_is_fine_and_so_is_a_directory_where_files_have_owners() {
    let scratch = Scratch::new();
    assert_fine(&placed(&scratch, 0o664, 0o775), &[]);
    assert_fine(&placed(&scratch, 0o644, 0o1777), &[]);
}

#[test]
fn a_link_counts_at_both_ends() {
    let scratch = Scratch::new();
    let plugin = placed(&scratch, 0o644, 0o755);
    fs::create_dir(scratch.join("links")).unwrap();
    let link = scratch.join("links/libfoo.so");
    symlink(&plugin, &link).unwrap();
    assert_fine(&link, &[]);
    chmod(scratch.join("links"), 0o777);
    assert_doubted(
        &link,
        &format!("anyone may replace it: its directory {}", scratch.join("links").display()),
    );
    chmod(scratch.join("links"), 0o755);
    placed(&scratch, 0o644, 0o777);
    assert_doubted(
        &link,
        &format!("anyone may replace it: its directory {}", scratch.join("place").display()),
    );
}

#[test]
fn info_runs_constructors_and_so_is_as_careful() {
    let scratch = Scratch::new();
    let plugin = placed(&scratch, 0o666, 0o755);
    let info = |loader: Loader| loader.arg("--info").arg("--plugin").arg(&plugin).run();
    if geteuid().is_root() {
        info(Loader::bare()).assert_code(CONFIG);
    }
    let done = info(Loader::without_rights(&scratch)).assert_code(0);
    assert!(done.stdout.starts_with('{') && done.stderr.starts_with("effe-loader: warning: "), "{done:#?}");
    assert_eq!(done.stderr.lines().count(), 1);
}

#[test]
fn strict_ownership_wants_every_directory_to_be_ours() {
    let home = Home::new();
    let plugin = home.0.join("place/libfoo.so");
    fs::create_dir(plugin.parent().unwrap()).unwrap();
    fs::copy(probe(), &plugin).unwrap();
    let strict = |why: Option<&str>| {
        let args = ["--check", "--syslog", "none", "--strict-ownership"];
        let done = Loader::bare().arg("--plugin").arg(&plugin).args(args).run();
        let Some(why) = why else { return assert_eq!(done.assert_code(0).stderr, "") };
        let done = done.assert_code(CONFIG);
        assert!(
            done.one_line().contains("--strict-ownership: ") && done.one_line().contains(why),
            "{done:#?}"
        );
    };
    chmod(&plugin, 0o644);
    strict(None);
    let writable = |place: &Path, mode: u32| {
        let place = place.display();
        format!("others than its owner may write {place} (mode {mode:04o}); chmod go-w mends that")
    };
    chmod(&plugin, 0o664);
    strict(Some(&writable(&plugin, 0o664)));
    chmod(&plugin, 0o644);
    for place in [plugin.parent().unwrap(), &home.0] {
        chmod(place, 0o775);
        strict(Some(&writable(place, 0o775)));
        chmod(place, 0o755);
    }
    strict(None);
    if geteuid().is_root() {
        std::os::unix::fs::chown(&plugin, Some(65_534), None).unwrap();
        strict(Some("belongs to user 65534; it must belong to root or to user 0"));
    }
    let scratch = Scratch::new();
    if env::temp_dir().metadata().unwrap().mode() & 0o022 != 0 {
        let place = env::temp_dir().canonicalize().unwrap();
        assert_refused(
            &placed(&scratch, 0o644, 0o755),
            &["--strict-ownership"],
            &place.display().to_string(),
        );
    }
}

#[test]
fn only_pinned_bytes_are_loaded() {
    let scratch = Scratch::new();
    let plugin = placed(&scratch, 0o644, 0o755);
    let found = digest(&plugin);
    assert_fine(&plugin, &["--sha256", &found]);
    assert_fine(&plugin, &["--sha256", OTHER, "--sha256", &found.to_uppercase()]);
    assert_fine(&plugin, &["--sha256", &format!("{OTHER},{found}")]);
    assert_refused(
        &plugin,
        &["--sha256", OTHER],
        &format!("its SHA-256 is {found}, which no --sha256 allows"),
    );
    let list = scratch.write("allowed", format!("# of today\n\n{OTHER}  old.so\n{}", sha256(&plugin)));
    let list = ["--sha256-file", list.to_str().unwrap()];
    assert_fine(&plugin, &list);
    assert_fine(&plugin, &[&list[..], &["--sha256", OTHER]].concat());
    fs::write(&plugin, fs::read(probe()).unwrap().split_last().unwrap().1).unwrap();
    assert_refused(&plugin, &list, "does not list; add it there if this is the file you mean");
    assert_refused(
        &plugin,
        &[&list[..], &["--sha256", OTHER]].concat(),
        "neither --sha256 nor --sha256-file ",
    );
}

#[test]
fn a_new_version_is_taken_up_once_the_list_allows_it() {
    let scratch = Scratch::new();
    let plugin = placed(&scratch, 0o644, 0o755);
    let list = scratch.write("allowed", sha256(&plugin));
    let server = Loader::of(&plugin).arg("--sha256-file").arg(&list).serve();
    let first = server.get("/version").text().to_owned();
    let next = patched(&fs::read(probe()).unwrap(), b"probe, version 1", b"probe, version 2");
    fs::rename(scratch.write("new.so", next), &plugin).unwrap();
    server.signal(Signal::HUP);
    let line = server.wait_for_line("which --sha256-file");
    assert!(line.contains(&digest(&plugin)) && line.ends_with("generation 1 goes on serving"), "{line}");
    assert_eq!(server.get("/version").text(), first);
    fs::write(&list, sha256(&plugin)).unwrap();
    server.signal(Signal::HUP);
    server.wait_for_line("generation 2 serves");
    assert_eq!(server.get("/version").text(), first.replace("version 1", "version 2"));
    server.stop();
}

#[test]
fn a_list_that_cannot_be_read_or_trusted_allows_nothing() {
    let scratch = Scratch::new();
    let plugin = placed(&scratch, 0o644, 0o755);
    let missing = scratch.join("missing");
    assert_refused(&plugin, &["--sha256-file", missing.to_str().unwrap()], "missing: No such file");
    let list = scratch.write("allowed", "");
    let args = ["--sha256-file", list.to_str().unwrap()];
    assert_refused(&plugin, &args, "does not list");
    fs::write(&list, format!("{}not a digest\n", sha256(&plugin))).unwrap();
    assert_refused(&plugin, &args, "allowed: line 2: write it as the 64 hexadecimal digits");
    fs::write(&list, sha256(&plugin)).unwrap();
    chmod(&list, 0o666);
    if let (Some(root), _) = checked(&plugin, &args) {
        let done = root.assert_code(CONFIG);
        assert!(done.one_line().contains("allowed: anyone may write it"), "{done:#?}");
    }
}

#[test]
fn nothing_of_an_unpinned_file_is_run() {
    let scratch = Scratch::new();
    let mark = scratch.join("mark");
    let source = format!(
        "#include <fcntl.h>\n__attribute__((constructor)) static void run(void) {{ creat({:?}, 0600); }}\n",
        mark.display().to_string()
    );
    let library = c(&source, &["-shared", "-fPIC"], &scratch.join("libmark.so"));
    for mode in ["--info", "--check"] {
        let pinned = |hex: &str| {
            let loader = Loader::of(&library).args([mode, "--sha256", hex]);
            loader.run().assert_code(CONFIG);
            mark.exists()
        };
        assert!(!pinned(OTHER), "{mode}");
        assert!(pinned(&digest(&library)), "its constructor runs once it is allowed");
        fs::remove_file(&mark).unwrap();
    }
}

/// A directory that nobody else may write, nor any above it.
struct Home(PathBuf);

impl Home {
    fn new() -> Home {
        let user = geteuid().as_raw();
        let ours = |place: &Path| {
            let of = |place: &Path| place.metadata().unwrap();
            place
                .ancestors()
                .all(|place| [0, user].contains(&of(place).uid()) && of(place).mode() & 0o022 == 0)
        };
        let variable = |name| env::var_os(name).map(PathBuf::from);
        let places =
            [variable("CARGO_TARGET_TMPDIR"), Some(env!("CARGO_TARGET_TMPDIR").into()), variable("HOME")];
        let mut places = places.into_iter().flatten().filter_map(|place| place.canonicalize().ok());
        let place = places.find(|place| ours(place)).expect("some directory is this user's alone");
        let home = place.join(format!("effe-test-home-{}", std::process::id()));
        fs::create_dir(&home).unwrap();
        chmod(&home, 0o755);
        Home(home)
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

//! The files, TCP ports and signals that Landlock leaves to a process. What a lambda has opened before, such as in a
//! constructor, it keeps.

use std::{
    mem,
    path::{Path, PathBuf},
};

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, LandlockStatus, NetPort, PathBeneath, PathFd, Ruleset,
    RulesetAttr, RulesetCreated, RulesetCreatedAttr, RulesetError, Scope,
};

use super::usual::{READABLE, WRITABLE, of_environment};

/// The version of Landlock that has all that is asked for: that of Linux 6.12.
const VERSION: ABI = ABI::V6;
/// What each version has begun to confine. Without the second one, no file moves to another directory.
const PARTS: [(ABI, &str); 4] = [
    (ABI::V3, "cutting files short"),
    (ABI::V4, "TCP ports"),
    (ABI::V5, "requests to devices"),
    (ABI::V6, "signals and abstract sockets"),
];

/// Takes all but these, and the usual ones, from the calling thread, and from those that it makes. Without `ports` all
/// of them are left. Returns what the system can't take, and what was named and is not there.
pub fn restrict(
    readable: &[PathBuf],
    writable: &[PathBuf],
    ports: Option<&[u16]>,
) -> Result<(Option<String>, Vec<String>), RulesetError> {
    let mut ruleset = Ruleset::default()
        .handle_access(AccessFs::from_all(VERSION))?
        .handle_access(AccessNet::BindTcp)?
        .scope(Scope::from_all(VERSION))?;
    if ports.is_some() {
        ruleset = ruleset.handle_access(AccessNet::ConnectTcp)?;
    }
    let mut ruleset = ruleset.create()?;
    for port in ports.unwrap_or_default() {
        ruleset = ruleset.add_rule(NetPort::new(*port, AccessNet::ConnectTcp))?;
    }
    let read = AccessFs::ReadFile | AccessFs::ReadDir;
    // Neither devices nor what they can be asked for.
    let not_made = AccessFs::MakeChar | AccessFs::MakeBlock | AccessFs::IoctlDev;
    let write = read | (AccessFs::from_write(VERSION) & !not_made);
    let environment = of_environment();
    let usual = READABLE.iter().map(Path::new).chain(environment.iter().map(PathBuf::as_path));
    let usual = usual.map(|path| (path, read)).chain(WRITABLE.iter().map(|path| (Path::new(path), write)));
    for (path, access) in usual {
        if let Ok(place) = PathFd::new(path) {
            ruleset = allow(ruleset, &place, access)?;
        }
    }
    if let Ok(this) = PathFd::new("/proc/self") {
        ruleset = allow(ruleset, &this, read)?;
        // As long as this directory is open, the system doesn't make it anew, and the rule is about it.
        mem::forget(this);
    }
    let mut missing = Vec::new();
    let readable = readable.iter().map(|path| ("--allow-read", path, read));
    let writable = writable.iter().map(|path| ("--allow-write", path, write));
    for (flag, path, access) in readable.chain(writable) {
        match PathFd::new(path) {
            Ok(place) => ruleset = allow(ruleset, &place, access)?,
            Err(err) => missing.push(format!("{flag}: {err}")),
        }
    }
    let lacks = match ruleset.restrict_self()?.landlock {
        LandlockStatus::Available { effective_abi, .. } => lacks(effective_abi),
        LandlockStatus::NotEnabled => {
            Some("files, TCP ports and signals (Landlock is not among the kernel's lsm=)".to_owned())
        }
        LandlockStatus::NotImplemented => Some(
            "files, TCP ports and signals (no Landlock: the kernel lacks it, or a filter forbids it)"
                .to_owned(),
        ),
    };
    Ok((lacks, missing))
}

fn allow(
    ruleset: RulesetCreated,
    place: &PathFd,
    access: BitFlags<AccessFs>,
) -> Result<RulesetCreated, RulesetError> {
    // Of a file, what concerns directories is left out.
    ruleset.add_rule(PathBeneath::new(place, access))
}

/// What this version can't confine.
fn lacks(version: ABI) -> Option<String> {
    let parts: Vec<_> = PARTS.iter().filter(|(since, _)| version < *since).map(|(_, part)| *part).collect();
    let (last, others) = parts.split_last()?;
    let parts =
        if others.is_empty() { last.to_string() } else { format!("{} and {last}", others.join(", ")) };
    Some(format!(
        "{parts} (the kernel has version {version} of Landlock, and {VERSION} is that of Linux 6.12)"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_older_kernel_lacks_is_named() {
        assert_eq!(lacks(ABI::V6), None);
        assert_eq!(lacks(ABI::V9), None);
        let text = lacks(ABI::V4).unwrap();
        assert!(
            text.starts_with(
                "requests to devices and signals and abstract sockets (the kernel has version 4"
            ),
            "{text}"
        );
        let text = lacks(ABI::V1).unwrap();
        assert!(
            text.starts_with("cutting files short, TCP ports, requests to devices and signals"),
            "{text}"
        );
    }
}

//! The files that a confined process may open without being told so: what libraries and the loader itself look up while
//! they run. None of it is secret, and one that is not there is left out.

use std::{env, path::PathBuf};

/// A directory stands for all below it.
pub const READABLE: &[&str] = &[
    // Libraries that are loaded when they are needed, such as those that look up names, and their data.
    "/lib",
    "/lib32",
    "/lib64",
    "/usr/lib",
    "/usr/lib32",
    "/usr/lib64",
    "/usr/local/lib",
    "/nix/store",
    "/etc/ld.so.cache",
    // Certificates of authorities, and how the libraries for TLS are set up; not /etc/ssl, which has keys below it.
    "/etc/ca-certificates",
    "/etc/certs",
    "/etc/crypto-policies",
    "/etc/pki/ca-trust/extracted",
    "/etc/pki/tls/cert.pem",
    "/etc/pki/tls/certs",
    "/etc/pki/tls/openssl.cnf",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
    "/etc/ssl/certs",
    "/etc/ssl/openssl.cnf",
    "/usr/local/share/ca-certificates",
    "/usr/share/ca-certificates",
    "/usr/share/pki",
    "/var/lib/ca-certificates",
    // How names are looked up. The directories are those to which /etc/resolv.conf is a link.
    "/etc/gai.conf",
    "/etc/host.conf",
    "/etc/hosts",
    "/etc/networks",
    "/etc/nsswitch.conf",
    "/etc/protocols",
    "/etc/resolv.conf",
    "/etc/services",
    "/run/resolvconf",
    "/run/systemd/resolve",
    // Time zones.
    "/etc/localtime",
    "/etc/timezone",
    "/usr/share/zoneinfo",
    // How large the machine is, and what of it a control group leaves.
    "/proc/cpuinfo",
    "/proc/meminfo",
    "/proc/sys/kernel/random",
    "/proc/sys/net/core/somaxconn",
    "/proc/sys/vm/overcommit_memory",
    "/sys/devices/system/cpu",
    "/sys/devices/system/node",
    "/sys/fs/cgroup",
    "/sys/kernel/mm/transparent_hugepage",
    // The program itself, for the names in a backtrace.
    "/proc/self/exe",
    "/dev/random",
    "/dev/urandom",
];

pub const WRITABLE: &[&str] = &["/dev/full", "/dev/null", "/dev/zero"];

/// Certificates where the libraries for TLS are told to look for them.
pub fn of_environment() -> Vec<PathBuf> {
    let directories = env::var_os("SSL_CERT_DIR").unwrap_or_default();
    let paths = env::split_paths(&directories).chain(env::var_os("SSL_CERT_FILE").map(PathBuf::from));
    paths.filter(|path| path.is_absolute()).collect()
}

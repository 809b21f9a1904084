//! Which values `route` takes: those that the engines take. Each function returns the value in the form that goes into
//! a file, or an error that says what differs and what to write.

use std::{
    net::{Ipv4Addr, Ipv6Addr},
    path::Path,
};

use anyhow::{Context, Result, bail};
use oci_spec::distribution::Reference;

use crate::{cli::Router, image::DATA};

/// A length of time as the loader takes it, which is not 0.
pub(super) fn time(text: &str) -> Result<String> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let is_number = text[..digits].bytes().any(|digit| digit != b'0') && digits < 10;
    if !is_number || !["ms", "s", "m", "h"].contains(&&text[digits..]) {
        bail!("a loader can't sleep after {text:?}; write it as 500ms, 30s, 5m or 1h");
    }
    Ok(text.to_owned())
}

/// The address that HAProxy listens on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Listen {
    pub(super) text: String,
    pub(super) port: u16,
}

/// A path of URLs. Clients remove the segments `.` and `..`, and Kubernetes refuses them.
pub(super) fn path(path: &str) -> Result<()> {
    let is_plain = path.starts_with('/')
        && (path == "/" || !path.ends_with('/'))
        && !path.contains("//")
        && !path.split('/').any(|segment| segment == "." || segment == "..")
        && path.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"/._~-".contains(&byte));
    if !is_plain {
        bail!("the path {path:?} can't be routed; write it as /hello or /a/b, of letters, digits and `._~-`");
    }
    Ok(())
}

/// A host, as clients name it: in lower case, and in ASCII.
pub(super) fn host(text: &str, engine: Router) -> Result<String> {
    let wrong = |why: &str| anyhow::anyhow!("the host {text:?} can't be routed: {why}");
    if text.parse::<Ipv6Addr>().is_ok() || text.starts_with('[') {
        return Err(wrong("it is an IPv6 address; write a name such as hello.example"));
    }
    if text.parse::<Ipv4Addr>().is_ok() && [Router::Kubernetes, Router::Knative].contains(&engine) {
        return Err(wrong("Kubernetes takes no IP address there; write a name such as hello.example"));
    }
    let host = ascii(text).ok_or_else(|| wrong("write it as hello.example"))?;
    if host.len() > 253 {
        return Err(wrong("it is longer than 253 characters"));
    }
    for label in host.split('.') {
        if label.len() > 63 {
            return Err(wrong("a part of it is longer than 63 characters"));
        }
        let is_label = !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
        if !is_label {
            return Err(wrong(
                "write it as hello.example, without port, of letters, digits and `-` between dots",
            ));
        }
    }
    Ok(host)
}

/// A name in lower case, as DNS has it: `café` is `xn--caf-dma`. `None` if it can't be written so.
pub(super) fn ascii(text: &str) -> Option<String> {
    match text.is_ascii() {
        true => Some(text.to_lowercase()),
        false => idna::domain_to_ascii(text).ok().filter(|text| !text.is_empty()),
    }
}

/// The address of HAProxy: `HOST:PORT`, where the host may be `*`.
pub(super) fn listen(text: &str) -> Result<Listen> {
    let parsed = text.rsplit_once(':').and_then(|(host, port)| {
        let is_v6 = |host: &str| host.parse::<Ipv6Addr>().is_ok();
        let is_host = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
            Some(inside) => is_v6(inside),
            None => host.is_empty() || host == "*" || self::host(host, Router::Haproxy).is_ok(),
        };
        let port =
            port.parse::<u16>().ok().filter(|n| *n > 0 && port.bytes().all(|byte| byte.is_ascii_digit()));
        port.filter(|_| is_host)
    });
    match parsed {
        Some(port) => Ok(Listen { text: text.to_owned(), port }),
        None => bail!(
            "HAProxy can't listen on {text:?}; write it as *:8080, 127.0.0.1:8080 or [::1]:8080, the port from 1 to 65535"
        ),
    }
}

/// An image by its name in a registry, with a tag or a digest.
pub(super) fn image(text: &str) -> Result<()> {
    match text.parse::<Reference>() {
        Ok(_) if text.is_ascii() => Ok(()),
        Ok(_) => bail!("the image {text:?} can't be pulled: it is not ASCII"),
        Err(err) => bail!(
            "the image {text:?} can't be pulled ({err}); write it as registry.example/team/hello:1.0, in lower case, \
             without https://"
        ),
    }
}

/// The CPU of a pod, in the units of Kubernetes, which counts no less than a thousandth.
pub(super) fn cpu(text: &str) -> Result<()> {
    let is_cpu = match text.strip_suffix('m') {
        Some(thousandths) => is_number(thousandths, 0),
        None => is_number(text, 3),
    };
    if !is_cpu {
        bail!("cpu {text:?} is no amount of CPU; write it as 250m or 0.5");
    }
    Ok(())
}

/// An amount of memory or storage, in the units of Kubernetes.
pub(super) fn bytes(what: &str, text: &str) -> Result<()> {
    let units = ["Ki", "Mi", "Gi", "Ti", "Pi", "Ei", "k", "M", "G", "T", "P", "E"];
    let number = units.iter().find_map(|unit| text.strip_suffix(unit));
    let is_amount = number.map_or_else(|| is_number(text, 0), |number| is_number(number, 3));
    if !is_amount {
        bail!("{what} {text:?} is no amount of bytes; write it as 64Mi or 1Gi");
    }
    Ok(())
}

/// Whether a text is a number above 0, short enough for every reader, with so many digits behind a dot.
fn is_number(text: &str, decimals: usize) -> bool {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let is_digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    is_digits(whole)
        && is_digits(fraction)
        && whole.len() <= 15
        && (fraction.len() <= decimals || fraction == "0")
        && (decimals > 0 || !text.contains('.'))
        && text.bytes().any(|byte| (b'1'..=b'9').contains(&byte))
}

/// The absolute path of a lambda's data directory, as the lambda sees it. systemd makes it below its own directory.
pub(super) fn data(text: &str, engine: Router) -> Result<()> {
    let is_plain = text.starts_with('/')
        && text.len() > 1
        && !text.ends_with('/')
        && !text.split('/').skip(1).any(|part| ["", ".", ".."].contains(&part))
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"/._-".contains(&byte));
    if !is_plain {
        bail!(
            "the data directory {text:?} can't be used; write an absolute path such as /var/lib/effe/notes, of letters, \
             digits and `._-`"
        );
    }
    if engine == Router::Compose && text.trim_start_matches('/') != DATA {
        bail!("the data directory {text:?} can't be used: that of an image is /{DATA}; write /{DATA}");
    }
    if engine == Router::Knative {
        bail!("Knative's pods keep no data; keep it in a database server, or use route kubernetes");
    }
    if engine == Router::Systemd && !text.starts_with(STATE) {
        bail!(
            "the data directory {text:?} can't be used: systemd makes one for a temporary user below {STATE} alone; \
             write {STATE}effe{text}"
        );
    }
    Ok(())
}

/// The directory of systemd's `StateDirectory=`.
pub(super) const STATE: &str = "/var/lib/";

/// The path of the loader on the machines that run it.
pub(super) fn loader(text: &str, engine: Router) -> Result<()> {
    if text.is_empty() || text.contains(char::is_control) {
        bail!("the loader {text:?} can't be started; write its path on one line");
    }
    // What systemd refuses in the name of a program.
    let is_unfit = !text.starts_with('/')
        || text.contains(['"', '\'', '\\'])
        || text.split('/').skip(1).any(str::is_empty);
    let is_relative = text.split('/').any(|part| part == "." || part == "..");
    if engine == Router::Systemd && (is_unfit || is_relative) {
        bail!(
            "systemd can't start the loader {text:?}; write an absolute path without quotes, backslashes, `.` and `..`"
        );
    }
    Ok(())
}

/// The absolute path of a file that a comment or a command line names.
pub(super) fn artifact(path: &Path) -> Result<String> {
    let absolute = std::path::absolute(path).with_context(|| format!("cannot find {}", path.display()))?;
    match absolute.to_str() {
        Some(text) if !text.contains(char::is_control) => Ok(text.to_owned()),
        _ => bail!("{absolute:?} can't stand on a command line; give the file a name of UTF-8 on one line"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(good: &[&str], bad: &[&str], check: impl Fn(&str) -> bool) {
        good.iter().for_each(|text| assert!(check(text), "{text:?} is refused"));
        bad.iter().for_each(|text| assert!(!check(text), "{text:?} is taken"));
    }

    #[test]
    fn hosts_are_those_that_engines_take() {
        let label = "a".repeat(63);
        let long = [label.as_str(); 4].join(".");
        let (label_of_64, host_of_254) = (format!("{label}a.example"), &long[1..]);
        assert_eq!((long.len(), host_of_254.len()), (255, 254));
        let good =
            ["hello.example", "HELLO.example", "a", "1.example", "xn--caf-dma.example", "bücher.example"];
        let bad = [
            "",
            "a b",
            "-a",
            "a-",
            "a..b",
            "a.",
            ".a",
            "a\n",
            "a/b",
            "a:80",
            "*.example",
            "a_b",
            "::1",
            "[::1]",
            "[::1]:80",
            &label_of_64,
            host_of_254,
        ];
        for engine in [Router::Haproxy, Router::Kubernetes] {
            all(&good, &bad, |text| host(text, engine).is_ok());
        }
        assert_eq!(host("Bücher.Example", Router::Haproxy).unwrap(), "xn--bcher-kva.example");
        assert!(host("10.0.0.1", Router::Haproxy).is_ok());
        let refused = host("10.0.0.1", Router::Kubernetes).unwrap_err().to_string();
        assert!(refused.contains("no IP address"), "{refused}");
    }

    #[test]
    fn addresses_are_those_that_haproxy_listens_on() {
        let good = ["*:8080", ":8080", "127.0.0.1:1", "[::1]:65535", "[::]:80", "localhost:80"];
        let bad = [
            "",
            "8080",
            "*",
            "*:",
            "*:0",
            "*:65536",
            "*:80-90",
            "*:+80",
            "::1:80",
            "[::1]",
            "[a]:80",
            "a b:80",
            "*:80 x",
            "http://a:80",
            "*:80\n",
            "/run/effe.sock",
        ];
        all(&good, &bad, |text| listen(text).is_ok());
        assert_eq!(listen("[::1]:81").unwrap().port, 81);
    }

    #[test]
    fn images_are_those_that_registries_hold() {
        let digest = format!("a/b@sha256:{}", "0".repeat(64));
        let good =
            ["a", "a:1", "registry.example/a/b:1.0", "localhost:5000/a:x_y", "Registry.example/a", &digest];
        let bad = [
            "",
            "A",
            "a b",
            "a:",
            "a:1:2",
            "https://registry.example/a:1",
            "registry.example//a",
            "registry.example/",
            "registry.example/A",
            "a:1.0+b",
            "a:é",
            "a\nb",
            "a@sha256:00",
        ];
        all(&good, &bad, |text| image(text).is_ok());
    }

    #[test]
    fn amounts_are_those_that_kubernetes_counts() {
        all(
            &["1", "0.5", "250m", "2.125"],
            &["", "0", "0m", "m", "-1", "1.5m", "0.0001", "1e3", "1Gi", "abc"],
            |text| cpu(text).is_ok(),
        );
        let good = ["64Mi", "1Gi", "1.5Gi", "67108864", "128M"];
        all(&good, &["", "0", "0Mi", "64m", "64MB", "64 Mi", "Mi", "-1Gi", "1.5", "64mi"], |text| {
            bytes("memory", text).is_ok()
        });
    }

    #[test]
    fn directories_and_loaders_are_those_that_systemd_takes() {
        let bad = [
            "",
            "/",
            "var/lib/x",
            "/var/lib/",
            "/var/lib/../x",
            "/var/lib//x",
            "/var/lib/a b",
            "/var/lib/%i",
        ];
        all(&["/var/lib/effe/notes", "/var/lib/a.b_c-d"], &bad, |text| data(text, Router::Systemd).is_ok());
        all(&["/data"], &["data"], |text| data(text, Router::Kubernetes).is_ok());
        let refused = data("/data", Router::Systemd).unwrap_err().to_string();
        assert!(refused.contains("write /var/lib/effe/data"), "{refused}");
        let bad = ["", "effe-loader", "/a\"b", "/a\\b", "/a//b", "/a/../b", "/a/", "/a\nb"];
        all(&["/usr/bin/effe-loader", "/opt/é x/%i $$/effe"], &bad, |text| {
            loader(text, Router::Systemd).is_ok()
        });
        all(&["effe-loader", "../a b"], &["", "a\nb"], |text| loader(text, Router::Haproxy).is_ok());
    }
}

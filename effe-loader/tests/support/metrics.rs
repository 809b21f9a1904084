//! The metrics of a loader under test, read as a scraper reads them.

use std::{
    collections::BTreeMap,
    io::Write,
    path::Path,
    process::{Command, Stdio},
};

use super::{
    Server,
    admin::{Question, ask},
};

/// One scrape: each sample's name and labels, as they stand there, and its value.
pub struct Scrape {
    /// The whole text.
    pub text: String,
    samples: BTreeMap<String, f64>,
}

impl Server {
    /// Scrapes the admin listener as Prometheus does.
    #[track_caller]
    pub fn scrape(&self) -> Scrape {
        let headers =
            "Host: localhost\r\nAccept: application/openmetrics-text;version=1.0.0,text/plain;q=0.5\r\n";
        let reply = ask(self.admin(), &Question { method: "GET", target: "/metrics", headers, body: "" });
        assert_eq!(reply.status, 200);
        let content_type = reply.text_header("content-type").unwrap();
        assert!(content_type.starts_with("application/openmetrics-text; version=1.0.0"), "{content_type}");
        Scrape::of(reply.text())
    }
}

impl Scrape {
    /// Reads what a loader said.
    #[track_caller]
    pub fn of(text: &str) -> Scrape {
        let samples = text.lines().filter(|line| !line.starts_with('#')).map(|line| {
            let (key, value) = line.rsplit_once(' ').expect("a sample has a value");
            (key.to_owned(), value.parse().expect("a value is a number"))
        });
        Scrape { text: text.to_owned(), samples: samples.collect() }
    }

    /// The value of one sample; 0 if it is not there.
    pub fn value(&self, key: &str) -> f64 {
        self.samples.get(key).copied().unwrap_or(0.0)
    }

    /// All samples of a name, whatever their labels, added up.
    pub fn sum(&self, name: &str) -> f64 {
        self.of_name(name).map(|(_, value)| value).sum()
    }

    /// All samples of a name.
    pub fn of_name<'a>(&'a self, name: &'a str) -> impl Iterator<Item = (&'a str, f64)> {
        let keys = self.samples.iter().map(|(key, value)| (key.as_str(), *value));
        keys.filter(move |(key, _)| key.split('{').next() == Some(name))
    }
}

/// Has Prometheus's own client for Python read a text by its strict parser; false where it isn't installed.
#[track_caller]
pub fn is_read_by_prometheus(text: &str, parser: &str) -> bool {
    let python = Path::new("/usr/bin/python3");
    let has_it = Command::new(python).args(["-c", "import prometheus_client"]).stderr(Stdio::null()).status();
    if !has_it.is_ok_and(|status| status.success()) {
        eprintln!("not read by Prometheus's own parser: install python3-prometheus-client");
        return false;
    }
    let script = format!(
        "import sys\nfrom {parser} import text_string_to_metric_families as read\n\
         n = sum(len(family.samples) for family in read(sys.stdin.read()))\nprint(n)"
    );
    let mut child = Command::new(python)
        .args(["-c", &script])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let why = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "Prometheus can't read it: {why}\n{text}");
    let n: usize = String::from_utf8_lossy(&output.stdout).trim().parse().unwrap();
    let samples = text.lines().filter(|line| !line.starts_with('#')).count();
    assert_eq!(n, samples, "every sample is read: {text}");
    true
}

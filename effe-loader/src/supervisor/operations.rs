//! The admin listener of an effe with several processes: questions to the supervisor, and one whole made of what its
//! processes report.

use bytes::Bytes;
use serde_json::{Map, Value, json};
use tokio::sync::{mpsc::UnboundedSender, oneshot};

use crate::{
    admin::{Later, Operations, Scrape, overview},
    journal::{Journal, Severity},
    process::control::{Change, Changed},
};

/// What the supervisor is asked or told.
pub enum Question {
    /// Reports of all processes.
    Collect(oneshot::Sender<Collected>),
    Change(Change, oneshot::Sender<Result<Changed, String>>),
    SetLevel(Severity),
    Drain,
}

/// What the processes are like at one moment.
pub struct Collected {
    pub processes: Vec<Reported>,
    /// What processes have counted that have ended, and the supervisor itself.
    pub ended: Scrape,
    pub is_draining: bool,
    /// Whether no process runs until the next request comes.
    pub is_asleep: bool,
    /// Where the effe serves.
    pub address: String,
    pub generation: u64,
    /// The lambda's, if the supervisor knows it.
    pub info: Option<String>,
}

pub struct Reported {
    pub place: usize,
    pub pid: u32,
    pub generation: u64,
    pub state: &'static str,
    pub age_seconds: u64,
    /// Connections that outlive it.
    pub held: usize,
    /// `None` if the process hasn't answered in time.
    pub report: Option<Value>,
}

/// Asks the supervisor.
pub struct Supervised {
    pub supervisor: UnboundedSender<Question>,
    pub journal: Journal,
}

impl Supervised {
    async fn collect(&self) -> Option<Collected> {
        let (reply, collected) = oneshot::channel();
        let _ = self.supervisor.send(Question::Collect(reply));
        collected.await.ok()
    }
}

impl Operations for Supervised {
    fn readiness(&self) -> Later<'_, Result<(), String>> {
        Box::pin(async {
            let collected = self.collect().await;
            collected.map_or_else(|| Err("draining".to_owned()), |collected| collected.readiness())
        })
    }

    fn state(&self) -> Later<'_, Value> {
        Box::pin(async {
            self.collect().await.map_or(Value::Null, |collected| collected.state(&self.journal))
        })
    }

    fn info(&self) -> Later<'_, Bytes> {
        Box::pin(async {
            let info = self.collect().await.and_then(|collected| collected.info());
            Bytes::from(info.unwrap_or_else(|| "{}".to_owned()))
        })
    }

    fn scrape(&self) -> Later<'_, Scrape> {
        Box::pin(async { self.collect().await.map(Collected::scrape).unwrap_or_default() })
    }

    fn level(&self) -> Severity {
        self.journal.level()
    }

    fn set_level(&self, level: Severity) {
        self.journal.set_level(level);
        let _ = self.supervisor.send(Question::SetLevel(level));
    }

    fn change(&self, change: Change) -> Later<'_, Option<Result<Changed, String>>> {
        let (reply, outcome) = oneshot::channel();
        let _ = self.supervisor.send(Question::Change(change, reply));
        Box::pin(async { outcome.await.ok() })
    }

    fn drain(&self) {
        let _ = self.supervisor.send(Question::Drain);
    }
}

impl Collected {
    fn reports(&self) -> impl Iterator<Item = &Value> {
        self.processes.iter().filter_map(|process| process.report.as_ref())
    }

    /// Ready as soon as one process is.
    fn readiness(&self) -> Result<(), String> {
        if self.is_draining {
            return Err("draining".to_owned());
        }
        if self.is_asleep {
            return Ok(());
        }
        if self.reports().any(|report| report["unready"].is_null()) {
            return Ok(());
        }
        let reason = self.reports().find_map(|report| report["unready"].as_str());
        Err(reason.unwrap_or("no process serves").to_owned())
    }

    fn info(&self) -> Option<String> {
        let of_process = || self.reports().find_map(|report| Some(report["info"].as_str()?.to_owned()));
        self.info.clone().or_else(of_process)
    }

    fn state(&self, journal: &Journal) -> Value {
        let readiness = self.readiness();
        let is_starting = readiness.as_ref().is_err_and(|why| why.starts_with("starting"));
        let (state, reason) = match readiness {
            Ok(()) => ("ready", None),
            Err(_) if self.is_draining => ("draining", None),
            Err(_) if is_starting => ("starting", None),
            Err(why) => ("unready", Some(why)),
        };
        let states = || self.reports().map(|report| &report["state"]);
        let sum = |key: &str| -> u64 { states().filter_map(|state| small(&state[key])).sum() };
        let losses: u64 = states().filter_map(|state| small(&state["log"]["losses"])).sum();
        let mut all = overview((state, reason), &self.address, journal.level(), losses + journal.losses());
        all["generation"] = self.generation.into();
        all["generations"] = self.generations();
        for key in ["image_bytes", "running", "waiting", "lost_threads"] {
            all[key] = sum(key).into();
        }
        let counted = self.ended.supervised.as_ref();
        all["processes"] = self.processes.iter().map(Reported::state).collect();
        all["restarts"] = json!(counted.map(|counted| counted.restarts));
        all["abandoned_contexts"] = json!(counted.map(|counted| counted.abandoned));
        all["asleep"] = self.is_asleep.into();
        all["sleeps"] = json!(counted.map(|counted| counted.sleeps));
        all["upgrades"] = json!(counted.map(|counted| counted.upgrades));
        all["recycled"] = json!(counted.map(|counted| &counted.recycled));
        all["crashes"] = json!(counted.map(|counted| &counted.crashes));
        all
    }

    /// What the processes have of each generation, added up, the one that serves first.
    fn generations(&self) -> Value {
        let mut all: Vec<Map<String, Value>> = Vec::new();
        for one in self.reports().filter_map(|report| report["state"]["generations"].as_array()).flatten() {
            let Value::Object(one) = one else { continue };
            let Some(number) = one.get("number") else { continue };
            match all.iter_mut().find(|other| other.get("number") == Some(number)) {
                Some(other) => merge(other, one),
                None => all.push(one.clone()),
            }
        }
        all.sort_by_key(|one| one.get("number") != Some(&self.generation.into()));
        all.into_iter().map(Value::Object).collect()
    }

    fn scrape(self) -> Scrape {
        let is_ready = self.readiness().is_ok();
        let scrapes = self.reports().filter_map(|report| Scrape::from_json(&report["scrape"]));
        let scrapes: Vec<_> = scrapes.collect();
        let mut all = self.ended;
        scrapes.iter().for_each(|scrape| all.add(scrape));
        all.is_ready = is_ready;
        all
    }
}

impl Reported {
    fn state(&self) -> Value {
        json!({
            "process": self.place,
            "pid": self.pid,
            "generation": self.generation,
            "state": self.state,
            "age_seconds": self.age_seconds,
            "held_connections": self.held,
            "running": self.report.as_ref().and_then(|report| small(&report["state"]["running"])),
        })
    }
}

/// A number of a process's, which may claim anything: sums must not overflow.
fn small(value: &Value) -> Option<u64> {
    value.as_u64().filter(|n| *n <= u64::MAX >> 16)
}

/// Adds numbers up, and keeps the rest as it is: the plugin, the number, the age of the oldest.
fn merge(one: &mut Map<String, Value>, other: &Map<String, Value>) {
    for (key, value) in one.iter_mut() {
        let Some(other) = other.get(key) else { continue };
        match (value, key.as_str()) {
            (Value::Object(value), _) => {
                if let Value::Object(other) = other {
                    merge(value, other);
                }
            }
            (value, "age_seconds") => *value = small(value).max(small(other)).into(),
            (_, "number") => {}
            (value, _) => {
                if let (Some(n), Some(more)) = (small(value), small(other)) {
                    *value = (n + more).into();
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generations_add_up_over_the_processes() {
        let generation = |number: u64, live: u64| {
            json!({ "number": number, "plugin": "x.so", "age_seconds": live, "execution": "pool",
                    "contexts": { "live": live } })
        };
        let report = |all: &[Value]| {
            let report = json!({ "unready": null, "state": { "generations": all, "running": 2 } });
            let (generation, state) = (2, "serving");
            Reported { place: 0, pid: 1, generation, state, age_seconds: 1, held: 0, report: Some(report) }
        };
        let collected = Collected {
            processes: vec![
                report(&[generation(1, 1)]),
                report(&[generation(2, 2)]),
                report(&[generation(2, 3), json!("nonsense"), json!({})]),
            ],
            ended: Scrape::default(),
            is_draining: false,
            is_asleep: false,
            address: String::new(),
            generation: 2,
            info: None,
        };
        assert_eq!(
            collected.generations(),
            json!([
                { "number": 2, "plugin": "x.so", "age_seconds": 3, "execution": "pool", "contexts": { "live": 5 } },
                { "number": 1, "plugin": "x.so", "age_seconds": 1, "execution": "pool", "contexts": { "live": 1 } },
            ])
        );
        assert_eq!(collected.readiness(), Ok(()));
        assert_eq!(collected.processes[0].state()["running"], 2);
    }
}

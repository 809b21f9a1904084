//! The processes of a loader under test that has several.

use std::fs;

use rustix::process::{Pid, Signal, kill_process};

use super::{Server, wait_until};

impl Server {
    /// The processes that serve, by what the system says: children of the supervisor that run its program and have not
    /// ended.
    pub fn processes(&self) -> Vec<u32> {
        let path = format!("/proc/{0}/task/{0}/children", self.id());
        let children = fs::read_to_string(path).unwrap_or_default();
        let children = children.split_whitespace().map(|pid| pid.parse().unwrap());
        children.filter(|pid| is_supervised(*pid)).collect()
    }

    /// Waits until there are so many of them, and the admin listener says that each serves.
    #[track_caller]
    pub fn wait_for_processes(&self, n: usize) -> Vec<u32> {
        wait_until(&format!("{n} processes serve"), || {
            let state = self.state();
            let all = state["processes"].as_array().unwrap();
            all.len() == n && all.iter().all(|process| process["state"] == "serving")
        });
        self.processes()
    }
}

fn is_supervised(pid: u32) -> bool {
    fs::read(format!("/proc/{pid}/cmdline"))
        .is_ok_and(|line| line.split(|byte| *byte == 0).nth(1) == Some(b"--supervised".as_slice()))
}

/// Sends a signal to a process of a server's.
#[track_caller]
pub fn signal(pid: u32, signal: Signal) {
    kill_process(Pid::from_raw(pid.cast_signed()).unwrap(), signal).expect("the process is there");
}

/// Whether a process is there, and is no zombie.
pub fn lives(pid: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| !stat.rsplit_once(')').is_some_and(|(_, rest)| rest.starts_with(" Z")))
}

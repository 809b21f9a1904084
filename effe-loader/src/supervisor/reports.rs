//! What the admin listener asks: reports of all processes at one moment.

use std::time::Duration;

use super::{
    Event, Supervisor,
    escrow::Escrow,
    operations::{Collected, Question, Reported},
    process::{Id, Process, State},
};
use crate::process::{control::Stop, link::Order};

/// How long processes may take to report.
const REPORT: Duration = Duration::from_millis(950);

impl Supervisor<'_> {
    pub(super) fn answer(&mut self, question: Question) {
        match question {
            Question::Collect(reply) => {
                let number = self.next_question;
                self.next_question += 1;
                let asked = self.processes.iter().filter(|(_, process)| process.exit.is_none());
                let asked: Vec<Id> = asked.map(|(id, _)| *id).collect();
                asked.iter().for_each(|id| self.processes[id].tell(&Order::Report(number)));
                let has_any = !asked.is_empty();
                self.collecting.insert(number, (asked, reply));
                if has_any { self.later(REPORT, Event::Collected(number)) } else { self.collected(number) }
            }
            Question::Change(change, reply) => self.change(change, Some(reply)),
            Question::SetLevel(level) => {
                self.processes.values().for_each(|process| process.tell(&Order::SetLevel(level)));
            }
            Question::Drain => {
                self.journal.notice("drain: told so by the admin listener");
                if self.stopping.is_none() {
                    self.stop(Stop::wanted());
                }
            }
        }
    }

    pub(super) fn collected(&mut self, number: u64) {
        let Some((missing, reply)) = self.collecting.remove(&number) else { return };
        let reported = |(id, process): (&Id, &Process)| Reported {
            place: process.place,
            pid: process.pid(),
            generation: process.source.number,
            state: match process.state {
                State::Starting | State::Ready => "starting",
                State::Serving => "serving",
                State::Stopping => "stopping",
                State::Crashed => "crashed",
            },
            age_seconds: process.started.elapsed().as_secs(),
            held: process.escrow.as_ref().map_or(0, Escrow::n_held),
            // What it said before stands for what it doesn't say now, so that counters never go back.
            report: process.report.clone().map(|mut report| {
                if missing.contains(id) {
                    report["unready"] = "it does not answer its supervisor".into();
                }
                report
            }),
        };
        let n_serving = self.processes.values().filter(|process| process.state == State::Serving).count();
        if let Some(counted) = &mut self.counted.supervised {
            counted.serving = n_serving as u64;
        }
        let _ = reply.send(Collected {
            processes: self.processes.iter().map(reported).collect(),
            ended: self.counted.clone(),
            is_asleep: self.sleep.is_asleep,
            is_draining: self.stopping.is_some(),
            address: self.address.clone(),
            generation: self.current.number,
            info: self.current.plugin.as_ref().map(|plugin| plugin.info.clone()),
        });
    }
}

//! All that a supervisor has, written down for the program that goes on in its place, and read there.

use std::{
    ffi::OsString,
    os::{
        fd::OwnedFd,
        unix::ffi::{OsStrExt, OsStringExt},
    },
    rc::Rc,
    time::Duration,
};

use serde_json::{Value, json};
use socket2::Socket;
use tokio::sync::mpsc::UnboundedSender;

use super::{
    ALONE, Event, Sockets, Supervisor,
    carried::{Incoming, Outgoing, ago, bytes, then},
    handed::of_args,
    lives::{CORPSE, LAST_WORDS},
    process::{Id, Process, State, Template},
    restarts::Restarts,
    source::Source,
    stop::GRACE,
};
use crate::{
    admin::Scrape,
    boot::config::Config,
    journal::{Journal, Severity},
    net::{address::Address, listeners::Listener, private_listener, socket_file::SocketFile},
    process::{
        control::Change,
        link::{Ended, VERSION},
        systemd,
    },
};

/// The changes that may wait for their turn, by their names there.
const CHANGES: [(&str, Change); 3] =
    [("reload", Change::Reload), ("roll-back", Change::RollBack), ("upgrade", Change::Upgrade)];

impl<'c> Supervisor<'c> {
    /// Everything, as JSON; its descriptors go `out`.
    pub(super) fn carry<'a>(&'a self, out: &mut Outgoing<'a>) -> Value {
        let mut sources = Vec::new();
        let current = number_of(&self.current, &mut sources);
        let previous = self.previous.as_ref().map(|previous| number_of(previous, &mut sources));
        let mut processes = Vec::new();
        for (id, process) in &self.processes {
            let source = number_of(&process.source, &mut sources);
            processes.push(json!([id, process.carry(source, out)]));
        }
        let sources: Vec<Value> = sources.into_iter().map(|source| source.carry(out)).collect();
        let listeners: Vec<Value> = match &self.sockets {
            Sockets::Bound(_) => Vec::new(),
            Sockets::Listening(listeners) => {
                let carry = |listener: &'a Listener| {
                    let file = listener.file.as_ref().map(SocketFile::to_json);
                    json!({ "socket": out.put(&listener.socket), "shared": listener.shared, "file": file })
                };
                listeners.iter().map(carry).collect()
            }
        };
        let admin = self.admin.as_ref().map(|here| {
            let file = here.listener.file.as_ref().map(SocketFile::to_json);
            json!({ "socket": out.put(&here.listener.socket), "file": file })
        });
        let waiting: Vec<i32> = self.waiting.iter().map(|connection| out.put(connection)).collect();
        // Whoever waits for the outcome of one learns that it can't come.
        let changes = self.changes.iter().filter(|(_, reply)| reply.is_none());
        let name = |change: Change| CHANGES.iter().find(|(_, one)| *one == change).map(|(name, _)| *name);
        let changes: Vec<_> = changes.filter_map(|(change, _)| name(*change)).collect();
        let Ended { started, abandoned, cut_off } = self.ended;
        json!({
            "version": VERSION,
            "args": of_args(&self.template.args),
            "program": self.program.as_ref().map(|path| path.as_os_str().as_bytes()),
            "follows_terminal": self.follows_terminal,
            "level": self.journal.level() as u32,
            "address": self.address,
            "listeners": listeners,
            "admin": admin,
            "sources": sources,
            "current": current,
            "previous": previous,
            "n_opened": self.n_opened,
            "is_told_ready": self.is_told_ready,
            "processes": processes,
            "next_id": self.next_id,
            "restarts": self.restarts.carry(),
            "sleeps": self.sleep.number,
            "changes": changes,
            "ended": [started, abandoned, cut_off],
            "has_failed": self.has_failed,
            "counted": self.counted.to_json(),
            "alone": self.alone_since.map(ago),
            "waiting": waiting,
            "next_token": self.next_token,
            "next_taker": self.next_taker,
            "descriptors": out.numbers(),
        })
    }

    /// Takes over what another program had, but for its admin listener, which is returned; `None` if that is not what
    /// [`Supervisor::carry`] makes.
    pub(super) fn carried(
        config: &'c Config,
        journal: &'c Journal,
        template: Template,
        value: &Value,
        events: UnboundedSender<Event>,
    ) -> Option<(Supervisor<'c>, Option<private_listener::Listener>)> {
        let mut incoming = Incoming::of(&value["descriptors"])?;
        journal.set_level(Severity::from(u32::try_from(value["level"].as_u64()?).ok()?));
        let mut listeners = Vec::new();
        for one in value["listeners"].as_array()? {
            let socket = Socket::from(incoming.take(&one["socket"])?);
            let (address, shared) = (Address::of(&socket).ok()?, one["shared"].as_bool()?);
            listeners.push(Listener { socket, address, shared, file: SocketFile::from_json(&one["file"]) });
        }
        let admin = match &value["admin"] {
            Value::Null => None,
            admin => {
                let socket = incoming.take(&admin["socket"])?.into();
                let file = SocketFile::from_json(&admin["file"]);
                Some(private_listener::Listener::handed(socket, file).ok()?)
            }
        };
        let sources = value["sources"].as_array()?.iter().map(|source| Source::carried(source, &incoming));
        let sources: Vec<Rc<Source>> = sources.collect::<Option<_>>()?;
        let source = |number: &Value| Some(Rc::clone(sources.get(usize::try_from(number.as_u64()?).ok()?)?));
        let current = source(&value["current"])?;
        let mut supervisor = Supervisor::new(config, journal, template, current, events);
        supervisor.sockets = Sockets::Listening(listeners);
        supervisor.previous = source(&value["previous"]);
        supervisor.program = bytes(&value["program"]).map(|path| OsString::from_vec(path).into());
        supervisor.follows_terminal = value["follows_terminal"].as_bool()?;
        value["address"].as_str()?.clone_into(&mut supervisor.address);
        supervisor.n_opened = value["n_opened"].as_u64()?;
        (supervisor.is_up, supervisor.is_told_ready) = (true, value["is_told_ready"].as_bool()?);
        for one in value["processes"].as_array()? {
            let id: Id = one[0].as_u64()?;
            let process = Process::carried(&one[1], &sources, &mut incoming, supervisor.ear(id))?;
            supervisor.processes.insert(id, process);
        }
        supervisor.next_id = value["next_id"].as_u64()?;
        supervisor.restarts = Restarts::carried(&value["restarts"])?;
        supervisor.sleep.number = value["sleeps"].as_u64()?;
        let [started, abandoned, cut_off] = [0, 1, 2].map(|n| value["ended"][n].as_u64());
        supervisor.ended = Ended { started: started?, abandoned: abandoned?, cut_off: cut_off? };
        supervisor.has_failed = value["has_failed"].as_bool()?;
        supervisor.counted = Scrape::of_supervisor(&value["counted"])?;
        supervisor.alone_since = then(&value["alone"]);
        let waiting = value["waiting"].as_array()?.iter().map(|number| incoming.take(number));
        supervisor.waiting = waiting.collect::<Option<Vec<OwnedFd>>>()?;
        supervisor.next_token = u32::try_from(value["next_token"].as_u64()?).ok()?;
        supervisor.next_taker = usize::try_from(value["next_taker"].as_u64()?).ok()?;
        for name in value["changes"].as_array()? {
            let change = CHANGES.iter().find(|(other, _)| name == other)?.1;
            supervisor.changes.push_back((change, None));
        }
        Some((supervisor, admin))
    }

    /// Goes on with what was taken over; `failed` is why the new program did not, if this is the one before.
    pub(super) fn take_up(&mut self, failed: Option<String>) {
        let all: Vec<Id> = self.processes.keys().copied().collect();
        for id in all {
            let Some(process) = self.processes.get(&id) else { continue };
            let (state, has_crashed, is_silent) = (process.state, process.has_crashed, process.is_silent);
            match state {
                State::Stopping => {
                    self.later(self.config.server.drain.timeout + GRACE, Event::Overdue(id));
                }
                State::Crashed => self.later(self.config.fault_grace + CORPSE, Event::Overdue(id)),
                State::Starting | State::Ready | State::Serving => {}
            }
            if has_crashed {
                self.next_round(id);
            }
            if is_silent {
                self.later(LAST_WORDS, Event::Mute(id));
            }
        }
        if let Some(since) = self.alone_since {
            self.later(ALONE.saturating_sub(since.elapsed()), Event::Alone);
        }
        self.later(Duration::ZERO, Event::PassOn);
        self.begin_recycling();
        self.begin_sleeping();
        match failed {
            Some(why) => {
                let path = self.program.as_deref().unwrap_or_else(|| "the new loader".as_ref()).display();
                self.step_back(format!("{path}: {why}"));
            }
            None => {
                if let Some(counted) = &mut self.counted.supervised {
                    counted.upgrades += 1;
                }
                let version = env!("CARGO_PKG_VERSION");
                self.journal.notice(format!("effe-loader {version} goes on in the place of the one before"));
                if self.is_told_ready {
                    systemd::ready(&self.plugin_path(), self.current.number, None);
                }
            }
        }
        self.reap();
        // Of those that have died before their time.
        (0..self.template.n_places).for_each(|place| self.restart(place));
        self.next_change();
    }
}

/// The number of a source in the list, where it is put if it is not there.
fn number_of<'a>(source: &'a Rc<Source>, sources: &mut Vec<&'a Rc<Source>>) -> usize {
    if let Some(number) = sources.iter().position(|other| Rc::ptr_eq(source, other)) {
        return number;
    }
    sources.push(source);
    sources.len() - 1
}

//! The supervisor: a process that holds the listening sockets and the plugin's copy, opens no plugin, and sees that N
//! others serve. It gets the signals, the admin listener's orders and the service manager's attention, and decides the
//! exit code. It never waits for a process: everything is an event of one loop.

mod changes;
mod crashes;
mod lives;
mod recycling;
mod reports;
mod rescues;
mod sleeping;
mod stop;

mod crash_line;
mod escrow;
mod limits;
mod operations;
mod process;
mod restarts;
mod source;
mod stand_in;
#[cfg_attr(not(feature = "processes"), path = "supervisor/symbols/disabled.rs")]
mod symbols;
mod watch;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    ffi::OsString,
    io,
    os::fd::OwnedFd,
    rc::Rc,
    time::{Duration, Instant},
};

use effe_abi::Linked;
use signal_hook::consts::{SIGCHLD, SIGHUP, SIGINT, SIGTERM};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::{
        mpsc::{UnboundedSender, unbounded_channel},
        oneshot,
    },
    time,
};

use self::{
    crash_line::{Located, Place},
    limits::Recycling,
    operations::{Collected, Question, Supervised},
    process::{Heard, Id, Process, Template},
    restarts::Restarts,
    source::{Parts, Source},
    stand_in::StandIn,
    symbols::Location,
    watch::Sleep,
};
use crate::{
    admin::{self, Scrape},
    boot::{self, config::Config},
    error::{Error, FAILED},
    journal::Journal,
    net::{bind::Bound, descriptors, listeners::Listener, socket_file::SocketFile},
    process::{
        control::{Change, Changed, Stop},
        link::Ended,
        signals,
    },
    rt::tasks,
};

/// How long no process may serve before clients are turned away.
const ALONE: Duration = Duration::from_secs(1);
/// Serves with the processes that `config` asks for, until an order says to stop; the exit code, or what keeps it from
/// serving. `args` are this process's own.
pub(crate) fn run(
    config: &Config,
    linked: Option<&'static Linked>,
    args: Vec<OsString>,
) -> Result<u8, Error> {
    signals::outlive_file_limit();
    let inherited = Bound::inherited()?;
    let n_descriptors = descriptors::raise_limit();
    boot::has_room(config, inherited.len(), n_descriptors)?;
    let (plugin, warning) = match linked {
        Some(_) => (None, None),
        None => boot::verified(config).map(|(verified, warning)| (Some(verified), warning))?,
    };
    let source = Source::new(1, plugin, config.parameters.clone())?;
    // From here on there is the thread of the log.
    let journal = boot::start_journal(config, None)?;
    if let Some(warning) = warning {
        journal.warning(warning);
    }
    let template = Template { args, n_places: config.processes, n_descriptors };
    let outcome = tasks::run(serve(config, &journal, template, source, inherited));
    let failed = |source| Error::System { what: "start the supervisor".into(), source };
    let outcome = outcome.map_err(failed).and_then(|outcome| outcome);
    boot::end(&journal);
    outcome
}

async fn serve(
    config: &Config,
    journal: &Journal,
    template: Template,
    source: Rc<Source>,
    inherited: Vec<Bound>,
) -> Result<u8, Error> {
    let (events, mut happens) = unbounded_channel();
    let (questions, mut asked) = unbounded_channel();
    watch_signals(&events).map_err(|source| Error::System { what: "watch for signals".into(), source })?;
    let wanted = if inherited.is_empty() || config.listen_is_explicit { &config.listen[..] } else { &[] };
    let bound = Bound::all(wanted, inherited)?;
    let address = bound[0].address.to_string();
    let _socket = listen_for_admin(config, journal, questions)?;
    let mut supervisor = Supervisor {
        config,
        journal,
        template,
        sockets: Sockets::Bound(bound),
        address,
        current: source,
        previous: None,
        n_opened: 1,
        is_up: false,
        is_told_ready: false,
        processes: BTreeMap::new(),
        next_id: 1,
        restarts: Restarts::default(),
        recycling: Recycling::default(),
        sleep: Sleep::default(),
        located: HashMap::new(),
        swap: None,
        changes: VecDeque::new(),
        collecting: BTreeMap::new(),
        next_question: 0,
        stopping: None,
        ended: Ended::default(),
        has_failed: false,
        has_left: false,
        warned: BTreeSet::new(),
        counted: Scrape::supervised(),
        alone_since: None,
        stand_in: None,
        waiting: Vec::new(),
        next_token: 0,
        next_taker: 0,
        outcome: None,
        events,
    };
    supervisor.start(0, None);
    supervisor.begin_recycling();
    supervisor.begin_sleeping();
    loop {
        if let Some(outcome) = supervisor.outcome.take() {
            return outcome;
        }
        tokio::select! {
            Some(event) = happens.recv() => supervisor.apply(event),
            Some(question) = asked.recv() => supervisor.answer(question),
        }
    }
}

fn listen_for_admin(
    config: &Config,
    journal: &Journal,
    supervisor: UnboundedSender<Question>,
) -> Result<Option<SocketFile>, Error> {
    let Some((place, token)) = &config.admin else {
        // The supervisor listens to the other end for ever.
        tasks::spawn(async move { supervisor.closed().await });
        return Ok(None);
    };
    let operations = Supervised { supervisor, journal: journal.clone() };
    admin::listen_here(place, token.clone(), journal, operations)
}

/// Hands on every signal that is an order, and the end of each child.
fn watch_signals(events: &UnboundedSender<Event>) -> io::Result<()> {
    let follows_terminal = signals::has_terminal() && !signals::is_ignored(SIGHUP);
    for number in [SIGTERM, SIGINT, SIGHUP] {
        let (mut signal, events) = (signal(SignalKind::from_raw(number))?, events.clone());
        tasks::spawn(async move {
            while signal.recv().await.is_some() {
                let is_end = number != SIGHUP || (follows_terminal && !signals::has_terminal());
                let event = if is_end { Event::Stop(number) } else { Event::Reload };
                let _ = events.send(event);
            }
        });
    }
    let (mut ends, events) = (signal(SignalKind::child())?, events.clone());
    tasks::spawn(async move {
        while ends.recv().await.is_some() {
            let _ = events.send(Event::ChildEnds);
        }
    });
    signals::unblock(&[SIGTERM, SIGINT, SIGHUP, SIGCHLD]);
    Ok(())
}

enum Event {
    /// A signal that ends the effe.
    Stop(i32),
    Reload,
    ChildEnds,
    Heard(Id, Heard),
    /// Look whether a process has more than it may.
    Weigh,
    /// Look whether there have been requests.
    Idle,
    /// Something may have stirred while all processes sleep.
    Stirs,
    /// Connections have been kept for long during this sleep.
    Stale(u64),
    /// Look again for connections at rest in a process that crashes.
    Round(Id),
    /// A place in a plugin has been looked up.
    Located(Place, Option<Location>),
    /// Try again to give connections to processes.
    PassOn,
    /// A process is due in a place.
    Restart(usize),
    /// The files have been read again.
    Read(Result<Option<Parts>, String>),
    /// The processes have had their time to report.
    Collected(u64),
    /// No process has served for so long.
    Alone,
    /// The delay of the drain is over.
    Close,
    /// Look whether connections wait to be accepted, since the sockets were closed to newcomers.
    Pending(Instant),
    /// No process accepts any more.
    Deaf,
    /// A process that was told to stop should be gone.
    Overdue(Id),
    /// All processes that were told to leave should be gone.
    Left,
}

enum Sockets {
    Bound(Vec<Bound>),
    Listening(Vec<Listener>),
}

/// Where the outcome of a change goes.
type Reply = oneshot::Sender<Result<Changed, String>>;

/// A change under way.
struct Swap {
    /// When it was ordered.
    since: Instant,
    change: Change,
    /// What will serve, once it is known.
    next: Option<Rc<Source>>,
    /// Whether it serves, and the processes before it may still accept connections.
    has_begun: bool,
    replies: Vec<Reply>,
}

struct Supervisor<'a> {
    config: &'a Config,
    journal: &'a Journal,
    template: Template,
    sockets: Sockets,
    /// Where the effe serves.
    address: String,
    current: Rc<Source>,
    /// What a roll-back returns to.
    previous: Option<Rc<Source>>,
    /// Generations that were opened so far.
    n_opened: u64,
    /// Whether a process has begun to serve.
    is_up: bool,
    /// Whether the service manager knows that the effe is ready.
    is_told_ready: bool,
    processes: BTreeMap<Id, Process>,
    next_id: Id,
    restarts: Restarts,
    recycling: Recycling,
    sleep: Sleep,
    /// Where processes have crashed.
    located: HashMap<Place, Located>,
    swap: Option<Swap>,
    /// Changes that wait for their turn.
    changes: VecDeque<(Change, Option<Reply>)>,
    /// Who waits for reports, and of which processes.
    collecting: BTreeMap<u64, (Vec<Id>, oneshot::Sender<Collected>)>,
    next_question: u64,
    stopping: Option<Stop>,
    /// What the processes that have drained have said.
    ended: Ended,
    /// Whether the exit code is a failure's.
    has_failed: bool,
    /// Whether the processes were told to leave at once.
    has_left: bool,
    /// What processes have warned of.
    warned: BTreeSet<String>,
    counted: Scrape,
    /// Since when no process has served, after one has.
    alone_since: Option<Instant>,
    stand_in: Option<StandIn>,
    /// Connections of processes that have crashed, until another one takes them.
    waiting: Vec<OwnedFd>,
    next_token: u32,
    /// Which of the processes was the last to get some.
    next_taker: usize,
    outcome: Option<Result<u8, Error>>,
    events: UnboundedSender<Event>,
}

impl Supervisor<'_> {
    fn apply(&mut self, event: Event) {
        match event {
            Event::Stop(number) => self.stop_for(number),
            Event::Reload => self.change(Change::Reload, None),
            Event::ChildEnds => self.reap(),
            Event::Heard(id, Heard::Message(message)) => self.hear(id, *message),
            Event::Heard(id, Heard::Escrow) => self.escrow(id),
            Event::Located(place, location) => self.located(place, location),
            Event::Idle => self.look_for_requests(),
            Event::Stirs => self.stirs(),
            Event::Stale(number) => self.stale(number),
            Event::Weigh => self.weigh(),
            Event::Round(id) => self.next_round(id),
            Event::PassOn => {
                let waiting = std::mem::take(&mut self.waiting);
                self.pass_on(waiting);
            }
            Event::Heard(id, Heard::End) => {
                if let Some(process) = self.processes.get_mut(&id) {
                    process.is_silent = true;
                }
                self.reap();
            }
            Event::Restart(place) => self.restart(place),
            Event::Read(read) => self.read(read),
            Event::Collected(number) => self.collected(number),
            Event::Alone => self.stand_in(),
            Event::Close => self.close(),
            Event::Pending(since) => self.stop_processes(since),
            Event::Deaf => self.shut_down(),
            Event::Overdue(id) => self.kill(id),
            Event::Left => {
                self.processes.values_mut().for_each(|process| drop(process.child.kill()));
                self.outcome = Some(Ok(FAILED));
            }
        }
        if self.stopping.is_some() && self.processes.is_empty() && self.outcome.is_none() {
            self.finish();
        }
    }

    fn later(&self, after: Duration, event: Event) {
        let events = self.events.clone();
        tasks::spawn(async move {
            time::sleep(after).await;
            let _ = events.send(event);
        });
    }
}

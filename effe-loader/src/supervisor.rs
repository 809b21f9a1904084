//! The supervisor: a process that holds the listening sockets and the plugin's copy, opens no plugin, and sees that N
//! others serve. It gets the signals, the admin listener's orders and the service manager's attention, and decides the
//! exit code. It never waits for a process: everything is an event of one loop.
//!
//! - **Start.** `supervisor/process.rs` runs `/proc/self/exe --supervised` with the operator's own arguments. The
//!   process's stdin is the link (`process/link.rs`): a Unix socket that begins with the sockets, the copy, and what is
//!   to be served, and then carries orders one way and messages the other, a line of JSON each. What might have changed
//!   since, such as parameters in files, is given and not read again, so all processes of a generation are alike. The
//!   first process of an effe is started alone: an Init that fails is said once.
//! - **A process** is `boot::run_supervised`, which is today's loader without the checks, the signals and the admin
//!   listener: the thread `effe-control` (`admin/supervised.rs`) follows the link instead. When the link ends, the
//!   supervisor has gone, and the process drains.
//! - **Confined** (`process/confine.rs`): with `--confine`, between the opening of the plugin and the log's thread, so
//!   that every thread is made by one that is confined. Whatever the loader reads after that is in the list of
//!   `confine/usual.rs`, or comes over the link, as a new certificate does.
//! - **The whole.** The admin listener (`admin.rs`) knows only `Operations`: an effe in this process, or a supervisor
//!   that collects a report of each process and adds them up (`supervisor/operations.rs`). The last numbers of a
//!   process that has ended are kept, so that counters never go back.
//! - **A death** is an event like any other. `supervisor/restarts.rs` is a pure state machine that says when another
//!   process starts, and whether a swap is taken back; a table test has its cases. While none serves for a second,
//!   `supervisor/stand_in.rs` answers 503.
//! - **A process that has had enough** (`supervisor/recycling.rs`, `limits.rs`) is replaced first, and then leaves its
//!   connections to others as if it had crashed (`rescue/hand_over.rs`): `DYING` is `LEAVING` then, nothing is read
//!   from a connection at rest, and what has begun goes on.
//! - **A crash's line** (`supervisor/crashes.rs`) waits for a thread that looks the place up in the supervisor's own
//!   copy of the plugin (`supervisor/symbols.rs`, addr2line); each place is looked up once.
//! - **Sleep** (`supervisor/sleeping.rs`, `watch.rs`): without a request all processes hand over to nobody, and once
//!   none accepts any more, an epoll set of the sockets and the connections wakes the supervisor. Without a supervisor
//!   the loader ends when no connection is open, and who holds its socket starts it again.
//! - **Swap.** A new set of processes: the first is started, then the others, then all begin, and when each serves,
//!   those before hand their connections over. If anything fails before that, the new ones are stopped. The plugin is
//!   read and tried on a thread of its own, so that the supervisor never waits.
//! - **Upgrade** (`supervisor/upgrade.rs`). A thread asks the program in the loader's file whether it could go on
//!   (`supervisor/program.rs`); then it serves as the processes of a swap, with the same generation; then the
//!   supervisor executes it in its own place. What is open stays open: `supervisor/carried.rs` has the descriptors by
//!   their numbers, `supervisor/state.rs` and its like write the rest as JSON, `supervisor/handed.rs` passes both in a
//!   memory file. Signals are blocked meanwhile and wait. A program that can't begin executes the one before, which is
//!   handed on as a descriptor. `VERSION` in `process/link.rs` is that of all that supervisors and processes say to
//!   each other, and is compared first.
//! - **Stop.** Every process is told to say `Connection: close`; after the delay the supervisor bars newcomers from the
//!   sockets and waits until the processes have accepted those who wait; then the processes drain, as a single one
//!   does, and once none accepts any more the sockets are shut. Where no process serves, the stand-in tells those who
//!   wait.

mod changes;
mod crashes;
mod lives;
mod recycling;
mod reports;
mod rescues;
mod sleeping;
mod state;
mod stop;
mod upgrade;

mod carried;
mod crash_line;
mod escrow;
mod handed;
mod limits;
mod lingering;
mod operations;
mod process;
mod program;
mod restarts;
mod source;
mod stand_in;
#[cfg_attr(not(feature = "processes"), path = "supervisor/symbols/disabled.rs")]
mod symbols;
mod watch;
mod wire;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    ffi::OsString,
    fs::File,
    io::{self, Write},
    os::fd::OwnedFd,
    path::PathBuf,
    rc::Rc,
    time::{Duration, Instant},
};

use effe_abi::Linked;
use signal_hook::consts::{SIGCHLD, SIGHUP, SIGINT, SIGTERM, SIGUSR2};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::{
        mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
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
pub(crate) use self::{handed::Handed, program::asked};
use crate::{
    admin::{self, Scrape},
    boot::{
        self,
        cli::Cli,
        config::{Config, Mode, Role},
    },
    error::{Error, FAILED},
    journal::Journal,
    net::{bind::Bound, descriptors, listeners::Listener, private_listener},
    process::{
        control::{Change, Changed, Stop},
        link::Ended,
        signals,
    },
    rt::tasks,
};

/// How long no process may serve before clients are turned away.
const ALONE: Duration = Duration::from_secs(1);
/// What the supervisor gets, and nobody else in its process.
const SIGNALS: [i32; 5] = [SIGTERM, SIGINT, SIGHUP, SIGUSR2, SIGCHLD];

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
    // No thread but this one gets a signal, and none while it goes on as another program.
    signals::block(&SIGNALS);
    // From here on there is the thread of the log.
    let journal = boot::start_journal(config, None)?;
    if let Some(warning) = warning {
        journal.warning(warning);
    }
    let path = program::path_of(args.first().map(|name| &**name));
    let template = Template { args, n_places: config.processes, n_descriptors };
    let (events, happens) = unbounded_channel();
    let mut supervisor = Supervisor::new(config, &journal, template, source, events);
    supervisor.program = path;
    supervisor.follows_terminal = signals::has_terminal() && !signals::is_ignored(SIGHUP);
    let outcome = tasks::run(async {
        let wanted = if inherited.is_empty() || config.listen_is_explicit { &config.listen[..] } else { &[] };
        // Before the sockets are there: a signal then is an order to stop, too.
        supervisor.watch_signals()?;
        let bound = Bound::all(wanted, inherited)?;
        supervisor.address = bound[0].address.to_string();
        supervisor.sockets = Sockets::Bound(bound);
        let place =
            config.admin.as_ref().map(|(place, _)| private_listener::Listener::bind("--admin", place));
        let questions = supervisor.listen_for_admin(place.transpose()?)?;
        if let Some(here) = &supervisor.admin {
            admin::report(&journal, &here.listener.address);
        }
        supervisor.start(0, None);
        supervisor.begin_recycling();
        supervisor.begin_sleeping();
        supervisor.serve(happens, questions).await
    });
    let outcome = outcome.map_err(failed("start the supervisor")).and_then(|outcome| outcome);
    boot::end(&journal);
    outcome
}

/// Goes on with what the program before this one had; the exit code. If that can't be, the program before goes on.
/// `args` are this process's own.
pub(crate) fn go_on(mut handed: Handed, args: Vec<OsString>, is_linked: bool) -> u8 {
    boot::take_name();
    let (state, config) = match handed.read() {
        Ok(state) => match read_again(args, is_linked) {
            Ok(config) => (state, config),
            Err(why) => return give_back(handed, &why, &state.args),
        },
        Err(why) => return give_back(handed, &format!("what it was handed can't be read: {why}"), &args),
    };
    drop(handed);
    take_over(&config, state).unwrap_or_else(|err| {
        let _ = writeln!(io::stderr(), "effe-loader: {err}");
        err.exit_code()
    })
}

fn give_back(handed: Handed, why: &str, args: &[OsString]) -> u8 {
    let err = handed.give_back(why, args);
    let _ = writeln!(
        io::stderr(),
        "effe-loader: can't upgrade: {why}; the program before can't go on either: {err}"
    );
    FAILED
}

/// What a program says that is asked by a supervisor of that version whether it could go on.
pub(crate) fn answer(version: u64, args: Vec<OsString>, is_linked: bool) -> String {
    program::answer(version, read_again(args, is_linked))
}

/// The command line of a supervisor that goes on.
fn read_again(args: Vec<OsString>, is_linked: bool) -> Result<Config, String> {
    let config = Cli::parse(args, is_linked).and_then(|cli| cli.checked(is_linked, Role::GoesOn));
    let config = config.map_err(|err| err.to_string())?;
    if config.processes == 0 || config.mode != Mode::Serve {
        return Err("it takes the command line for one without --processes".to_owned());
    }
    Ok(config)
}

fn take_over(config: &Config, state: handed::State) -> Result<u8, Error> {
    signals::outlive_file_limit();
    let n_descriptors = descriptors::raise_limit();
    // The program before has blocked its signals, and no thread but this one is to get any.
    let journal = boot::start_journal(config, None)?;
    let template = Template { args: state.args, n_places: config.processes, n_descriptors };
    let (events, happens) = unbounded_channel();
    let outcome = tasks::run(async {
        let taken = Supervisor::carried(config, &journal, template, &state.value, events);
        let (mut supervisor, admin) = taken.ok_or_else(|| {
            failed("go on with what the program before had")(io::ErrorKind::InvalidData.into())
        })?;
        supervisor.watch_signals()?;
        let questions = supervisor.listen_for_admin(admin)?;
        supervisor.take_up(state.failed);
        supervisor.serve(happens, questions).await
    });
    let outcome = outcome.map_err(failed("start the supervisor")).and_then(|outcome| outcome);
    boot::end(&journal);
    outcome
}

fn failed(what: &'static str) -> impl Fn(io::Error) -> Error {
    move |source| Error::System { what: what.into(), source }
}

enum Event {
    /// A signal that ends the effe.
    Stop(i32),
    Reload,
    Upgrade,
    /// The program that is in the loader's file now, if it could go on.
    Asked(Result<File, String>),
    /// The processes of an upgrade that was ordered then should be ready.
    Late(Instant),
    /// Go on as the new program; since when that is to be, and whether signals that have come are taken in.
    GiveWay(Instant, bool),
    ChildEnds,
    Heard(Id, Heard),
    /// A process whose link has ended should have ended, too.
    Mute(Id),
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
    /// The time is over in which processes may accept.
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
    stage: Stage,
    /// Why an upgrade has failed, if the swap goes back to the program before.
    failed: Option<String>,
    replies: Vec<Reply>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// What is to serve is not known, or can't serve yet.
    Starting,
    /// It serves, and the processes before it may still accept connections.
    Ending,
    /// Of an upgrade: the supervisor is about to go on as another program.
    Leaving,
}

struct Supervisor<'a> {
    config: &'a Config,
    journal: &'a Journal,
    template: Template,
    sockets: Sockets,
    /// Where the effe serves.
    address: String,
    admin: Option<admin::Here>,
    /// The loader's file, as far as it is known.
    program: Option<PathBuf>,
    /// Whether a SIGHUP may say that the terminal has gone.
    follows_terminal: bool,
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
    /// Since when it is to go on as another program, once nothing that has happened is left to be seen to.
    leaves: Option<Instant>,
    events: UnboundedSender<Event>,
}

impl<'c> Supervisor<'c> {
    /// One that has nothing yet.
    fn new(
        config: &'c Config,
        journal: &'c Journal,
        template: Template,
        source: Rc<Source>,
        events: UnboundedSender<Event>,
    ) -> Supervisor<'c> {
        Supervisor {
            config,
            journal,
            template,
            sockets: Sockets::Bound(Vec::new()),
            address: String::new(),
            admin: None,
            program: None,
            follows_terminal: false,
            n_opened: source.number,
            current: source,
            previous: None,
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
            leaves: None,
            events,
        }
    }

    /// Listens for the operator's questions, which it returns, on a socket that is bound.
    fn listen_for_admin(
        &mut self,
        listener: Option<private_listener::Listener>,
    ) -> Result<UnboundedReceiver<Question>, Error> {
        let (supervisor, questions) = unbounded_channel();
        match (listener, &self.config.admin) {
            (Some(listener), Some((_, token))) => {
                let operations = Supervised { supervisor, journal: self.journal.clone() };
                self.admin = Some(admin::listen_here(listener, token.clone(), self.journal, operations)?);
            }
            // The supervisor listens to the other end for ever.
            _ => drop(tasks::spawn(async move { supervisor.closed().await })),
        }
        Ok(questions)
    }

    /// Hands on every signal that is an order, and the end of each child.
    fn watch_signals(&self) -> Result<(), Error> {
        let failed = failed("watch for signals");
        for number in [SIGTERM, SIGINT, SIGHUP] {
            let mut signal = signal(SignalKind::from_raw(number)).map_err(&failed)?;
            let (events, follows_terminal) = (self.events.clone(), self.follows_terminal);
            tasks::spawn(async move {
                while signal.recv().await.is_some() {
                    let is_end = number != SIGHUP || (follows_terminal && !signals::has_terminal());
                    let event = if is_end { Event::Stop(number) } else { Event::Reload };
                    let _ = events.send(event);
                }
            });
        }
        for (kind, event) in [
            (SignalKind::child(), (|| Event::ChildEnds) as fn() -> Event),
            (SignalKind::user_defined2(), (|| Event::Upgrade) as fn() -> Event),
        ] {
            let (mut signal, events) = (signal(kind).map_err(&failed)?, self.events.clone());
            tasks::spawn(async move {
                while signal.recv().await.is_some() {
                    let _ = events.send(event());
                }
            });
        }
        signals::unblock(&SIGNALS);
        Ok(())
    }

    /// Serves until an order says to stop.
    async fn serve(
        mut self,
        mut happens: UnboundedReceiver<Event>,
        mut asked: UnboundedReceiver<Question>,
    ) -> Result<u8, Error> {
        loop {
            if let Some(outcome) = self.outcome.take() {
                return outcome;
            }
            if let Some(since) = self.leaves.take_if(|_| happens.is_empty()) {
                self.leave_to_new(since);
                continue;
            }
            tokio::select! {
                Some(event) = happens.recv() => self.apply(event),
                Some(question) = asked.recv() => self.answer(question),
            }
        }
    }

    fn apply(&mut self, event: Event) {
        match event {
            Event::Stop(number) => self.stop_for(number),
            Event::Reload => self.change(Change::Reload, None),
            Event::Upgrade => self.change(Change::Upgrade, None),
            Event::Asked(asked) => self.asked(asked),
            Event::Late(since) => self.late(since),
            Event::GiveWay(since, has_settled) => self.gives_way(since, has_settled),
            Event::ChildEnds => self.reap(),
            Event::Heard(id, Heard::Message(message)) => self.hear(id, *message),
            Event::Heard(id, Heard::Escrow) => self.escrow(id),
            Event::Mute(id) => self.mute(id),
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
                // Most likely it ends.
                self.later(lives::LAST_WORDS, Event::Mute(id));
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
                self.processes.values_mut().for_each(|process| process.kill());
                self.outcome = Some(Ok(FAILED));
            }
        }
        let is_over = self.stopping.is_some() && self.processes.is_empty() && self.stand_in.is_none();
        if is_over && self.outcome.is_none() {
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

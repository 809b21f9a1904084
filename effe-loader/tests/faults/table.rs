//! The table of faults: system calls, the error that they are given, which of them, and how that is to end. The first
//! [`ALWAYS`] rows of each part are of faults that were once answered wrongly, or that systems cause most often.

use self::{
    Of::{All, Each, EveryOther, First, Plugin, Thread},
    Serving::{Answers, AnswersOr503, Breaks, Fails},
    Start::{Dies, Ends, EndsOrServes, Serves},
    Swap::{Stays, Swaps},
};

/// So many rows of each part are tried in every run of the tests; all of them with `EFFE_FAULTS` set.
pub const ALWAYS: usize = 8;

/// Which of the calls fail.
#[derive(Clone, Copy, Debug)]
pub enum Of {
    All,
    /// Those that concern the plugin's file.
    Plugin,
    /// Each thread's first.
    First,
    /// Each thread's first, third, fifth.
    EveryOther,
    /// Each in its turn, in a try of its own: each thread's call of this number, then of the next, until there is none.
    Each(u32),
    /// All of the thread whose name begins like this.
    Thread(&'static str),
}

/// How a start ends.
#[derive(Clone, Copy, Debug)]
pub enum Start {
    /// With exit code 1 and one line that has this in it.
    Ends(&'static str),
    /// As if nothing had been.
    Serves,
    /// Either, for a row of which some calls are of little weight.
    EndsOrServes(&'static str),
    /// With exit code 1, too, after a thread has begun: lines say which one it was, and have this in them.
    Dies(&'static str),
}

/// What clients get while calls fail. Afterwards all are answered, and the loader stops well, with every Context.
#[derive(Clone, Copy, Debug)]
pub enum Serving {
    /// What they asked for.
    Answers,
    /// Some get 503.
    AnswersOr503,
    /// Some find their connection broken off.
    Breaks,
    /// The effe stops as one that has failed, and says this.
    Fails(&'static str),
}

/// What becomes of an order to swap. Clients are answered meanwhile, and the next order is carried out.
#[derive(Clone, Copy, Debug)]
pub enum Swap {
    Swaps,
    /// The old generation goes on serving, and a line has this in it.
    Stays(&'static str),
}

/// The calls, the error, which of the calls, the end.
pub type Row<End> = (&'static str, &'static str, Of, End);

#[rustfmt::skip]
pub const START: &[Row<Start>] = &[
    ("epoll_ctl", "ENOSPC", Each(1), Ends("cannot start 2 workers: No space left on device (os error 28)")),
    ("socketpair", "EMFILE", Each(1), Ends("Too many open files (os error 24); the limit of open files is ")),
    ("prlimit64", "EPERM", All, Serves),
    ("lseek", "EIO", Each(1), EndsOrServes("Input/output error (os error 5)")),
    ("epoll_wait", "ENOMEM", First, Dies("Cannot allocate memory")),
    ("copy_file_range,sendfile,splice", "ENOSPC", All, Ends("it can't be copied: No space left on device")),
    ("socket", "EACCES", All, Ends("cannot listen on 127.0.0.1:0: Permission denied (os error 13); a rule of")),
    // The plugin is read and copied.
    ("openat", "EMFILE", Plugin, Ends("Too many open files (os error 24); the limit of open files is ")),
    ("openat", "ENFILE", Plugin, Ends("Too many open files in system (os error 23); the whole system has ")),
    ("openat", "ENOMEM", Plugin, Ends("Cannot allocate memory (os error 12); this user's limit of threads")),
    ("openat", "EIO", Plugin, Ends("Input/output error (os error 5)")),
    ("statx", "EIO", Plugin, Ends("Input/output error (os error 5)")),
    ("statx", "ENOMEM", Plugin, Ends("Cannot allocate memory (os error 12);")),
    ("statx", "ENOSYS", All, Serves),
    ("statx", "EPERM", All, Serves),
    ("memfd_create", "EMFILE", All, Ends("it can't be copied: Too many open files (os error 24);")),
    ("memfd_create", "ENFILE", All, Ends("it can't be copied: Too many open files in system (os error 23);")),
    ("memfd_create", "ENOMEM", All, Ends("it can't be copied: Cannot allocate memory (os error 12);")),
    ("memfd_create", "ENOSYS", All, Serves),
    ("memfd_create", "EPERM", All, Serves),
    ("memfd_create", "EINVAL", First, Serves),
    ("copy_file_range,sendfile,splice,read", "EIO", Plugin, Ends("it can't be copied: Input/output error")),
    ("copy_file_range", "ENOSYS", All, Serves),
    ("copy_file_range", "EXDEV", All, Serves),
    ("sendfile", "EIO", Each(1), Ends("it can't be copied: Input/output error (os error 5)")),
    ("sendfile", "EINVAL", First, Serves),
    ("fcntl", "EINVAL", Each(1), EndsOrServes("Invalid argument (os error 22)")),
    ("fcntl", "EMFILE", Each(1), EndsOrServes("Too many open files (os error 24); the limit of open files is ")),
    ("readlink", "EACCES", All, Serves),
    ("getdents64", "EIO", All, Serves),
    // It is tried in a child, and opened.
    ("pipe2", "EMFILE", All, Ends("it can't be tried in a child process: Too many open files (os error 24)")),
    ("pipe2", "ENFILE", All, Ends("it can't be tried in a child process: Too many open files in system")),
    ("clone,fork", "EAGAIN", All, Ends("it can't be tried in a child process: Resource temporarily unavailable")),
    ("clone,fork", "ENOMEM", All, Ends("it can't be tried in a child process: Cannot allocate memory")),
    ("ppoll,poll", "ENOMEM", EveryOther, EndsOrServes("it can't be tried in a child process: Cannot allocate")),
    ("ppoll,poll", "EINTR", EveryOther, Serves),
    ("wait4,waitid", "ECHILD", All, Serves),
    ("wait4,waitid", "EINTR", First, Serves),
    ("dup2,dup3", "EMFILE", All, Serves),
    ("read", "EIO", Each(1), EndsOrServes("Input/output error (os error 5)")),
    ("read", "EINTR", Each(1), EndsOrServes("Interrupted system call (os error 4)")),
    ("newfstatat,fstat", "EIO", Each(1), EndsOrServes("Input/output error (os error 5)")),
    ("mmap", "ENOMEM", Each(2), EndsOrServes("(ulimit -v)")),
    ("mprotect", "ENOMEM", Each(1), EndsOrServes("(ulimit -v)")),
    ("munmap", "EINVAL", All, Serves),
    // Limits, signals and what is asked of the system.
    ("prlimit64", "ENOSYS", All, Serves),
    ("rt_sigprocmask", "EINVAL", All, Serves),
    ("rt_sigaction", "EINVAL", Each(2), EndsOrServes("cannot watch for signals: Invalid argument (os error 22)")),
    ("socketpair", "EACCES", Each(1), Ends("Permission denied (os error 13)")),
    ("socketpair", "ENFILE", Each(1), Ends("Too many open files in system (os error 23); the whole system has ")),
    ("getrandom", "ENOSYS", All, Serves),
    ("getrandom", "EPERM", All, Serves),
    ("sched_getaffinity", "EPERM", All, Serves),
    ("prctl", "EINVAL", All, Serves),
    ("rseq", "ENOSYS", All, Serves),
    // Sockets.
    ("socket", "EMFILE", All, Ends("cannot listen on 127.0.0.1:0: Too many open files (os error 24); the limit")),
    ("socket", "ENFILE", All, Ends("cannot listen on 127.0.0.1:0: Too many open files in system")),
    ("socket", "ENOBUFS", All, Ends("cannot listen on 127.0.0.1:0: No buffer space available")),
    ("socket", "EAFNOSUPPORT", All, Ends("cannot listen on 127.0.0.1:0: Address family not supported")),
    ("setsockopt", "ENOMEM", First, Ends("cannot listen on 127.0.0.1:0: Cannot allocate memory")),
    ("bind", "EADDRINUSE", All, Ends("Address already in use (os error 98); another process has it: choose")),
    ("bind", "EADDRNOTAVAIL", All, Ends("it is not an address of this machine: choose another --host")),
    ("bind", "EACCES", All, Ends("Permission denied (os error 13); a rule of this system forbids it")),
    ("getsockname", "ENOBUFS", Each(1), Ends("No buffer space available (os error 105)")),
    ("listen", "EADDRINUSE", All, Ends("Address already in use (os error 98); another process has it: choose")),
    ("listen", "EOPNOTSUPP", All, Ends("Operation not supported (os error 95)")),
    // Threads, and what they wait with.
    ("clone3", "EAGAIN", Each(1), Ends("(os error 11); this user's limit of threads is ")),
    ("clone3", "ENOMEM", Each(1), Ends("this user's limit of threads is ")),
    ("clone3", "EPERM", Each(1), Ends("Operation not permitted (os error 1)")),
    ("clone3", "ENOSYS", All, Serves),
    ("epoll_create1", "EMFILE", Each(1), Ends("Too many open files (os error 24); the limit of open files is ")),
    ("epoll_create1", "ENOMEM", Each(1), Ends("cannot start 2 workers: Cannot allocate memory (os error 12);")),
    ("eventfd2", "EMFILE", Each(1), Ends("cannot start 2 workers: Too many open files (os error 24);")),
    ("eventfd2", "ENODEV", Each(1), Ends("cannot start 2 workers: No such device (os error 19)")),
    ("epoll_ctl", "ENOMEM", Each(1), Ends("cannot start 2 workers: Cannot allocate memory (os error 12);")),
    ("epoll_ctl", "EPERM", Each(1), Ends("cannot start 2 workers: Operation not permitted (os error 1)")),
    ("epoll_wait", "EINTR", EveryOther, Serves),
];

#[rustfmt::skip]
pub const SERVING: &[Row<Serving>] = &[
    ("recvfrom", "EINTR", EveryOther, Answers),
    ("sendto,writev", "EINTR", EveryOther, Answers),
    ("accept4", "EMFILE", First, Answers),
    ("clone3", "EAGAIN", All, AnswersOr503),
    ("epoll_wait", "EBADF", Thread("actix-rt|"), Fails("thread actix-rt|system:0|arbiter:0 has died: stopping")),
    ("epoll_wait", "EBADF", Thread("actix-server ac"), Fails("thread actix-server acceptor has died: stopping")),
    ("write", "EIO", Thread("journal"), Answers),
    ("recvfrom", "ECONNRESET", First, Breaks),
    // Connections are accepted.
    ("accept4", "ENFILE", First, Answers),
    ("accept4", "ENOMEM", First, Answers),
    ("accept4", "ENOBUFS", First, Answers),
    ("accept4", "ECONNABORTED", First, Answers),
    ("accept4", "EPROTO", First, Answers),
    ("accept4", "EPERM", First, Answers),
    ("accept4", "EINTR", First, Answers),
    ("setsockopt", "ENOMEM", All, Answers),
    ("setsockopt", "EINVAL", All, Answers),
    ("getpeername", "ENOTCONN", All, Answers),
    ("fcntl", "EPERM", First, Breaks),
    ("epoll_ctl", "ENOSPC", First, Breaks),
    ("epoll_ctl", "ENOMEM", First, Breaks),
    // They are read and written.
    ("recvfrom", "ENOMEM", First, Breaks),
    ("recvfrom", "EIO", First, Breaks),
    ("sendto,writev", "ECONNRESET", EveryOther, Breaks),
    ("sendto,writev", "EPIPE", EveryOther, Breaks),
    ("sendto,writev", "ENOBUFS", EveryOther, Breaks),
    ("shutdown", "ENOTCONN", All, Answers),
    ("close", "EINTR", All, Answers),
    ("close", "EIO", All, Answers),
    // Threads wait, and are made.
    ("epoll_wait", "EINTR", EveryOther, Answers),
    ("poll,ppoll", "EINTR", EveryOther, Answers),
    ("poll,ppoll", "ENOMEM", EveryOther, Answers),
    ("clone3", "ENOMEM", All, AnswersOr503),
    ("clone3", "EPERM", All, AnswersOr503),
    ("clone3", "ENOSYS", All, Answers),
    ("prctl", "EINVAL", All, Answers),
    ("sched_getaffinity", "EPERM", All, Answers),
    ("rt_sigprocmask", "EINVAL", All, Answers),
    ("getrusage", "EPERM", All, Answers),
    // Memory, and the log.
    ("munmap", "EINVAL", All, Answers),
    ("write", "ENOSPC", Thread("journal"), Answers),
    ("write", "EPIPE", Thread("journal"), Answers),
    ("write", "EAGAIN", Thread("journal"), Answers),
];

#[rustfmt::skip]
pub const SWAP: &[Row<Swap>] = &[
    ("pread64", "EIO", First, Stays("it can't be tried in a child process: ")),
    ("access", "ENOMEM", All, Swaps),
    ("lseek", "EIO", First, Stays("it can't be copied: Input/output error (os error 5)")),
    ("memfd_create", "EMFILE", All, Stays("it can't be copied: Too many open files (os error 24);")),
    ("clone3", "EAGAIN", All, Stays("no thread to change generations: Resource temporarily unavailable")),
    ("copy_file_range,sendfile", "ENOSPC", All, Stays("it can't be copied: No space left on device")),
    ("execve", "ENOMEM", All, Stays("it can't be tried in a child process: Cannot allocate memory")),
    // The plugin is read and copied.
    ("openat", "EMFILE", Plugin, Stays("Too many open files (os error 24); the limit of open files is ")),
    ("openat", "ENFILE", Plugin, Stays("Too many open files in system (os error 23);")),
    ("openat", "EIO", Plugin, Stays("Input/output error (os error 5)")),
    ("statx", "EIO", Plugin, Stays("Input/output error (os error 5)")),
    ("statx", "ENOMEM", Plugin, Stays("Cannot allocate memory (os error 12);")),
    ("memfd_create", "ENFILE", All, Stays("it can't be copied: Too many open files in system")),
    ("memfd_create", "ENOMEM", All, Stays("it can't be copied: Cannot allocate memory (os error 12);")),
    ("memfd_create", "EPERM", All, Swaps),
    ("copy_file_range", "EIO", All, Stays("it can't be copied: Input/output error (os error 5)")),
    ("copy_file_range", "ENOSYS", All, Swaps),
    ("sendfile", "EIO", First, Stays("it can't be copied: Input/output error (os error 5)")),
    ("readlink", "ENOENT", All, Swaps),
    // It is tried in a child, and opened.
    ("pipe2", "EMFILE", All, Stays("it can't be tried in a child process: Too many open files")),
    ("pipe2", "ENFILE", All, Stays("it can't be tried in a child process: Too many open files in system")),
    ("clone3,clone,vfork", "EAGAIN", First, Stays("it can't be tried in a child process: Resource temporarily")),
    ("clone3,clone,vfork", "ENOMEM", First, Stays("it can't be tried in a child process: ")),
    ("arch_prctl", "EPERM", All, Stays("it can't be tried in a child process: ")),
    ("execve", "ENOENT", All, Stays("it can't be tried in a child process: No such file or directory")),
    ("execve", "EACCES", All, Stays("it can't be tried in a child process: Permission denied")),
    ("execve", "E2BIG", All, Stays("it can't be tried in a child process: Argument list too long")),
    ("dup2,dup3", "EMFILE", All, Stays("it can't be tried in a child process: Too many open files")),
    ("poll,ppoll", "EINTR", EveryOther, Swaps),
    ("wait4,waitid", "ECHILD", All, Swaps),
    ("wait4,waitid", "EINTR", First, Swaps),
    ("newfstatat,fstat", "EIO", First, Stays("Input/output error (os error 5)")),
    ("prlimit64", "EPERM", All, Swaps),
    ("rt_sigprocmask", "EINVAL", All, Swaps),
    ("getrandom", "ENOSYS", All, Swaps),
    ("munmap", "EINVAL", All, Swaps),
    ("sigaltstack", "EPERM", All, Swaps),
];

/// While the loader stops, with requests in flight: each is answered, and every Context is stopped.
#[rustfmt::skip]
pub const DRAIN: &[Row<()>] = &[
    ("clone3", "EAGAIN", All, ()),
    ("epoll_ctl", "ENOENT", All, ()),
    ("setsockopt", "EPERM", All, ()),
    ("close", "EINTR", All, ()),
    ("shutdown", "ENOTCONN", All, ()),
    ("poll,ppoll", "EINTR", EveryOther, ()),
    ("write", "EIO", Thread("journal"), ()),
    ("setsockopt", "ENOMEM", All, ()),
    ("shutdown", "EIO", All, ()),
    ("close", "EIO", All, ()),
    ("epoll_ctl", "ENOMEM", All, ()),
    ("epoll_wait", "EINTR", EveryOther, ()),
    ("poll,ppoll", "ENOMEM", EveryOther, ()),
    ("clone3", "ENOMEM", All, ()),
    ("clone3", "EPERM", All, ()),
    ("munmap", "EINVAL", All, ()),
    ("madvise", "EINVAL", All, ()),
    ("clock_nanosleep", "EINTR", First, ()),
    ("rt_sigprocmask", "EINVAL", All, ()),
    ("sigaltstack", "EINVAL", All, ()),
    ("write", "ENOSPC", Thread("journal"), ()),
    ("write", "EPIPE", Thread("journal"), ()),
];

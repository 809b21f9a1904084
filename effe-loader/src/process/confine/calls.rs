//! The system calls that seccomp refuses to a process: those that start programs, look into or change other processes,
//! mount, load code into the kernel, or go round the rest, none of which a server needs. All others are let through,
//! whatever the kernel will have: a list of what is allowed would break lambdas that nobody here knows. What is refused
//! fails with EPERM, so that a library can do without.

use libc::c_long;
use seccompiler::{
    BpfProgram, Error, SeccompAction,
    SeccompCmpArgLen::{Dword, Qword},
    SeccompCmpOp::{self, Eq, MaskedEq, Ne},
    SeccompCondition, SeccompFilter, SeccompRule, TargetArch, apply_filter_all_threads, sock_filter,
};

/// Refused, whatever the arguments are.
const REFUSED: &[c_long] = &[
    // Programs.
    libc::SYS_execve,
    libc::SYS_execveat,
    // Other processes.
    libc::SYS_kcmp,
    libc::SYS_pidfd_getfd,
    libc::SYS_process_madvise,
    libc::SYS_process_mrelease,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_ptrace,
    // Namespaces, and what is mounted.
    libc::SYS_chroot,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fsopen,
    libc::SYS_fspick,
    libc::SYS_mount,
    libc::SYS_mount_setattr,
    libc::SYS_move_mount,
    libc::SYS_open_tree,
    OPEN_TREE_ATTR,
    libc::SYS_pivot_root,
    libc::SYS_setns,
    libc::SYS_umount2,
    libc::SYS_unshare,
    // Code in the kernel, and what most of its holes were reached by. The requests of io_uring pass by this filter.
    libc::SYS_bpf,
    libc::SYS_delete_module,
    libc::SYS_finit_module,
    libc::SYS_init_module,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_io_uring_setup,
    libc::SYS_kexec_file_load,
    libc::SYS_kexec_load,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_ioperm,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_iopl,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_modify_ldt,
    // Keys, which processes of a user share.
    libc::SYS_add_key,
    libc::SYS_keyctl,
    libc::SYS_request_key,
    // Files by other ways than their names.
    libc::SYS_fanotify_init,
    libc::SYS_open_by_handle_at,
    // The machine's.
    libc::SYS_acct,
    libc::SYS_adjtimex,
    libc::SYS_clock_adjtime,
    libc::SYS_clock_settime,
    libc::SYS_quotactl,
    libc::SYS_quotactl_fd,
    libc::SYS_reboot,
    libc::SYS_setdomainname,
    libc::SYS_sethostname,
    libc::SYS_settimeofday,
    libc::SYS_swapoff,
    libc::SYS_swapon,
    libc::SYS_syslog,
    libc::SYS_vhangup,
    // The limits of this process stay as they are.
    #[cfg(target_arch = "x86_64")]
    libc::SYS_setrlimit,
];

/// Refused where nothing may be written: Landlock doesn't look at modes, owners, attributes and times.
const CHANGES_OF_FILES: &[c_long] = &[
    libc::SYS_fchmod,
    libc::SYS_fchmodat,
    FCHMODAT2,
    libc::SYS_fchown,
    libc::SYS_fchownat,
    libc::SYS_fremovexattr,
    libc::SYS_fsetxattr,
    libc::SYS_lremovexattr,
    libc::SYS_lsetxattr,
    libc::SYS_removexattr,
    libc::SYS_setxattr,
    libc::SYS_utimensat,
    SETXATTRAT,
    REMOVEXATTRAT,
    FILE_SETATTR,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_chmod,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_chown,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_futimesat,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_lchown,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_utime,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_utimes,
];

// Newer than the crate libc; the same on all architectures.
const FCHMODAT2: c_long = 452;
const SETXATTRAT: c_long = 463;
const REMOVEXATTRAT: c_long = 466;
const OPEN_TREE_ATTR: c_long = 467;
const FILE_SETATTR: c_long = 469;

/// `clone` with one of these makes a namespace.
const NAMESPACES: [i32; 7] = [
    libc::CLONE_NEWCGROUP,
    libc::CLONE_NEWIPC,
    libc::CLONE_NEWNET,
    libc::CLONE_NEWNS,
    libc::CLONE_NEWPID,
    libc::CLONE_NEWUSER,
    libc::CLONE_NEWUTS,
];

/// `AUDIT_ARCH_…` of linux/audit.h.
#[cfg(target_arch = "x86_64")]
const ARCHITECTURE: u32 = 0xc000_003e;
#[cfg(target_arch = "aarch64")]
const ARCHITECTURE: u32 = 0xc000_00b7;
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
const ARCHITECTURE: u32 = 0;
/// The numbers of the calls of x32, which x86-64 has beside its own, begin here; other architectures have none so high.
const X32: u32 = 0x4000_0000;

/// Takes those calls from all threads of this process, and new privileges, too. `writes` says whether there are files
/// that may be written.
pub fn restrict(writes: bool) -> Result<(), Error> {
    apply_filter_all_threads(&program(writes)?)
}

fn program(writes: bool) -> Result<BpfProgram, Error> {
    let mut rules: Vec<(c_long, Vec<SeccompRule>)> = REFUSED.iter().map(|call| (*call, Vec::new())).collect();
    if !writes {
        rules.extend(CHANGES_OF_FILES.iter().map(|call| (*call, Vec::new())));
    }
    let namespaces = NAMESPACES.map(|flag| flag.cast_unsigned().into());
    let namespaces = namespaces.map(|flag| rule([(0, MaskedEq(flag), flag)]));
    rules.push((libc::SYS_clone, namespaces.into_iter().collect::<Result<_, _>>()?));
    rules.push((libc::SYS_socket, sockets()?));
    // What a terminal is sent as if its user had typed it.
    let typed = [libc::TIOCSTI, libc::TIOCLINUX].map(|request| rule([(1, Eq, request)]));
    rules.push((libc::SYS_ioctl, typed.into_iter().collect::<Result<_, _>>()?));
    let sets = SeccompCondition::new(2, Qword, Ne, 0)?;
    rules.push((libc::SYS_prlimit64, vec![SeccompRule::new(vec![sets])?]));
    let architecture = TargetArch::try_from(std::env::consts::ARCH)?;
    let refused = SeccompAction::Errno(libc::EPERM.cast_unsigned());
    let filter =
        SeccompFilter::new(rules.into_iter().collect(), SeccompAction::Allow, refused, architecture)?;
    let mut program = before().to_vec();
    program.extend(BpfProgram::try_from(filter)?);
    Ok(program)
}

/// The sockets that are refused: all but those of Unix, TCP, UDP and, as the C library's look-up of names has them, the
/// routes of netlink. What goes over IP otherwise would pass by Landlock, as MPTCP does, or see others' packets.
fn sockets() -> Result<Vec<SeccompRule>, Error> {
    let number = |number: i32| u64::from(number.cast_unsigned());
    let [unix, v4, v6] = [libc::AF_UNIX, libc::AF_INET, libc::AF_INET6].map(number);
    let [netlink, route] = [libc::AF_NETLINK, libc::NETLINK_ROUTE].map(number);
    let [tcp, udp] = [libc::IPPROTO_TCP, libc::IPPROTO_UDP].map(number);
    let not_ours = [(0, Ne, unix), (0, Ne, v4), (0, Ne, v6), (0, Ne, netlink)];
    let mut rules = vec![rule(not_ours)?, rule([(0, Eq, netlink), (2, Ne, route)])?];
    for family in [v4, v6] {
        rules.push(rule([(0, Eq, family), (2, Ne, 0), (2, Ne, tcp), (2, Ne, udp)])?);
        // Of the type, beside flags: SOCK_STREAM is 1, SOCK_DGRAM 2; SOCK_RAW is 3, and others are larger.
        for bits in [3, 4, 8] {
            rules.push(rule([(0, Eq, family), (1, MaskedEq(bits), bits)])?);
        }
    }
    Ok(rules)
}

/// A call with all of these arguments: their numbers, what is compared, with what.
fn rule<const N: usize>(conditions: [(u8, SeccompCmpOp, u64); N]) -> Result<SeccompRule, Error> {
    let conditions = conditions.map(|(n, compared, with)| SeccompCondition::new(n, Dword, compared, with));
    Ok(SeccompRule::new(conditions.into_iter().collect::<Result<_, _>>()?)?)
}

/// What a filter of seccompiler's lacks. It ends the process for a call of another architecture, and takes those of x32
/// for calls that it doesn't know. And `clone3` has its flags in memory, where no filter sees them: as an unknown call,
/// the C library does without.
fn before() -> [sock_filter; 8] {
    const LOAD: u32 = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
    const JUMP_EQUAL: u32 = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
    const JUMP_FROM: u32 = libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K;
    const RETURN: u32 = libc::BPF_RET | libc::BPF_K;
    let step = |code: u32, k: u32, jt: u8, jf: u8| sock_filter { code: code as u16, jt, jf, k };
    let fails = |errno: i32| step(RETURN, libc::SECCOMP_RET_ERRNO | errno.cast_unsigned(), 0, 0);
    [
        // The architecture, and then the number, in the kernel's `seccomp_data`.
        step(LOAD, 4, 0, 0),
        step(JUMP_EQUAL, ARCHITECTURE, 1, 0),
        fails(libc::EPERM),
        step(LOAD, 0, 0, 0),
        step(JUMP_FROM, X32, 0, 1),
        fails(libc::EPERM),
        step(JUMP_EQUAL, libc::SYS_clone3 as u32, 0, 1),
        fails(libc::ENOSYS),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the kernel would make of a call: the program, run as bpf(4) has it.
    fn verdict(program: &[sock_filter], architecture: u32, number: u32, args: [u64; 3]) -> u32 {
        let mut data = [0_u8; 64];
        data[..4].copy_from_slice(&number.to_le_bytes());
        data[4..8].copy_from_slice(&architecture.to_le_bytes());
        for (n, arg) in args.iter().enumerate() {
            data[16 + 8 * n..][..8].copy_from_slice(&arg.to_le_bytes());
        }
        let (mut at, mut value) = (0, 0_u32);
        loop {
            let step = &program[at];
            at += 1;
            let mut jump = |is_so: bool| at += usize::from(if is_so { step.jt } else { step.jf });
            match step.code {
                0x20 => value = u32::from_le_bytes(data[step.k as usize..][..4].try_into().unwrap()),
                0x54 => value &= step.k,
                0x05 => at += step.k as usize,
                0x15 => jump(value == step.k),
                0x25 => jump(value > step.k),
                0x35 => jump(value >= step.k),
                0x06 => return step.k,
                code => panic!("{code:#x} is not known here"),
            }
        }
    }

    #[test]
    fn what_is_refused_depends_on_the_call_and_its_arguments() {
        let (allowed, refused) =
            (libc::SECCOMP_RET_ALLOW, libc::SECCOMP_RET_ERRNO | libc::EPERM.cast_unsigned());
        let flags = u64::from((libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK).cast_unsigned());
        let user = u64::from(libc::CLONE_NEWUSER.cast_unsigned());
        let thread = u64::from((libc::CLONE_VM | libc::CLONE_THREAD | libc::CLONE_SIGHAND).cast_unsigned());
        let cases = [
            (libc::SYS_read, [0; 3], allowed),
            (libc::SYS_execve, [0; 3], refused),
            (libc::SYS_clone, [thread, 0, 0], allowed),
            (libc::SYS_clone, [17, 0, 0], allowed),
            (libc::SYS_clone, [user | 17, 0, 0], refused),
            (libc::SYS_prlimit64, [0, 7, 0], allowed),
            (libc::SYS_prlimit64, [0, 7, 1 << 40], refused),
            (libc::SYS_ioctl, [2, libc::TIOCOUTQ, 0], allowed),
            (libc::SYS_ioctl, [2, libc::TIOCSTI, 0], refused),
            // The kernel looks at the lower half alone.
            (libc::SYS_ioctl, [2, libc::TIOCSTI | 1 << 32, 0], refused),
            // Families, types, protocols.
            (libc::SYS_socket, [1, 1, 0], allowed),
            (libc::SYS_socket, [1, 5 | flags, 0], allowed),
            (libc::SYS_socket, [2, 1 | flags, 0], allowed),
            (libc::SYS_socket, [10, 1, 6], allowed),
            (libc::SYS_socket, [2, 2 | flags, 17], allowed),
            (libc::SYS_socket, [2, 3 | flags, 1], refused),
            (libc::SYS_socket, [10, 3, 17], refused),
            (libc::SYS_socket, [2, 10, 0], refused),
            (libc::SYS_socket, [2, 1, 262], refused),
            (libc::SYS_socket, [2, 5, 132], refused),
            (libc::SYS_socket, [16, 3 | flags, 0], allowed),
            (libc::SYS_socket, [16, 3, 9], refused),
            (libc::SYS_socket, [17, 3, 0], refused),
            (libc::SYS_socket, [40, 1, 0], refused),
            (libc::SYS_fchmod, [3, 0, 0], refused),
        ];
        let program = program(false).unwrap();
        for (call, args, expected) in cases {
            assert_eq!(verdict(&program, ARCHITECTURE, call as u32, args), expected, "{call} {args:?}");
        }
        let unknown = verdict(&program, ARCHITECTURE, libc::SYS_clone3 as u32, [0; 3]);
        assert_eq!(unknown, libc::SECCOMP_RET_ERRNO | libc::ENOSYS.cast_unsigned());
        // Of x32, and of 32 bits.
        assert_eq!(verdict(&program, ARCHITECTURE, X32 | 520, [0; 3]), refused);
        assert_eq!(verdict(&program, 0x4000_0003, 1, [0; 3]), refused);
        let program = self::program(true).unwrap();
        assert_eq!(verdict(&program, ARCHITECTURE, libc::SYS_fchmod as u32, [3, 0, 0]), allowed);
    }
}

//! The hand that strikes: follows processes from system call to system call by ptrace(2), and at one of them kills
//! the process or lets the call fail.
//!
//! A service's process comes through the [`gate`]: the program that systemd starts asks to be traced and only then
//! executes the real one in its own process. So the tracer is nobody's relative, stands in no cgroup of a service,
//! and what is traced keeps its pid, its parent and its environment. One that runs already is seized.
//!
//! As soon as the blow has fallen everything is let go: the recovery happens without a tracer.

use std::collections::{BTreeMap, HashMap};
use std::io::{Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt as _;
use std::process::{Command, ExitCode};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use nix::unistd::Pid;
use rustix::process::{WaitOptions, wait};

/// Where the gate asks.
const SOCKET: &str = "/run/boxd-sweep.socket";

/// Which of boxd's processes, in the order in which they begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// `boxd run`.
    Launcher,
    /// The box's first process before it is the payload.
    Child,
    /// `box-supervisor`.
    Supervisor,
    /// `boxd clean`.
    Cleaner,
    /// `boxd clean --again`.
    SecondCleaner,
    /// `boxctl`.
    Client,
    /// The processes by which `boxctl exec` gets into the box.
    Entrant,
}

/// What happens to a process at a system call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// SIGKILL instead of the call.
    Kill,
    /// The call is not made and fails with this error.
    Fail(Errno),
}

/// At which call of which process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Target {
    pub role: Role,
    /// The first is 0.
    pub call: usize,
    /// The number of the call that is expected there.
    pub number: u64,
    pub fault: Fault,
}

/// What was seen.
#[derive(Debug, Default, Clone)]
pub struct Record {
    /// The calls of the first process of each role, by number.
    pub calls: BTreeMap<Role, Vec<u64>>,
    /// The call that was struck.
    pub struck: Option<u64>,
}

enum Order {
    Watch(Option<Target>, Sender<()>),
    Seize(i32, Role, Sender<()>),
    End(Sender<Record>),
}

/// The tracer's thread, from outside.
pub struct Tracer {
    orders: Sender<Order>,
    bell: UnixStream,
}

impl Tracer {
    /// Begins to listen at the gate. Before any other thread is there.
    pub fn start() -> Tracer {
        // Every thread that comes later has this mask, so that the signal waits for the one that reads it.
        let mask = SigSet::from_iter([Signal::SIGCHLD]);
        mask.thread_block().expect("a signal can be blocked");
        let signals = SignalFd::with_flags(&mask, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)
            .expect("signals can be read");
        let _ = std::fs::remove_file(SOCKET);
        let gate = UnixListener::bind(SOCKET).expect("/run can be written");
        let (bell, bell_end) = UnixStream::pair().expect("a socket can be made");
        bell_end.set_nonblocking(true).expect("it is a socket");
        let (orders, received) = channel();
        std::thread::spawn(move || {
            Thread {
                signals,
                gate,
                bell: bell_end,
                orders: received,
                watch: None,
                threads: HashMap::new(),
                processes: HashMap::new(),
                ending: None,
            }
            .run()
        });
        Tracer { orders, bell }
    }

    /// From now on processes that come to the gate are followed, and the target is struck.
    pub fn watch(&self, target: Option<Target>) {
        self.order(|done| Order::Watch(target, done));
    }

    /// Follows a process that runs.
    pub fn seize(&self, pid: i32, role: Role) {
        self.order(|done| Order::Seize(pid, role, done));
    }

    /// Lets go of all.
    pub fn end(&self) -> Record {
        self.order(Order::End)
    }

    fn order<T>(&self, order: impl FnOnce(Sender<T>) -> Order) -> T {
        let (done, answer) = channel();
        self.orders.send(order(done)).expect("the tracer lives");
        (&self.bell).write_all(b"!").expect("the tracer lives");
        answer.recv().expect("the tracer answers")
    }
}

/// Executes a program in this process, traced if somebody wants that.
pub fn gate(role: &str, program: &str, arguments: &[String]) -> ExitCode {
    if let Ok(mut stream) = UnixStream::connect(SOCKET) {
        let asked = stream.write_all(role.as_bytes());
        if asked.is_ok() {
            let _ = stream.read(&mut [0]);
        }
    }
    let error = Command::new(program).args(arguments).exec();
    panic!("{program}: {error}");
}

fn role(letter: u8) -> Role {
    match letter {
        b'l' => Role::Launcher,
        b'c' => Role::Cleaner,
        b'a' => Role::SecondCleaner,
        b'x' => Role::Client,
        other => panic!("no role is called {other}"),
    }
}

struct Watch {
    target: Option<Target>,
    record: Record,
    /// Nothing is followed any more.
    over: bool,
}

/// A process that is followed.
struct Process {
    role: Role,
    /// It has executed the program that is of interest.
    begun: bool,
}

struct Thread {
    signals: SignalFd,
    gate: UnixListener,
    bell: UnixStream,
    orders: Receiver<Order>,
    watch: Option<Watch>,
    /// Traced threads, their processes and the error their call is to end with.
    threads: HashMap<i32, (i32, Option<Errno>)>,
    processes: HashMap<i32, Process>,
    ending: Option<(Sender<Record>, Instant)>,
}

/// Far more than any process needs to come to its next stop.
const LET_GO: Duration = Duration::from_secs(10);

fn options() -> Options {
    Options::PTRACE_O_TRACESYSGOOD
        | Options::PTRACE_O_TRACEFORK
        | Options::PTRACE_O_TRACEVFORK
        | Options::PTRACE_O_TRACECLONE
        | Options::PTRACE_O_TRACEEXEC
}

impl Thread {
    fn run(mut self) {
        loop {
            self.take_stops();
            self.finish();
            let mut files = [
                PollFd::new(self.signals.as_fd(), PollFlags::POLLIN),
                PollFd::new(self.gate.as_fd(), PollFlags::POLLIN),
                PollFd::new(self.bell.as_fd(), PollFlags::POLLIN),
            ];
            let timeout = match self.ending {
                Some(_) => PollTimeout::from(10u8),
                None => PollTimeout::NONE,
            };
            let _ = poll(&mut files, timeout);
            let [signalled, asked, ordered] = files.map(|file| file.any().is_some_and(|any| any));
            if signalled {
                while let Ok(Some(_)) = self.signals.read_signal() {}
            }
            if asked {
                self.admit();
            }
            if ordered {
                let _ = (&self.bell).read(&mut [0; 64]);
                while let Ok(order) = self.orders.try_recv() {
                    self.obey(order);
                }
            }
        }
    }

    fn obey(&mut self, order: Order) {
        match order {
            Order::Watch(target, done) => {
                self.watch = Some(Watch {
                    target,
                    record: Record::default(),
                    over: false,
                });
                let _ = done.send(());
            }
            Order::Seize(pid, role, done) => {
                if self.follow(pid, role, true) {
                    let _ = ptrace::interrupt(Pid::from_raw(pid));
                }
                let _ = done.send(());
            }
            Order::End(done) => {
                self.ending = Some((done, Instant::now()));
                self.let_go();
            }
        }
    }

    fn finish(&mut self) {
        let Some((done, since)) = self.ending.take() else {
            return;
        };
        if !self.threads.is_empty() {
            assert!(
                since.elapsed() < LET_GO,
                "these threads do not stop: {:?}",
                self.threads.keys()
            );
            self.ending = Some((done, since));
            return;
        }
        self.processes.clear();
        let record = self.watch.take().map(|watch| watch.record);
        let _ = done.send(record.unwrap_or_default());
    }

    /// Somebody stands at the gate.
    fn admit(&mut self) {
        let Ok((mut stream, _)) = self.gate.accept() else {
            return;
        };
        let mut letter = [0];
        if stream.read_exact(&mut letter).is_err() {
            return;
        }
        let peer = getsockopt(&stream, PeerCredentials).expect("it is a unix socket");
        self.follow(peer.pid(), role(letter[0]), false);
        let _ = stream.write_all(b"!");
    }

    fn follow(&mut self, pid: i32, role: Role, begun: bool) -> bool {
        if self.watch.as_ref().is_none_or(|watch| watch.over)
            || ptrace::seize(Pid::from_raw(pid), options()).is_err()
        {
            return false;
        }
        self.threads.insert(pid, (pid, None));
        self.processes.insert(pid, Process { role, begun });
        if begun {
            self.begin(role);
        }
        true
    }

    /// The first of a role is recorded; how many there are is seen by the record being there.
    fn begin(&mut self, role: Role) {
        if let Some(watch) = &mut self.watch {
            watch.record.calls.entry(role).or_default();
        }
    }

    fn take_stops(&mut self) {
        let options = WaitOptions::NOHANG
            | WaitOptions::from_bits_retain((libc::__WALL | libc::__WNOTHREAD) as u32);
        while let Ok(Some((pid, status))) = wait(options) {
            let tid = pid.as_raw_nonzero().get();
            if status.stopped() {
                self.stopped(tid, status.as_raw());
            } else {
                self.threads.remove(&tid);
                self.processes.remove(&tid);
            }
        }
    }

    fn stopped(&mut self, tid: i32, status: i32) {
        const EVENT_STOP: i32 = 128;
        let (signal, event) = (libc::WSTOPSIG(status), status >> 16);
        let pid = Pid::from_raw(tid);
        if !self.threads.contains_key(&tid) && !self.arrived(tid) {
            let _ = ptrace::detach(pid, None);
            return;
        }
        let (process, errno) = self.threads[&tid];
        let over = self.watch.as_ref().is_none_or(|watch| watch.over);
        // A thread whose call is to fail must come to the end of it first.
        if over && errno.is_none() {
            let pass_on = (event == 0 && signal & 0x80 == 0)
                .then(|| Signal::try_from(signal).ok())
                .flatten();
            let _ = ptrace::detach(pid, pass_on);
            self.forget(tid);
            return;
        }
        let mut pass_on = None;
        match event {
            libc::PTRACE_EVENT_EXEC => {
                // All other threads are gone, and the one that did it has the number of the process.
                self.threads
                    .retain(|other, (owner, _)| *owner != process || *other == tid);
                if !self.executed(process) {
                    let _ = ptrace::detach(pid, None);
                    self.forget(tid);
                    return;
                }
            }
            0 if signal == libc::SIGTRAP | 0x80 => {
                if !self.at_call(tid, process) {
                    return;
                }
            }
            0 => pass_on = Signal::try_from(signal).ok(),
            _ => debug_assert!(event <= EVENT_STOP),
        }
        let _ = ptrace::syscall(pid, pass_on);
    }

    /// A thread or process that one of ours has made. False: it is of no interest.
    fn arrived(&mut self, tid: i32) -> bool {
        let status = std::fs::read_to_string(format!("/proc/{tid}/status")).unwrap_or_default();
        let number = |key: &str| {
            status
                .lines()
                .find_map(|line| line.strip_prefix(key))
                .and_then(|rest| rest.trim().parse::<i32>().ok())
        };
        let (Some(process), Some(parent)) = (number("Tgid:"), number("PPid:")) else {
            return false;
        };
        if self.processes.contains_key(&process) {
            self.threads.insert(tid, (process, None));
            return true;
        }
        let Some(role) = self.processes.get(&parent).map(|parent| parent.role) else {
            return false;
        };
        let role = match role {
            Role::Launcher => Role::Child,
            Role::Client | Role::Entrant => Role::Entrant,
            _ => return false,
        };
        self.threads.insert(tid, (process, None));
        self.processes
            .insert(process, Process { role, begun: true });
        self.begin(role);
        true
    }

    /// A process has executed a program. False: it is of no interest any more.
    fn executed(&mut self, process: i32) -> bool {
        let program = std::fs::read_link(format!("/proc/{process}/exe")).unwrap_or_default();
        let supervisor = program.ends_with("box-supervisor");
        let Some(known) = self.processes.get_mut(&process) else {
            return false;
        };
        if known.begun && !supervisor {
            return false;
        }
        known.begun = true;
        if supervisor {
            known.role = Role::Supervisor;
        }
        let role = known.role;
        self.begin(role);
        true
    }

    fn forget(&mut self, tid: i32) {
        self.threads.remove(&tid);
        if !self.threads.values().any(|(process, _)| *process == tid) {
            self.processes.remove(&tid);
        }
    }

    /// Begin or end of a system call. False: the thread is not to go on.
    fn at_call(&mut self, tid: i32, process: i32) -> bool {
        const ENTRY: u8 = 1;
        let pid = Pid::from_raw(tid);
        let Ok(info) = ptrace::syscall_info(pid) else {
            return true;
        };
        let Ok(mut registers) = ptrace::getregs(pid) else {
            return true;
        };
        if info.op != ENTRY {
            let Some(errno) = self
                .threads
                .get_mut(&tid)
                .and_then(|(_, errno)| errno.take())
            else {
                return true;
            };
            registers.rax = (errno as i64).wrapping_neg() as u64;
            let _ = ptrace::setregs(pid, registers);
            let _ = ptrace::detach(pid, None);
            self.forget(tid);
            return false;
        }
        let (Some(known), Some(watch)) = (self.processes.get(&process), &mut self.watch) else {
            return true;
        };
        if !known.begun {
            return true;
        }
        let number = registers.orig_rax;
        let calls = watch.record.calls.entry(known.role).or_default();
        calls.push(number);
        let call = calls.len() - 1;
        let Some(target) = watch
            .target
            .filter(|target| target.role == known.role && target.call == call)
            // A run may make a call more or less than the one before. Then another one stands there, which may be one
            // that never fails: a close(2) that is not made leaves open what somebody waits for.
            .filter(|target| target.fault == Fault::Kill || target.number == number)
        else {
            return true;
        };
        watch.record.struck = Some(number);
        match target.fault {
            Fault::Kill => {
                let _ = kill(Pid::from_raw(process), Signal::SIGKILL);
                self.let_go();
            }
            Fault::Fail(errno) => {
                // No call has this number, so that none is made.
                registers.orig_rax = u64::MAX;
                let _ = ptrace::setregs(pid, registers);
                if let Some((_, slot)) = self.threads.get_mut(&tid) {
                    *slot = Some(errno);
                }
                self.let_go();
                let _ = ptrace::syscall(pid, None);
            }
        }
        false
    }

    /// From now on whoever stops is detached, and all are made to stop.
    fn let_go(&mut self) {
        if let Some(watch) = &mut self.watch {
            watch.over = true;
        }
        for (tid, (_, errno)) in &self.threads {
            if errno.is_none() {
                let _ = ptrace::interrupt(Pid::from_raw(*tid));
            }
        }
    }
}

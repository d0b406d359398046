// SPDX-License-Identifier: MIT OR Apache-2.0
//! The loop of PID 1: it waits for ends, output, signals and deadlines, and acts on them.

use std::fs::{self, File};
use std::io::{self, Read};
use std::mem::{self, MaybeUninit};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use dvs_config::{Config, Power, Run};
use dvs_slots::loader;
use rustix::event::{poll, PollFd, PollFlags, Timespec};
use rustix::fs::inotify;
use rustix::process::Signal;
use rustix::system::RebootCommand;
use signal_hook::consts::{SIGCHLD, SIGINT, SIGTERM, SIGUSR1, SIGUSR2};

use crate::boot::{Booted, LOG_FOLDER, RUN_FOLDER};
use crate::console::{Console, Typed};
use crate::fault::Fault;
use crate::processes::{
    reap, signal_all, signal_group, start_command, start_guest, Ended, Reaped, Service, SCREEN,
    SERVICES,
};
use crate::shutdown::{Alive, Goal, Shutdown, Step};
use crate::status::Status;
use crate::supervisor::Supervisor;
use crate::terminals::Terminals;
use crate::trial::{self, Trial, Verdict};
use crate::watchdog::{self, Watchdogs};
use crate::{mounts, power_button, sources};

/// How often a configuration error is said again, for who connects to the console later.
const REMINDER: Duration = Duration::from_secs(30);
/// How long the console may take with the last lines.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// The signals of a PID 1 (as in busybox and sysvinit) and what they ask for. Control-alt-delete is
/// SIGINT, a failing power supply SIGPWR.
const REQUESTS: [(i32, Goal); 5] = [
    (SIGTERM, Goal::Reboot),
    (SIGINT, Goal::Reboot),
    (SIGUSR1, Goal::Halt),
    (SIGUSR2, Goal::PowerOff),
    (Signal::POWER.as_raw(), Goal::PowerOff),
];

/// Signals as bytes of a stream: each arrives as its own number.
#[derive(Debug)]
struct Signals(Vec<(i32, UnixStream)>);

impl Signals {
    fn catch() -> io::Result<Self> {
        let signals = REQUESTS.iter().map(|(signal, _)| *signal).chain([SIGCHLD]);
        let streams = signals.map(|signal| {
            let (read, write) = UnixStream::pair()?;
            read.set_nonblocking(true)?;
            signal_hook::low_level::pipe::register(signal, write)?;
            Ok((signal, read))
        });
        streams.collect::<io::Result<_>>().map(Self)
    }

    /// The signals that came since the last call, each once.
    fn take(&mut self) -> Vec<i32> {
        let mut bytes = [0; 64];
        let mut came = Vec::new();
        for (signal, stream) in &mut self.0 {
            let mut any = false;
            while stream.read(&mut bytes).is_ok_and(|length| length > 0) {
                any = true;
            }
            if any {
                came.push(*signal);
            }
        }
        came
    }
}

/// PID 1 after boot.
#[derive(Debug)]
struct Init {
    started: Instant,
    console: Console,
    services: Vec<Service>,
    supervisor: Supervisor,
    /// The `[run]` command and its process.
    command: Option<(Run, Option<i32>)>,
    /// A configuration error, and when to say it again.
    complaint: Option<(String, Duration)>,
    /// Whether somebody may press enter at the console, where nothing else reads.
    listens: bool,
    /// The process that whoever did so has got.
    guest: Option<i32>,
    shutdown: Option<Shutdown>,
    has_children: bool,
    banner: String,
    watchdogs: Watchdogs,
    trial: Option<Trial>,
}

/// Runs the machine until it stops.
///
/// # Errors
///
/// Without signals, pipes or `poll` there is nothing to supervise with: the caller panics.
pub(crate) fn run(booted: Booted) -> Result<std::convert::Infallible, Fault> {
    let mut signals = Signals::catch().map_err(Fault::when("catch signals"))?;
    // Now that SIGINT is caught, control-alt-delete is to send it.
    let cad = rustix::system::reboot(RebootCommand::CadOff);
    let Booted { mut console, config, watchdogs } = booted;
    if let Err(error) = cad {
        console.say(&format!("dvs: warning: cannot take over control-alt-delete: {error}"));
    }
    let status_watch = watch_folder()
        .map_err(|fault| console.say(&format!("dvs: warning: {fault}; no banner of dvsd's state")))
        .ok();
    let mut buttons = power_button::open_all();
    let mut init = Init::new(console, config, watchdogs)?;
    loop {
        let deadline = init.turn();
        let wait = deadline.saturating_sub(init.now());
        let status_changed = wait_for(&init, &signals, status_watch.as_ref(), &buttons, wait)
            .map_err(Fault::when("wait for events"))?;
        if status_changed {
            if let Some(watch) = &status_watch {
                drain(watch);
            }
            init.show_status();
        }
        for button in &mut buttons {
            if power_button::was_pressed(button) {
                init.request(Goal::PowerOff);
            }
        }
        init.hear_console();
        for signal in signals.take() {
            if let Some((_, goal)) = REQUESTS.iter().find(|(request, _)| *request == signal) {
                init.request(*goal);
            }
        }
    }
}

/// Watches the folder of the status file, for a file moved into it.
fn watch_folder() -> Result<OwnedFd, Fault> {
    let attempt = || Fault::when(format!("watch {RUN_FOLDER}"));
    let flags = inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK;
    let watch = inotify::init(flags).map_err(attempt())?;
    inotify::add_watch(&watch, RUN_FOLDER, inotify::WatchFlags::MOVED_TO).map_err(attempt())?;
    Ok(watch)
}

/// Discards events: the file is read anew whatever happened to it.
fn drain(watch: &OwnedFd) {
    let mut buffer = [MaybeUninit::uninit(); 1024];
    let mut events = inotify::Reader::new(watch, &mut buffer);
    while events.next().is_ok() {}
}

/// Waits until one of the sources has something, or for so long; whether the status file changed.
fn wait_for(
    init: &Init,
    signals: &Signals,
    status: Option<&OwnedFd>,
    buttons: &[File],
    wait: Duration,
) -> io::Result<bool> {
    let readable = |fd| PollFd::from_borrowed_fd(fd, PollFlags::IN);
    let mut fds: Vec<PollFd<'_>> = Vec::new();
    fds.extend(status.map(|fd| readable(fd.as_fd())));
    fds.extend(signals.0.iter().map(|(_, stream)| readable(stream.as_fd())));
    fds.extend(buttons.iter().map(|button| readable(button.as_fd())));
    fds.extend(init.services.iter().map(|service| readable(service.output.as_fd())));
    // While a guest has the console, what is typed is for him.
    let listens = init.listens && init.guest.is_none() && init.shutdown.is_none();
    fds.extend(init.console.reads().filter(|_| listens).map(readable));
    fds.extend(
        init.console.wants_to_write().map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::OUT)),
    );
    let timeout =
        Timespec { tv_sec: wait.as_secs().cast_signed(), tv_nsec: wait.subsec_nanos().into() };
    match poll(&mut fds, Some(&timeout)) {
        Ok(_) | Err(rustix::io::Errno::INTR) => {
            Ok(status.is_some() && !fds[0].revents().is_empty())
        }
        Err(error) => Err(error.into()),
    }
}

impl Init {
    fn new(
        mut console: Console,
        config: Result<Config, String>,
        mut watchdogs: Watchdogs,
    ) -> Result<Self, Fault> {
        let mut services = Vec::new();
        let mut command = None;
        let mut complaint = None;
        let terminals = Terminals::found();
        // The screen tells what is wrong as well.
        let mut entries: Vec<_> = terminals.screen.then_some(SCREEN).into_iter().collect();
        match config {
            Err(error) => {
                let path = Path::new(RUN_FOLDER).join("complaint");
                if let Err(fault) = sources::write_file(&path, 0o600, error.as_bytes()) {
                    console.say(&format!("dvs: warning: {fault}"));
                }
                complaint = Some((error, Duration::ZERO));
            }
            Ok(Config { run, .. }) => {
                match &run {
                    Some(Run { services: false, .. }) => entries.clear(),
                    _ => entries.splice(..0, SERVICES).for_each(drop),
                }
                command = run.map(|run| (run, None));
            }
        }
        for entry in entries {
            let attempt = Fault::when(format!("make a pipe for {}", entry.name));
            services.push(Service::new(entry, Path::new(LOG_FOLDER)).map_err(attempt)?);
        }
        watchdogs.allow(watchdog::TURN);
        let mut init = Self {
            started: Instant::now(),
            console,
            supervisor: Supervisor::new(services.len()),
            services,
            // The command has the console for itself.
            listens: terminals.line && command.is_none(),
            guest: None,
            command,
            complaint,
            shutdown: None,
            has_children: false,
            banner: String::new(),
            watchdogs,
            trial: None,
        };
        let command_line = fs::read_to_string("/proc/cmdline").unwrap_or_default();
        let is_counted = Path::new(loader::VARIABLES).join(loader::COUNTED).exists();
        init.trial = Trial::of(&command_line, is_counted, init.now());
        init.start_command();
        Ok(init)
    }

    fn now(&self) -> Duration {
        self.started.elapsed()
    }

    /// Does everything that is due; returns when something is due again.
    fn turn(&mut self) -> Duration {
        let now = self.now();
        let mut deadline = now + Duration::from_secs(60);
        self.console.flush();
        for service in &mut self.services {
            if service.pump(|line| self.console.say(line)) {
                deadline = now;
            }
        }
        self.reap_all();
        while let Some(service) = self.supervisor.take_due(now) {
            self.start(service);
        }
        if let Some((complaint, next)) = &mut self.complaint {
            if *next <= now {
                self.console.say(&format!(
                    "dvs: configuration error: {complaint}\ndvs: no service is started; correct \
                     the configuration and start the machine again"
                ));
                *next = now + REMINDER;
            }
            deadline = deadline.min(*next);
        }
        deadline = deadline.min(self.look_at_trial(now).unwrap_or(deadline));
        self.advance_shutdown();
        deadline = deadline.min(self.watchdogs.feed(now).unwrap_or(deadline));
        deadline = deadline.min(self.supervisor.deadline().unwrap_or(deadline));
        self.shutdown.as_ref().map_or(deadline, |shutdown| deadline.min(shutdown.deadline()))
    }

    /// Restarts the machine once an image on trial was not confirmed in time; says when to look again.
    fn look_at_trial(&mut self, now: Duration) -> Option<Duration> {
        let verdict = self.trial.as_mut()?.look(now, || Path::new(trial::CONFIRMED).exists());
        match verdict {
            Verdict::Undecided(next) => return Some(next),
            Verdict::Confirmed => self.console.say("dvs: the image is confirmed"),
            Verdict::Failed => {
                self.console.say(
                    "dvs: warning: the node does not work with this image, which was on trial: it goes back to the one before",
                );
                self.request(Goal::Reboot);
            }
        }
        self.trial = None;
        None
    }

    fn start(&mut self, index: usize) {
        let now = self.now();
        let service = &mut self.services[index];
        let name = service.entry.name;
        match service.start() {
            Ok(pid) => {
                service.note(&format!("{name} started as process {pid}"));
                self.supervisor.started(index, pid, now);
                self.has_children = true;
            }
            Err(error) => {
                let again = again(self.supervisor.start_failed(index, now));
                let line = format!("cannot start {}: {error}{again}", service.entry.program);
                service.note(&line);
                self.console.say(&format!("dvs: warning: {line}"));
            }
        }
    }

    /// Lets in whoever presses enter at the console.
    fn hear_console(&mut self) {
        if !self.listens || self.guest.is_some() || self.shutdown.is_some() {
            return;
        }
        match self.console.typed() {
            Typed::Less => return,
            Typed::Gone => return self.listens = false,
            Typed::Line => {}
        }
        match Console::for_command().and_then(|console| start_guest(&console)) {
            Ok(pid) => {
                self.guest = Some(pid);
                self.has_children = true;
            }
            Err(error) => {
                self.console.say(&format!("dvs: warning: cannot show the menu here: {error}"));
            }
        }
    }

    fn reap_all(&mut self) {
        loop {
            match reap() {
                Reaped::Ended(pid, ended) => self.ended(pid, ended),
                Reaped::NoneEnded => break self.has_children = true,
                Reaped::NoChildren => break self.has_children = false,
            }
        }
    }

    fn ended(&mut self, pid: i32, ended: Ended) {
        if matches!(self.command, Some((_, Some(command))) if command == pid) {
            return self.command_ended(ended.code(), "");
        }
        if self.guest == Some(pid) {
            return self.guest = None;
        }
        let now = self.now();
        let Some(end) = self.supervisor.ended(pid, now) else { return };
        let service = &mut self.services[end.service];
        service.finish(|line| self.console.say(line));
        let seconds = end.ran.as_secs_f32();
        let line =
            format!("{} {ended} after {seconds:.1} s{}", service.entry.name, again(end.again_in));
        service.note(&line);
        if end.again_in.is_some() {
            self.console.say(&format!("dvs: warning: {line}"));
        }
    }

    /// Starts the `[run]` command, if there is one.
    fn start_command(&mut self) {
        let Some((run, pid)) = &mut self.command else { return };
        self.console.drain(LAST_WORDS);
        let started =
            Console::for_command().and_then(|console| start_command(&run.command, &console));
        match started {
            Ok(started) => {
                *pid = Some(started);
                self.has_children = true;
            }
            Err(error) => {
                let why = format!(" (cannot start {}: {error})", run.command[0]);
                // What a shell says of a command that it cannot find.
                self.command_ended(127, &why);
            }
        }
    }

    fn command_ended(&mut self, status: i32, why: &str) {
        self.console.say(&format!("dvs: run: exit status {status}{why}"));
        if let Some((run, _)) = self.command.take() {
            self.request(match run.power {
                Power::Off => Goal::PowerOff,
                Power::Reboot => Goal::Reboot,
            });
        }
    }

    /// Says a new state of `dvsd` on the console.
    fn show_status(&mut self) {
        let path = Path::new(RUN_FOLDER).join("status.json");
        let banner = match fs::read(&path).map(|json| serde_json::from_slice::<Status>(&json)) {
            Ok(Ok(status)) => status.banner(),
            Ok(Err(error)) => {
                format!("dvs: warning: {} is no status: {error}", path.display())
            }
            // Something else moved into the folder.
            Err(_) => return,
        };
        if banner != self.banner {
            self.console.say(&banner);
            self.banner = banner;
        }
    }

    /// Begins to take the machine down, unless that is under way.
    fn request(&mut self, goal: Goal) {
        if self.shutdown.is_none() {
            self.console.say(match goal {
                Goal::Reboot => "dvs: rebooting",
                Goal::Halt => "dvs: halting",
                Goal::PowerOff => "dvs: powering off",
            });
            self.complaint = None;
            self.supervisor.stop();
            self.shutdown = Some(Shutdown::new(goal));
        }
    }

    fn advance_shutdown(&mut self) {
        loop {
            let now = self.now();
            let services = self.supervisor.pids().next().is_some();
            let alive = Alive { services, any: self.has_children };
            let step = self.shutdown.as_mut().and_then(|shutdown| shutdown.next(now, alive));
            match step {
                None => return,
                Some(Step::TerminateServices) => self.signal_services(Signal::TERM),
                Some(Step::KillServices) => {
                    self.console.say("dvs: warning: a service takes too long to end: killing it");
                    self.signal_services(Signal::KILL);
                }
                Some(Step::TerminateRest) => signal_all(Signal::TERM),
                Some(Step::KillRest) => signal_all(Signal::KILL),
                Some(Step::Finish(goal)) => self.finish(goal),
            }
            self.reap_all();
        }
    }

    fn signal_services(&self, signal: Signal) {
        for pid in self.supervisor.pids() {
            signal_group(pid, signal);
        }
    }

    /// Writes and unmounts file systems, and ends the kernel.
    fn finish(&mut self, goal: Goal) {
        for service in &mut self.services {
            service.finish(|line| self.console.say(line));
        }
        // Disks may be slow with what is left to write.
        self.watchdogs.allow(watchdog::STEP);
        rustix::fs::sync();
        let mut has_next = false;
        if goal == Goal::Reboot {
            match trial::load_next() {
                Ok(loaded) => has_next = loaded,
                Err(fault) => {
                    self.console.say(&format!("dvs: warning: {fault}; rebooting instead"))
                }
            }
        }
        for fault in mounts::unmount_all() {
            self.console.say(&format!("dvs: warning: {fault}"));
        }
        self.console.drain(LAST_WORDS);
        if !has_next {
            // Firmware may take longer. A kernel that is started right away is watched from its first step, if the hardware can do so.
            mem::take(&mut self.watchdogs).disarm();
        }
        let command = match goal {
            Goal::Reboot if has_next => RebootCommand::Kexec,
            Goal::Reboot => RebootCommand::Restart,
            Goal::Halt => RebootCommand::Halt,
            Goal::PowerOff => RebootCommand::PowerOff,
        };
        let end = rustix::system::reboot(command);
        panic!("the kernel refuses to end: {end:?}");
    }
}

/// How a restart is announced.
fn again(delay: Option<Duration>) -> String {
    delay.map_or(String::new(), |delay| format!("; starting it again in {} s", delay.as_secs_f32()))
}

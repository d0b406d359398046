// SPDX-License-Identifier: MIT OR Apache-2.0
//! The proxies that carry this node's links: a process for each, started again when it ends.
//!
//! A proxy that is no longer wanted carries on until the link's next transport has taken over, so
//! that there is no moment in which nothing carries the link; then it ends by itself.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use dvs_api::Transport;
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::carrier::ProxyRoute;

/// The pause after a proxy has ended for the first time; it doubles each time.
const PAUSE_MIN: Duration = Duration::from_millis(250);
/// The longest pause.
const PAUSE_MAX: Duration = Duration::from_secs(8);
/// A proxy that ran for so long is no failure: the next pause is the shortest again.
const STEADY: Duration = Duration::from_secs(10);
/// How many milliseconds a proxy has to end by itself once its link is another transport's.
const GRACE_MS: u64 = 2_000;
/// What a proxy prints when the link is its.
const CARRYING: &str = "carrying the link";

/// Runs proxies; tests put their own in its place.
pub trait Proxies: Send {
    /// Runs a proxy for each of these links, by the node at its other end, and ends all others
    /// that the next transport has taken over from. `carried` says what carries a link now. To be
    /// called again and again.
    fn run(
        &mut self,
        now_ms: u64,
        wanted: &BTreeMap<u16, ProxyRoute>,
        carried: &dyn Fn(u16) -> Option<Transport>,
    );

    /// For people: why the proxy that is to carry the link to a node does not.
    fn trouble(&self, node: u16) -> Option<String>;
}

/// How long to wait until a proxy that has ended is started again.
#[derive(Clone, Copy, Debug, Default)]
struct Pauses(u32);

impl Pauses {
    /// The pause after one that ran for so long.
    fn after(&mut self, ran: Duration) -> Duration {
        if ran >= STEADY {
            self.0 = 0;
        }
        let pause = PAUSE_MIN.saturating_mul(1 << self.0.min(10)).min(PAUSE_MAX);
        self.0 = self.0.saturating_add(1);
        pause
    }
}

/// What becomes of a running proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// It is kept running.
    Keep,
    /// It is not started again when it ends.
    Retire,
    /// It is ended now.
    End,
}

/// Decides about a proxy that runs for `route`. `idle_ms` is for how long it has neither been
/// wanted nor carried the link.
fn fate(
    route: ProxyRoute,
    wanted: Option<ProxyRoute>,
    carried: Option<Transport>,
    idle_ms: u64,
) -> Fate {
    match wanted {
        Some(wanted) if wanted == route => Fate::Keep,
        // The next one needs its port, and to the kernel the two would be the same.
        Some(wanted) if wanted.over == route.over => Fate::End,
        _ if carried != Some(route.over) && idle_ms >= GRACE_MS => Fate::End,
        _ => Fate::Retire,
    }
}

/// Proxies that are processes of this machine.
#[derive(Debug)]
pub struct Processes {
    program: PathBuf,
    /// Arguments before those that say what to carry.
    arguments: Vec<String>,
    running: BTreeMap<(u16, Transport), Running>,
}

#[derive(Debug)]
struct Running {
    route: ProxyRoute,
    fate: watch::Sender<Fate>,
    task: JoinHandle<()>,
    said: Arc<Mutex<Said>>,
    /// Since when it has neither been wanted nor carried the link.
    idle_since_ms: Option<u64>,
}

/// What a proxy has said of itself.
#[derive(Debug, Default)]
struct Said {
    /// The link is its.
    carrying: bool,
    /// The last complaint.
    complaint: Option<String>,
}

fn lock(said: &Mutex<Said>) -> MutexGuard<'_, Said> {
    said.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Processes {
    /// Those of `program`, which gets `arguments` before its others.
    pub fn new(program: PathBuf, arguments: Vec<String>) -> Self {
        Self { program, arguments, running: BTreeMap::new() }
    }

    /// Starts one, once its predecessor at the same port has ended.
    fn start(&self, node: u16, route: ProxyRoute, before: Option<JoinHandle<()>>) -> Running {
        let (fate, watched) = watch::channel(Fate::Keep);
        let said = Arc::default();
        let id = vec!["--node".to_owned(), node.to_string()];
        let mut keeper = Keeper {
            name: format!("the proxy to node {node} over {}", route.over),
            program: self.program.clone(),
            arguments: [self.arguments.clone(), id, route.arguments()].concat(),
            said: Arc::clone(&said),
            fate: watched,
        };
        let task = tokio::spawn(async move {
            if let Some(before) = before {
                // It cannot fail but by a panic, after which its process is ended as well.
                let _ = before.await;
            }
            keeper.keep().await;
        });
        Running { route, fate, task, said, idle_since_ms: None }
    }
}

impl Proxies for Processes {
    fn run(
        &mut self,
        now_ms: u64,
        wanted: &BTreeMap<u16, ProxyRoute>,
        carried: &dyn Fn(u16) -> Option<Transport>,
    ) {
        let mut over = Vec::new();
        for (key @ (node, transport), running) in &mut self.running {
            let (wanted, carried) = (wanted.get(node).copied(), carried(*node));
            let idle = wanted != Some(running.route) && carried != Some(*transport);
            running.idle_since_ms = idle.then(|| running.idle_since_ms.unwrap_or(now_ms));
            let idle_ms = running.idle_since_ms.map_or(0, |since| now_ms.saturating_sub(since));
            let fate = fate(running.route, wanted, carried, idle_ms);
            running.fate.send_if_modified(|before| std::mem::replace(before, fate) != fate);
            if fate == Fate::End || running.task.is_finished() {
                over.push(*key);
            }
        }
        let mut ending: BTreeMap<_, _> = over
            .into_iter()
            .filter_map(|key| Some((key, self.running.remove(&key)?.task)))
            .collect();
        for (node, route) in wanted {
            let key = (*node, route.over);
            if !self.running.contains_key(&key) {
                let started = self.start(*node, *route, ending.remove(&key));
                self.running.insert(key, started);
            }
        }
    }

    fn trouble(&self, node: u16) -> Option<String> {
        let of_node = self.running.range((node, Transport::Ethernet)..=(node, Transport::Quic));
        let (_, running) = of_node.into_iter().find(|(_, it)| *it.fate.borrow() == Fate::Keep)?;
        let said = lock(&running.said);
        said.complaint.clone().filter(|_| !said.carrying)
    }
}

/// Keeps one proxy running.
struct Keeper {
    name: String,
    program: PathBuf,
    arguments: Vec<String>,
    said: Arc<Mutex<Said>>,
    fate: watch::Receiver<Fate>,
}

impl Keeper {
    async fn keep(&mut self) {
        let mut pauses = Pauses::default();
        loop {
            let began = Instant::now();
            let ended = self.run().await;
            if *self.fate.borrow() != Fate::Keep {
                return;
            }
            let pause = pauses.after(began.elapsed());
            let last = self.complain(&ended);
            println!(
                "warning: {} ended ({ended}{last}); it is started again in {} ms",
                self.name,
                pause.as_millis()
            );
            let unwanted = self.fate.wait_for(|fate| *fate != Fate::Keep);
            if tokio::time::timeout(pause, unwanted).await.is_ok() {
                return;
            }
        }
    }

    /// Notes that the proxy has ended, if it has not said itself why. Gives back what it said.
    fn complain(&self, ended: &str) -> String {
        let mut said = lock(&self.said);
        let last = said.complaint.take().filter(|_| !said.carrying);
        let text = last.as_ref().map(|text| format!(": {text}")).unwrap_or_default();
        *said = Said { carrying: false, complaint: Some(last.unwrap_or(ended.to_owned())) };
        text
    }

    /// Runs the proxy until it ends, or is to end. Says how it ended.
    async fn run(&mut self) -> String {
        let started = Command::new(&self.program)
            .args(&self.arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn();
        let mut child = match started {
            Ok(child) => child,
            Err(error) => return format!("start {}: {error}", self.program.display()),
        };
        let outputs = (child.stdout.take(), child.stderr.take());
        let (name, said) = (&self.name, &self.said);
        let (status, (), ()) = tokio::join!(
            wait(&mut child, &mut self.fate),
            read(outputs.0, |line| {
                println!("{name}: {line}");
                if line.starts_with(CARRYING) {
                    *lock(said) = Said { carrying: true, complaint: None };
                }
            }),
            read(outputs.1, |line| {
                println!("{name}: {line}");
                lock(said).complaint = Some(line);
            }),
        );
        match status {
            Ok(status) => status.to_string(),
            Err(error) => format!("wait for its end: {error}"),
        }
    }
}

/// Waits for the end of a process, or makes it.
async fn wait(child: &mut Child, fate: &mut watch::Receiver<Fate>) -> std::io::Result<ExitStatus> {
    tokio::select! {
        status = child.wait() => return status,
        _ = fate.wait_for(|fate| *fate == Fate::End) => {}
    }
    child.kill().await?;
    child.wait().await
}

/// Gives out each line of a process's output until there are no more.
async fn read(output: Option<impl AsyncRead + Unpin>, mut each: impl FnMut(String)) {
    let Some(output) = output else { return };
    let mut lines = BufReader::new(output).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        each(line);
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, SocketAddr};
    use std::path::Path;

    use super::*;
    use crate::carrier::Role;

    fn route(over: Transport, port: u16) -> ProxyRoute {
        let local = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port);
        ProxyRoute { over, role: Role::Listen, local, peer: local }
    }

    #[test]
    fn pauses_grow_and_start_over_after_a_steady_run() {
        let mut pauses = Pauses::default();
        let mut after = |s| pauses.after(Duration::from_secs(s)).as_millis();
        let grown: Vec<_> = (0..7).map(|_| after(0)).collect();
        assert_eq!(grown, [250, 500, 1_000, 2_000, 4_000, 8_000, 8_000]);
        assert_eq!([after(60), after(0)], [250, 500]);
        let mut tried = Pauses(u32::MAX);
        assert_eq!(tried.after(Duration::ZERO), PAUSE_MAX);
    }

    #[test]
    fn a_proxy_ends_only_when_nothing_is_lost_by_that() {
        let (tcp, udp) = (route(Transport::Tcp, 1), route(Transport::Udp, 1));
        let fate = |wanted, carried, idle_ms| fate(tcp, wanted, carried, idle_ms);
        let (by_tcp, by_udp) = (Some(Transport::Tcp), Some(Transport::Udp));
        assert_eq!(fate(Some(tcp), None, 0), Fate::Keep);
        assert_eq!(fate(Some(route(Transport::Tcp, 2)), by_tcp, 0), Fate::End);
        assert_eq!(fate(Some(udp), by_tcp, 0), Fate::Retire, "it carries on until UDP does");
        assert_eq!(fate(Some(udp), by_udp, GRACE_MS - 1), Fate::Retire);
        assert_eq!(fate(Some(udp), by_udp, GRACE_MS), Fate::End, "it should have ended by itself");
        assert_eq!(fate(None, by_tcp, 0), Fate::Retire);
        assert_eq!(fate(None, None, GRACE_MS), Fate::End, "the peer is down");
    }

    /// A proxy that notes its start and then does what `body` says.
    fn script(directory: &Path, body: &str) -> Processes {
        let [text, program, log] = ["text", "proxy", "log"].map(|name| directory.join(name));
        let script = format!("#!/bin/sh\necho $$ \"$@\" >> {}\n{body}\n", log.display());
        std::fs::write(&text, script).unwrap();
        // Written by a process of its own: what this one has open for writing, a program that another test starts at the same time has
        // open for a moment as well, and what is open for writing cannot be run.
        let made = std::process::Command::new("install").args([&text, &program]).status().unwrap();
        assert!(made.success());
        Processes::new(program, vec!["--config".into(), "here".into()])
    }

    /// Process id and arguments of each start so far.
    fn starts(directory: &Path) -> Vec<(u32, String)> {
        let log = std::fs::read_to_string(directory.join("log")).unwrap_or_default();
        let start = |line: &str| {
            let (pid, arguments) = line.split_once(' ').unwrap();
            (pid.parse().unwrap(), arguments.to_owned())
        };
        log.lines().map(start).collect()
    }

    fn lives(pid: u32) -> bool {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        !status.is_empty() && !status.contains("State:\tZ")
    }

    /// Lets the processes go on until something holds.
    async fn until(mut holds: impl FnMut() -> bool) {
        let start = Instant::now();
        while !holds() {
            assert!(start.elapsed() < Duration::from_secs(20));
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    #[tokio::test]
    async fn a_proxy_that_ends_is_started_again_and_says_why() {
        let directory = tempfile::tempdir().unwrap();
        let mut proxies = script(directory.path(), "echo no such address >&2; exit 3");
        let wanted = BTreeMap::from([(4, route(Transport::Tcp, 9))]);
        proxies.run(0, &wanted, &|_| None);
        until(|| starts(directory.path()).len() >= 3).await;
        let arguments = "--config here --node 4 tcp --listen 127.0.0.1:9";
        assert!(starts(directory.path()).iter().all(|(_, got)| got == arguments));
        assert_eq!(proxies.trouble(4), Some("no such address".into()));
        assert_eq!(proxies.trouble(3), None);
        proxies.run(0, &BTreeMap::new(), &|_| None);
        assert_eq!(proxies.trouble(4), None);
        until(|| proxies.running[&(4, Transport::Tcp)].task.is_finished()).await;
        proxies.run(0, &BTreeMap::new(), &|_| None);
        assert!(proxies.running.is_empty());
    }

    #[tokio::test]
    async fn one_proxy_follows_another_at_the_same_port() {
        let directory = tempfile::tempdir().unwrap();
        let mut proxies =
            script(directory.path(), "echo carrying the link; echo odd >&2; exec sleep 1000");
        let run = |proxies: &mut Processes, now_ms, wanted: &[ProxyRoute], carried| {
            let wanted = wanted.iter().map(|route| (4, *route)).collect();
            proxies.run(now_ms, &wanted, &|_| carried);
        };
        run(&mut proxies, 0, &[route(Transport::Tcp, 9)], None);
        until(|| starts(directory.path()).len() == 1).await;
        run(&mut proxies, 0, &[route(Transport::Tcp, 10)], Some(Transport::Tcp));
        until(|| starts(directory.path()).len() == 2).await;
        let [first, second] = [0, 1].map(|at| starts(directory.path())[at].0);
        assert!(!lives(first), "the first was gone before the second began");
        // Another transport may come up beside it, and only then it has to go.
        run(&mut proxies, 0, &[route(Transport::Udp, 10)], Some(Transport::Tcp));
        until(|| starts(directory.path()).len() == 3).await;
        let third = starts(directory.path())[2].0;
        run(&mut proxies, 10_000, &[route(Transport::Udp, 10)], Some(Transport::Tcp));
        assert!(lives(second) && lives(third));
        run(&mut proxies, 10_100, &[route(Transport::Udp, 10)], Some(Transport::Udp));
        assert!(lives(second));
        run(&mut proxies, 10_100 + GRACE_MS, &[route(Transport::Udp, 10)], Some(Transport::Udp));
        until(|| !lives(second)).await;
        assert!(lives(third));
        until(|| lock(&proxies.running[&(4, Transport::Udp)].said).carrying).await;
        assert_eq!(proxies.trouble(4), None, "what one that carries complains of is for the log");
        drop(proxies);
        until(|| !lives(third)).await;
    }

    #[tokio::test]
    async fn a_program_that_is_not_there_is_named() {
        let mut proxies = Processes::new("/no/such/proxy".into(), Vec::new());
        proxies.run(0, &BTreeMap::from([(1, route(Transport::Udp, 1))]), &|_| None);
        until(|| proxies.trouble(1).is_some()).await;
        let trouble = proxies.trouble(1).unwrap();
        assert!(trouble.starts_with("start /no/such/proxy: No such file"), "{trouble}");
    }
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! A boot server on a network interface of this machine. Only this module does I/O on the network.

use std::fmt;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use dvs_config::Mac;
use socket2::{Domain, Protocol, Socket, Type};

use crate::dhcp::{Kind, Question, BOOT_PORT, CLIENT_PORT, SERVER_PORT};
use crate::files::{Content, Files};
use crate::offer::{Offers, Pool};
use crate::tftp::{self, Refusal, Request, Transfer};

/// How long a transfer may hear nothing of its client.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often everything that waits looks whether it is to end.
const LOOK: Duration = Duration::from_millis(200);
/// How many files may be sent at a time; further requests are for the client to repeat.
const TRANSFERS_MAX: usize = 256;
/// Bytes of the stack of a thread that sends a file.
const STACK: usize = 256 << 10;
const DATAGRAM_MAX: usize = 2048;
/// The group in which routers of IPv6 hear those who look for one (RFC 4861).
const ALL_ROUTERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2);
/// That of everybody.
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
/// How soon after an advertisement there is another one, which all have heard.
const ADVERTISEMENTS_APART: Duration = Duration::from_millis(100);

/// Where a server answers.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The interface; nothing is heard or said on another.
    pub interface: String,
    /// Its address.
    pub address: Ipv4Addr,
    /// The addresses to give away; `None` beside a DHCP server that does so.
    pub pool: Option<Pool>,
}

/// What could not be done.
#[derive(Debug, thiserror::Error)]
#[error("cannot {attempt}: {source}")]
pub struct Error {
    attempt: String,
    source: io::Error,
}

impl Error {
    fn when(attempt: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let attempt = attempt.into();
        move |source| Self { attempt, source }
    }
}

/// What has happened. Displays as a line for people, in which nothing that a machine has said can be more than a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A machine was told something.
    Answered {
        /// Which machine.
        mac: Mac,
        /// Offer, ack or nak.
        kind: Kind,
        /// What it boots from.
        file: Option<String>,
        /// The address that it may use.
        address: Option<Ipv4Addr>,
    },
    /// A machine could not be told something.
    NotAnswered {
        /// Which machine.
        mac: Mac,
        /// Why.
        why: String,
    },
    /// Somebody wants a file that there is not.
    NoFile {
        /// Who.
        client: SocketAddr,
        /// Its name.
        name: String,
    },
    /// A file has arrived as a whole.
    Sent {
        /// Whereto.
        client: SocketAddr,
        /// Its name.
        file: String,
    },
    /// A file has not.
    NotSent {
        /// Whereto.
        client: SocketAddr,
        /// Its name.
        file: String,
        /// Why.
        why: String,
    },
    /// Something works no longer, or never did.
    Lost(String),
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Answered { mac, kind, file, address } => {
                write!(f, "{mac}: {kind:?} of {}", file.as_deref().unwrap_or("nothing"))?;
                address.map_or(Ok(()), |address| write!(f, " and {address}"))
            }
            Self::NotAnswered { mac, why } => write!(f, "{mac}: not answered: {why}"),
            Self::NoFile { client, name } => write!(f, "{client}: there is no file {name:?}"),
            Self::Sent { client, file } => write!(f, "{client}: {file}: sent"),
            Self::NotSent { client, file, why } => write!(f, "{client}: {file}: {why}"),
            Self::Lost(what) => f.write_str(what),
        }
    }
}

/// Is told what has happened.
pub type Report = dyn Fn(Event) + Send + Sync;

/// A server that runs, until it is stopped or dropped, or something fails.
#[derive(Debug)]
pub struct Server {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

/// What all threads of a server share.
struct Shared {
    settings: Settings,
    files: Files,
    report: Arc<Report>,
    stop: AtomicBool,
    /// How many files are being sent.
    transfers: AtomicUsize,
    failure: Mutex<Option<String>>,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("settings", &self.settings).finish_non_exhaustive()
    }
}

/// Where a server is heard.
struct Sockets {
    files: UdpSocket,
    questions: UdpSocket,
    /// Where machines ask again that were offered a file beside an address.
    boot: Option<UdpSocket>,
}

impl Server {
    /// Serves `files`. It needs the right to use the ports of DHCP and TFTP, which root has.
    ///
    /// # Errors
    /// When a port cannot be opened, or the interface is not there.
    pub fn start(settings: Settings, files: Files, report: Arc<Report>) -> Result<Self, Error> {
        let open = |port: u16, address: Ipv4Addr| {
            let attempt = format!("listen on UDP port {port} of {}", settings.interface);
            listen(&settings.interface, address, port).map_err(Error::when(attempt))
        };
        let sockets = Sockets {
            files: open(tftp::PORT, settings.address)?,
            questions: open(SERVER_PORT, Ipv4Addr::UNSPECIFIED)?,
            boot: match settings.pool {
                None => Some(open(BOOT_PORT, settings.address)?),
                Some(_) => None,
            },
        };
        // Where the segment has a DHCP server, it may have routers, too.
        let solicitations = settings.pool.map(|_| Solicitations::open(&settings.interface));
        let mut server = Self::run(settings, files, report, sockets)?;
        match solicitations {
            Some(Ok(solicitations)) => {
                server.spawn("routers", move |shared| solicitations.decline(shared))?;
            }
            // Machines boot nevertheless, after they have waited for a router.
            Some(Err(error)) => (server.shared.report)(Event::Lost(format!(
                "machines that look for a router of IPv6 are not told that there is none: {error}"
            ))),
            None => {}
        }
        Ok(server)
    }

    fn run(
        settings: Settings,
        files: Files,
        report: Arc<Report>,
        sockets: Sockets,
    ) -> Result<Self, Error> {
        let Sockets { files: requests, questions, boot } = sockets;
        for socket in [&requests, &questions].into_iter().chain(&boot) {
            let limited = socket.set_read_timeout(Some(LOOK));
            limited.map_err(Error::when("limit how long a socket waits"))?;
        }
        let offers = Offers::new(settings.address, settings.pool);
        let shared = Shared {
            settings,
            files,
            report,
            stop: AtomicBool::new(false),
            transfers: AtomicUsize::new(0),
            failure: Mutex::default(),
        };
        let mut server = Self { shared: Arc::new(shared), threads: Vec::new() };
        let started = Instant::now();
        server.spawn("files", move |shared| send_files(&requests, shared))?;
        if let Some(boot) = boot {
            let mut offers = offers.clone();
            server.spawn("boot", move |shared| loop {
                answer(&boot, &mut offers, started, true, shared)?;
            })?;
        }
        let mut offers = offers;
        server.spawn("dhcp", move |shared| loop {
            answer(&questions, &mut offers, started, false, shared)?;
        })?;
        Ok(server)
    }

    /// Has a thread do something for as long as the server is to run.
    fn spawn(
        &mut self,
        name: &'static str,
        work: impl FnOnce(&Arc<Shared>) -> Result<Never, Ended> + Send + 'static,
    ) -> Result<(), Error> {
        let shared = Arc::clone(&self.shared);
        let thread = thread::Builder::new().name(format!("netboot-{name}")).spawn(move || {
            if let Err(Ended::Failed(error)) = work(&shared) {
                let why =
                    format!("nothing is served any more on {}: {error}", shared.settings.interface);
                (shared.report)(Event::Lost(why.clone()));
                shared.failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(why);
                shared.stop.store(true, Ordering::Relaxed);
            }
        });
        self.threads.push(thread.map_err(Error::when("start a thread"))?);
        Ok(())
    }

    /// Why it serves nothing any more; `None` for as long as it does.
    pub fn failure(&self) -> Option<String> {
        self.shared.failure.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How many files are being sent.
    pub fn transfers(&self) -> usize {
        self.shared.transfers.load(Ordering::Relaxed)
    }

    /// Waits until it serves nothing any more, and says why.
    pub fn wait(mut self) -> String {
        self.join();
        self.failure().unwrap_or_else(|| "it was stopped".to_owned())
    }

    fn join(&mut self) {
        for thread in self.threads.drain(..) {
            // What it panicked with has been said.
            let _ = thread.join();
        }
        while self.transfers() > 0 {
            thread::sleep(LOOK / 4);
        }
    }
}

/// Ends it: when this returns, nothing is answered or sent any more, and no port is in use.
impl Drop for Server {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        self.join();
    }
}

/// What never is.
enum Never {}

/// Why a thread ends.
enum Ended {
    /// It is to.
    Stopped,
    /// It cannot go on.
    Failed(io::Error),
}

impl From<io::Error> for Ended {
    fn from(error: io::Error) -> Self {
        Self::Failed(error)
    }
}

impl Shared {
    /// Waits for a datagram, for a moment: `None` then.
    fn receive(
        &self,
        receive: impl FnOnce() -> io::Result<(usize, SocketAddr)>,
    ) -> Result<Option<(usize, SocketAddr)>, Ended> {
        if self.stop.load(Ordering::Relaxed) {
            return Err(Ended::Stopped);
        }
        match receive() {
            Ok(received) => Ok(Some(received)),
            Err(error) if is_passing(&error) => Ok(None),
            Err(error) => Err(Ended::Failed(error)),
        }
    }
}

/// Whether nothing has come yet.
fn is_passing(error: &io::Error) -> bool {
    use io::ErrorKind::{Interrupted, TimedOut, WouldBlock};
    matches!(error.kind(), Interrupted | TimedOut | WouldBlock)
}

/// A socket that is bound to an interface.
fn listen(interface: &str, address: Ipv4Addr, port: u16) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
    socket.bind_device(Some(interface.as_bytes()))?;
    socket.set_broadcast(true)?;
    socket.bind(&SocketAddrV4::new(address, port).into())?;
    Ok(socket.into())
}

/// Answers one question of DHCP, if one comes. Those at the port of boot servers are answered where they come from.
fn answer(
    socket: &UdpSocket,
    offers: &mut Offers,
    started: Instant,
    boot: bool,
    shared: &Shared,
) -> Result<(), Ended> {
    let mut buffer = [0; DATAGRAM_MAX];
    let Some((length, from)) = shared.receive(|| socket.recv_from(&mut buffer))? else {
        return Ok(());
    };
    let Ok(question) = Question::parse(&buffer[..length]) else { return Ok(()) };
    let Some(answer) = offers.answer(&question, started.elapsed()) else { return Ok(()) };
    let to = if boot {
        from
    } else if question.own.is_unspecified() {
        // It has no address yet to which this could go by itself.
        SocketAddrV4::new(Ipv4Addr::BROADCAST, CLIENT_PORT).into()
    } else {
        SocketAddrV4::new(question.own, CLIENT_PORT).into()
    };
    let mac = question.mac;
    // A network that is down for a moment is no reason to stop; the machine asks again.
    let event = match socket.send_to(&answer.encode(&question), to) {
        Ok(_) => Event::Answered {
            mac,
            kind: answer.kind,
            file: answer.file.map(|file| file.name),
            address: answer.lease.map(|lease| lease.address),
        },
        Err(error) => Event::NotAnswered { mac, why: error.to_string() },
    };
    (shared.report)(event);
    Ok(())
}

/// Sends what is asked for at `requests`, each file from a port of its own.
fn send_files(requests: &UdpSocket, shared: &Arc<Shared>) -> Result<Never, Ended> {
    let mut buffer = [0; DATAGRAM_MAX];
    loop {
        let Some((length, client)) = shared.receive(|| requests.recv_from(&mut buffer))? else {
            continue;
        };
        let request = Request::parse(&buffer[..length]);
        let found = request.and_then(|request| match request {
            None => Ok(None),
            Some(request) => match shared.files.get(&request.file) {
                Some(content) => Ok(Some((request, content.clone()))),
                None => {
                    (shared.report)(Event::NoFile { client, name: request.file });
                    Err(Refusal::NotFound)
                }
            },
        });
        match found {
            Ok(None) => {}
            // Lost answers are asked for again.
            Err(refusal) => drop(requests.send_to(&refusal.packet(), client)),
            Ok(Some(_)) if shared.transfers.load(Ordering::Relaxed) >= TRANSFERS_MAX => {}
            Ok(Some((request, content))) => {
                let sending = Sending::begin(shared);
                let thread = thread::Builder::new().name("netboot-file".into()).stack_size(STACK);
                // Without a thread for it, the client asks again.
                drop(thread.spawn(move || {
                    let file = request.file.clone();
                    let event = match send(&sending.0, client, &request, &content) {
                        Ok(true) => Event::Sent { client, file },
                        Ok(false) => {
                            let why = "the client has broken off".to_owned();
                            Event::NotSent { client, file, why }
                        }
                        Err(Ended::Stopped) => return,
                        Err(Ended::Failed(error)) => {
                            Event::NotSent { client, file, why: format!("gave up: {error}") }
                        }
                    };
                    (sending.0.report)(event);
                }));
            }
        }
    }
}

/// A file that is being sent, and counted for as long.
struct Sending(Arc<Shared>);

impl Sending {
    fn begin(shared: &Arc<Shared>) -> Self {
        shared.transfers.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(shared))
    }
}

impl Drop for Sending {
    fn drop(&mut self) {
        self.0.transfers.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Sends one file; whether the client has all of it.
fn send(
    shared: &Shared,
    client: SocketAddr,
    request: &Request,
    content: &Content,
) -> Result<bool, Ended> {
    let socket = listen(&shared.settings.interface, shared.settings.address, 0)?;
    socket.connect(client)?;
    socket.set_read_timeout(Some(LOOK))?;
    let (mut transfer, mut packets) = Transfer::begin(request, content.len());
    let mut buffer = [0; DATAGRAM_MAX];
    // Only what the transfer goes on by keeps it alive.
    let mut heard = Instant::now();
    while !transfer.is_done() {
        for packet in packets {
            socket.send(&packet.encode(content)?)?;
        }
        let length = loop {
            let received = shared.receive(|| Ok((socket.recv(&mut buffer)?, client)))?;
            match received {
                Some((length, _)) => break length,
                None if heard.elapsed() < PATIENCE => {}
                None => return Err(io::Error::from(io::ErrorKind::TimedOut).into()),
            }
        };
        packets = transfer.receive(&buffer[..length]);
        if !packets.is_empty() {
            heard = Instant::now();
        } else if heard.elapsed() >= PATIENCE {
            return Err(io::Error::from(io::ErrorKind::TimedOut).into());
        }
    }
    Ok(transfer.is_complete())
}

/// Where those are heard who look for a router of IPv6. Firmware waits for one, so it is told that there is none.
struct Solicitations {
    socket: Socket,
    index: u32,
}

impl Solicitations {
    /// A router says by a lifetime of zero that it is none for anybody (RFC 4861, 4.2). The kernel fills in the checksum.
    const ADVERTISEMENT: [u8; 16] = [134, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    const SOLICITATION: u8 = 133;

    fn open(interface: &str) -> io::Result<Self> {
        let index = std::fs::read_to_string(format!("/sys/class/net/{interface}/ifindex"))?;
        let index = index.trim().parse().map_err(io::Error::other)?;
        let socket = Socket::new(Domain::IPV6, Type::RAW, Some(Protocol::ICMPV6))?;
        socket.bind_device(Some(interface.as_bytes()))?;
        socket.set_multicast_if_v6(index)?;
        // What has passed a router is not believed.
        socket.set_multicast_hops_v6(255)?;
        socket.set_multicast_loop_v6(false)?;
        socket.join_multicast_v6(&ALL_ROUTERS, index)?;
        socket.set_read_timeout(Some(LOOK))?;
        Ok(Self { socket, index })
    }

    fn decline(&self, shared: &Shared) -> Result<Never, Ended> {
        let mut buffer = [0; DATAGRAM_MAX];
        let mut last: Option<Instant> = None;
        loop {
            let nobody = SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0));
            let mut socket = &self.socket;
            let receive = || Ok((io::Read::read(&mut socket, &mut buffer)?, nobody));
            let Some((length, _)) = shared.receive(receive)? else { continue };
            let asked = buffer[..length].first() == Some(&Self::SOLICITATION);
            if asked && last.is_none_or(|last| last.elapsed() >= ADVERTISEMENTS_APART) {
                last = Some(Instant::now());
                let to = SocketAddrV6::new(ALL_NODES, 0, 0, self.index);
                // They ask again.
                let _ = self.socket.send_to(&Self::ADVERTISEMENT, &to.into());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dhcp::tests::{message, question};
    use crate::tftp::tests::{acknowledge, request};

    /// A server on the loopback interface at ports that are free, and where it is heard: files, and questions.
    fn server(files: Files, report: Arc<Report>) -> (Server, SocketAddr, SocketAddr) {
        let open = || listen("lo", Ipv4Addr::LOCALHOST, 0).unwrap();
        let sockets = Sockets { files: open(), questions: open(), boot: Some(open()) };
        let at = |socket: &UdpSocket| socket.local_addr().unwrap();
        let boot = at(sockets.boot.as_ref().unwrap());
        let files_at = at(&sockets.files);
        let settings =
            Settings { interface: "lo".into(), address: Ipv4Addr::LOCALHOST, pool: None };
        (Server::run(settings, files, report, sockets).unwrap(), files_at, boot)
    }

    fn quiet() -> Arc<Report> {
        Arc::new(|_| {})
    }

    /// Fetches a file of the server as a client does, from the loopback interface.
    fn fetch(server: SocketAddr, name: &str) -> Result<Vec<u8>, String> {
        let client = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        client.send_to(&request(name, &[]), server).unwrap();
        let (mut got, mut buffer) = (Vec::new(), [0; DATAGRAM_MAX]);
        loop {
            let (length, from) = client.recv_from(&mut buffer).unwrap();
            if buffer[1] == 5 {
                return Err(String::from_utf8_lossy(&buffer[4..length - 1]).into_owned());
            }
            got.extend_from_slice(&buffer[4..length]);
            client.send_to(&acknowledge(u16::from_be_bytes([buffer[2], buffer[3]])), from).unwrap();
            if length - 4 < 512 {
                return Ok(got);
            }
        }
    }

    fn one_file(content: &[u8]) -> Files {
        let mut files = Files::default();
        files.add("linux", Content::of(content));
        files
    }

    #[test]
    fn files_are_sent_over_sockets_and_told_of() {
        let content: Vec<u8> = (0..20_000_u32).map(|n| (n % 251) as u8).collect();
        let (sender, events) = std::sync::mpsc::channel();
        let report = move |event| sender.send(event).unwrap();
        let (_server, files, _) = server(one_file(&content), Arc::new(report));
        assert_eq!(fetch(files, "linux"), Ok(content));
        let event = events.recv_timeout(PATIENCE).unwrap();
        assert!(matches!(&event, Event::Sent { file, .. } if file == "linux"), "{event:?}");
        assert_eq!(fetch(files, "pass\nwd"), Err("file not found".to_owned()));
        let line = events.recv_timeout(PATIENCE).unwrap().to_string();
        assert!(line.ends_with(r#"there is no file "pass\nwd""#), "{line}");
    }

    #[test]
    fn who_boots_is_answered_and_nobody_else() {
        let (_server, _, boot) = server(Files::default(), quiet());
        let client = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        client.send_to(b"nonsense", boot).unwrap();
        let idle = Question { boots: false, transaction: 1, ..question(Kind::Request) };
        client.send_to(&message(&idle), boot).unwrap();
        let asked = Question { transaction: 2, ..question(Kind::Request) };
        client.send_to(&message(&asked), boot).unwrap();
        let mut buffer = [0; DATAGRAM_MAX];
        let (_, from) = client.recv_from(&mut buffer).unwrap();
        assert_eq!((from, buffer[4..8].to_vec()), (boot, vec![0, 0, 0, 2]));
    }

    #[test]
    fn a_server_that_is_stopped_answers_nothing_and_frees_its_ports() {
        let (server, files, boot) = server(one_file(&[0; 5000]), quiet());
        // One that has begun and says nothing any more.
        let client = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        client.send_to(&request("linux", &[]), files).unwrap();
        client.recv_from(&mut [0; DATAGRAM_MAX]).unwrap();
        assert_eq!((server.transfers(), server.failure()), (1, None));
        let shared = Arc::clone(&server.shared);
        let began = Instant::now();
        drop(server);
        assert!(began.elapsed() < PATIENCE / 2, "it waited for a client that is gone");
        assert_eq!(shared.transfers.load(Ordering::Relaxed), 0);
        for port in [files.port(), boot.port()] {
            listen("lo", Ipv4Addr::LOCALHOST, port).unwrap();
        }
        client.set_read_timeout(Some(LOOK)).unwrap();
        client.send_to(&request("linux", &[]), files).unwrap();
        assert!(client.recv_from(&mut [0; DATAGRAM_MAX]).is_err());
    }

    #[test]
    fn no_more_files_are_sent_at_a_time_than_there_are_threads_for() {
        let (server, files, _) = server(one_file(&[0; 5000]), quiet());
        let clients: Vec<_> = (0..TRANSFERS_MAX + 9)
            .map(|_| {
                let client = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
                client.send_to(&request("linux", &[]), files).unwrap();
                // A burst would not fit into the queue of the socket.
                thread::sleep(Duration::from_millis(1));
                client
            })
            .collect();
        let deadline = Instant::now() + PATIENCE / 2;
        while server.transfers() < TRANSFERS_MAX && Instant::now() < deadline {
            thread::sleep(LOOK);
            // Those that found no thread ask again, as clients do.
            clients.iter().for_each(|client| drop(client.send_to(&request("linux", &[]), files)));
        }
        assert_eq!(server.transfers(), TRANSFERS_MAX);
    }

    #[test]
    fn an_interface_that_is_not_there_is_named() {
        let settings = Settings {
            interface: "no-such-if0".to_owned(),
            address: Ipv4Addr::LOCALHOST,
            pool: None,
        };
        let error = Server::start(settings, Files::default(), quiet()).unwrap_err().to_string();
        assert!(error.starts_with("cannot listen on UDP port 69 of no-such-if0: "), "{error}");
    }
}

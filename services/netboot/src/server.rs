// SPDX-License-Identifier: MIT OR Apache-2.0
//! A boot server on a network interface of this machine. Only this module does I/O.

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, Socket, Type};

use crate::dhcp::{Question, BOOT_PORT, CLIENT_PORT, SERVER_PORT};
use crate::files::Files;
use crate::offer::{Offers, Pool};
use crate::tftp::{self, Refusal, Request, Transfer};

/// How long a transfer may hear nothing of its client.
const PATIENCE: Duration = Duration::from_secs(30);
/// How many files may be sent at a time; further requests are for the client to repeat.
const TRANSFERS_MAX: usize = 256;
const DATAGRAM_MAX: usize = 2048;

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

/// What has happened, for people to read.
pub type Report = dyn Fn(String) + Send + Sync;

/// Serves `files` until something fails. It needs the right to use the ports of DHCP and TFTP, which root has.
///
/// # Errors
/// When a port cannot be opened, or the interface is gone.
pub fn serve(settings: &Settings, files: Files, report: Arc<Report>) -> Result<(), Error> {
    let open = |port: u16, address: Ipv4Addr| {
        let attempt = format!("listen on UDP port {port} of {}", settings.interface);
        listen(&settings.interface, address, port).map_err(Error::when(attempt))
    };
    let files = Arc::new(files);
    let requests = open(tftp::PORT, settings.address)?;
    let questions = open(SERVER_PORT, Ipv4Addr::UNSPECIFIED)?;
    let mut offers = Offers::new(settings.address, settings.pool);
    let started = Instant::now();
    let transfers = Arc::clone(&report);
    let address = settings.address;
    thread::spawn(move || {
        let ended = send_files(&requests, address, &files, &transfers);
        transfers(format!("no files are sent any more: {ended}"));
    });
    if settings.pool.is_none() {
        // Machines that were offered a file beside an address come here for it.
        let asked = open(BOOT_PORT, settings.address)?;
        let mut offers = offers.clone();
        let report = Arc::clone(&report);
        thread::spawn(move || loop {
            if let Err(error) = answer(&asked, &mut offers, started, true, &*report) {
                return report(format!("boot requests are not answered any more: {error}"));
            }
        });
    }
    loop {
        answer(&questions, &mut offers, started, false, &*report)
            .map_err(Error::when(format!("hear DHCP on {}", settings.interface)))?;
    }
}

/// A socket that is bound to an interface.
fn listen(interface: &str, address: Ipv4Addr, port: u16) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
    socket.bind_device(Some(interface.as_bytes()))?;
    socket.set_broadcast(true)?;
    socket.bind(&SocketAddrV4::new(address, port).into())?;
    Ok(socket.into())
}

/// Answers one question of DHCP. Those at the port of boot servers are answered where they come from.
fn answer(
    socket: &UdpSocket,
    offers: &mut Offers,
    started: Instant,
    boot: bool,
    report: &Report,
) -> io::Result<()> {
    let mut buffer = [0; DATAGRAM_MAX];
    let (length, from) = socket.recv_from(&mut buffer)?;
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
    let file = answer.file.as_ref().map_or("nothing", |file| file.name.as_str());
    let address = answer.lease.map(|lease| format!(" and {}", lease.address)).unwrap_or_default();
    report(format!("{}: {:?} of {file}{address}", question.mac, answer.kind));
    // A network that is down for a moment is no reason to stop; the machine asks again.
    if let Err(error) = socket.send_to(&answer.encode(&question), to) {
        report(format!("{}: not answered: {error}", question.mac));
    }
    Ok(())
}

/// Sends what is asked for at `requests`, each file from a port of its own, until that fails.
fn send_files(
    requests: &UdpSocket,
    address: Ipv4Addr,
    files: &Files,
    report: &Arc<Report>,
) -> io::Error {
    let running = Arc::new(AtomicUsize::new(0));
    let mut buffer = [0; DATAGRAM_MAX];
    loop {
        let (length, client) = match requests.recv_from(&mut buffer) {
            Ok(received) => received,
            Err(error) => return error,
        };
        let request = Request::parse(&buffer[..length]);
        let found = request.and_then(|request| match request {
            None => Ok(None),
            Some(request) => match files.get(&request.file) {
                Some(content) => Ok(Some((request, Arc::clone(content)))),
                None => {
                    report(format!("{client}: there is no file {:?}", request.file));
                    Err(Refusal::NotFound)
                }
            },
        });
        match found {
            Ok(None) => {}
            // Lost answers are asked for again.
            Err(refusal) => drop(requests.send_to(&refusal.packet(), client)),
            Ok(Some(_)) if running.load(Ordering::Relaxed) >= TRANSFERS_MAX => {}
            Ok(Some((request, content))) => {
                running.fetch_add(1, Ordering::Relaxed);
                let (running, report) = (Arc::clone(&running), Arc::clone(report));
                thread::spawn(move || {
                    let sent = send(address, client, &request, content);
                    let how = sent.map_or_else(|error| format!("gave up: {error}"), str::to_owned);
                    report(format!("{client}: {}: {how}", request.file));
                    running.fetch_sub(1, Ordering::Relaxed);
                });
            }
        }
    }
}

/// Sends one file.
fn send(
    address: Ipv4Addr,
    client: std::net::SocketAddr,
    request: &Request,
    content: Arc<[u8]>,
) -> io::Result<&'static str> {
    let socket = UdpSocket::bind((address, 0))?;
    socket.connect(client)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    let (mut transfer, mut packets) = Transfer::begin(request, content);
    let mut buffer = [0; DATAGRAM_MAX];
    while !transfer.is_done() {
        for packet in packets {
            socket.send(&packet)?;
        }
        let length = socket.recv(&mut buffer)?;
        packets = transfer.receive(&buffer[..length]);
    }
    Ok(if transfer.is_complete() { "sent" } else { "the client has broken off" })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tftp::tests::{acknowledge, request};

    /// Fetches a file of the server as a client does, from the loopback interface.
    fn fetch(server: std::net::SocketAddr, name: &str) -> Result<Vec<u8>, String> {
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

    #[test]
    fn files_are_sent_over_sockets() {
        let content: Vec<u8> = (0..20_000_u32).map(|n| (n % 251) as u8).collect();
        let mut files = Files::default();
        files.add("linux", content.clone());
        let requests = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let server = requests.local_addr().unwrap();
        thread::spawn(move || {
            let report: Arc<Report> = Arc::new(|_| {});
            send_files(&requests, Ipv4Addr::LOCALHOST, &files, &report)
        });
        assert_eq!(fetch(server, "linux"), Ok(content));
        assert_eq!(fetch(server, "passwd"), Err("file not found".to_owned()));
    }

    #[test]
    fn an_interface_that_is_not_there_is_named() {
        let settings = Settings {
            interface: "no-such-if0".to_owned(),
            address: Ipv4Addr::LOCALHOST,
            pool: None,
        };
        let error = serve(&settings, Files::default(), Arc::new(|_| {})).unwrap_err().to_string();
        assert!(error.starts_with("cannot listen on UDP port 69 of no-such-if0: "), "{error}");
    }
}

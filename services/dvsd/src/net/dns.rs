// SPDX-License-Identifier: MIT OR Apache-2.0
//! Questions of the domain name system (RFC 1035), asked of one server by UDP, and by TCP where the answer is too large for that.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use dvs_api::{DnsAnswer, DnsRecord, DnsType, IpVersion};
use simple_dns::rdata::RData;
use simple_dns::{Name, Packet, PacketFlag, Question, CLASS, QCLASS, QTYPE, RCODE, TYPE};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

/// Where a node has the addresses of its servers.
const SERVERS: &str = "/etc/resolv.conf";
/// The port of servers.
const PORT: u16 = 53;
/// Most bytes of an answer by UDP; servers keep to 512.
const DATAGRAM: usize = 4_096;

/// The server that is meant: this one, or the first that the node has.
///
/// # Errors
/// For people: why there is none.
pub(super) fn server(given: Option<&str>) -> Result<SocketAddr, String> {
    let Some(given) = given else {
        let text = fs::read_to_string(SERVERS).unwrap_or_default();
        return first_server(&text).ok_or_else(|| {
            format!("this node has no DNS server in {SERVERS}; name one with --server")
        });
    };
    let address = given.parse::<SocketAddr>();
    let address = address.or_else(|_| given.parse::<IpAddr>().map(|ip| SocketAddr::new(ip, PORT)));
    address.map_err(|_| {
        format!("`{given}` is no DNS server; write its IP address, perhaps with a port: [::1]:53")
    })
}

fn first_server(text: &str) -> Option<SocketAddr> {
    let servers = text.lines().filter_map(|line| line.trim().strip_prefix("nameserver"));
    let mut addresses = servers.filter_map(|rest| rest.trim().parse::<IpAddr>().ok());
    addresses.next().map(|ip| SocketAddr::new(ip, PORT))
}

/// An address of a name: that of the version that is meant, or else of IPv4 first.
///
/// # Errors
/// For people: why there is none.
pub(super) async fn look_up(
    name: &str,
    ip: Option<IpVersion>,
    limit: Duration,
) -> Result<IpAddr, String> {
    let server = server(None).map_err(|why| {
        format!("`{name}` is no IP address, and its address is not to be had: {why}")
            .replace("name one with --server", "give the target as an IP address")
    })?;
    for (version, kind) in [(IpVersion::V4, DnsType::A), (IpVersion::V6, DnsType::Aaaa)] {
        if ip.is_some_and(|ip| ip != version) {
            continue;
        }
        let answer = ask(name, kind, server, limit).await?;
        let mut of_kind = answer.records.iter().filter(|one| one.kind == kind.to_string());
        if let Some(address) = of_kind.find_map(|one| one.data.parse().ok()) {
            return Ok(address);
        }
    }
    Err(format!("{server} knows no such address of `{name}`"))
}

/// Asks a server.
///
/// # Errors
/// For people: why there is no answer.
pub(super) async fn ask(
    name: &str,
    kind: DnsType,
    server: SocketAddr,
    limit: Duration,
) -> Result<DnsAnswer, String> {
    let name = as_asked(name, kind);
    let id = getrandom::u32().map_err(|error| format!("entropy: {error}"))? as u16;
    let question = question(&name, kind, id)?;
    let began = Instant::now();
    let asked = timeout(limit, async {
        let bytes = by_udp(&question, server, id).await?;
        let answer = Packet::parse(&bytes).map_err(|error| garbled(server, &error));
        let is_cut = answer?.has_flags(PacketFlag::TRUNCATION);
        Ok::<_, String>(match is_cut {
            true => (by_tcp(&question, server).await?, true),
            false => (bytes, false),
        })
    });
    let (bytes, tcp) = asked.await.map_err(|_| {
        let ms = limit.as_millis();
        format!("{server} did not answer within {ms} ms; check that it is a DNS server")
    })??;
    let rtt_us = began.elapsed().as_micros() as u64;
    let answer = Packet::parse(&bytes).map_err(|error| garbled(server, &error))?;
    if answer.id() != id {
        return Err(format!("{server} answered another question"));
    }
    let records = answer.answers.iter().map(|record| DnsRecord {
        name: record.name.to_string(),
        ttl_s: record.ttl,
        kind: format!("{:?}", record.rdata.type_code()),
        data: data(&record.rdata),
    });
    Ok(DnsAnswer { server, rtt_us, code: code(answer.rcode()), tcp, records: records.collect() })
}

fn garbled(server: SocketAddr, error: &simple_dns::SimpleDnsError) -> String {
    format!("{server} answered something that is no DNS message: {error}")
}

/// The name that is asked for: that of an address is its digits backwards (RFC 1035, 3.5, and RFC 3596, 2.5).
fn as_asked(name: &str, kind: DnsType) -> String {
    match name.parse::<IpAddr>() {
        Ok(IpAddr::V4(address)) if kind == DnsType::Ptr => {
            let [a, b, c, d] = address.octets();
            format!("{d}.{c}.{b}.{a}.in-addr.arpa")
        }
        Ok(IpAddr::V6(address)) if kind == DnsType::Ptr => {
            let digits = address.octets().into_iter().rev().fold(String::new(), |text, byte| {
                text + &format!("{:x}.{:x}.", byte & 15, byte >> 4)
            });
            format!("{digits}ip6.arpa")
        }
        _ => name.trim_end_matches('.').to_owned(),
    }
}

fn question(name: &str, kind: DnsType, id: u16) -> Result<Vec<u8>, String> {
    let parsed = Name::new(name).map_err(|error| {
        format!("`{name}` cannot be asked for: {error}; names are labels of 1 to 63 bytes with dots between them")
    })?;
    let kind = match kind {
        DnsType::A => TYPE::A,
        DnsType::Aaaa => TYPE::AAAA,
        DnsType::Cname => TYPE::CNAME,
        DnsType::Mx => TYPE::MX,
        DnsType::Ns => TYPE::NS,
        DnsType::Ptr => TYPE::PTR,
        DnsType::Soa => TYPE::SOA,
        DnsType::Srv => TYPE::SRV,
        DnsType::Txt => TYPE::TXT,
    };
    let mut packet = Packet::new_query(id);
    packet.set_flags(PacketFlag::RECURSION_DESIRED);
    let question = Question::new(parsed, QTYPE::TYPE(kind), QCLASS::CLASS(CLASS::IN), false);
    packet.questions.push(question);
    packet.build_bytes_vec().map_err(|error| format!("`{name}` cannot be asked for: {error}"))
}

/// The answer to this question; those to others are passed over.
async fn by_udp(question: &[u8], server: SocketAddr, id: u16) -> Result<Vec<u8>, String> {
    let own: SocketAddr = match server {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let failed = |error: std::io::Error| format!("ask {server}: {error}");
    let socket = UdpSocket::bind(own).await.map_err(failed)?;
    socket.connect(server).await.map_err(failed)?;
    socket.send(question).await.map_err(failed)?;
    let mut answer = vec![0; DATAGRAM];
    loop {
        let bytes = socket.recv(&mut answer).await.map_err(failed)?;
        if answer[..bytes].get(..2) == Some(&id.to_be_bytes()) {
            answer.truncate(bytes);
            return Ok(answer);
        }
    }
}

async fn by_tcp(question: &[u8], server: SocketAddr) -> Result<Vec<u8>, String> {
    let failed = |error: std::io::Error| format!("ask {server} by TCP: {error}");
    let mut stream = TcpStream::connect(server).await.map_err(failed)?;
    // A question has a name of at most 255 bytes.
    let framed = [&(question.len() as u16).to_be_bytes()[..], question].concat();
    stream.write_all(&framed).await.map_err(failed)?;
    let bytes = stream.read_u16().await.map_err(failed)?;
    let mut answer = vec![0; bytes.into()];
    stream.read_exact(&mut answer).await.map_err(failed)?;
    Ok(answer)
}

fn code(code: RCODE) -> String {
    match code {
        RCODE::NoError => "NOERROR".into(),
        RCODE::FormatError => "FORMERR".into(),
        RCODE::ServerFailure => "SERVFAIL".into(),
        RCODE::NameError => "NXDOMAIN".into(),
        RCODE::NotImplemented => "NOTIMP".into(),
        RCODE::Refused => "REFUSED".into(),
        other => format!("{other:?}").to_uppercase(),
    }
}

fn data(data: &RData<'_>) -> String {
    match data {
        RData::A(it) => Ipv4Addr::from(it.address).to_string(),
        RData::AAAA(it) => Ipv6Addr::from(it.address).to_string(),
        RData::CNAME(it) => it.0.to_string(),
        RData::NS(it) => it.0.to_string(),
        RData::PTR(it) => it.0.to_string(),
        RData::MX(it) => format!("{} {}", it.preference, it.exchange),
        RData::SRV(it) => format!("{} {} {} {}", it.priority, it.weight, it.port, it.target),
        RData::SOA(it) => format!(
            "{} {} {} {} {} {} {}",
            it.mname, it.rname, it.serial, it.refresh, it.retry, it.expire, it.minimum
        ),
        RData::TXT(it) => {
            let parts = it.iter_raw().map(|(key, value)| {
                let value = value.map(|value| [b"=", value].concat()).unwrap_or_default();
                format!("{:?}", String::from_utf8_lossy(&[key, &value].concat()))
            });
            parts.collect::<Vec<_>>().join(" ")
        }
        other => format!("{other:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use simple_dns::rdata::{A, AAAA, TXT};
    use simple_dns::ResourceRecord;

    #[test]
    fn servers_are_found_where_a_node_has_them() {
        let text = "# mine\nsearch lab\nnameserver 10.0.0.1\nnameserver fd00::1\n";
        assert_eq!(first_server(text), Some(([10, 0, 0, 1], 53).into()));
        assert_eq!(first_server("nameserver none\n"), None);
        assert_eq!(server(Some("fd00::1")), Ok("[fd00::1]:53".parse().unwrap()));
        assert_eq!(server(Some("10.0.0.1:5353")), Ok(([10, 0, 0, 1], 5353).into()));
        assert!(server(Some("dns.example")).unwrap_err().contains("write its IP address"));
    }

    #[test]
    fn addresses_are_asked_for_backwards() {
        assert_eq!(as_asked("10.0.0.9", DnsType::Ptr), "9.0.0.10.in-addr.arpa");
        let v6 = as_asked("2001:db8::f", DnsType::Ptr);
        assert!(v6.starts_with("f.0.0.0.") && v6.ends_with("8.b.d.0.1.0.0.2.ip6.arpa"), "{v6}");
        assert_eq!(as_asked("example.", DnsType::Ns), "example");
        assert!(question(&"x".repeat(64), DnsType::A, 1).unwrap_err().contains("63 bytes"));
    }

    /// Answers questions by UDP and TCP on one port of the loopback, for as long as the runtime runs; those for `large` by TCP only.
    async fn serve() -> SocketAddr {
        let (udp, tcp) = loop {
            let tcp = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            if let Ok(udp) = UdpSocket::bind(tcp.local_addr().unwrap()).await {
                break (udp, tcp);
            }
        };
        let address = tcp.local_addr().unwrap();
        tokio::spawn(async move {
            let mut bytes = [0; 512];
            loop {
                let (count, from) = udp.recv_from(&mut bytes).await.unwrap();
                // Somebody else's answer comes first.
                udp.send_to(
                    &Packet::new_reply(!u16::from_be_bytes([bytes[0], bytes[1]]))
                        .build_bytes_vec()
                        .unwrap(),
                    from,
                )
                .await
                .unwrap();
                udp.send_to(&answer(&bytes[..count], true), from).await.unwrap();
            }
        });
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = tcp.accept().await.unwrap();
                let count = stream.read_u16().await.unwrap();
                let mut bytes = vec![0; count.into()];
                stream.read_exact(&mut bytes).await.unwrap();
                let answer = answer(&bytes, false);
                stream.write_u16(answer.len() as u16).await.unwrap();
                stream.write_all(&answer).await.unwrap();
            }
        });
        address
    }

    fn answer(question: &[u8], is_udp: bool) -> Vec<u8> {
        let question = Packet::parse(question).unwrap();
        let mut reply = Packet::new_reply(question.id());
        let asked = &question.questions[0];
        let name = asked.qname.to_string();
        let data = match (name.as_str(), asked.qtype) {
            ("four.example", QTYPE::TYPE(TYPE::A)) => {
                Some(RData::A(A { address: Ipv4Addr::new(10, 0, 0, 9).into() }))
            }
            ("six.example", QTYPE::TYPE(TYPE::AAAA)) => {
                Some(RData::AAAA(AAAA { address: Ipv6Addr::LOCALHOST.into() }))
            }
            ("large.example", _) if is_udp => {
                reply.set_flags(PacketFlag::TRUNCATION);
                None
            }
            ("large.example", _) => {
                Some(RData::TXT(TXT::new().with_string("a=b").unwrap().with_string("c").unwrap()))
            }
            _ => {
                *reply.rcode_mut() = RCODE::NameError;
                None
            }
        };
        let name = Name::new_unchecked(&name).into_owned();
        reply.answers.extend(data.map(|data| ResourceRecord::new(name, CLASS::IN, 60, data)));
        reply.build_bytes_vec().unwrap()
    }

    #[tokio::test]
    async fn questions_are_answered_by_udp_and_large_ones_by_tcp() {
        let server = serve().await;
        let limit = Duration::from_secs(10);
        let ask = |name: &'static str, kind| ask(name, kind, server, limit);
        let four = ask("four.example", DnsType::A).await.unwrap();
        let record = |kind: &str, name: &str, data: &str| DnsRecord {
            name: name.into(),
            ttl_s: 60,
            kind: kind.into(),
            data: data.into(),
        };
        assert_eq!((four.code.as_str(), four.tcp, four.server), ("NOERROR", false, server));
        assert_eq!(four.records, [record("A", "four.example", "10.0.0.9")]);
        let six = ask("six.example.", DnsType::Aaaa).await.unwrap();
        assert_eq!(six.records, [record("AAAA", "six.example", "::1")]);
        let large = ask("large.example", DnsType::Txt).await.unwrap();
        assert!(large.tcp);
        assert_eq!(large.records, [record("TXT", "large.example", "\"a=b\" \"c\"")]);
        let none = ask("none.example", DnsType::Mx).await.unwrap();
        assert_eq!((none.code.as_str(), none.records.len()), ("NXDOMAIN", 0));
    }

    #[tokio::test]
    async fn a_server_that_is_silent_or_absent_is_told() {
        let silent = UdpSocket::bind("[::1]:0").await.unwrap();
        let at = silent.local_addr().unwrap();
        let limit = Duration::from_millis(50);
        let why = ask("a", DnsType::A, at, limit).await.unwrap_err();
        assert!(why.contains("did not answer within 50 ms"), "{why}");
        drop(silent);
        let why = ask("a", DnsType::A, at, Duration::from_secs(10)).await.unwrap_err();
        assert!(why.contains("ask [::1]:") && why.contains("refused"), "{why}");
    }
}

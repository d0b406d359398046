// SPDX-License-Identifier: MIT OR Apache-2.0
//! What this node sees of the network: echo requests, TCP connections and questions of the domain name system that an administrator has
//! it make, one a request, so that whoever asks decides how many and when.

mod dns;
mod icmp;
mod probe;

use std::net::{IpAddr, SocketAddr, SocketAddrV6};
use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::StatusCode;
use axum::routing::post;
use axum::{Json, Router};
use dvs_api::{
    DnsAnswer, DnsRequest, Echo, EchoRequest, IpVersion, TcpConnection, TcpRequest, ECHO_BYTES_MAX,
    PROBE_TIMEOUT_MS_MAX,
};
use rustix::net::netdevice::name_to_index;
use serde::de::DeserializeOwned;
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::api::{bad, unavailable, Failure};
use crate::openapi::Description;
use icmp::Mark;
use probe::Shout;

/// Bytes of a request's body.
const BODY_MAX: usize = 4 << 10;
/// What this node may be waiting for at once.
const PROBES_MAX: usize = 16;

type Probes = Arc<Semaphore>;

/// The routes.
pub fn routes() -> Router {
    Router::new()
        .route("/v1/net/echo", post(echo))
        .route("/v1/net/tcp", post(tcp))
        .route("/v1/net/dns", post(dns))
        .layer(DefaultBodyLimit::max(BODY_MAX))
        .with_state(Arc::new(Semaphore::new(PROBES_MAX)))
}

/// Describes them.
pub fn describe(api: &mut Description) {
    let echo = api.post("/v1/net/echo", "Have the answering node send an ICMP echo request");
    echo.takes::<EchoRequest>().answers::<Echo>();
    let tcp = api.post("/v1/net/tcp", "Have the answering node make a TCP connection");
    tcp.takes::<TcpRequest>().answers::<TcpConnection>();
    let dns = api.post("/v1/net/dns", "Have the answering node ask a DNS server");
    dns.takes::<DnsRequest>().answers::<DnsAnswer>();
}

fn parse<T: DeserializeOwned>(what: &str, body: &[u8]) -> Result<T, Failure> {
    serde_json::from_slice(body).map_err(|error| bad(format!("{what}: {error}")))
}

fn limit(timeout_ms: u64) -> Result<Duration, Failure> {
    match (1..=PROBE_TIMEOUT_MS_MAX).contains(&timeout_ms) {
        true => Ok(Duration::from_millis(timeout_ms)),
        false => {
            Err(bad(format!("timeout_ms = {timeout_ms}: expected 1 to {PROBE_TIMEOUT_MS_MAX}")))
        }
    }
}

fn turn(probes: &Semaphore) -> Result<SemaphorePermit<'_>, Failure> {
    probes.try_acquire().map_err(|_| {
        let text = format!("this node waits for {PROBES_MAX} others already; try again");
        Failure(StatusCode::TOO_MANY_REQUESTS, text)
    })
}

async fn echo(State(probes): State<Probes>, body: Bytes) -> Result<Json<Echo>, Failure> {
    let EchoRequest { target, ip, hops, bytes, sequence, timeout_ms } =
        parse("echo request", &body)?;
    let limit = limit(timeout_ms)?;
    if hops == 0 {
        return Err(bad("hops = 0: expected 1 to 255"));
    }
    if bytes > ECHO_BYTES_MAX {
        return Err(bad(format!("bytes = {bytes}: expected 0 to {ECHO_BYTES_MAX}")));
    }
    let _permit = turn(&probes)?;
    let to = find(&target, 0, ip, limit).await?;
    // It comes back in an answer, and only that to this request has it.
    let identifier = getrandom::u32().map_err(|error| unavailable(format!("entropy: {error}")))?;
    let mark = Mark { identifier: identifier as u16, sequence };
    let shout = Shout { to, mark, hops, bytes, limit };
    match tokio::task::spawn_blocking(move || probe::echo(&shout)).await {
        Ok(Ok(echo)) => Ok(Json(echo)),
        Ok(Err(why)) => Err(unavailable(why)),
        Err(error) => Err(Failure(StatusCode::INTERNAL_SERVER_ERROR, error.to_string())),
    }
}

async fn tcp(State(probes): State<Probes>, body: Bytes) -> Result<Json<TcpConnection>, Failure> {
    let TcpRequest { target, port, ip, timeout_ms } = parse("TCP connection", &body)?;
    let limit = limit(timeout_ms)?;
    let _permit = turn(&probes)?;
    let to = find(&target, port, ip, limit).await?;
    Ok(Json(probe::connect(to, limit).await))
}

async fn dns(State(probes): State<Probes>, body: Bytes) -> Result<Json<DnsAnswer>, Failure> {
    let DnsRequest { name, kind, server, timeout_ms } = parse("DNS question", &body)?;
    let limit = limit(timeout_ms)?;
    let _permit = turn(&probes)?;
    let server = dns::server(server.as_deref()).map_err(bad)?;
    dns::ask(&name, kind, server, limit).await.map(Json).map_err(unavailable)
}

/// The address of a target.
async fn find(
    target: &str,
    port: u16,
    ip: Option<IpVersion>,
    limit: Duration,
) -> Result<SocketAddr, Failure> {
    if let Some(address) = literal(target, port)? {
        let version = if address.is_ipv4() { IpVersion::V4 } else { IpVersion::V6 };
        return match ip.is_none_or(|ip| ip == version) {
            true => Ok(address),
            false => Err(bad(format!("`{target}` is no address of the version that is asked for"))),
        };
    }
    let found = dns::look_up(target, ip, limit).await.map_err(unavailable)?;
    Ok(SocketAddr::new(found, port))
}

/// An address that is written as one; `None` for a name.
fn literal(target: &str, port: u16) -> Result<Option<SocketAddr>, Failure> {
    let (text, interface) = match target.split_once('%') {
        Some((text, interface)) => (text, Some(interface)),
        None => (target, None),
    };
    let address: IpAddr = match (text.parse(), interface) {
        (Ok(address), _) => address,
        (Err(_), None) => return Ok(None),
        (Err(_), Some(_)) => return Err(bad(format!("`{text}` is no IP address"))),
    };
    let is_link_local = |it: &std::net::Ipv6Addr| it.segments()[0] & 0xffc0 == 0xfe80;
    match (address, interface) {
        (IpAddr::V6(address), Some(interface)) => {
            let scope = std::net::UdpSocket::bind((std::net::Ipv6Addr::UNSPECIFIED, 0))
                .and_then(|any| Ok(name_to_index(&any, interface)?))
                .map_err(|why| bad(format!("`{target}`: interface {interface}: {why}")))?;
            Ok(Some(SocketAddrV6::new(address, port, 0, scope).into()))
        }
        (IpAddr::V4(_), Some(_)) => {
            Err(bad(format!("`{target}`: an IPv4 address has no interface; leave it out")))
        }
        (IpAddr::V6(address), None) if is_link_local(&address) => Err(bad(format!(
            "`{target}` is link-local; say by which interface, as in {target}%eth0"
        ))),
        (address, None) => Ok(Some(SocketAddr::new(address, port))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_names_and_interfaces_are_told_apart() {
        assert_eq!(literal("10.0.0.9", 7).unwrap(), Some(([10, 0, 0, 9], 7).into()));
        assert_eq!(literal("fd00::9", 7).unwrap(), Some("[fd00::9]:7".parse().unwrap()));
        let local = literal("fe80::1%lo", 7).unwrap();
        assert!(matches!(local, Some(SocketAddr::V6(it)) if it.scope_id() == 1), "{local:?}");
        assert_eq!(literal("node0.example", 7).unwrap(), None);
        for (target, why) in [
            ("fe80::1", "fe80::1%eth0"),
            ("fe80::1%nowhere", "interface nowhere"),
            ("10.0.0.9%lo", "has no interface"),
            ("name%lo", "`name` is no IP address"),
        ] {
            let error = literal(target, 7).unwrap_err();
            assert!(error.1.contains(why), "{target}: {}", error.1);
        }
    }
}

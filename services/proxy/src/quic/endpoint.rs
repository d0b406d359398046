// SPDX-License-Identifier: MIT OR Apache-2.0
//! Connections whose other end is the peer.

use crate::batch::{HEAD_BYTES, PLAIN_BYTES_MAX};
use crate::link::Link;
use crate::passage::Passage;
use crate::tcp::Role;
use anyhow::{bail, Context, Result};
use core::time::Duration;
use dvs_authority::Identity;
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{
    ClientConfig, Connection, ConnectionError, Endpoint, EndpointConfig, Incoming, ServerConfig,
    TokioRuntime, TransportConfig, VarInt,
};
use quinn_proto::RandomConnectionIdGenerator;
use rustix::net::sockopt::{set_socket_recv_buffer_size_force, set_socket_send_buffer_size_force};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use tokio::task::JoinSet;
use tokio::time::timeout;

/// What the end that listens says first, in a stream: that it has accepted the other one's certificate.
const PREFACE: &[u8; 8] = b"dvs-lnk\x02";
/// How long two ends may take to know each other.
const PATIENCE: Duration = Duration::from_secs(5);
/// A peer that is silent for so long is gone.
const SILENCE: Duration = Duration::from_secs(10);
/// How often it is made to say something.
const KEEP_ALIVE: Duration = Duration::from_secs(2);
/// How long the end that listens waits at once, so that it notices when it is not wanted any more.
const LOOK: Duration = Duration::from_millis(200);
/// Connections that may be about to make themselves known at once.
const OPENING_MAX: usize = 16;
/// Streams under way at once, each of a batch.
const STREAMS_MAX: u8 = 32;
/// Bytes that are taken from the link and not acknowledged by the peer. More would wait here rather than in the link.
const SEND_BYTES: u64 = 1 << 20;
/// Bytes of datagrams that wait to be sent, or to be given to the link.
const DATAGRAM_BYTES: usize = 1 << 18;
/// What the socket holds of packets.
const SOCKET_BYTES: usize = 1 << 22;
/// With which code a peer that is not the one ends a connection: those of TLS are in its low byte (RFC 9001, 4.8).
const CRYPTO_ERROR: u64 = 0x100;

/// An endpoint of QUIC, and what it makes connections with.
pub(super) struct Ends {
    endpoint: Endpoint,
    client: Option<(ClientConfig, SocketAddr, String)>,
    opening: JoinSet<(SocketAddr, Result<Connection>)>,
}

impl Ends {
    pub(super) fn new(identity: &Identity, role: Role) -> Result<Self> {
        let transport = Arc::new(transport()?);
        let (local, server, client) = match role {
            Role::Listen(address) => {
                let crypto = QuicServerConfig::try_from(identity.server()?)?;
                let mut server = ServerConfig::with_crypto(Arc::new(crypto));
                server.transport_config(transport).max_incoming(4 * OPENING_MAX);
                (address, Some(server), None)
            }
            Role::Connect(address) => {
                let crypto = QuicClientConfig::try_from(identity.client()?)?;
                let mut client = ClientConfig::new(Arc::new(crypto));
                client.transport_config(transport);
                let any = match address {
                    SocketAddr::V4(_) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
                    SocketAddr::V6(_) => SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)),
                };
                (any, None, Some((client, address, identity.peer().to_str().into_owned())))
            }
        };
        // One that was started anew tells the other end so, which only takes it from who knows this key.
        let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, &identity.reset_key()[..]);
        let mut config = EndpointConfig::new(Arc::new(key));
        config.cid_generator(|| Box::<RandomConnectionIdGenerator>::default());
        let socket = UdpSocket::bind(local).with_context(|| format!("binding {local}"))?;
        // Who may not have that much gets what the system gives everybody.
        let _ = set_socket_recv_buffer_size_force(&socket, SOCKET_BYTES);
        let _ = set_socket_send_buffer_size_force(&socket, SOCKET_BYTES);
        let endpoint = Endpoint::new(config, server, socket, Arc::new(TokioRuntime))
            .with_context(|| format!("preparing QUIC on {local}"))?;
        Ok(Self { endpoint, client, opening: JoinSet::new() })
    }

    /// Makes a connection, or waits a while for one.
    pub(super) async fn next<L: Link>(
        &mut self,
        passage: Passage<'_, L>,
    ) -> Result<Option<Connection>> {
        let Some((config, address, name)) = &self.client else {
            return Ok(timeout(LOOK, self.accept(passage)).await.ok());
        };
        let connecting = self.endpoint.connect_with(config.clone(), *address, name)?;
        let known = async {
            let connection = connecting.await?;
            // Before that, it is not known whether the peer takes this node for who it is.
            let mut stream = connection.accept_uni().await?;
            let preface = stream.read_to_end(PREFACE.len()).await;
            Ok::<_, ConnectionError>((connection, preface))
        };
        match timeout(PATIENCE, known).await {
            Ok(Ok((connection, Ok(preface)))) if preface == PREFACE => {
                passage.counters.handshakes.add(1);
                Ok(Some(connection))
            }
            Ok(Ok(_)) => {
                passage.counters.foreign.add(1);
                bail!("the peer is no dvs-proxy of this version: it begins otherwise")
            }
            Ok(Err(error)) => {
                if is_refusal(&error) {
                    passage.counters.foreign.add(1);
                }
                bail!(explain(&error))
            }
            Err(_) => bail!("there was no answer within {} s", PATIENCE.as_secs()),
        }
    }

    /// Waits for the peer to connect; never ends at the end that connects.
    pub(super) async fn accept<L: Link>(&mut self, passage: Passage<'_, L>) -> Connection {
        loop {
            tokio::select! {
                Some(incoming) = self.endpoint.accept() => self.open(passage, incoming),
                Some(opened) = self.opening.join_next() => match opened {
                    Ok((_, Ok(connection))) => {
                        passage.counters.handshakes.add(1);
                        return connection;
                    }
                    Ok((from, Err(why))) => {
                        passage.counters.foreign.add(1);
                        let whom = format_args!("a connection from {from}");
                        passage.log.say(whom, &format!("{why:#}"));
                    }
                    Err(panicked) => {
                        passage.log.say("a connection", &panicked.to_string());
                    }
                },
                else => core::future::pending().await,
            }
        }
    }

    fn open<L: Link>(&mut self, passage: Passage<'_, L>, incoming: Incoming) {
        let from = incoming.remote_address();
        // Until it has shown that it hears at its address, it gets no more than a token, and nothing is kept of it.
        // (The library's tokens forget the scope of a link-local address, so that they never fit there: who is on
        // the segment is given three times as many bytes as it has sent, and no more.)
        if !incoming.remote_address_validated() && !is_link_local(from) {
            // An error is that it has answered before.
            let _ = incoming.retry();
            return;
        }
        if self.opening.len() >= OPENING_MAX {
            passage.counters.foreign.add(1);
            passage.log.say(from, "too many connections do not make themselves known");
            incoming.refuse();
            return;
        }
        self.opening.spawn(async move {
            let known = async {
                let explained = |error: ConnectionError| anyhow::anyhow!(explain(&error));
                let connection = incoming.await.map_err(explained)?;
                let mut stream = connection.open_uni().await.map_err(explained)?;
                stream.write_all(PREFACE).await.context("making this node known to the peer")?;
                stream.finish().context("making this node known to the peer")?;
                Ok(connection)
            };
            let late = || {
                Err(anyhow::anyhow!("it did not make itself known within {} s", PATIENCE.as_secs()))
            };
            (from, timeout(PATIENCE, known).await.unwrap_or_else(|_| late()))
        });
    }

    /// Lets the last packets go.
    pub(super) async fn finish(&self) {
        self.endpoint.close(0u8.into(), b"");
        // Who does not hear it will notice the silence.
        let _ = timeout(LOOK, self.endpoint.wait_idle()).await;
    }
}

fn is_link_local(address: SocketAddr) -> bool {
    matches!(address, SocketAddr::V6(address) if address.ip().is_unicast_link_local())
}

fn transport() -> Result<TransportConfig> {
    let batch = VarInt::try_from(2 * (HEAD_BYTES + PLAIN_BYTES_MAX))?;
    let mut transport = TransportConfig::default();
    transport
        .max_idle_timeout(Some(SILENCE.try_into()?))
        .keep_alive_interval(Some(KEEP_ALIVE))
        .max_concurrent_bidi_streams(0u8.into())
        .max_concurrent_uni_streams(STREAMS_MAX.into())
        .stream_receive_window(batch)
        .receive_window(VarInt::try_from(u64::from(batch) * u64::from(STREAMS_MAX))?)
        .send_window(SEND_BYTES)
        .datagram_send_buffer_size(DATAGRAM_BYTES)
        .datagram_receive_buffer_size(Some(4 * DATAGRAM_BYTES));
    Ok(transport)
}

/// Whether the peer was there and one of the two did not want the other one.
fn is_refusal(error: &ConnectionError) -> bool {
    matches!(
        error,
        ConnectionError::TransportError(_)
            | ConnectionError::ConnectionClosed(_)
            | ConnectionError::VersionMismatch
    )
}

/// Why there is no connection with the peer, for people.
pub(super) fn explain(error: &ConnectionError) -> String {
    let (code, ours, reason) = match error {
        ConnectionError::TransportError(error) => (u64::from(error.code), true, &error.reason),
        ConnectionError::ConnectionClosed(close) => {
            let reason = String::from_utf8_lossy(&close.reason);
            (u64::from(close.error_code), false, &reason.into_owned())
        }
        ConnectionError::ApplicationClosed(_) => return "the peer closed it".to_owned(),
        ConnectionError::Reset => return "the peer was started anew".to_owned(),
        ConnectionError::TimedOut => return "the peer fell silent".to_owned(),
        other => return other.to_string(),
    };
    // Those of TLS that tell of certificates and protocols (RFC 8446, 6).
    match (code.checked_sub(CRYPTO_ERROR), ours) {
        (Some(48 | 51), true) => "the peer's certificate is not of this cluster's authority: it has another cluster token, or is of a \
             cluster with another name"
            .to_owned(),
        (Some(48 | 51), false) => "the peer refuses this node's certificate: it has another cluster token, or is of a cluster with \
             another name"
            .to_owned(),
        (Some(42 | 46), true) => format!("the peer is not the node that is expected here: {reason}"),
        (Some(42 | 46), false) => {
            "the peer refuses this node's certificate: it expects another node here".to_owned()
        }
        (Some(120), _) => "the peer is no dvs-proxy, or one of another version".to_owned(),
        (Some(116), _) => {
            "the peer shows no certificate: it is no dvs-proxy of this cluster".to_owned()
        }
        _ if ours => format!("QUIC with the peer failed: {reason}"),
        _ => format!("the peer gave QUIC up with error {code:#x}: {reason}"),
    }
}

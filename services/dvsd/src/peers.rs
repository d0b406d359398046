// SPDX-License-Identifier: MIT OR Apache-2.0
//! Requests to the API of other nodes, by TLS on the segment that both are on.

use std::net::{SocketAddr, SocketAddrV6};
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use dvs_authority::{explain, Authority};
use dvs_state::nodes::NodeId;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::agreement::{Access, Reach};
use crate::doors::SPOKEN;
use crate::membership::{Liveness, Standing};

/// The port at which nodes answer each other, on the link-local addresses of their cluster interfaces.
pub const PORT: u16 = 7702;
/// How long a connection may take to be made.
const CONNECT: Duration = Duration::from_secs(5);

/// The way to other nodes.
#[derive(Clone)]
pub struct Peers {
    access: Access,
    authority: Option<Arc<Authority>>,
    reach: Reach,
}

impl std::fmt::Debug for Peers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Peers").finish_non_exhaustive()
    }
}

impl Peers {
    /// That of a node of the cluster with this authority; without one, it knows no others.
    pub fn new(access: Access, authority: Option<Arc<Authority>>, reach: Reach) -> Self {
        Self { access, authority, reach }
    }

    /// Has another node answer a request. What the answer says may take any time; that there is an answer, no longer than `patience`.
    ///
    /// # Errors
    /// For people: why the node could not be asked, or did not answer.
    pub async fn ask(
        &self,
        node: NodeId,
        request: Request,
        patience: Duration,
    ) -> Result<Response, String> {
        let asked = async {
            let stream = timeout(CONNECT, self.connect(node));
            let stream =
                stream.await.map_err(|_| format!("it did not answer within {CONNECT:?}"))??;
            let (mut sender, connection) = http1::handshake::<_, Body>(TokioIo::new(stream))
                .await
                .map_err(|error| error.to_string())?;
            // It ends with the answer's body, or with what the connection is upgraded to.
            tokio::spawn(connection.with_upgrades());
            sender.send_request(request).await.map_err(|error| error.to_string())
        };
        match timeout(patience, asked).await {
            Ok(Ok(answer)) => Ok(answer.map(Body::new)),
            Ok(Err(why)) => Err(format!("ask node {node}: {why}")),
            Err(_) => Err(format!("ask node {node}: no answer within {} s", patience.as_secs())),
        }
    }

    async fn connect(
        &self,
        node: NodeId,
    ) -> Result<tokio_rustls::client::TlsStream<TcpStream>, String> {
        let authority =
            self.authority.as_ref().ok_or("a node without a cluster token knows no others")?;
        let view = self.access.view();
        let Standing::Member { seat, .. } = view.standing else {
            return Err("this node is not part of a cluster at the moment".to_owned());
        };
        let member = view.members.iter().find(|member| member.seat.id == node);
        let member = member.ok_or_else(|| "there is no such node".to_owned())?;
        let path = member.said.as_ref().and_then(|said| said.path);
        let path = path.filter(|_| member.liveness == Liveness::Alive && !member.local);
        let path = path.ok_or_else(|| "it is not heard on this node's segments".to_owned())?;
        let address: SocketAddr =
            (self.reach)(SocketAddrV6::new(path.address, PORT, 0, path.interface));
        let tls = || -> Result<_, String> {
            let failed = |error| format!("{error:#}");
            let identity = authority.open_identity(seat.id.into(), SPOKEN).map_err(failed)?;
            let connector = TlsConnector::from(Arc::new(identity.client().map_err(failed)?));
            Ok((connector, authority.server_name(node.into()).map_err(failed)?))
        };
        let (connector, name) = tls()?;
        let stream = TcpStream::connect(address).await.map_err(|error| error.to_string())?;
        stream.set_nodelay(true).map_err(|error| error.to_string())?;
        connector.connect(name, stream).await.map_err(|error| {
            let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
            inner.map_or_else(|| error.to_string(), explain)
        })
    }
}

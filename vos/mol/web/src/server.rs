// SPDX-License-Identifier: MIT OR Apache-2.0
//! Connections and their requests.

use crate::answer::{self, Answer, Content};
use crate::body::{Body, Subject};
use crate::failover::Failure;
use crate::listing;
use crate::pool::{File, Place, Pool};
use crate::source::Fault;
use crate::stream::Stream;
use crate::target::Target;
use core::convert::Infallible;
use core::future::Future;
use core::time::Duration;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{watch, Semaphore};

/// Bytes of a request line and its headers.
const HEADER_BYTES: usize = 16 << 10;
/// Bytes that a connection keeps besides a block of a body.
const BUFFER_BYTES: usize = 64 << 10;
/// How long nothing is accepted after that failed, such as for want of file descriptors.
const RESPITE: Duration = Duration::from_millis(100);

/// What clients may take up.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections at once; others wait.
    pub connections: usize,
    /// How long a client may take for the headers of a request, be silent between two, and take nothing of an answer.
    pub idle: Duration,
    /// How long what is under way may go on when the server is told to end.
    pub ending: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        let (idle, ending) = (Duration::from_secs(30), Duration::from_secs(5));
        Self { connections: 256, idle, ending }
    }
}

/// Serves files until `ends`, and then what is under way for as long as the limits say.
pub async fn serve(
    listener: TcpListener,
    pool: Pool,
    limits: Limits,
    is_logged: bool,
    ends: impl Future<Output = ()>,
) {
    let pool = Arc::new(pool);
    let places = Arc::new(Semaphore::new(limits.connections));
    let (end, ending) = watch::channel(false);
    let accept = async {
        loop {
            let Ok(place) = places.clone().acquire_owned().await else { return };
            match listener.accept().await {
                Ok((stream, peer)) => {
                    let (pool, ending) = (pool.clone(), ending.clone());
                    tokio::spawn(async move {
                        connection(stream, peer, pool, limits, is_logged, ending).await;
                        drop(place);
                    });
                }
                Err(error) => {
                    eprintln!("mol-web: cannot accept a connection: {error}");
                    tokio::time::sleep(RESPITE).await;
                }
            }
        }
    };
    tokio::select! {
        () = accept => {}
        () = ends => {}
    }
    drop(listener);
    // Nobody minds if there is no connection.
    let _ = end.send(true);
    let all = places.acquire_many(u32::try_from(limits.connections).unwrap_or(u32::MAX));
    if tokio::time::timeout(limits.ending, all).await.is_err() {
        eprintln!("mol-web: ending, though some answers are not sent yet");
    }
}

async fn connection(
    stream: TcpStream,
    peer: SocketAddr,
    pool: Arc<Pool>,
    limits: Limits,
    is_logged: bool,
    mut ending: watch::Receiver<bool>,
) {
    // Answers are written as a whole, and waited for.
    let _ = stream.set_nodelay(true);
    let service = service_fn(move |request| {
        let pool = pool.clone();
        async move { Ok::<_, Infallible>(answer(&pool, &request, peer, is_logged).await) }
    });
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(limits.idle)
        .max_header_size(HEADER_BYTES)
        .max_buf_size(BUFFER_BYTES);
    let io = TokioIo::new(Stream::new(stream, limits.idle));
    let mut connection = core::pin::pin!(builder.serve_connection(io, service));
    // How a connection ends is the client's affair; what is not is told elsewhere.
    tokio::select! {
        _ = connection.as_mut() => return,
        _ = ending.wait_for(|ends| *ends) => {}
    }
    connection.as_mut().graceful_shutdown();
    let _ = connection.await;
}

async fn answer(
    pool: &Pool,
    request: &Request<Incoming>,
    peer: SocketAddr,
    is_logged: bool,
) -> Response<Body> {
    let subject = Subject {
        peer,
        method: request.method().to_string(),
        path: request.uri().path().to_owned(),
        began: Instant::now(),
        is_logged,
    };
    let (answer, file) = find(pool, request, &subject).await;
    let status = answer.status.as_u16();
    let body = match (answer.content, file) {
        _ if request.method() == Method::HEAD => Body::empty(subject, status),
        (Content::Part(part), Some(file)) => Body::file(file, part, subject, status),
        (Content::Text(text), _) => Body::text(text, subject, status),
        _ => Body::empty(subject, status),
    };
    let mut response = Response::new(body);
    *response.status_mut() = answer.status;
    *response.headers_mut() = answer.headers;
    response
}

async fn find(
    pool: &Pool,
    request: &Request<Incoming>,
    subject: &Subject,
) -> (Answer, Option<File>) {
    let (method, headers) = (request.method(), request.headers());
    if let Some(refused) = answer::refusal(method, request.version(), headers) {
        return (refused, None);
    }
    let target = match Target::parse(request.uri().path()) {
        Ok(target) => target,
        Err(error) => return (answer::of_target(error), None),
    };
    let answer = match pool.locate(target.clone()).await {
        Ok(Place::File(file)) => {
            let name: &[u8] = if target.is_directory { b"index.html" } else { target.name() };
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            let answer = Answer::file(headers, method, (name, &file.version()), now);
            return (answer, Some(file));
        }
        Ok(Place::NoSlash) => Answer::redirect(&target.address(), request.uri().query()),
        Ok(Place::List(entries)) => Answer::page(listing::page(&target, &entries)),
        Err(failure) => {
            if !matches!(failure, Failure::Fault(Fault::Absent | Fault::Denied | Fault::TooMany)) {
                subject.complain(&failure);
            }
            Answer::failed(&failure)
        }
    };
    (answer, None)
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! Carries the requests of `ureq` over our connections.

use std::fmt;
use std::io::{self, Read, Write};
use std::time::Duration;

use ureq::unversioned::resolver::DefaultResolver;
use ureq::unversioned::transport::{
    Buffers, ConnectionDetails, Connector, LazyBuffers, NextTimeout, Transport,
};
use ureq::{Agent, Error};

use crate::{Client, Stream};

pub(crate) fn agent(client: Client, patience: Duration) -> Agent {
    let config = Agent::config_builder()
        .http_status_as_error(false)
        // A proxy of the environment is for the internet, not for nodes.
        .proxy(None)
        .build();
    Agent::with_parts(config, Connect { client, patience }, Nowhere)
}

/// The connector knows where to connect to.
#[derive(Debug)]
struct Nowhere;

impl ureq::unversioned::resolver::Resolver for Nowhere {
    fn resolve(
        &self,
        _: &ureq::http::Uri,
        _: &ureq::config::Config,
        _: NextTimeout,
    ) -> Result<ureq::unversioned::resolver::ResolvedSocketAddrs, Error> {
        let mut addresses = DefaultResolver::default().empty();
        addresses.push(([127, 0, 0, 1], 0).into());
        Ok(addresses)
    }
}

#[derive(Debug)]
struct Connect {
    client: Client,
    patience: Duration,
}

impl Connector<()> for Connect {
    type Out = Wire;

    fn connect(
        &self,
        details: &ConnectionDetails<'_>,
        _: Option<()>,
    ) -> Result<Option<Wire>, Error> {
        let patience = limit(details.timeout).map_or(self.patience, |left| left.min(self.patience));
        let stream = self.client.connect(patience).map_err(Error::Io)?;
        let config = details.config;
        let buffers = LazyBuffers::new(config.input_buffer_size(), config.output_buffer_size());
        Ok(Some(Wire { stream, buffers, limit: None }))
    }
}

struct Wire {
    stream: Stream,
    buffers: LazyBuffers,
    /// The timeout that the stream has.
    limit: Option<Option<Duration>>,
}

impl fmt::Debug for Wire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wire").field("stream", &self.stream).finish_non_exhaustive()
    }
}

/// `None` for no limit. A timeout of 0 would be none to the system.
fn limit(timeout: NextTimeout) -> Option<Duration> {
    timeout.not_zero().map(|left| (*left).max(Duration::from_millis(1)))
}

impl Wire {
    fn set(&mut self, timeout: NextTimeout) -> Result<(), Error> {
        let limit = limit(timeout);
        if self.limit != Some(limit) {
            self.stream.set_timeouts(limit)?;
            self.limit = Some(limit);
        }
        Ok(())
    }
}

fn timed(error: io::Error, timeout: NextTimeout) -> Error {
    match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => Error::Timeout(timeout.reason),
        _ => Error::Io(error),
    }
}

impl Transport for Wire {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), Error> {
        self.set(timeout)?;
        let Self { stream, buffers, .. } = self;
        let sent = stream.write_all(&buffers.output()[..amount]).and_then(|()| stream.flush());
        match sent {
            Ok(()) => Ok(()),
            Err(error) => Err(timed(reason(stream, error), timeout)),
        }
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, Error> {
        self.set(timeout)?;
        let amount = loop {
            match self.stream.read(self.buffers.input_append_buf()) {
                Ok(amount) => break amount,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(timed(error, timeout)),
            }
        };
        self.buffers.input_appended(amount);
        Ok(amount > 0)
    }

    fn is_open(&mut self) -> bool {
        self.stream.is_idle()
    }

    fn is_tls(&self) -> bool {
        matches!(self.stream, Stream::Tls(_))
    }
}

/// Whoever refuses our certificate says so and closes, and we may be writing at that moment: what it said is then the reason.
fn reason(stream: &mut Stream, error: io::Error) -> io::Error {
    let closed = matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset);
    if !closed || !matches!(stream, Stream::Tls(_)) {
        return error;
    }
    match stream.read(&mut [0]) {
        Err(said) if said.get_ref().is_some_and(|inner| inner.is::<rustls::Error>()) => said,
        _ => error,
    }
}

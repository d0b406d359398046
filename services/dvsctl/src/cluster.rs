// SPDX-License-Identifier: MIT OR Apache-2.0
//! The endpoints of a cluster: which one to ask, and what to say when none answers.

use std::io::Read;
use std::thread::sleep;
use std::time::Duration;

use dvs_api::{Version, LOG_POSITION, RELAY_NODE};
use dvs_client::{Address, Client};
use serde::de::DeserializeOwned;
use serde::Serialize;
use ureq::Agent;

/// How long an endpoint may take to accept a connection.
const CONNECT: Duration = Duration::from_secs(3);
/// How long an answer may take that needs no work.
pub(crate) const ANSWER: Duration = Duration::from_secs(10);

/// How long nothing is asked after nobody could answer.
pub(crate) const RETRY: Duration = Duration::from_millis(50);

/// Why a request has no answer.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum Error {
    /// Nothing came back.
    #[error("{0}")]
    Unreachable(String),
    /// The two ends do not trust each other.
    #[error("{0}")]
    Untrusted(String),
    /// The node says why not.
    #[error("{url}: {text}")]
    Refused { url: String, status: u16, text: String },
    /// Something else than a node answers.
    #[error(
        "{url}: the answer is not one of dvsd: {why}; check the address, and that dvsctl and \
             the nodes are of the same release"
    )]
    Strange { url: String, why: String },
    /// No endpoint is the node that is asked for.
    #[error("{0}")]
    NoSuchNode(String),
}

impl Error {
    /// Whether nothing was done, and asking again later may succeed.
    pub(crate) fn is_passing(&self) -> bool {
        matches!(self, Self::Unreachable(_) | Self::Refused { status: 503, .. })
    }

    /// Whether nobody knows what became of it, or nothing did, so that what is harmless to ask twice should be asked again.
    pub(crate) fn is_open(&self) -> bool {
        self.is_passing() || matches!(self, Self::Refused { status: 504, .. })
    }
}

/// One endpoint.
#[derive(Clone, Debug)]
pub(crate) struct Endpoint {
    /// Where it is, for people.
    url: String,
    client: Client,
    agent: Agent,
    /// The node that is to answer, if the one there is to pass everything on.
    relay: Option<u32>,
}

impl Endpoint {
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// The way there, for who speaks something else than requests and answers.
    pub(crate) fn client(&self) -> &Client {
        &self.client
    }

    fn request(&self, path: &str) -> String {
        format!("{}{path}", self.client.address().base())
    }

    /// The same way, on to another node.
    fn relaying(&self, node: u32) -> Self {
        let url = format!("node {node} by {}", self.url);
        Self { url, relay: Some(node), ..self.clone() }
    }

    /// Whether another node passes everything on.
    pub(crate) fn is_relayed(&self) -> bool {
        self.relay.is_some()
    }

    /// The line of a request's head that says whom it is for, if it is to be passed on.
    pub(crate) fn relay_line(&self) -> String {
        self.relay.map(|node| format!("{RELAY_NODE}: {node}\r\n")).unwrap_or_default()
    }

    fn addressed<B>(&self, request: ureq::RequestBuilder<B>) -> ureq::RequestBuilder<B> {
        match self.relay {
            Some(node) => request.header(RELAY_NODE, node.to_string()),
            None => request,
        }
    }

    /// The node that answers there, or why there is none.
    fn id(&self) -> Result<u32, String> {
        match self.get::<Version>("/v1/version") {
            Ok(Version { node: Some(node), .. }) => Ok(node),
            Ok(Version { node: None, .. }) => Err(format!("{} has no id yet", self.url)),
            Err(error) => Err(error.to_string()),
        }
    }

    pub(crate) fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Error> {
        self.get_within(path, 0)
    }

    /// Asks what may take `wait_ms` until there is something to say.
    pub(crate) fn get_within<T: DeserializeOwned>(
        &self,
        path: &str,
        wait_ms: u64,
    ) -> Result<T, Error> {
        let request = self.addressed(self.agent.get(self.request(path)));
        let limit = ANSWER + Duration::from_millis(wait_ms);
        self.answer(request.config().timeout_global(Some(limit)).build().call())
    }

    /// What is no JSON.
    pub(crate) fn text(&self, path: &str) -> Result<String, Error> {
        let request = self.addressed(self.agent.get(self.request(path)));
        self.text_of(request.config().timeout_global(Some(ANSWER)).build().call())
    }

    /// Has something ended.
    pub(crate) fn delete<T: DeserializeOwned>(&self, path: &str) -> Result<T, Error> {
        let request = self.addressed(self.agent.delete(self.request(path)));
        self.answer(request.config().timeout_global(Some(ANSWER)).build().call())
    }

    /// Posts a request whose work may take as long as it takes.
    pub(crate) fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, Error> {
        self.answer(self.addressed(self.agent.post(self.request(path))).send_json(body))
    }

    /// The same for what is asked again, perhaps of another node, when the answer has not come after `limit`.
    pub(crate) fn post_within<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
        limit: Duration,
    ) -> Result<T, Error> {
        let request = self.agent.post(self.request(path));
        self.answer(request.config().timeout_global(Some(limit)).build().send_json(body))
    }

    /// Puts what needs no work to be taken.
    pub(crate) fn put<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, Error> {
        let request = self.addressed(self.agent.put(self.request(path)));
        self.answer(request.config().timeout_global(Some(ANSWER)).build().send_json(body))
    }

    /// Puts so many bytes, however long that takes.
    pub(crate) fn put_stream<T: DeserializeOwned>(
        &self,
        path: &str,
        bytes: u64,
        mut body: impl Read,
    ) -> Result<T, Error> {
        let request = self.addressed(self.agent.put(self.request(path)));
        let request = request.header("content-length", bytes.to_string());
        self.answer(request.send(ureq::SendBody::from_reader(&mut body)))
    }

    /// Part of the log of a container, and where in it that begins.
    pub(crate) fn log(&self, path: &str) -> Result<(u64, Vec<u8>), Error> {
        let request = self.addressed(self.agent.get(self.request(path)));
        let answer = request.config().timeout_global(Some(ANSWER)).build().call();
        let (head, bytes) = self.bytes_of(answer)?;
        let position = head.get(LOG_POSITION).and_then(|it| it.to_str().ok()?.parse().ok());
        let why = || format!("its answer has no header {LOG_POSITION}");
        let position =
            position.ok_or_else(|| Error::Strange { url: self.url.clone(), why: why() })?;
        Ok((position, bytes))
    }

    fn answer<T: DeserializeOwned>(
        &self,
        answer: Result<ureq::http::Response<ureq::Body>, ureq::Error>,
    ) -> Result<T, Error> {
        let text = self.text_of(answer)?;
        serde_json::from_str(&text)
            .map_err(|error| Error::Strange { url: self.url.clone(), why: error.to_string() })
    }

    fn text_of(
        &self,
        answer: Result<ureq::http::Response<ureq::Body>, ureq::Error>,
    ) -> Result<String, Error> {
        let (_, bytes) = self.bytes_of(answer)?;
        String::from_utf8(bytes)
            .map_err(|error| Error::Strange { url: self.url.clone(), why: error.to_string() })
    }

    fn bytes_of(
        &self,
        answer: Result<ureq::http::Response<ureq::Body>, ureq::Error>,
    ) -> Result<(ureq::http::HeaderMap, Vec<u8>), Error> {
        let url = self.url.clone();
        let unreachable = |error: ureq::Error| match &error {
            ureq::Error::Io(inner) if Client::is_of_trust(inner) => {
                Error::Untrusted(format!("{url}: {}", self.plain(&error)))
            }
            _ => Error::Unreachable(format!("{url} does not answer: {}", self.plain(&error))),
        };
        let mut response = answer.map_err(unreachable)?;
        let status = response.status();
        let bytes = response.body_mut().with_config().limit(64 << 20).read_to_vec();
        let bytes = bytes.map_err(unreachable)?;
        if !status.is_success() {
            return Err(match serde_json::from_slice::<dvs_api::Error>(&bytes) {
                Ok(refusal) => Error::Refused { url, status: status.as_u16(), text: refusal.error },
                Err(_) => Error::Strange { url, why: format!("HTTP status {status}") },
            });
        }
        Ok((response.headers().clone(), bytes))
    }

    fn plain(&self, error: &ureq::Error) -> String {
        match (error, self.client.address()) {
            (ureq::Error::Io(error), _) => self.client.explain(error),
            (ureq::Error::Protocol(_), Address::Plain(_)) => {
                "what answers there does not speak plain HTTP: a node with a cluster token speaks TLS, so choose a context, or write \
                 https://"
                    .to_owned()
            }
            (error, _) => error.to_string(),
        }
    }
}

/// All endpoints, in the order in which they are tried.
#[derive(Clone, Debug)]
pub(crate) struct Cluster(Vec<Endpoint>);

impl Cluster {
    pub(crate) fn new(clients: Vec<Client>) -> Self {
        let endpoint = |client: Client| Endpoint {
            url: client.address().to_string(),
            agent: client.agent(CONNECT),
            client,
            relay: None,
        };
        Self(clients.into_iter().map(endpoint).collect())
    }

    pub(crate) fn endpoints(&self) -> &[Endpoint] {
        &self.0
    }

    /// What the first endpoint says that can answer.
    pub(crate) fn any<T: DeserializeOwned>(&self, path: &str) -> Result<T, Error> {
        self.first(|endpoint| endpoint.get(path))
    }

    /// The same for what may take `wait_ms` until there is something to say.
    pub(crate) fn any_within<T: DeserializeOwned>(
        &self,
        path: &str,
        wait_ms: u64,
    ) -> Result<T, Error> {
        self.first(|endpoint| endpoint.get_within(path, wait_ms))
    }

    /// The same of something that no node can say without a majority, and a node says later: `None` as long as that is so, after a moment.
    pub(crate) fn in_time<T: DeserializeOwned>(
        &self,
        path: &str,
        wait_ms: u64,
    ) -> Result<Option<T>, Error> {
        match self.any_within(path, wait_ms) {
            Ok(answer) => Ok(Some(answer)),
            Err(error) if error.is_passing() => {
                sleep(RETRY);
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// The endpoints that are meant: that of a node, or all.
    pub(crate) fn meant(&self, node: Option<u32>) -> Result<Vec<Endpoint>, Error> {
        match node {
            Some(node) => Ok(vec![self.node(node)?]),
            None => Ok(self.0.clone()),
        }
    }

    /// The first endpoint that knows a leader and hears a majority, so that what must not be done twice need not be asked of
    /// a second one; else the first that answers, which then says what is wrong.
    pub(crate) fn agreeing(&self) -> Result<&Endpoint, Error> {
        self.agreeing_but(None)
    }

    /// The same, and another one than a given node.
    pub(crate) fn agreeing_but(&self, node: Option<u32>) -> Result<&Endpoint, Error> {
        let mut unable = None;
        for endpoint in &self.0 {
            if let Ok(status) = endpoint.get::<dvs_api::ClusterStatus>("/v1/cluster") {
                if Some(status.node) == node {
                    continue;
                }
                if status.majority && status.leader.is_some() {
                    return Ok(endpoint);
                }
                unable.get_or_insert(endpoint);
            }
        }
        // Without any, it says why no endpoint can be asked.
        unable.map_or_else(|| self.first_member(), Ok)
    }

    /// The first endpoint that is a member of a cluster.
    pub(crate) fn first_member(&self) -> Result<&Endpoint, Error> {
        self.first(|endpoint| {
            let _: Vec<dvs_api::Node> = endpoint.get("/v1/nodes")?;
            Ok(endpoint)
        })
    }

    /// The way to a given node: its endpoint, or that of another node, which passes everything on.
    pub(crate) fn node(&self, id: u32) -> Result<Endpoint, Error> {
        let (mut tried, mut others) = (Vec::new(), Vec::new());
        for endpoint in &self.0 {
            match endpoint.id() {
                Ok(node) if node == id => return Ok(endpoint.clone()),
                Ok(node) => {
                    tried.push(format!("{} is node {node}", endpoint.url));
                    others.push(endpoint.relaying(id));
                }
                Err(text) => tried.push(text),
            }
        }
        for relaying in others {
            match relaying.id() {
                Ok(node) if node == id => return Ok(relaying),
                // One of the release before answers by itself.
                Ok(_) => {}
                Err(text) => tried.push(text),
            }
        }
        Err(Error::NoSuchNode(format!(
            "node {id} is not reached: {}; start it, or name its API with --endpoint or \
             DVSCTL_ENDPOINTS",
            tried.join("; ")
        )))
    }

    /// The endpoints of two nodes, or of one if the other is not reached.
    pub(crate) fn ends(&self, nodes: [u32; 2]) -> Result<Vec<(u32, &Endpoint)>, Error> {
        let mut ends: Vec<(u32, &Endpoint)> = Vec::new();
        let mut tried = Vec::new();
        for endpoint in &self.0 {
            match endpoint.id() {
                Ok(node) if nodes.contains(&node) => {
                    if ends.iter().all(|(known, _)| *known != node) {
                        ends.push((node, endpoint));
                    }
                }
                Ok(node) => tried.push(format!("{} is node {node}", endpoint.url)),
                Err(text) => tried.push(text),
            }
        }
        if ends.is_empty() {
            let [a, b] = nodes;
            return Err(Error::NoSuchNode(format!(
                "neither node {a} nor node {b} is reached: {}; start them, or name the API of one with \
                 --endpoint or DVSCTL_ENDPOINTS",
                tried.join("; ")
            )));
        }
        Ok(ends)
    }

    /// Goes on to the next endpoint when one does not answer, or is not able to at the moment. The
    /// error is that of the endpoint that came furthest.
    pub(crate) fn first<'a, T>(
        &'a self,
        ask: impl Fn(&'a Endpoint) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let mut unable = None;
        let mut silent = Vec::new();
        for endpoint in &self.0 {
            match ask(endpoint) {
                Err(Error::Unreachable(text)) => silent.push(text),
                Err(
                    error @ (Error::Refused { status: 503, .. }
                    | Error::Strange { .. }
                    | Error::Untrusted(_)),
                ) => {
                    unable.get_or_insert(error);
                }
                result => return result,
            }
        }
        Err(unable.unwrap_or_else(|| {
            Error::Unreachable(format!(
                "{}; check that the cluster runs, and name its nodes with --endpoint or \
                 DVSCTL_ENDPOINTS",
                silent.join("; ")
            ))
        }))
    }
}

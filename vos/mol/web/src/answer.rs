// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is answered: status, headers and which bytes.

use crate::conditions::{judge, Validators, Verdict, Version};
use crate::failover::Failure;
use crate::media::media_type;
use crate::range::Selection;
use crate::source::Fault;
use crate::target::TargetError;
use core::ops::Range;
use core::time::Duration;
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::{Method, StatusCode, Version as Protocol};

/// What follows the headers, in answers to GET.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// These bytes of the file.
    Part(Range<u64>),
    /// A text.
    Text(String),
    /// Nothing, and no length of it is told.
    Nothing,
}

/// An answer.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Its status.
    pub status: StatusCode,
    /// Its headers.
    pub headers: HeaderMap,
    /// What follows them.
    pub content: Content,
}

impl Answer {
    fn new(status: StatusCode, content: Content) -> Self {
        let mut answer = Self { status, headers: HeaderMap::new(), content };
        let length = match &answer.content {
            Content::Part(range) => Some(range.end - range.start),
            Content::Text(text) => Some(text.len() as u64),
            Content::Nothing => None,
        };
        if let Some(length) = length {
            answer.headers.insert(header::CONTENT_LENGTH, length.into());
        }
        answer
    }

    /// With one more header. A value that could not be one is left out.
    fn with(mut self, name: HeaderName, value: &str) -> Self {
        if let Ok(value) = HeaderValue::from_str(value) {
            self.headers.insert(name, value);
        }
        self
    }

    /// A status with its reason in words.
    pub fn told(status: StatusCode, why: &str) -> Self {
        let name = status.canonical_reason().unwrap_or_default();
        let text = format!("{} {name}: {why}\n", status.as_str());
        Self::new(status, Content::Text(text))
            .with(header::CONTENT_TYPE, "text/plain; charset=utf-8")
            .with(header::X_CONTENT_TYPE_OPTIONS, "nosniff")
    }

    /// The way to a directory, whose address ends with `/`.
    pub fn redirect(address: &str, query: Option<&str>) -> Self {
        let query = query.map(|query| format!("?{query}")).unwrap_or_default();
        let address = format!("{address}{query}");
        Self::told(StatusCode::MOVED_PERMANENTLY, "it is a directory")
            .with(header::LOCATION, &address)
    }

    /// A page of HTML that has nothing but text and links.
    pub fn page(page: String) -> Self {
        Self::new(StatusCode::OK, Content::Text(page))
            .with(header::CONTENT_TYPE, "text/html; charset=utf-8")
            .with(header::CONTENT_SECURITY_POLICY, "default-src 'none'")
            .with(header::X_CONTENT_TYPE_OPTIONS, "nosniff")
    }

    /// The answer to a request for a file of this name.
    pub fn file(
        headers: &HeaderMap,
        method: &Method,
        (name, version): (&[u8], &Version),
        now: Duration,
    ) -> Self {
        let validators = Validators::new(version, now);
        let bytes = version.bytes;
        let whole = |status, range| {
            Self::new(status, Content::Part(range))
                .with(header::CONTENT_TYPE, &media_type(name))
                .with(header::LAST_MODIFIED, &validators.modified())
                .with(header::ETAG, &validators.tag())
                .with(header::ACCEPT_RANGES, "bytes")
                .with(header::X_CONTENT_TYPE_OPTIONS, "nosniff")
        };
        match judge(headers, method == Method::GET, &validators, bytes) {
            Verdict::Send(Selection::Whole) => whole(StatusCode::OK, 0..bytes),
            Verdict::Send(Selection::Part { first, last }) => {
                let range = format!("bytes {first}-{last}/{bytes}");
                whole(StatusCode::PARTIAL_CONTENT, first..last + 1)
                    .with(header::CONTENT_RANGE, &range)
            }
            Verdict::Send(Selection::Unsatisfiable) => {
                let why = format!("the file has {bytes} bytes");
                Self::told(StatusCode::RANGE_NOT_SATISFIABLE, &why)
                    .with(header::CONTENT_RANGE, &format!("bytes */{bytes}"))
            }
            Verdict::NotModified => Self::new(StatusCode::NOT_MODIFIED, Content::Nothing)
                .with(header::LAST_MODIFIED, &validators.modified())
                .with(header::ETAG, &validators.tag()),
            Verdict::Failed => {
                Self::told(StatusCode::PRECONDITION_FAILED, "the file is another one by now")
            }
        }
    }

    /// Why a request has no file.
    pub fn failed(failure: &Failure) -> Self {
        match failure {
            Failure::Fault(Fault::Absent) => {
                Self::told(StatusCode::NOT_FOUND, "there is no such file")
            }
            Failure::Fault(Fault::Denied) => {
                Self::told(StatusCode::FORBIDDEN, "it may not be read")
            }
            Failure::Fault(Fault::TooMany) => {
                Self::told(StatusCode::FORBIDDEN, &Fault::TooMany.to_string())
            }
            Failure::Fault(Fault::Lost(_) | Fault::Full(_)) => {
                let why = "the files cannot be reached now; ask again in a while";
                Self::told(StatusCode::SERVICE_UNAVAILABLE, why).with(header::RETRY_AFTER, "5")
            }
            // What exactly is wrong is for whoever keeps the server.
            Failure::Fault(Fault::Failed(_))
            | Failure::Changed
            | Failure::Short
            | Failure::Alone => {
                Self::told(StatusCode::INTERNAL_SERVER_ERROR, "the file could not be read")
            }
        }
    }
}

/// Why a request is not even looked at, if so.
pub fn refusal(method: &Method, protocol: Protocol, headers: &HeaderMap) -> Option<Answer> {
    if method != Method::GET && method != Method::HEAD {
        let why = "files can be read here by GET and HEAD, and nothing else";
        let answer = Answer::told(StatusCode::METHOD_NOT_ALLOWED, why);
        return Some(answer.with(header::ALLOW, "GET, HEAD"));
    }
    // RFC 9112, section 3.2.
    let hosts = headers.get_all(header::HOST).iter().count();
    if hosts > 1 || hosts == 0 && protocol == Protocol::HTTP_11 {
        return Some(Answer::told(StatusCode::BAD_REQUEST, "there has to be one header `Host`"));
    }
    None
}

/// The answer to a path that is none.
pub fn of_target(error: TargetError) -> Answer {
    let status = match error {
        TargetError::TooLong => StatusCode::URI_TOO_LONG,
        _ => StatusCode::BAD_REQUEST,
    };
    Answer::told(status, &error.to_string())
}

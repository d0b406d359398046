// SPDX-License-Identifier: MIT OR Apache-2.0
//! A tree as a stream of bytes.

use crate::frame::{Frame, DATA, DIGEST, END, END_OF_FILE, HEADER, PAYLOAD_MAX};
use crate::tree::{pieces, About, Error, Sink, Top};
use sha2::{Digest, Sha256};
use std::io::{self, Read, Write};
use std::path::Path;

/// Writes what it is told as a stream.
#[derive(Debug)]
pub struct Packer<W> {
    to: W,
    digest: Sha256,
}

impl<W: Write> Packer<W> {
    /// Into `to`, which gets small pieces and is flushed at the end.
    pub fn new(to: W) -> Self {
        Self { to, digest: Sha256::new() }
    }

    fn put(&mut self, tag: u8, payload: &[u8]) -> Result<(), Error> {
        if payload.len() > PAYLOAD_MAX {
            let why = format!("a frame would have {} bytes", payload.len());
            return Err(Error::Stream("write", io::Error::other(why)));
        }
        let length = (payload.len() as u32).to_le_bytes();
        for part in [&[tag][..], &length, payload] {
            self.digest.update(part);
            self.to.write_all(part).map_err(|error| Error::Stream("write", error))?;
        }
        Ok(())
    }

    fn say(&mut self, frame: &Frame) -> Result<(), Error> {
        let (tag, payload) = frame.encode();
        self.put(tag, &payload)
    }

    fn seal(&mut self, tag: u8) -> Result<(), Error> {
        let digest: [u8; DIGEST] = self.digest.clone().finalize().into();
        self.put(tag, &digest)
    }
}

impl<W: Write> Sink for Packer<W> {
    fn begin(&mut self, top: &Top) -> Result<(), Error> {
        self.say(&Frame::Begin(top.clone()))
    }

    fn directory(&mut self, path: &Path, about: About) -> Result<(), Error> {
        self.say(&Frame::Directory(path.to_owned(), about))
    }

    fn file(&mut self, path: &Path, about: About, content: &mut dyn Read) -> Result<(), Error> {
        self.say(&Frame::File(path.to_owned(), about))?;
        pieces(path, content, PAYLOAD_MAX, |piece| self.put(DATA, piece))?;
        self.seal(END_OF_FILE)
    }

    fn link(&mut self, path: &Path, to: &Path) -> Result<(), Error> {
        self.say(&Frame::Link(path.to_owned(), to.to_owned()))
    }

    fn end(&mut self) -> Result<(), Error> {
        self.seal(END)?;
        self.to.flush().map_err(|error| Error::Stream("write", error))
    }
}

/// Tells a sink of what a stream has. It is told that all is well only if the stream has come to its end and nothing of it is damaged.
///
/// # Errors
/// [`Error`].
pub fn unpack(from: &mut dyn Read, sink: &mut dyn Sink) -> Result<(), Error> {
    let mut incoming = Incoming { from, digest: Sha256::new(), content: 0, payload: Vec::new() };
    let tag = incoming.next()?;
    match Frame::decode(tag, &incoming.payload)? {
        Frame::Begin(top) => sink.begin(&top)?,
        other => return Err(Error::Strange(format!("it begins with {other:?}"))),
    }
    loop {
        let before = incoming.digest.clone();
        let tag = incoming.next()?;
        if tag == END {
            incoming.compare(before)?;
            return sink.end();
        }
        match Frame::decode(tag, &incoming.payload)? {
            Frame::Begin(_) => return Err(Error::Strange("it begins twice".into())),
            Frame::Directory(path, about) => sink.directory(&path, about)?,
            Frame::Link(path, to) => sink.link(&path, &to)?,
            Frame::File(path, about) => {
                let mut content =
                    Content { incoming: &mut incoming, at: 0, is_over: false, failed: None };
                content.incoming.payload.clear();
                let taken = sink.file(&path, about, &mut content);
                // Why it could not be read is known better here.
                if let Some(error) = content.failed {
                    return Err(error);
                }
                taken?;
                if !content.is_over {
                    return Err(Error::Strange(format!("not all of {path:?} was taken")));
                }
            }
        }
    }
}

/// A stream that is read.
struct Incoming<'f> {
    from: &'f mut dyn Read,
    digest: Sha256,
    /// Bytes of files so far.
    content: u64,
    payload: Vec<u8>,
}

impl Incoming<'_> {
    /// Takes the next frame; its tag.
    fn next(&mut self) -> Result<u8, Error> {
        let mut header = [0; HEADER];
        self.fill(&mut header)?;
        let [tag, length @ ..] = header;
        let length = u32::from_le_bytes(length) as usize;
        if length > PAYLOAD_MAX {
            return Err(Error::Strange(format!("a frame announces {length} bytes")));
        }
        let mut payload = core::mem::take(&mut self.payload);
        payload.resize(length, 0);
        self.fill(&mut payload)?;
        self.payload = payload;
        Ok(tag)
    }

    fn fill(&mut self, bytes: &mut [u8]) -> Result<(), Error> {
        self.from.read_exact(bytes).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => Error::Cut(self.content),
            _ => Error::Stream("read", error),
        })?;
        self.digest.update(bytes);
        Ok(())
    }

    /// Compares the digest in the frame with that of what came before it.
    fn compare(&self, before: Sha256) -> Result<(), Error> {
        let digest: [u8; DIGEST] = before.finalize().into();
        match self.payload == digest {
            true => Ok(()),
            false => Err(Error::Damaged(self.content)),
        }
    }
}

/// The content of a file in a stream. It has no end unless that has come, and all before it is as it was sent.
struct Content<'i, 'f> {
    incoming: &'i mut Incoming<'f>,
    at: usize,
    is_over: bool,
    failed: Option<Error>,
}

impl Content<'_, '_> {
    fn more(&mut self) -> Result<(), Error> {
        let before = self.incoming.digest.clone();
        match self.incoming.next()? {
            DATA => self.at = 0,
            END_OF_FILE => {
                self.incoming.compare(before)?;
                self.at = self.incoming.payload.len();
                self.is_over = true;
            }
            tag => return Err(Error::Strange(format!("the tag {tag} within a file"))),
        }
        Ok(())
    }
}

impl Read for Content<'_, '_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        while !self.is_over && self.at == self.incoming.payload.len() {
            if let Err(error) = self.more() {
                let told = io::Error::other(error.to_string());
                self.failed = Some(error);
                return Err(told);
            }
        }
        let rest = &self.incoming.payload[self.at..];
        let length = rest.len().min(into.len());
        into[..length].copy_from_slice(&rest[..length]);
        self.at += length;
        self.incoming.content += length as u64;
        Ok(length)
    }
}

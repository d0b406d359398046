// SPDX-License-Identifier: MIT OR Apache-2.0
//! A client of a foreign server, from its handshake to its end. Nothing that the server says is believed before it was looked at, and
//! nothing makes a client take more memory than it has asked for.

use super::handshake::REQUEST_BYTES_MAX;
use super::wire::{
    read_u16, read_u32, read_u64, Request, CMD_DISCONNECT, CMD_FLUSH, CMD_READ, CMD_WRITE,
    CMD_WRITE_ZEROES, EINVAL, EIO, ENOMEM, ENOSPC, ENOTSUP, EOVERFLOW, EPERM, ESHUTDOWN,
    FIXED_NEWSTYLE, FLAG_FUA, HAS_FLAGS, HELLO, INFO_BLOCK_SIZE, INFO_EXPORT, NO_ZEROES, OLD_STYLE,
    OPTION, OPTION_REPLY, OPT_GO, READ_ONLY, REPLY, REP_ACK, REP_ERR_POLICY, REP_ERR_SHUTDOWN,
    REP_ERR_TLS_REQD, REP_ERR_UNKNOWN, REP_ERR_UNSUP, REP_INFO, SEND_FLUSH, SEND_FUA,
    SEND_WRITE_ZEROES,
};
use std::io::{self, Read, Write};

/// The most bytes of a reply to an option.
const REPLY_BYTES_MAX: u32 = 8192;
/// The most pieces of information about an export.
const INFO_MAX: usize = 64;
/// How much of a server's own words is passed on, in characters.
const WORDS_MAX: usize = 200;
/// The smallest block of a store, in bytes.
const BLOCK_BYTES_MIN: u32 = 512;
/// The largest, which is the largest that the protocol has.
const BLOCK_BYTES_MAX: u32 = 1 << 16;

/// What an export is like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offer {
    /// How many bytes it has: a positive number of blocks.
    pub bytes: u64,
    /// The smallest piece that is read or written: a power of two of bytes from 512 up.
    pub block_bytes: u32,
    /// The most bytes of one request: a positive number of blocks.
    pub request_bytes_max: u32,
    /// Whether it takes no writes.
    pub is_read_only: bool,
    /// Whether what was answered may not be safe before a flush.
    pub can_flush: bool,
    /// Whether a write may be asked to be safe when it is answered.
    pub can_fua: bool,
    /// Whether it makes ranges zeros without being sent them.
    pub can_write_zeroes: bool,
}

/// Why a server did not do it.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// The stream.
    #[error("the connection failed: {0}")]
    Stream(#[from] io::Error),
    /// It is about to end, and what was asked may be asked again.
    #[error("the server shuts down")]
    ShutsDown,
    /// It speaks something else.
    #[error(
        "the server said {said:#x} where {place} had to be: it does not speak NBD with the fixed newstyle handshake and simple \
         replies, or is broken"
    )]
    Nonsense {
        /// What had to be there.
        place: &'static str,
        /// What was there.
        said: u64,
    },
    /// It has no such export, or not for this client.
    #[error("the server refuses the export `{export}`: {why}")]
    Refused {
        /// The export.
        export: String,
        /// Why, as far as it says.
        why: String,
    },
    /// The export has no size of blocks that a store can have.
    #[error(
        "the export has {bytes} bytes in blocks of {block_bytes}, with at most {request_bytes_max} in one request: blocks must have a \
         power of two of bytes, at most {BLOCK_BYTES_MAX}, and there must be a positive number of them (of 512 bytes at least)"
    )]
    Shape {
        /// How many bytes it has.
        bytes: u64,
        /// The block.
        block_bytes: u32,
        /// The most bytes of one request.
        request_bytes_max: u32,
    },
    /// A request.
    #[error("the server answers {}", errno_text(*.0))]
    Failed(u32),
}

impl SessionError {
    /// Whether the same may succeed at once over another connection.
    pub fn is_lost(&self) -> bool {
        matches!(self, Self::Stream(_) | Self::ShutsDown)
    }

    /// Whether the connection may be used further.
    pub fn leaves_the_connection(&self) -> bool {
        matches!(self, Self::Failed(_))
    }

    /// What Linux would say of it.
    pub fn kind(&self) -> io::ErrorKind {
        match self {
            Self::Stream(error) => error.kind(),
            Self::ShutsDown => io::ErrorKind::ConnectionAborted,
            Self::Nonsense { .. } | Self::Shape { .. } => io::ErrorKind::InvalidData,
            Self::Refused { .. } => io::ErrorKind::PermissionDenied,
            Self::Failed(ENOSPC) => io::ErrorKind::StorageFull,
            Self::Failed(_) => io::ErrorKind::Other,
        }
    }
}

fn errno_text(code: u32) -> String {
    match code {
        EPERM | EIO | ENOMEM | EINVAL | ENOSPC | EOVERFLOW | ENOTSUP => {
            io::Error::from_raw_os_error(code as i32).to_string()
        }
        other => format!("error {other}, which the protocol does not have"),
    }
}

/// A connection whose server has agreed on an export.
#[derive(Debug)]
pub struct Session<S> {
    stream: S,
    offer: Offer,
    cookie: u64,
}

impl<S: Read + Write> Session<S> {
    /// Shakes hands and chooses an export.
    ///
    /// # Errors
    /// [`SessionError`].
    pub fn begin(mut stream: S, export: &str) -> Result<Self, SessionError> {
        let hello = read_u64(&mut stream)?;
        expect("the greeting of a server", hello, HELLO)?;
        match read_u64(&mut stream)? {
            OPTION => {}
            OLD_STYLE => return nonsense("options", OLD_STYLE),
            other => return nonsense("options", other),
        }
        let flags = read_u16(&mut stream)?;
        if flags & FIXED_NEWSTYLE == 0 {
            return nonsense("the flag of the fixed newstyle handshake", flags.into());
        }
        let mut said = u32::from(flags & (FIXED_NEWSTYLE | NO_ZEROES)).to_be_bytes().to_vec();
        said.extend(OPTION.to_be_bytes());
        let name = export.as_bytes();
        // The name with its length, and one kind of information that is asked for.
        for number in [OPT_GO, name.len() as u32 + 8, name.len() as u32] {
            said.extend(number.to_be_bytes());
        }
        said.extend(name);
        said.extend(1_u16.to_be_bytes());
        said.extend(INFO_BLOCK_SIZE.to_be_bytes());
        stream.write_all(&said)?;
        let offer = hear(&mut stream, export)?;
        Ok(Self { stream, offer, cookie: 0 })
    }

    /// What the export is like.
    pub fn offer(&self) -> &Offer {
        &self.offer
    }

    /// The connection.
    pub fn stream_mut(&mut self) -> &mut S {
        &mut self.stream
    }

    /// Reads a range of whole blocks.
    ///
    /// # Errors
    /// [`SessionError`].
    pub fn read(&mut self, position: u64, into: &mut [u8]) -> Result<(), SessionError> {
        let most = self.offer.request_bytes_max as usize;
        for (index, piece) in into.chunks_mut(most).enumerate() {
            let position = position + (index * most) as u64;
            self.ask((CMD_READ, 0), position, piece.len() as u32, &[])?;
            self.stream.read_exact(piece)?;
        }
        Ok(())
    }

    /// Writes a range of whole blocks, which is safe when this returns if it is to be `durable`, which the server must offer.
    ///
    /// # Errors
    /// [`SessionError`].
    pub fn write(&mut self, position: u64, from: &[u8], durable: bool) -> Result<(), SessionError> {
        let most = self.offer.request_bytes_max as usize;
        let flags = if durable { FLAG_FUA } else { 0 };
        for (index, piece) in from.chunks(most).enumerate() {
            let position = position + (index * most) as u64;
            self.ask((CMD_WRITE, flags), position, piece.len() as u32, piece)?;
        }
        Ok(())
    }

    /// Makes a range of whole blocks zeros, and gives up its space, which the server must offer. (A trimmed range may read as
    /// anything, so trimming is not asked for.)
    ///
    /// # Errors
    /// [`SessionError`].
    pub fn write_zeroes(&mut self, position: u64, bytes: u64) -> Result<(), SessionError> {
        let most = u64::from(self.offer.request_bytes_max);
        let mut done = 0;
        while done < bytes {
            let length = (bytes - done).min(most);
            self.ask((CMD_WRITE_ZEROES, 0), position + done, length as u32, &[])?;
            done += length;
        }
        Ok(())
    }

    /// Makes safe what was written over any connection, which the server must offer.
    ///
    /// # Errors
    /// [`SessionError`].
    pub fn flush(&mut self) -> Result<(), SessionError> {
        self.ask((CMD_FLUSH, 0), 0, 0, &[])
    }

    /// Tells the server that this is the end, if it can be told.
    pub fn end(mut self) {
        let (kind, cookie) = (CMD_DISCONNECT, self.cookie);
        let request = Request { flags: 0, kind, cookie, position: 0, bytes: 0 };
        // It sees that the connection ends, too.
        let _ = self.stream.write_all(&request.encode());
    }

    /// Asks and takes the answer, but for what is read.
    fn ask(
        &mut self,
        (kind, flags): (u16, u16),
        position: u64,
        bytes: u32,
        data: &[u8],
    ) -> Result<(), SessionError> {
        self.cookie += 1;
        let request = Request { flags, kind, cookie: self.cookie, position, bytes };
        self.stream.write_all(&request.encode())?;
        self.stream.write_all(data)?;
        expect("a simple reply", read_u32(&mut self.stream)?.into(), REPLY.into())?;
        let code = read_u32(&mut self.stream)?;
        expect("the cookie of the request", read_u64(&mut self.stream)?, self.cookie)?;
        match code {
            0 => Ok(()),
            ESHUTDOWN => Err(SessionError::ShutsDown),
            code => Err(SessionError::Failed(code)),
        }
    }
}

fn nonsense<T>(place: &'static str, said: u64) -> Result<T, SessionError> {
    Err(SessionError::Nonsense { place, said })
}

fn expect(place: &'static str, said: u64, expected: u64) -> Result<(), SessionError> {
    match said == expected {
        true => Ok(()),
        false => nonsense(place, said),
    }
}

/// Takes what is said about the export until it is agreed on.
fn hear(stream: &mut impl Read, export: &str) -> Result<Offer, SessionError> {
    let (mut size, mut blocks) = (None, None);
    for _ in 0..INFO_MAX {
        expect("a reply to an option", read_u64(stream)?, OPTION_REPLY)?;
        expect("the option that was chosen", read_u32(stream)?.into(), OPT_GO.into())?;
        let (kind, length) = (read_u32(stream)?, read_u32(stream)?);
        if length > REPLY_BYTES_MAX {
            return nonsense("the length of a reply", length.into());
        }
        let mut data = vec![0; length as usize];
        stream.read_exact(&mut data)?;
        match kind {
            REP_ACK => {
                let Some((bytes, flags)) = size else {
                    return nonsense("what the export is like", kind.into());
                };
                return offer(bytes, flags, blocks);
            }
            REP_INFO => {
                let rest = &mut &data[..];
                let what = read_u16(rest).unwrap_or(u16::MAX);
                match (what, rest.len()) {
                    (INFO_EXPORT, 10) => size = Some((read_u64(rest)?, read_u16(rest)?)),
                    (INFO_BLOCK_SIZE, 12) => {
                        let (least, _preferred) = (read_u32(rest)?, read_u32(rest)?);
                        blocks = Some((least, read_u32(rest)?));
                    }
                    (INFO_EXPORT | INFO_BLOCK_SIZE, _) => {
                        return nonsense("the length of information", length.into());
                    }
                    // There may be more than was asked for.
                    _ => {}
                }
            }
            REP_ERR_SHUTDOWN => return Err(SessionError::ShutsDown),
            kind if kind >> 31 == 1 => {
                let why = why(kind, &data);
                return Err(SessionError::Refused { export: export.to_owned(), why });
            }
            kind => return nonsense("a reply to the choice of an export", kind.into()),
        }
    }
    nonsense("an end of what is said about the export", INFO_MAX as u64)
}

fn offer(bytes: u64, flags: u16, blocks: Option<(u32, u32)>) -> Result<Offer, SessionError> {
    if flags & HAS_FLAGS == 0 {
        return nonsense("the flags of the export", flags.into());
    }
    // Those are the sizes of a server that does not say any.
    let (least, most) = blocks.unwrap_or((1, REQUEST_BYTES_MAX));
    let block_bytes = least.max(BLOCK_BYTES_MIN);
    let request_bytes_max = most.min(REQUEST_BYTES_MAX) / block_bytes * block_bytes;
    let is_whole =
        bytes != 0 && bytes.is_multiple_of(block_bytes.into()) && bytes <= i64::MAX as u64;
    if !least.is_power_of_two() || least > BLOCK_BYTES_MAX || request_bytes_max == 0 || !is_whole {
        return Err(SessionError::Shape { bytes, block_bytes: least, request_bytes_max: most });
    }
    let has = |flag| flags & flag != 0;
    Ok(Offer {
        bytes,
        block_bytes,
        request_bytes_max,
        is_read_only: has(READ_ONLY),
        can_flush: has(SEND_FLUSH),
        can_fua: has(SEND_FUA),
        can_write_zeroes: has(SEND_WRITE_ZEROES),
    })
}

/// Why an option is refused, with what the server says of it.
fn why(kind: u32, said: &[u8]) -> String {
    let text = match kind {
        REP_ERR_UNKNOWN => "there is no such export",
        REP_ERR_POLICY => "it is not for this client",
        REP_ERR_TLS_REQD => "it is for encrypted connections only, which are not spoken here",
        REP_ERR_UNSUP => "it does not know the option NBD_OPT_GO",
        _ => return format!("error {:#x}{}", kind, words(said)),
    };
    format!("{text}{}", words(said))
}

/// What a server says in its own words, so that it can do no harm on a terminal.
fn words(said: &[u8]) -> String {
    let said = String::from_utf8_lossy(said);
    let safe: String = said.chars().take(WORDS_MAX).flat_map(char::escape_debug).collect();
    if safe.is_empty() {
        safe
    } else {
        format!(" (\"{safe}\")")
    }
}

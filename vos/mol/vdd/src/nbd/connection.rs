// SPDX-License-Identifier: MIT OR Apache-2.0
//! One connection, from its handshake to its end.

use super::handshake::{shake, Agreed, REQUEST_BYTES_MAX};
use super::wire::{
    read_u16, read_u32, read_u64, Request, CMD_DISCONNECT, CMD_FLUSH, CMD_READ, CMD_TRIM,
    CMD_WRITE, CMD_WRITE_ZEROES, EINVAL, EIO, ENOMEM, ENOSPC, EOVERFLOW, EPERM, FLAG_FUA,
    FLAG_NO_HOLE, REPLY, REQUEST,
};
use crate::export::Export;
use mol_protocol::Errno;
use std::io::{self, Read, Write};

/// Why a connection ended before its client had ended it.
#[derive(Debug, thiserror::Error)]
pub enum NbdError {
    /// The stream.
    #[error("the connection failed: {0}")]
    Stream(#[from] io::Error),
    /// The client speaks an older protocol, or a newer one.
    #[error("the client has flags {0:#x}: it does not speak the fixed newstyle handshake, or asks for more")]
    Flags(u32),
    /// What came is no option or no request.
    #[error("the client said {0:#x} where an option or a request had to begin")]
    Magic(u64),
    /// There is no such export.
    #[error("the client asked for the export `{0}`, which is not here")]
    Name(String),
}

/// Serves a client until it leaves. The export is named `name`.
///
/// # Errors
/// [`NbdError`].
pub fn serve_connection<S: Read + Write>(
    stream: &mut S,
    name: &str,
    export: &mut impl Export,
) -> Result<(), NbdError> {
    if shake(stream, name, export)? == Agreed::Over {
        return Ok(());
    }
    let mut data = Vec::new();
    loop {
        let Some(request) = read_request(stream)? else { return Ok(()) };
        if request.kind == CMD_DISCONNECT {
            // Nothing is under way: what was asked was answered.
            return Ok(());
        }
        let length = request.bytes;
        // What is written has to be taken off the stream whatever becomes of it.
        let is_long = length > REQUEST_BYTES_MAX;
        data.clear();
        if request.kind == CMD_WRITE && is_long {
            io::copy(&mut stream.take(length.into()), &mut io::sink())?;
        } else if request.kind == CMD_WRITE {
            data.resize(length as usize, 0);
            stream.read_exact(&mut data)?;
        }
        let moves = matches!(request.kind, CMD_READ | CMD_WRITE);
        let done = match is_long && moves {
            true => Err(EOVERFLOW),
            false => perform(&request, &mut data, export),
        };
        let code = done.err().unwrap_or(0);
        let mut answer = Vec::with_capacity(16);
        answer.extend(REPLY.to_be_bytes());
        answer.extend(code.to_be_bytes());
        answer.extend(request.cookie.to_be_bytes());
        stream.write_all(&answer)?;
        if code == 0 && request.kind == CMD_READ {
            stream.write_all(&data)?;
        }
    }
}

/// The next request; `None` if the client has hung up between two.
fn read_request(stream: &mut impl Read) -> Result<Option<Request>, NbdError> {
    let magic = match read_u32(stream) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        other => other?,
    };
    if magic != REQUEST {
        return Err(NbdError::Magic(magic.into()));
    }
    Ok(Some(Request {
        flags: read_u16(stream)?,
        kind: read_u16(stream)?,
        cookie: read_u64(stream)?,
        position: read_u64(stream)?,
        bytes: read_u32(stream)?,
    }))
}

/// Does a request. What is read is in `data` then, as what is written is before.
fn perform(request: &Request, data: &mut Vec<u8>, export: &mut impl Export) -> Result<(), u32> {
    let Request { flags, kind, position, bytes, .. } = *request;
    let durable = flags & FLAG_FUA != 0;
    let known = FLAG_FUA | if kind == CMD_WRITE_ZEROES { FLAG_NO_HOLE } else { 0 };
    if flags & !known != 0 {
        return Err(EINVAL);
    }
    if kind == CMD_FLUSH {
        return match (position, bytes) {
            (0, 0) => export.flush().map_err(code_of),
            _ => Err(EINVAL),
        };
    }
    let block = u64::from(export.block_bytes());
    let end = position.checked_add(bytes.into()).filter(|end| *end <= export.bytes());
    let is_whole = position % block == 0 && u64::from(bytes) % block == 0 && bytes != 0;
    if kind != CMD_READ && export.is_read_only() {
        return Err(EPERM);
    }
    if end.is_none() {
        return Err(if kind == CMD_READ { EINVAL } else { ENOSPC });
    }
    if !is_whole {
        return Err(EINVAL);
    }
    match kind {
        CMD_READ => {
            data.resize(bytes as usize, 0);
            export.read(position, data).map_err(code_of)
        }
        CMD_WRITE => export.write(position, data, durable).map_err(code_of),
        CMD_TRIM => {
            export.trim(position, bytes.into()).map_err(code_of)?;
            if durable {
                export.flush().map_err(code_of)
            } else {
                Ok(())
            }
        }
        CMD_WRITE_ZEROES => export.write_zeros(position, bytes.into(), durable).map_err(code_of),
        _ => Err(EINVAL),
    }
}

fn code_of(errno: Errno) -> u32 {
    match errno {
        Errno::ReadOnly | Errno::BadFile => EPERM,
        Errno::NoMemory => ENOMEM,
        Errno::Invalid => EINVAL,
        Errno::NoSpace => ENOSPC,
        _ => EIO,
    }
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is said before requests: which export, and what it is like.

use super::wire::{
    read_u16, read_u32, read_u64, CAN_MULTI_CONN, FIXED_NEWSTYLE, HAS_FLAGS, HELLO,
    INFO_BLOCK_SIZE, INFO_EXPORT, NO_ZEROES, OPTION, OPTION_REPLY, OPT_ABORT, OPT_EXPORT_NAME,
    OPT_GO, OPT_INFO, OPT_LIST, READ_ONLY, REP_ACK, REP_ERR_INVALID, REP_ERR_TOO_BIG,
    REP_ERR_UNKNOWN, REP_ERR_UNSUP, REP_INFO, REP_SERVER, SEND_FLUSH, SEND_FUA, SEND_TRIM,
    SEND_WRITE_ZEROES,
};
use super::NbdError;
use crate::export::Export;
use std::io::{Read, Write};

/// The most bytes of one option. Names are shorter, and nobody needs more.
const OPTION_BYTES_MAX: u32 = 8192;
/// The most bytes of one request.
pub(super) const REQUEST_BYTES_MAX: u32 = 32 << 20;
/// What the gateway says first: that it is one, with options.
pub const GREETING: [u8; 18] = {
    let (hello, option) = (HELLO.to_be_bytes(), OPTION.to_be_bytes());
    let mut all = [0; 18];
    let mut at = 0;
    while at < 8 {
        all[at] = hello[at];
        all[8 + at] = option[at];
        at += 1;
    }
    all[17] = (FIXED_NEWSTYLE | NO_ZEROES) as u8;
    all
};

/// How a handshake ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Agreed {
    /// Requests follow.
    Go,
    /// The client has what it wanted.
    Over,
}

/// Answers options until the client chooses the export, whose name is `name` or nothing.
pub(super) fn shake<S: Read + Write>(
    stream: &mut S,
    name: &str,
    export: &impl Export,
) -> Result<Agreed, NbdError> {
    stream.write_all(&GREETING)?;
    let flags = read_u32(stream)?;
    if flags & !u32::from(FIXED_NEWSTYLE | NO_ZEROES) != 0 || flags & 1 == 0 {
        return Err(NbdError::Flags(flags));
    }
    let has_zeros = flags & u32::from(NO_ZEROES) == 0;
    loop {
        let magic = read_u64(stream)?;
        if magic != OPTION {
            return Err(NbdError::Magic(magic));
        }
        let (option, length) = (read_u32(stream)?, read_u32(stream)?);
        if length > OPTION_BYTES_MAX {
            // What follows is taken, so that the next option is found.
            std::io::copy(&mut stream.take(length.into()), &mut std::io::sink())?;
            reply(stream, option, REP_ERR_TOO_BIG, b"the option is too long")?;
            continue;
        }
        let mut data = vec![0; length as usize];
        stream.read_exact(&mut data)?;
        let is_ours = |asked: &[u8]| asked.is_empty() || asked == name.as_bytes();
        match option {
            OPT_EXPORT_NAME => {
                // There is no way to refuse but to hang up.
                if !is_ours(&data) {
                    return Err(NbdError::Name(String::from_utf8_lossy(&data).into_owned()));
                }
                let mut answer = export.bytes().to_be_bytes().to_vec();
                answer.extend(transmission_flags(export).to_be_bytes());
                if has_zeros {
                    answer.extend([0; 124]);
                }
                stream.write_all(&answer)?;
                return Ok(Agreed::Go);
            }
            OPT_ABORT => {
                // It may have hung up already.
                let _ = reply(stream, option, REP_ACK, &[]);
                return Ok(Agreed::Over);
            }
            OPT_LIST if !data.is_empty() => {
                reply(stream, option, REP_ERR_INVALID, b"a list is asked for without data")?;
            }
            OPT_LIST => {
                let entry = [&(name.len() as u32).to_be_bytes(), name.as_bytes()].concat();
                reply(stream, option, REP_SERVER, &entry)?;
                reply(stream, option, REP_ACK, &[])?;
            }
            OPT_INFO | OPT_GO => match read_info(&data) {
                None => reply(stream, option, REP_ERR_INVALID, b"the option is cut short")?,
                Some(asked) if !is_ours(asked) => {
                    reply(stream, option, REP_ERR_UNKNOWN, b"there is no such export")?;
                }
                Some(_) => {
                    tell_info(stream, option, export)?;
                    reply(stream, option, REP_ACK, &[])?;
                    if option == OPT_GO {
                        return Ok(Agreed::Go);
                    }
                }
            },
            _ => reply(stream, option, REP_ERR_UNSUP, b"this option is not known here")?,
        }
    }
}

/// The name in the data of an `INFO` or `GO`.
fn read_info(mut data: &[u8]) -> Option<&[u8]> {
    let rest = &mut data;
    let length = read_u32(rest).ok()? as usize;
    let (name, after) = rest.split_at_checked(length)?;
    *rest = after;
    let count = read_u16(rest).ok()?;
    (rest.len() == usize::from(count) * 2).then_some(name)
}

fn tell_info(stream: &mut impl Write, option: u32, export: &impl Export) -> Result<(), NbdError> {
    let mut info = INFO_EXPORT.to_be_bytes().to_vec();
    info.extend(export.bytes().to_be_bytes());
    info.extend(transmission_flags(export).to_be_bytes());
    reply(stream, option, REP_INFO, &info)?;
    let block = export.block_bytes();
    let mut sizes = INFO_BLOCK_SIZE.to_be_bytes().to_vec();
    for size in [block, block.max(4096), REQUEST_BYTES_MAX] {
        sizes.extend(size.to_be_bytes());
    }
    Ok(reply(stream, option, REP_INFO, &sizes)?)
}

fn transmission_flags(export: &impl Export) -> u16 {
    let common = HAS_FLAGS | SEND_FLUSH | SEND_FUA | CAN_MULTI_CONN;
    match export.is_read_only() {
        true => common | READ_ONLY,
        false => common | SEND_TRIM | SEND_WRITE_ZEROES,
    }
}

fn reply(stream: &mut impl Write, option: u32, kind: u32, data: &[u8]) -> std::io::Result<()> {
    let mut bytes = OPTION_REPLY.to_be_bytes().to_vec();
    for number in [option, kind, data.len() as u32] {
        bytes.extend(number.to_be_bytes());
    }
    bytes.extend(data);
    stream.write_all(&bytes)
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! A file system of one file, as FUSE's protocol has it: no more than it takes to look a name up and to read.

use std::io::{Read, Write};

use vos_transfer::message;

/// The name of the file.
pub(crate) const NAME: &str = "file";
/// The name after which is looked up once.
pub(crate) const END: &str = "end";

/// What is in the file: more than goes into one message.
pub(crate) fn content() -> Vec<u8> {
    (0..300_001_u32).map(|at| b'a' + (at / 3 % 26) as u8).collect()
}

/// The numbers of requests.
const LOOKUP: u32 = 1;
const FORGET: u32 = 2;
const GETATTR: u32 = 3;
const OPEN: u32 = 14;
const READ: u32 = 15;
const RELEASE: u32 = 18;
const FLUSH: u32 = 25;
const INIT: u32 = 26;
const INTERRUPT: u32 = 36;
const BATCH_FORGET: u32 = 42;

/// The root and the file.
const ROOT: u64 = 1;
const FILE: u64 = 2;

const ENOENT: i32 = 2;
const ENOSYS: i32 = 38;

fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

/// `struct fuse_attr`.
fn attributes(node: u64) -> Vec<u8> {
    let (mode, bytes) = match node {
        ROOT => (0o40755, 0),
        _ => (0o100_644, content().len() as u32),
    };
    let times = [0; 9];
    let more = [mode, 1, 0, 0, 0, 4096, 0];
    words(&[&[node as u32, 0, bytes, 0, 1, 0][..], &times, &more].concat())
}

/// Answers until there is nothing more to answer, or a name is looked up at which it fails.
pub(crate) fn serve(from: &mut impl Read, to: &mut impl Write) -> Result<(), String> {
    while let Some(request) = message(from).map_err(|error| error.to_string())? {
        let number = |at: usize| u32::from_le_bytes(request[at..at + 4].try_into().unwrap());
        let node = u64::from(number(16));
        let answer = match number(4) {
            // Version 7.31; what is read or written at once has 128 KiB at most.
            INIT => {
                let mut out = words(&[7, 31, 128 << 10, 0, 0, 128 << 10]);
                out.resize(64, 0);
                Ok(out)
            }
            LOOKUP if request[40..].starts_with(END.as_bytes()) => {
                return Err("the disk is lost".to_owned());
            }
            LOOKUP if request[40..].starts_with(NAME.as_bytes()) => {
                let mut out = words(&[FILE as u32, 0]);
                out.resize(40, 0);
                out.extend(attributes(FILE));
                Ok(out)
            }
            LOOKUP => Err(ENOENT),
            GETATTR => Ok([vec![0; 16], attributes(node)].concat()),
            OPEN => Ok(vec![0; 16]),
            READ => {
                let content = content();
                let begin = (number(48) as usize).min(content.len());
                let end = (begin + number(56) as usize).min(content.len());
                Ok(content[begin..end].to_vec())
            }
            FLUSH | RELEASE => Ok(Vec::new()),
            FORGET | BATCH_FORGET | INTERRUPT => continue,
            _ => Err(ENOSYS),
        };
        let (error, payload) = match answer {
            Ok(payload) => (0, payload),
            Err(error) => (-error, Vec::new()),
        };
        let mut out = words(&[16 + payload.len() as u32, error as u32]);
        out.extend_from_slice(&request[8..16]);
        out.extend(payload);
        to.write_all(&out).map_err(|error| error.to_string())?;
    }
    Ok(())
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! Much memory, copied from one node to another: its source makes up block after block and lends it, the fetcher copies each and asks
//! for the next. In the end both say the hash of everything, of what was made and of what arrived.

use std::time::Duration;

use anyhow::{ensure, Context, Result};
use dvk::{
    payload, Access, Endpoint, GrantId, Granted, Loan, Message, Payload, Port, Slot, Timeout,
};
use sha2::{Digest, Sha256};

use crate::say;

/// Bytes of a block, and of one copy of it.
const BLOCK_BYTES: usize = 8 << 20;
const COPY_BYTES: usize = 1 << 20;
/// Longer than a copy takes on a network that is bad and alive.
const PATIENCE: Timeout = Timeout::After(Duration::from_secs(120));

payload! {
    /// Asks for a block; the number is one more each time. One of 0 bytes ends it.
    struct Wanted: 0x4d20 {
        number: u64,
        bytes: u64,
    }
}

payload! {
    /// The block is there, at the beginning of this grant.
    struct Made: 0x4d21 {
        grant: u64,
    }
}

/// Makes up blocks for one fetcher.
pub(crate) fn supply(container: u32) -> Result<()> {
    let port = Port::bind(container, Slot::Any)?;
    let loan = Loan::new(&port, Endpoint::ANY, BLOCK_BYTES, Access::Read)?;
    let mut hash = Sha256::new();
    let mut made = vec![0; BLOCK_BYTES];
    say(&format!("supplies {}", port.endpoint().raw()))?;
    loop {
        let received = port.receive_request(Endpoint::ANY, Timeout::Forever)?;
        let Wanted { number, bytes } = Wanted::view(&received.message)?;
        let made = made.get_mut(..usize::try_from(bytes)?).context("a block that is too long")?;
        make(number, made);
        loan.write(0, made);
        hash.update(&*made);
        let answer: Message = Made { grant: loan.grant().raw() }.message();
        port.reply(received.source(), &answer)?;
        if bytes == 0 {
            return say(&format!("made {}", hex(hash)));
        }
    }
}

/// Copies `bytes` bytes from a supplier.
pub(crate) fn fetch(container: u32, supplier: Endpoint, bytes: u64) -> Result<()> {
    let port = Port::bind(container, Slot::Any)?;
    let mut hash = Sha256::new();
    let mut copied = vec![0; COPY_BYTES];
    let mut rest = bytes;
    for number in 0.. {
        let wanted = Wanted { number, bytes: rest.min(BLOCK_BYTES as u64) };
        let answer = port.sendrec(supplier, &wanted.message(), PATIENCE)?;
        let grant = GrantId::from_raw(Made::view(&answer)?.grant);
        if wanted.bytes == 0 {
            break;
        }
        for offset in (0..wanted.bytes).step_by(COPY_BYTES) {
            let len = (wanted.bytes - offset).min(COPY_BYTES as u64) as usize;
            let from = Granted { endpoint: supplier, grant, offset };
            port.copy_from(from, &mut copied[..len], PATIENCE)
                .with_context(|| format!("block {number}, byte {offset}"))?;
            hash.update(&copied[..len]);
        }
        rest -= wanted.bytes;
    }
    ensure!(rest == 0, "{rest} bytes are missing");
    say(&format!("copied {}", hex(hash)))
}

/// Bytes that no other block has.
fn make(number: u64, block: &mut [u8]) {
    let seed = (number + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    for (at, word) in block.chunks_mut(8).enumerate() {
        let mixed = (seed ^ at as u64).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let bytes = (mixed ^ mixed >> 31).to_le_bytes();
        word.copy_from_slice(&bytes[..word.len()]);
    }
}

fn hex(hash: Sha256) -> String {
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

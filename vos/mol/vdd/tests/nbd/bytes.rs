// SPDX-License-Identifier: MIT OR Apache-2.0
//! Clients that say bytes of their own.

use crate::{Shared, Talk};
use mol_vdd::nbd::{serve_connection, NbdError, GREETING};
use proptest::prelude::*;
use std::io::Cursor;

fn talk(export: &mut Shared, says: &[u8]) -> (Result<(), NbdError>, Vec<u8>) {
    let mut talk = Talk { says: Cursor::new(says.to_vec()), told: Vec::new() };
    let result = serve_connection(&mut talk, "disk", export);
    assert_eq!(talk.told[..18], GREETING);
    (result, talk.told[18..].to_vec())
}

/// Flags, and the choice of the export without more ado.
fn chosen() -> Vec<u8> {
    [&[0, 0, 0, 3][..], b"IHAVEOPT", &[0, 0, 0, 1, 0, 0, 0, 4], b"disk"].concat()
}

fn request(flags: u16, kind: u16, position: u64, bytes: u32) -> Vec<u8> {
    let numbers = [&flags.to_be_bytes()[..], &kind.to_be_bytes(), &[7; 8]].concat();
    let range = [&position.to_be_bytes()[..], &bytes.to_be_bytes()].concat();
    [&[0x25, 0x60, 0x95, 0x13][..], &numbers, &range].concat()
}

/// The errors of the answers to requests that read nothing.
fn codes(export: &mut Shared, requests: &[Vec<u8>]) -> Vec<u32> {
    let (result, told) = talk(export, &[chosen(), requests.concat()].concat());
    assert!(result.is_ok(), "{result:?}");
    // The size of the export and its flags come first.
    let replies = told[10..].chunks_exact(16);
    replies.map(|reply| u32::from_be_bytes(reply[4..8].try_into().unwrap())).collect()
}

#[test]
fn requests_that_cannot_be_done_are_refused_and_the_next_is_answered() {
    let mut export = Shared::new(1 << 20, false);
    let (inval, space, overflow) = (22, 28, 75);
    let cases = [
        (request(0, 3, 0, 0), 0),
        (request(0, 3, 512, 0), inval),
        (request(0, 0, 1 << 20, 512), inval),
        (request(0, 0, u64::MAX - 511, 512), inval),
        (request(0, 0, 1, 512), inval),
        (request(0, 0, 0, 0), inval),
        (request(0, 0, 0, (32 << 20) + 512), overflow),
        (request(2, 0, 0, 512), inval),
        (request(0, 4, 1 << 20, 512), space),
        (request(1, 4, 0, 512), 0),
        (request(2, 6, 0, 512), 0),
        (request(0, 9, 0, 512), inval),
        ([request(0, 1, 1 << 20, 512), vec![1; 512]].concat(), space),
        ([request(1, 1, 0, 512), vec![1; 512]].concat(), 0),
        (request(0, 3, 0, 0), 0),
    ];
    let (requests, expected): (Vec<_>, Vec<_>) = cases.into_iter().unzip();
    assert_eq!(codes(&mut export, &requests), expected);
    assert_eq!(export.content(0, 512), [1; 512]);
    let mut read_only = Shared::new(1 << 20, true);
    let write = [request(0, 1, 0, 512), vec![1; 512]].concat();
    assert_eq!(
        codes(&mut read_only, &[write, request(0, 4, 0, 512), request(0, 6, 0, 512)]),
        [1; 3]
    );
    assert_eq!(read_only.content(0, 512), [0; 512]);
}

#[test]
fn a_client_that_leaves_or_talks_nonsense_is_told_apart() {
    let mut export = Shared::new(1 << 20, false);
    let disconnect = [chosen(), request(0, 2, 0, 0), vec![1; 100]].concat();
    assert!(talk(&mut export, &disconnect).0.is_ok(), "what follows is not looked at");
    assert!(talk(&mut export, &chosen()).0.is_ok(), "it hangs up");
    let abort = [&[0, 0, 0, 3][..], b"IHAVEOPT", &[0, 0, 0, 2, 0, 0, 0, 0]].concat();
    assert!(talk(&mut export, &abort).0.is_ok());
    let old = talk(&mut export, &[0; 4]).0;
    assert!(matches!(old, Err(NbdError::Flags(0))), "{old:?}");
    let nonsense = talk(&mut export, &[chosen(), vec![9; 28]].concat()).0;
    assert!(matches!(nonsense, Err(NbdError::Magic(0x0909_0909))), "{nonsense:?}");
    let mut name = chosen();
    *name.last_mut().unwrap() = b'x';
    let unknown = talk(&mut export, &name).0;
    assert!(matches!(unknown, Err(NbdError::Name(_))), "{unknown:?}");
    let cut = talk(&mut export, &[chosen(), request(0, 1, 0, 512), vec![1; 100]].concat()).0;
    assert!(matches!(cut, Err(NbdError::Stream(_))), "{cut:?}");
    assert_eq!(export.content(0, 512), [0; 512], "half a write is none");
}

proptest! {
    #[test]
    fn any_bytes_end_a_connection_and_nothing_else(
        known in 0_usize..3,
        more in proptest::collection::vec(any::<u8>(), 0..200),
    ) {
        let option = [&[0, 0, 0, 3][..], b"IHAVEOPT"].concat();
        let begin = [vec![], option, [chosen(), request(0, 0, 0, 512)].concat()];
        let _ = talk(&mut Shared::new(1 << 16, false), &[&begin[known][..], &more].concat());
    }
}

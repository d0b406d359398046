// SPDX-License-Identifier: GPL-2.0 OR MIT
//! Frames that no link would send.

use crate::world::{incarnation, Faults, Rng, World, MS, S};
use dvk_core::abi::wire::frame::{Address, Chunk, Frame, Header, Kind, HEADER_BYTES};
use dvk_core::link::{Reject, State};

/// The header of a data frame that node 0 could send next to a fresh node 1.
fn header(world: &mut World) -> Header {
    world.hosts[0].submit(8).expect("the link is up");
    let mut out = [0; 2048];
    let now = world.now;
    let bytes = world.hosts[0].link.poll_transmit(now, &mut out).expect("data");
    Frame::decode(&out[..bytes]).expect("a frame").header
}

fn up() -> World {
    let mut world = World::new(1, Faults::default(), [0, 0], [1400, 1400]);
    world.connect();
    world.run(world.now + 10 * MS);
    world
}

fn payload(chunks: &[(bool, bool, usize)]) -> Vec<u8> {
    let mut out = vec![0; 16_384];
    let mut at = 0;
    for &(first, last, bytes) in chunks {
        let data = vec![7; bytes];
        at += Chunk { first, last, data: &data }.encode(&mut out[at..]).expect("it fits");
    }
    out.truncate(at);
    out
}

#[test]
fn chunks_that_do_not_fit_together_are_refused_without_harm() {
    let mut world = up();
    let header = header(&mut world);
    let now = world.now;
    let link = &mut world.hosts[1].link;
    for chunks in [
        &[(false, true, 3)][..],
        &[(true, false, 3), (true, true, 3)],
        &[(true, true, 3), (false, true, 3)],
    ] {
        let payload = payload(chunks);
        let frame = Frame { header, payload: &payload };
        assert_eq!(link.on_frame(now, &frame).err(), Some(Reject::Order));
    }
    // Early, the fault shows when its turn comes; then the frame counts as never received.
    let orphan = payload(&[(false, true, 3)]);
    let early = Header { sequence: header.sequence + 1, ..header };
    link.on_frame(now, &Frame { header: early, payload: &orphan }).expect("its turn is later");
    let good = payload(&[(true, true, 3)]);
    let frame = Frame { header, payload: &good };
    assert_eq!(link.on_frame(now, &frame).expect("in order").count(), 1);
    assert!(link.next_stored().is_none());
    let frame = Frame { header: early, payload: &good };
    assert_eq!(link.on_frame(now, &frame).expect("the true one").count(), 1);
    assert_eq!(link.state(), State::Up);
}

/// A forged early frame is acknowledged selectively, and dropped when its turn comes. The sender,
/// who was told that it had arrived, still sends the true one again.
#[test]
fn a_frame_acknowledged_and_then_dropped_is_sent_again() {
    let mut world = up();
    let header = header(&mut world);
    let orphan = payload(&[(false, true, 3)]);
    let early = Header { sequence: header.sequence + 1, ..header };
    let now = world.now;
    let link = &mut world.hosts[1].link;
    let frame = Frame { header: early, payload: &orphan };
    link.on_frame(now, &frame).expect("its turn is later");
    link.on_frame(now, &frame).expect("a repetition is valid");
    assert_eq!(link.info().duplicates, 1);
    // The header came of a frame that is lost; this one is taken for a repetition.
    world.hosts[0].submit(8).expect("the link is up");
    world.pump(0);
    world.run(now + S);
    world.assert_all_delivered();
    assert_eq!(world.hosts[1].link.info().duplicates, 2);
}

#[test]
fn a_record_that_never_ends_is_refused() {
    let mut world = up();
    let mut header = header(&mut world);
    let now = world.now;
    let link = &mut world.hosts[1].link;
    let mut first = true;
    let refused = (0..10).find_map(|_| {
        let payload = payload(&[(first, false, 16_000)]);
        first = false;
        let frame = Frame { header, payload: &payload };
        header.sequence += 1;
        link.on_frame(now, &frame).err()
    });
    assert_eq!(refused, Some(Reject::Order));
}

/// A link that is fed frames with true lives but arbitrary other fields, and mutated greetings,
/// neither panics nor stops to make sense.
#[test]
fn arbitrary_fields_do_no_harm() {
    for seed in 0..40 {
        let mut rng = Rng(seed);
        let faults = Faults { loss: 20, jitter: 5 * MS, ..Faults::default() };
        let mut world = World::new(seed, faults, [u32::MAX - 3, 0], [512, 1400]);
        world.connect();
        world.run(world.now + S);
        let mut out = vec![0; 4096];
        for _ in 0..300 {
            let mut template = None;
            let _ = world.hosts[0].link.submit(&vec![1; 1 + rng.below(3000) as usize]);
            let now = world.now;
            while let Some(bytes) = world.hosts[0].link.poll_transmit(now, &mut out) {
                template = Some(out[..bytes].to_vec());
                if rng.percent(50) {
                    break;
                }
            }
            let Some(mut bytes) = template else {
                world.now += 100 * MS;
                world.hosts[0].link.on_timer(now + 100 * MS);
                continue;
            };
            for _ in 0..rng.below(4) {
                let at = match rng.below(3) {
                    // Kind, version, flags, length.
                    0 => 2 + rng.below(6),
                    // Sequence, acknowledgements, clock, window; the payload.
                    1 => 36 + rng.below(28),
                    _ => rng.below(bytes.len() as u64),
                } as usize;
                bytes[at] = if rng.percent(30) { 0xff } else { rng.next() as u8 };
            }
            let target = rng.below(2) as usize;
            if target == 0 {
                // To the sender itself, as if its peer had sent it.
                swap_addresses(&mut bytes);
            }
            if let Ok(frame) = Frame::decode(&bytes) {
                let link = &mut world.hosts[target].link;
                if let Ok(chunks) = link.on_frame(now, &frame) {
                    chunks.for_each(drop);
                    while let Some(stored) = link.next_stored() {
                        stored.chunks().for_each(drop);
                    }
                }
                if link.state() == State::Broken {
                    link.peer_up(now, incarnation(1));
                }
                link.on_timer(now);
                assert!(link.next_deadline().is_none_or(|at| at > now));
            }
            // Its frames go nowhere, but must be well-formed.
            let link = &mut world.hosts[target].link;
            let mut frames = 0;
            while let Some(bytes) = link.poll_transmit(now, &mut out) {
                Frame::decode(&out[..bytes]).expect("links write frames");
                frames += 1;
                assert!(frames < 200, "a link that never stops sending");
            }
            world.now += rng.below(20 * MS);
        }
    }
}

fn swap_addresses(bytes: &mut [u8]) {
    for (left, right, length) in [(16, 18, 2), (20, 24, 4), (28, 32, 4)] {
        for offset in 0..length {
            bytes.swap(left + offset, right + offset);
        }
    }
}

#[test]
fn a_short_buffer_gets_nothing_and_loses_nothing() {
    let mut world = up();
    world.hosts[0].submit(500).expect("the link is up");
    let now = world.now;
    let link = &mut world.hosts[0].link;
    let bytes = link.transmit_bytes().expect("data waits");
    assert_eq!(bytes, HEADER_BYTES + 502);
    let mut out = vec![0; bytes];
    assert_eq!(link.poll_transmit(now, &mut out[..bytes - 1]), None);
    assert_eq!(link.poll_transmit(now, &mut []), None);
    assert_eq!(link.poll_transmit(now, &mut out), Some(bytes));
    assert_eq!(link.poll_transmit(now, &mut out), None);
    let frame = Frame::decode(&out).expect("a frame");
    assert_eq!(frame.header.kind, Kind::Data);
    assert_eq!(frame.header.source, Address { node: 0, ..frame.header.source });
}

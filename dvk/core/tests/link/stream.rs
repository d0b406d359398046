// SPDX-License-Identifier: GPL-2.0 OR MIT
//! One stream: order, exactly once, windows, timing.

use crate::world::{Faults, Rng, World, MS, S};
use dvk_core::abi::ioctl::LINK_UP;
use dvk_core::abi::wire::frame::{Kind, HEADER_BYTES, MAX_RECORD_BYTES};
use dvk_core::link::{Event, Link, Slot, State, SubmitError};

fn calm(payload: usize) -> World {
    let mut world = World::new(1, Faults::default(), [0, 0], [payload, payload]);
    world.connect();
    world.run(world.now + 10 * MS);
    assert_eq!(world.hosts[0].events, [Event::Up]);
    assert_eq!(world.hosts[1].events, [Event::Up]);
    world
}

fn submit(world: &mut World, index: usize, bytes: usize) {
    world.hosts[index].submit(bytes).expect("the queue has room");
    world.pump(index);
}

fn sent(world: &World, index: usize, kind: Kind) -> u64 {
    world.hosts[index].frames.get(&(kind as u8)).copied().unwrap_or(0)
}

#[test]
fn the_state_is_small() {
    type L = Link<crate::world::Vecs>;
    assert!(size_of::<L>() <= 544, "{}", size_of::<L>());
    // As in the kernel, where a buffer is a vector.
    assert!(320 * size_of::<Slot<Vec<u8>>>() < 16 * 1024);
}

#[test]
fn a_ping_pong_needs_one_frame_each_way() {
    let mut world = calm(1400);
    let before = [sent(&world, 0, Kind::Ack), sent(&world, 1, Kind::Ack)];
    for round in 0..100 {
        submit(&mut world, 0, 88);
        world.run(world.now + 100_000);
        assert_eq!(world.hosts[1].hearing, Some((1, round + 1)));
        submit(&mut world, 1, 88);
        world.run(world.now + 100_000);
        assert_eq!(world.hosts[0].hearing, Some((1, round + 1)));
    }
    assert_eq!([sent(&world, 0, Kind::Data), sent(&world, 1, Kind::Data)], [100, 100]);
    assert_eq!([sent(&world, 0, Kind::Ack), sent(&world, 1, Kind::Ack)], before);
    // The last reply is acknowledged once nothing more comes.
    world.run(world.now + 5 * MS);
    assert_eq!(sent(&world, 0, Kind::Ack), before[0] + 1);
    let info = world.hosts[0].link.info();
    assert_eq!((info.retransmissions, info.duplicates, info.rejected), (0, 0, 0));
    assert_eq!(info.state, LINK_UP);
    assert!((50..2_000).contains(&info.rtt_us), "{}", info.rtt_us);
}

#[test]
fn small_records_share_a_frame() {
    let mut world = calm(1400);
    for _ in 0..30 {
        world.hosts[0].submit(88).expect("the queue has room");
    }
    world.pump(0);
    world.run(world.now + 10 * MS);
    world.assert_all_delivered();
    // 15 records of 88 + 2 bytes fit into 1400.
    assert_eq!(sent(&world, 0, Kind::Data), 2);
}

#[test]
fn long_records_span_frames() {
    for bytes in [509, 510, 511, 512, 1398, 1399, 1400, 65_536, MAX_RECORD_BYTES] {
        for payload in [512, 1400, 9000, 1 << 20] {
            let mut world = calm(payload);
            submit(&mut world, 0, bytes);
            submit(&mut world, 0, 20);
            world.run(world.now + S);
            world.assert_all_delivered();
            assert_eq!(world.hosts[0].link.info().retransmissions, 0);
        }
    }
    let mut world = calm(1400);
    assert_eq!(world.hosts[0].link.submit(&[]), Err(SubmitError::Length));
    let long = vec![0; MAX_RECORD_BYTES + 1];
    assert_eq!(world.hosts[0].link.submit(&long), Err(SubmitError::Length));
}

#[test]
fn what_comes_in_order_needs_no_buffer() {
    let mut world = calm(1400);
    world.hosts[1].link.storage_mut().refuse_percent = 100;
    for _ in 0..10 {
        submit(&mut world, 0, 30_000);
        world.run(world.now + 10 * MS);
    }
    world.assert_all_delivered();
    assert_eq!(world.hosts[1].link.info().rejected, 0);
}

#[test]
fn the_shorter_payload_is_agreed_upon() {
    let mut world = World::new(1, Faults::default(), [0, 0], [9000, 600]);
    // Queued before the greeting, in frames that any peer can take.
    submit_early(&mut world);
    world.connect();
    submit_early(&mut world);
    world.run(world.now + S);
    submit(&mut world, 0, 5000);
    submit(&mut world, 1, 5000);
    world.run(world.now + S);
    world.assert_all_delivered();
    let data = sent(&world, 0, Kind::Data);
    // 2 × 3000 / 510 and 5000 / 598, rounded up.
    assert_eq!(data, 6 + 9);
}

fn submit_early(world: &mut World) {
    if world.hosts[0].link.state() == State::Down {
        assert_eq!(world.hosts[0].link.submit(&[1]), Err(SubmitError::NotUp));
    } else {
        submit(world, 0, 3000);
    }
}

#[test]
fn a_full_queue_refuses_and_tells_of_room() {
    let mut world = calm(512);
    let refused = loop {
        if let Err(error) = world.hosts[0].submit(510) {
            break error;
        }
    };
    assert_eq!(refused, SubmitError::Full);
    assert_eq!(world.hosts[0].submitted, 256);
    assert_eq!(world.hosts[0].submit(3_000), Err(SubmitError::Full));
    world.pump(0);
    world.run(world.now + S);
    world.assert_all_delivered();
    assert_eq!(world.hosts[0].events, [Event::Up, Event::Room]);
}

#[test]
fn bulk_data_leaves_room_for_what_is_short() {
    let mut world = calm(512);
    // Each takes 8 of the 256 frames, and 14 of them are queued at once.
    let mut queued = 0;
    while world.hosts[0].submit_bulk(4_000).is_ok() {
        queued += 1;
    }
    assert_eq!(queued, 14);
    assert_eq!(world.hosts[0].submit_bulk(100), Err(SubmitError::Full));
    for _ in 0..140 {
        world.hosts[0].submit(500).expect("short records have room");
    }
    world.pump(0);
    world.run(world.now + S);
    world.assert_all_delivered();
    assert_eq!(world.hosts[0].events, [Event::Up, Event::Room]);
    world.hosts[0].submit_bulk(4_000).expect("there is room again");
}

#[test]
fn the_longest_bulk_record_goes_into_an_empty_queue() {
    let mut world = calm(512);
    world.hosts[0].submit_bulk(MAX_RECORD_BYTES).expect("nothing is queued");
    assert_eq!(world.hosts[0].submit_bulk(8), Err(SubmitError::Full));
    world.pump(0);
    world.run(world.now + S);
    world.assert_all_delivered();
    assert_eq!(world.hosts[0].events, [Event::Up, Event::Room]);
}

#[test]
fn a_record_is_queued_whole_or_not_at_all() {
    let faults = Faults { refuse_buffers: 10, ..Faults::default() };
    let mut world = World::new(3, faults, [0, 0], [512, 512]);
    world.connect();
    let mut refused = 0;
    for _ in 0..300 {
        match world.hosts[0].submit(3_000) {
            Ok(()) => {}
            Err(SubmitError::NoMemory) => refused += 1,
            Err(error) => panic!("{error:?}"),
        }
        world.pump(0);
        world.run(world.now + 20 * MS);
    }
    assert!(refused > 50 && world.hosts[0].submitted > 50);
    world.run(world.now + S);
    world.assert_all_delivered();
}

#[test]
fn everything_arrives_once_and_in_order() {
    for seed in 0..60 {
        let mut rng = Rng(seed);
        let faults = Faults {
            loss: rng.below(31),
            duplicate: rng.below(20),
            truncate: rng.below(5),
            garbage: rng.below(5),
            replay: rng.below(5),
            delay: rng.below(5 * MS),
            jitter: rng.below(5 * MS),
            refuse_buffers: rng.below(10),
        };
        // Streams that begin shortly before the numbers wrap.
        let first = [u32::MAX - rng.below(40) as u32, 0x7fff_fff0];
        let payload = [512 + rng.below(1500) as usize, 512 + rng.below(1500) as usize];
        let mut world = World::new(seed, faults, first, payload);
        world.connect();
        for _ in 0..120 {
            let index = rng.below(2) as usize;
            let bytes = if rng.percent(5) { rng.below(20_000) } else { rng.below(200) };
            // A refusal is no loss: the model counts what was taken.
            let _ = world.hosts[index].submit(bytes as usize);
            if rng.percent(70) {
                world.pump(index);
            }
            if rng.percent(5) {
                let payload_bytes = 512 + rng.below(9_000) as usize;
                world.change_transport(index, payload_bytes);
            }
            world.run(world.now + rng.below(4 * MS));
        }
        world.pump(0);
        world.pump(1);
        world.faults = Faults { delay: faults.delay, ..Faults::default() };
        world.run(world.now + 12 * S);
        world.assert_all_delivered();
        assert!(world.hosts[0].life == 1 && world.hosts[1].life == 1);
    }
}

#[test]
fn bulk_fills_the_window_and_a_single_loss_costs_no_timeout() {
    let mut world = calm(1400);
    for _ in 0..4 {
        submit(&mut world, 0, 60_000);
    }
    let start = world.now;
    world.run(start + 20_000);
    world.drop_one_towards(1);
    // The least retransmission timeout is 8 ms.
    world.run(start + 5 * MS);
    world.assert_all_delivered();
    assert_eq!(world.hosts[0].link.info().retransmissions, 1);
}

#[test]
fn bulk_needs_few_acknowledgements() {
    for (seed, most) in [(1, 16), (3, 120)] {
        let mut world = World::new(seed, Faults::default(), [0, 0], [1400, 1400]);
        world.connect();
        world.run(world.now + 10 * MS);
        let before = sent(&world, 1, Kind::Ack);
        for _ in 0..4 {
            submit(&mut world, 0, 60_000);
        }
        world.run(world.now + 100 * MS);
        world.assert_all_delivered();
        // Of 172 frames; a peer that is a version behind acknowledges every second one.
        let acks = sent(&world, 1, Kind::Ack) - before;
        assert!((most / 2..=most).contains(&acks), "{acks}");
    }
}

#[test]
fn a_small_receive_window_is_respected() {
    let mut world = World::new(1, Faults::default(), [0, 0], [512, 512]);
    world.set_receive_window(1, 3);
    world.connect();
    world.run(world.now + 10 * MS);
    let before = sent(&world, 0, Kind::Data);
    submit(&mut world, 0, 30_000);
    assert_eq!(sent(&world, 0, Kind::Data) - before, 3);
    world.run(world.now + S);
    world.assert_all_delivered();
}

#[test]
fn a_silent_peer_is_asked_and_then_lost_and_retransmission_is_bounded() {
    let mut world = calm(1400);
    world.faults.loss = 100;
    for _ in 0..50 {
        submit(&mut world, 0, 1000);
    }
    let before = world.sent;
    world.run(world.now + 2 * S);
    assert_eq!(world.hosts[0].events, [Event::Up]);
    world.run(world.now + S);
    assert_eq!(world.hosts[0].events, [Event::Up, Event::Lost]);
    assert_eq!(world.hosts[1].events, [Event::Up, Event::Lost]);
    world.run(world.now + 57 * S);
    // A minute: two frames per timeout of a second, two keep-alives per second and side.
    assert!(world.sent - before < 60 * 2 + 2 * 60 * 2 + 30, "{}", world.sent - before);
    assert_eq!(world.hosts[0].link.state(), State::Up);
    world.faults.loss = 0;
    world.run(world.now + 600 * MS);
    assert_eq!(world.hosts[0].events, [Event::Up, Event::Lost, Event::Found]);
    world.assert_all_delivered();
}

#[test]
fn an_idle_link_is_quiet() {
    let mut world = calm(1400);
    let before = world.sent;
    world.run(world.now + 60 * S);
    // A question and an answer per half second, from either side at most.
    assert!(world.sent - before <= 120 * 4, "{}", world.sent - before);
    assert_eq!(world.hosts[0].events, [Event::Up]);
}

#[test]
fn a_stream_moves_to_another_transport() {
    let mut world = calm(1400);
    submit(&mut world, 0, 20_000);
    world.hosts[0].link.detach();
    assert_eq!(world.hosts[0].link.next_deadline(), None);
    submit(&mut world, 0, 20_000);
    assert_eq!(world.hosts[0].link.transmit_bytes(), None);
    world.clear_air();
    world.run(world.now + 100 * MS);
    let now = world.now;
    world.hosts[0].link.attach(now, 8000).expect("long enough");
    world.pump(0);
    world.run(now + 2 * S);
    world.assert_all_delivered();
    assert_eq!(world.hosts[0].events, [Event::Up]);
    // Back to what was agreed is no loss either.
    let now = world.now;
    world.hosts[0].link.attach(now, 1400).expect("long enough");
    world.pump(0);
    assert_eq!(world.hosts[0].link.state(), State::Up);
    assert!(world.hosts[0].link.attach(now, 511).is_err());
    // Shorter frames are no loss once none that is queued is longer.
    submit(&mut world, 0, 20_000);
    assert!(!world.hosts[0].link.narrow(700));
    world.pump(0);
    world.run(now + S);
    assert!(world.hosts[0].link.narrow(700));
    let now = world.now;
    world.hosts[0].link.attach(now, 700).expect("long enough");
    world.pump(0);
    world.run(now + S);
    // The other end has heard of it.
    submit(&mut world, 1, 20_000);
    assert_eq!(world.longest_to(0), 700 + HEADER_BYTES);
    world.run(world.now + S);
    // And of longer ones.
    let now = world.now;
    world.hosts[0].link.attach(now, 1200).expect("long enough");
    world.pump(0);
    world.run(now + S);
    submit(&mut world, 1, 20_000);
    assert_eq!(world.longest_to(0), 1200 + HEADER_BYTES);
    world.run(world.now + S);
    world.assert_all_delivered();
    assert_eq!(world.hosts[0].events, [Event::Up]);
    // Frames that don't fit end the stream at both ends, and a new one begins.
    submit(&mut world, 0, 20_000);
    let now = world.now;
    world.hosts[0].payload_bytes = 600;
    world.hosts[0].link.attach(now, 600).expect("long enough");
    world.pump(0);
    world.run(now + 2 * S);
    assert_eq!(world.hosts[0].events, [Event::Up, Event::Reset, Event::Up]);
    assert_eq!(world.hosts[1].events, [Event::Up, Event::Reset, Event::Up]);
    submit(&mut world, 0, 20_000);
    submit(&mut world, 1, 20_000);
    world.run(world.now + S);
    world.assert_all_delivered();
}

// SPDX-License-Identifier: GPL-2.0 OR MIT
//! Lives: greetings, reboots, streams given up.

use crate::world::{config, incarnation, Faults, Rng, Vecs, World, MS, S};
use dvk_core::abi::wire::frame::{Frame, Header, Kind, Versions};
use dvk_core::link::{Config, Event, Link, Reject, State, SubmitError};

#[test]
fn the_greeting_survives_loss() {
    for seed in 0..50 {
        let faults = Faults { loss: 50, duplicate: 30, jitter: 30 * MS, ..Faults::default() };
        let mut world = World::new(seed, faults, [7, 9], [1400, 1400]);
        world.connect();
        world.hosts[0].submit(88).expect("records wait for the greeting");
        world.run(world.now + 20 * S);
        world.faults = Faults::default();
        world.run(world.now + 3 * S);
        world.assert_all_delivered();
    }
}

#[test]
fn one_end_alone_keeps_greeting_at_a_bounded_rate() {
    let mut world = World::new(1, Faults::default(), [0, 0], [1400, 1400]);
    world.tell(0);
    world.run(world.now + 60 * S);
    assert_eq!(world.hosts[0].link.state(), State::Connecting);
    assert!((55..75).contains(&world.sent), "{}", world.sent);
    assert_eq!(world.hosts[1].link.info().rejected, world.sent);
    // The other end's greeting is answered at once.
    world.tell(1);
    world.run(world.now + 2 * MS);
    world.assert_all_delivered();
}

#[test]
fn streams_and_runs_that_end_midway_leave_nothing_behind() {
    for seed in 1000..1080 {
        let mut rng = Rng(seed);
        let faults = Faults {
            loss: rng.below(20),
            duplicate: rng.below(20),
            replay: 5 + rng.below(20),
            delay: rng.below(3 * MS),
            jitter: rng.below(20 * MS),
            ..Faults::default()
        };
        let first = [rng.next() as u32, u32::MAX - 5];
        let mut world = World::new(seed, faults, first, [700, 1400]);
        world.connect();
        for _ in 0..120 {
            let index = rng.below(2) as usize;
            match rng.below(100) {
                0..=1 => world.reboot(index),
                2..=3 => world.flap(index),
                4..=10 => {
                    // Only now does this end's control plane hear of a reboot.
                    world.tell(index);
                }
                _ => {
                    let bytes = if rng.percent(10) { rng.below(5_000) } else { rng.below(200) };
                    let _ = world.hosts[index].submit(bytes as usize);
                    world.pump(index);
                }
            }
            world.run(world.now + rng.below(30 * MS));
        }
        world.tell(0);
        world.tell(1);
        world.faults = Faults { delay: faults.delay, ..Faults::default() };
        world.run(world.now + 12 * S);
        world.assert_all_delivered();
        for index in 0..2 {
            world.hosts[index].submit(100).expect("the link is up");
            world.pump(index);
        }
        world.run(world.now + S);
        world.assert_all_delivered();
    }
}

#[test]
fn a_reboot_is_not_believed_before_the_control_plane_tells() {
    let mut world = World::new(1, Faults::default(), [0, 0], [1400, 1400]);
    world.connect();
    world.run(world.now + 10 * MS);
    world.hosts[1].submit(88).expect("the link is up");
    world.reboot(1);
    let before = world.hosts[0].link.info().rejected;
    world.run(world.now + S);
    // Its greetings are dropped, and so are the frames that still go to its earlier run.
    assert!(world.hosts[0].link.info().rejected > before);
    assert!(world.hosts[1].link.info().rejected > 0);
    assert_eq!(world.hosts[1].link.state(), State::Connecting);
    assert_eq!(world.hosts[0].events, [Event::Up]);
    world.tell(0);
    world.run(world.now + 2 * MS);
    world.hosts[1].submit(88).expect("the link is up");
    world.pump(1);
    world.run(world.now + 2 * MS);
    world.assert_all_delivered();
}

#[test]
fn a_stream_given_up_resets_the_peer_at_once() {
    let mut world = World::new(1, Faults::default(), [0, 0], [1400, 1400]);
    world.connect();
    world.run(world.now + 10 * MS);
    world.hosts[0].link.peer_down();
    assert_eq!(world.hosts[0].link.submit(&[1]), Err(SubmitError::NotUp));
    world.pump(0);
    world.run(world.now + MS);
    assert_eq!(world.hosts[1].events, [Event::Up, Event::Reset]);
    assert_eq!(world.hosts[1].link.state(), State::Connecting);
    assert_eq!(world.hosts[0].link.state(), State::Down);
    world.tell(0);
    world.run(world.now + MS);
    world.assert_all_delivered();
}

#[test]
fn a_broken_link_stands_still_until_its_owner_acts() {
    let mut world = World::new(1, Faults::default(), [0, 0], [1400, 1400]);
    world.connect();
    world.run(world.now + 10 * MS);
    let now = world.now;
    let mut out = [0; 2048];
    world.hosts[0].link.peer_down();
    let bytes = world.hosts[0].link.poll_transmit(now, &mut out).expect("a reset is sent");
    let reset = Frame::decode(&out[..bytes]).expect("a frame");
    assert_eq!(reset.header.kind, Kind::Reset);
    let link = &mut world.hosts[1].link;
    link.on_frame(now, &reset).expect("it is for this stream");
    assert_eq!(link.state(), State::Broken);
    assert_eq!(link.submit(&[1]), Err(SubmitError::NotUp));
    assert_eq!(link.next_deadline(), None);
    assert_eq!(link.transmit_bytes(), None);
    assert_eq!(link.on_frame(now, &reset).err(), Some(Reject::Down));
    // An owner that forgot to poll still learns of the end.
    link.peer_up(now, incarnation(1));
    assert_eq!(link.state(), State::Connecting);
    assert_eq!(link.poll_event(), Some(Event::Reset));
    assert_eq!(link.poll_event(), None);
}

#[test]
fn repeated_news_of_the_same_run_changes_nothing() {
    let mut world = World::new(1, Faults::default(), [0, 0], [1400, 1400]);
    world.connect();
    world.run(world.now + 10 * MS);
    let sent = world.sent;
    world.connect();
    world.run(world.now + MS);
    assert_eq!(world.sent, sent);
    assert_eq!(world.hosts[0].link.state(), State::Up);
}

#[test]
fn a_greeting_of_an_earlier_stream_is_stale() {
    let mut links = pair([Versions::SUPPORTED; 2]);
    let mut out = [0; 2048];
    let bytes = links[0].poll_transmit(S, &mut out).expect("a hello");
    let old = Frame::decode(&out[..bytes]).expect("a frame");
    links[0].peer_down();
    links[0].peer_up(S, incarnation(1));
    exchange(&mut links);
    assert_eq!(links[1].on_frame(S, &old).err(), Some(Reject::Stale));
    assert_eq!(links.each_ref().map(Link::state), [State::Up, State::Up]);
    // A later one, of a stream that is not greeted with any more either, ends this one.
    let mut later = old;
    later.header.source.stream += 2;
    links[1].on_frame(S, &later).expect("it is later");
    assert_eq!(links[1].state(), State::Broken);
}

fn pair(versions: [Versions; 2]) -> [Link<Vecs>; 2] {
    [0usize, 1].map(|index| {
        let config =
            Config { versions: versions[index], ..config(index as u16, 1 - index as u16, 1) };
        let storage = Vecs { refuse_percent: 0, rng: Rng(0) };
        let mut link = Link::new(config, storage).unwrap_or_else(|_| panic!("slots"));
        link.attach(S, 1400).expect("long enough");
        link.peer_up(S, incarnation(1));
        link
    })
}

fn exchange(links: &mut [Link<Vecs>; 2]) {
    let mut out = [0; 2048];
    loop {
        let mut quiet = true;
        for index in 0..2 {
            while let Some(bytes) = links[index].poll_transmit(S, &mut out) {
                quiet = false;
                let frame = Frame::decode(&out[..bytes]).expect("a frame");
                let _ = links[1 - index].on_frame(S, &frame);
            }
        }
        if quiet {
            return;
        }
    }
}

#[test]
fn versions_are_negotiated() {
    let Versions { min, max } = Versions::SUPPORTED;
    // Every pair of ranges that have something in common, the neighbours' included.
    for (theirs, newest) in [
        (Versions { min, max: max + 1 }, max),
        (Versions { min: max, max: max + 1 }, max),
        (Versions::up_to(min), min),
        (Versions::SUPPORTED, max),
    ] {
        let mut links = pair([Versions::SUPPORTED, theirs]);
        exchange(&mut links);
        assert_eq!(links.each_ref().map(Link::state), [State::Up, State::Up]);
        links[0].submit(&[1, 2, 3]).expect("the link is up");
        let mut out = [0; 2048];
        let bytes = links[0].poll_transmit(S, &mut out).expect("data");
        let frame = Frame::decode(&out[..bytes]).expect("a frame");
        assert_eq!(frame.header.version, newest);
        assert_eq!(links[1].on_frame(S, &frame).expect("it is good").count(), 1);
    }

    let mut links = pair([Versions::SUPPORTED, Versions { min: max + 1, max: max + 2 }]);
    exchange(&mut links);
    assert_eq!(links.each_ref().map(Link::state), [State::Connecting, State::Connecting]);
    for link in &mut links {
        assert_eq!(link.poll_event(), Some(Event::Incompatible));
        assert_eq!(link.info().rejected, 1);
    }
}

#[test]
fn frames_of_others_are_dropped_and_counted() {
    let mut links = pair([Versions::SUPPORTED; 2]);
    exchange(&mut links);
    links[0].submit(&[1, 2, 3]).expect("the link is up");
    let mut out = [0; 2048];
    let bytes = links[0].poll_transmit(S, &mut out).expect("data");
    let good = Frame::decode(&out[..bytes]).expect("a frame");
    let link = &mut links[1];
    let mut expected = link.info().rejected;
    let mut refuse = |change: &dyn Fn(&mut Header), reason: Reject| {
        let mut frame = good;
        change(&mut frame.header);
        assert_eq!(link.on_frame(S, &frame).err(), Some(reason));
        expected += 1;
        assert_eq!(link.info().rejected, expected);
        assert_eq!(link.state(), State::Up);
    };
    refuse(&|header| header.cluster ^= 1, Reject::Address);
    refuse(&|header| header.source.node = 5, Reject::Address);
    refuse(&|header| header.destination.node = 5, Reject::Address);
    refuse(&|header| header.source.incarnation += 1, Reject::Unknown);
    refuse(&|header| header.source.incarnation -= 1, Reject::Stale);
    refuse(&|header| header.destination.incarnation += 1, Reject::Unknown);
    refuse(&|header| header.destination.incarnation -= 1, Reject::Stale);
    refuse(&|header| header.source.stream += 1, Reject::Unknown);
    refuse(&|header| header.source.stream -= 1, Reject::Stale);
    refuse(&|header| header.destination.stream += 1, Reject::Unknown);
    refuse(&|header| header.destination.stream -= 1, Reject::Stale);
    refuse(&|header| header.version = 1, Reject::Version);
    refuse(&|header| header.ack += 1, Reject::Acknowledgement);
    refuse(&|header| header.sequence += 64, Reject::Window);
    let chunks: Vec<_> = links[1].on_frame(S, &good).expect("it is good").collect();
    assert_eq!(chunks.len(), 1);
    assert_eq!(chunks[0].data, [1, 2, 3]);
}

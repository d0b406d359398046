// SPDX-License-Identifier: GPL-2.0 OR MIT
//! The rules of the rendezvous, one example each.

mod model;

use dvk_core::abi::errno::Errno;
use dvk_core::abi::ioctl::{HOW_NOTIFY, HOW_REPLY, HOW_REQUEST, HOW_SEND};
use dvk_core::abi::wire::record::Step;
use dvk_core::abi::Endpoint;
use dvk_core::port::{
    Answer, Cancel, Effect, Filter, Mode, Outcome, Peer, PeerCall, Port, Receive, NOTICES,
};
use model::{counts, endpoint, number_of, numbered, queues, refuse_allocation_after, TestStorage};

const ANYBODY: Filter = Filter { from: None, requests_only: false };
const REQUESTS: Filter = Filter { from: None, requests_only: true };
const NOTHING: Effect = Effect { wake: false, readable: false, answer: None };

/// A peer in `slot` on node 1; the port under test is on node 0.
fn peer(slot: u32) -> Peer {
    Peer { endpoint: endpoint(slot, 1), node: 1 }
}

fn only(peer: Peer) -> Filter {
    Filter { from: Some(peer), requests_only: false }
}

fn port() -> Port<TestStorage> {
    Port::new(endpoint(64, 1))
}

fn send(call: u32, number: u64) -> Step {
    Step::Send { call, message: numbered(number) }
}

fn request(call: u32, number: u64) -> Step {
    Step::Request { call, message: numbered(number) }
}

/// Receives what is there already: the number it says (or its bits), its source and how it came.
fn take(port: &mut Port<TestStorage>, filter: Filter) -> (u64, Endpoint, u32) {
    match port.begin_receive(filter) {
        Ok(Receive::Done { how, .. }) => {
            let message = *port.message();
            let said = message.notify_bits().unwrap_or_else(|| number_of(&message));
            (said, message.source(), how)
        }
        other => panic!("nothing to receive: {other:?}"),
    }
}

fn wait(port: &mut Port<TestStorage>, filter: Filter) -> u32 {
    match port.begin_receive(filter) {
        Ok(Receive::Wait { call }) => call,
        other => panic!("did not have to wait: {other:?}"),
    }
}

fn failed(error: Errno) -> Option<Outcome> {
    Some(Outcome::Failed(error))
}

fn answered(effect: Effect) -> Option<Answer> {
    effect.answer
}

#[test]
fn a_send_to_a_waiting_receiver_is_over_at_once() {
    let (mut sender, mut receiver) = (port(), Port::<TestStorage>::new(endpoint(65, 1)));
    wait(&mut receiver, ANYBODY);
    let to = Peer { endpoint: receiver.endpoint(), node: 0 };
    let from = Peer { endpoint: sender.endpoint(), node: 0 };
    let call = sender.begin_send(to, Mode::Send).unwrap();
    let effect = receiver.apply(from, &send(call, 5));
    assert_eq!(effect, Effect { wake: true, readable: false, answer: Some(Answer::Accepted) });
    assert!(sender.apply(to, &Answer::Accepted.step(call).unwrap()).wake);
    assert_eq!(sender.collect(), Some(Outcome::Sent));
    let Some(Outcome::Received { how }) = receiver.collect() else { panic!() };
    let message = receiver.message();
    assert_eq!((number_of(message), message.source(), how), (5, from.endpoint, HOW_SEND));
    assert_eq!((counts(&sender), counts(&receiver)), ((0, 1), (1, 0)));
}

#[test]
fn a_send_to_a_busy_receiver_waits_until_it_is_received() {
    let mut receiver = port();
    let effect = receiver.apply(peer(1), &send(9, 5));
    assert_eq!(effect, Effect { readable: true, ..NOTHING });
    assert!(receiver.is_readable());
    let Ok(Receive::Done { accepted, .. }) = receiver.begin_receive(ANYBODY) else { panic!() };
    assert_eq!(accepted, Some(PeerCall { peer: peer(1), call: 9 }));
    assert!(!receiver.is_readable());
}

#[test]
fn the_source_is_who_sent_it_whatever_the_message_says() {
    let mut receiver = port();
    let mut message = numbered(1);
    message.source = endpoint(3, 3).raw();
    receiver.apply(peer(1), &Step::Send { call: 1, message });
    assert_eq!(take(&mut receiver, ANYBODY).1, peer(1).endpoint);
    let call = receiver.begin_send(peer(2), Mode::Request).unwrap();
    receiver.apply(peer(2), &Step::Reply { call, message });
    let Some(Outcome::Received { .. }) = receiver.collect() else { panic!() };
    let message = receiver.message();
    assert_eq!(message.source(), peer(2).endpoint);
}

#[test]
fn messages_are_received_in_the_order_in_which_they_came() {
    let mut receiver = port();
    for slot in [3, 1, 2] {
        receiver.apply(peer(slot), &send(1, u64::from(slot)));
    }
    let received: Vec<u64> = (0..3).map(|_| take(&mut receiver, ANYBODY).0).collect();
    assert_eq!(received, [3, 1, 2]);
}

#[test]
fn a_specific_receive_yields_no_other_message_and_no_other_notify() {
    let mut receiver = port();
    receiver.apply(peer(1), &send(1, 10));
    receiver.apply(peer(1), &Step::Notify { bits: 1 });
    let call = wait(&mut receiver, only(peer(2)));
    assert_eq!(call, 1);
    assert!(!receiver.apply(peer(3), &Step::Notify { bits: 2 }).wake);
    assert!(!receiver.apply(peer(3), &request(1, 30)).wake);
    assert!(receiver.apply(peer(2), &Step::Notify { bits: 4 }).wake);
    let Some(Outcome::Received { how }) = receiver.collect() else { panic!() };
    let message = receiver.message();
    assert_eq!((message.notify_bits(), how), (Some(4), HOW_NOTIFY));
}

#[test]
fn receive_request_leaves_sends_and_notifies_for_later() {
    let mut receiver = port();
    receiver.apply(peer(1), &send(1, 10));
    receiver.apply(peer(1), &Step::Notify { bits: 1 });
    wait(&mut receiver, REQUESTS);
    assert!(!receiver.apply(peer(2), &send(1, 20)).wake);
    assert!(!receiver.apply(peer(2), &Step::Notify { bits: 2 }).wake);
    assert!(receiver.apply(peer(3), &request(1, 30)).wake);
    let Some(Outcome::Received { how }) = receiver.collect() else { panic!() };
    assert_eq!(how, HOW_REQUEST);
    let rest: Vec<_> = (0..4).map(|_| take(&mut receiver, ANYBODY)).map(|r| (r.0, r.2)).collect();
    assert_eq!(rest, [(1, HOW_NOTIFY), (2, HOW_NOTIFY), (10, HOW_SEND), (20, HOW_SEND)]);
}

#[test]
fn a_request_is_answered_once_by_the_one_who_received_it() {
    let mut server = port();
    let client = peer(1);
    assert_eq!(server.reply(client.endpoint), Err(Errno::WouldBlock), "it never asked");
    server.apply(client, &request(4, 10));
    assert_eq!(server.reply(client.endpoint), Err(Errno::WouldBlock), "not received yet");
    take(&mut server, ANYBODY);
    assert_eq!(queues(&server), (0, 1));
    assert_eq!(server.reply(client.endpoint), Ok(PeerCall { peer: client, call: 4 }));
    assert_eq!(server.reply(client.endpoint), Err(Errno::WouldBlock), "answered already");
}

#[test]
fn a_reply_ends_sendrec_and_nothing_else_does() {
    let mut client = port();
    let call = client.begin_send(peer(1), Mode::Request).unwrap();
    client.apply(peer(1), &Step::Notify { bits: 1 });
    client.apply(peer(1), &send(1, 11));
    assert_eq!(client.apply(peer(1), &Step::Accepted { call }), NOTHING);
    assert!(!client.is_done());
    assert!(client.apply(peer(1), &Step::Reply { call, message: numbered(12) }).wake);
    let Some(Outcome::Received { how }) = client.collect() else { panic!() };
    let message = client.message();
    assert_eq!((number_of(message), how), (12, HOW_REPLY));
    assert_eq!(take(&mut client, ANYBODY).2, HOW_NOTIFY);
    assert_eq!(take(&mut client, ANYBODY).0, 11);
}

#[test]
fn notify_bits_are_merged_per_source_until_they_are_delivered() {
    let mut receiver = port();
    assert!(receiver.apply(peer(1), &Step::Notify { bits: 1 }).readable);
    receiver.apply(peer(2), &Step::Notify { bits: 2 });
    assert_eq!(receiver.apply(peer(1), &Step::Notify { bits: 4 }), NOTHING);
    assert_eq!(take(&mut receiver, ANYBODY), (5, peer(1).endpoint, HOW_NOTIFY));
    assert_eq!(take(&mut receiver, ANYBODY), (2, peer(2).endpoint, HOW_NOTIFY));
    wait(&mut receiver, ANYBODY);
}

#[test]
fn pending_notifications_are_bounded() {
    let mut receiver = port();
    for slot in 0..NOTICES as u32 {
        assert_eq!(answered(receiver.apply(peer(slot), &Step::Notify { bits: 1 })), None);
    }
    let more = receiver.apply(peer(NOTICES as u32), &Step::Notify { bits: 1 });
    assert_eq!(answered(more), Some(Answer::Failed(Errno::Limit)));
    assert_eq!(answered(receiver.apply(peer(0), &Step::Notify { bits: 2 })), None, "merged");
}

#[test]
fn one_call_at_a_time() {
    let mut port = port();
    let call = port.begin_send(peer(1), Mode::Send).unwrap();
    assert_eq!(port.begin_receive(ANYBODY), Err(Errno::Busy));
    port.apply(peer(1), &Step::Accepted { call });
    assert_eq!(port.begin_send(peer(1), Mode::Send), Err(Errno::Busy), "not collected yet");
    assert_eq!(port.collect(), Some(Outcome::Sent));
    assert_eq!(port.collect(), None);
    assert_eq!(port.begin_send(peer(1), Mode::Send), Ok(call + 1));
}

#[test]
fn a_send_to_oneself_is_a_deadlock() {
    let mut port = port();
    let me = Peer { endpoint: port.endpoint(), node: 0 };
    assert_eq!(port.begin_send(me, Mode::Request), Err(Errno::Deadlock));
    wait(&mut port, ANYBODY);
}

#[test]
fn a_send_given_up_in_time_was_never_received() {
    let (mut sender, mut receiver) = (port(), Port::<TestStorage>::new(endpoint(65, 1)));
    let to = Peer { endpoint: receiver.endpoint(), node: 0 };
    let from = Peer { endpoint: sender.endpoint(), node: 0 };
    let call = sender.begin_send(to, Mode::Send).unwrap();
    receiver.apply(from, &send(call, 1));
    assert_eq!(sender.cancel(Errno::TimedOut), Cancel::Ask(PeerCall { peer: to, call }));
    assert!(!sender.is_done(), "the peer has the last word");
    let effect = receiver.apply(from, &Step::Cancel { call });
    assert_eq!(answered(effect), Some(Answer::Cancelled));
    assert!(!receiver.is_readable());
    assert!(sender.apply(to, &Answer::Cancelled.step(call).unwrap()).wake);
    assert_eq!(sender.collect(), failed(Errno::TimedOut));
}

#[test]
fn a_send_given_up_too_late_was_sent() {
    let mut sender = port();
    let call = sender.begin_send(peer(1), Mode::Send).unwrap();
    sender.cancel(Errno::TimedOut);
    sender.apply(peer(1), &Step::Accepted { call });
    assert_eq!(sender.collect(), Some(Outcome::Sent));
    let mut receiver = port();
    receiver.apply(peer(1), &send(1, 1));
    take(&mut receiver, ANYBODY);
    assert_eq!(receiver.apply(peer(1), &Step::Cancel { call: 1 }), NOTHING);
}

#[test]
fn a_request_given_up_while_it_is_served_can_no_longer_be_answered() {
    let mut server = port();
    server.apply(peer(1), &request(1, 1));
    take(&mut server, ANYBODY);
    let effect = server.apply(peer(1), &Step::Cancel { call: 1 });
    assert_eq!(answered(effect), Some(Answer::Cancelled));
    assert_eq!(server.reply(peer(1).endpoint), Err(Errno::WouldBlock));
}

#[test]
fn a_reply_on_its_way_beats_giving_up() {
    let mut client = port();
    let call = client.begin_send(peer(1), Mode::Request).unwrap();
    client.cancel(Errno::Interrupted);
    client.apply(peer(1), &Step::Reply { call, message: numbered(3) });
    assert_eq!(client.apply(peer(1), &Step::Cancelled { call }), NOTHING);
    assert!(matches!(client.collect(), Some(Outcome::Received { how: HOW_REPLY })));
}

#[test]
fn giving_up_a_receive_needs_nobody() {
    let mut port = port();
    wait(&mut port, only(peer(1)));
    assert_eq!(port.cancel(Errno::TimedOut), Cancel::Over(Outcome::Failed(Errno::TimedOut)));
    assert_eq!(port.cancel(Errno::TimedOut), Cancel::Nothing);
    wait(&mut port, ANYBODY);
    port.apply(peer(1), &send(1, 1));
    let over = port.cancel(Errno::TimedOut);
    assert!(matches!(over, Cancel::Over(Outcome::Received { .. })), "it came in time");
}

#[test]
fn nobody_confirms_a_cancel_that_was_not_sent() {
    let mut client = port();
    let call = client.begin_send(peer(1), Mode::Send).unwrap();
    assert_eq!(client.apply(peer(1), &Step::Cancelled { call }), NOTHING);
    assert!(!client.is_done());
}

#[test]
fn an_abandoned_call_leaves_the_port_free_and_its_answer_without_effect() {
    let mut client = port();
    let old = client.begin_send(peer(1), Mode::Request).unwrap();
    client.cancel(Errno::Interrupted);
    client.abandon();
    let new = client.begin_send(peer(1), Mode::Request).unwrap();
    assert_eq!(client.apply(peer(1), &Step::Reply { call: old, message: numbered(1) }), NOTHING);
    assert_eq!(client.apply(peer(1), &Step::Cancelled { call: old }), NOTHING);
    assert!(client.apply(peer(1), &Step::Reply { call: new, message: numbered(2) }).wake);
}

#[test]
fn only_the_peer_of_the_call_on_its_node_can_end_it() {
    let mut client = port();
    let call = client.begin_send(peer(1), Mode::Request).unwrap();
    let reply = |call| Step::Reply { call, message: numbered(0) };
    let error = Errno::OwnerDead;
    let elsewhere = Peer { node: 2, ..peer(1) };
    let successor = Peer { endpoint: endpoint(1, 2), node: 1 };
    for forger in [peer(2), elsewhere, successor] {
        assert_eq!(client.apply(forger, &reply(call)), NOTHING);
        assert_eq!(client.apply(forger, &Step::Failed { call, error }), NOTHING);
    }
    for other in [call - 1, call + 1] {
        assert_eq!(client.apply(peer(1), &reply(other)), NOTHING);
        assert_eq!(client.apply(peer(1), &Step::Failed { call: other, error }), NOTHING);
    }
    assert!(!client.is_done());
}

#[test]
fn only_the_awaited_source_can_fail_a_specific_receive() {
    let mut port = port();
    let call = wait(&mut port, only(peer(1)));
    let error = Errno::OwnerDead;
    assert_eq!(port.apply(peer(2), &Step::Failed { call, error }), NOTHING);
    let elsewhere = Peer { node: 2, ..peer(1) };
    assert_eq!(port.apply(elsewhere, &Step::Failed { call, error }), NOTHING);
    assert_eq!(port.apply(peer(1), &Step::Failed { call: call - 1, error }), NOTHING);
    assert!(port.apply(peer(1), &Step::Failed { call, error }).wake);
    assert_eq!(port.collect(), failed(error));
    let call = wait(&mut port, ANYBODY);
    assert_eq!(port.apply(peer(1), &Step::Failed { call, error }), NOTHING, "others may send");
}

#[test]
fn only_the_sender_can_withdraw_its_message() {
    let mut server = port();
    server.apply(peer(1), &request(3, 1));
    let elsewhere = Peer { node: 2, ..peer(1) };
    for (who, call) in [(peer(2), 3), (elsewhere, 3), (peer(1), 2)] {
        assert_eq!(server.apply(who, &Step::Cancel { call }), NOTHING);
    }
    assert_eq!(queues(&server), (1, 0));
}

#[test]
fn a_later_call_of_a_peer_replaces_what_is_left_of_an_earlier_one() {
    let mut server = port();
    // Its call 1 was received, then ended by a link that was down; its call 2 is the open one.
    server.apply(peer(1), &request(1, 10));
    take(&mut server, ANYBODY);
    server.apply(peer(1), &request(2, 20));
    assert_eq!(queues(&server), (1, 0));
    assert_eq!(take(&mut server, ANYBODY).0, 20);
    assert_eq!(server.reply(peer(1).endpoint), Ok(PeerCall { peer: peer(1), call: 2 }));
}

#[test]
fn a_peer_that_does_not_wait_cannot_fill_the_queues() {
    let mut server = port();
    for call in 0..1000 {
        let hostile = Peer { endpoint: endpoint(1, call + 1), node: 1 };
        server.apply(hostile, &request(call, 1));
        server.apply(hostile, &send(call + 1, 2));
        server.apply(hostile, &Step::Watch { call });
        if call % 3 == 0 {
            take(&mut server, ANYBODY);
        }
        assert!(queues(&server).0 + queues(&server).1 <= 1);
    }
    server.kill();
    assert!(std::iter::from_fn(|| server.next_bereaved()).count() <= 2);
}

#[test]
fn a_late_step_of_a_dead_generation_does_not_replace_its_successors() {
    let mut server = port();
    let (old, new) = (peer(1), Peer { endpoint: endpoint(1, 2), node: 1 });
    server.apply(new, &request(1, 20));
    let stale = Some(Answer::Failed(Errno::Stale));
    assert_eq!(answered(server.apply(old, &request(9, 10))), stale);
    assert_eq!(take(&mut server, ANYBODY).0, 20);
    assert_eq!(answered(server.apply(old, &send(9, 10))), stale, "while it is served, too");
    server.apply(new, &Step::Watch { call: 2 });
    assert_eq!(answered(server.apply(old, &Step::Watch { call: 9 })), stale);
    assert_eq!(server.reply(new.endpoint), Ok(PeerCall { peer: new, call: 1 }));
}

#[test]
fn everybody_who_waits_for_the_dead_is_told() {
    let mut port = port();
    port.apply(peer(1), &request(1, 1));
    take(&mut port, ANYBODY);
    port.apply(peer(2), &send(2, 2));
    port.apply(peer(3), &Step::Watch { call: 3 });
    port.apply(peer(3), &Step::Watch { call: 4 });
    port.apply(peer(4), &Step::Notify { bits: 1 });
    let open = port.begin_send(peer(5), Mode::Request).unwrap();
    assert_eq!(port.kill(), (true, Some(PeerCall { peer: peer(5), call: open })));
    let mut told: Vec<_> = std::iter::from_fn(|| port.next_bereaved())
        .map(|c| (c.peer.endpoint.slot(), c.call))
        .collect();
    told.sort_unstable();
    assert_eq!(told, [(1, 1), (2, 2), (3, 4)]);
    assert_eq!(port.collect(), failed(Errno::OwnerDead));
}

#[test]
fn the_dead_take_no_step_and_no_call() {
    let mut port = port();
    wait(&mut port, ANYBODY);
    assert_eq!(port.kill(), (true, None));
    assert_eq!(port.collect(), failed(Errno::OwnerDead));
    let stale = Some(Answer::Failed(Errno::Stale));
    let steps = [send(1, 1), request(1, 1), Step::Watch { call: 1 }, Step::Notify { bits: 1 }];
    for step in &steps {
        assert_eq!(port.apply(peer(1), step), Effect { answer: stale, ..NOTHING });
    }
    assert_eq!(port.begin_send(peer(1), Mode::Send), Err(Errno::NotConnected));
    assert_eq!(port.begin_receive(ANYBODY), Err(Errno::NotConnected));
    assert_eq!(port.reply(peer(1).endpoint), Err(Errno::NotConnected));
    assert_eq!(port.next_bereaved(), None);
    assert_eq!(port.kill(), (false, None));
}

#[test]
fn a_message_that_came_before_death_is_still_collected() {
    let mut port = port();
    wait(&mut port, ANYBODY);
    port.apply(peer(1), &send(1, 5));
    assert_eq!(port.kill(), (false, None));
    assert!(matches!(port.collect(), Some(Outcome::Received { how: HOW_SEND })));
}

#[test]
fn a_node_that_goes_down_takes_its_calls_along_and_ends_those_to_it() {
    let there = |slot| Peer { endpoint: endpoint(slot, 1), node: 2 };
    let mut server = port();
    for slot in [1, 2] {
        server.apply(there(slot), &request(1, 1));
        server.apply(peer(slot + 10), &request(1, 1));
    }
    take(&mut server, ANYBODY);
    take(&mut server, ANYBODY);
    server.apply(there(3), &Step::Watch { call: 1 });
    assert!(!server.node_down(2));
    assert_eq!(queues(&server), (1, 1));
    assert_eq!(server.reply(there(1).endpoint), Err(Errno::WouldBlock));

    for mode in [Mode::Send, Mode::Request] {
        server.begin_send(there(1), mode).unwrap();
        assert!(!server.node_down(3));
        assert!(server.node_down(2));
        assert_eq!(server.collect(), failed(Errno::NodeDown));
        server.begin_send(there(1), mode).unwrap();
        server.cancel(Errno::TimedOut);
        assert!(server.node_down(2));
        assert_eq!(server.collect(), failed(Errno::NodeDown));
    }
    wait(&mut server, only(there(1)));
    assert!(!server.node_down(3));
    assert!(server.node_down(2));
    assert_eq!(server.collect(), failed(Errno::NodeDown));

    server.kill();
    let slots = std::iter::from_fn(|| server.next_bereaved()).map(|c| c.peer.endpoint.slot());
    assert_eq!(slots.collect::<Vec<_>>(), [12, 11], "the watcher on node 2 is gone");
}

#[test]
fn a_call_whose_step_could_not_be_given_fails_unless_it_is_over() {
    let mut port = port();
    let call = port.begin_send(peer(1), Mode::Send).unwrap();
    assert!(!port.fail(call - 1, Errno::NodeDown));
    assert!(port.fail(call, Errno::NodeDown));
    assert!(!port.fail(call, Errno::Stale));
    assert_eq!(port.collect(), failed(Errno::NodeDown));
    assert!(!port.fail(call, Errno::Stale));
    let call = wait(&mut port, only(peer(1)));
    assert!(port.fail(call, Errno::NoEndpoint));
    assert_eq!(port.collect(), failed(Errno::NoEndpoint));
}

#[test]
fn running_out_of_memory_is_told_and_loses_nothing() {
    let mut port = port();
    let no_memory = Some(Answer::Failed(Errno::NoMemory));
    let steps = [send(1, 1), request(1, 1), Step::Watch { call: 1 }, Step::Notify { bits: 1 }];
    for step in &steps {
        refuse_allocation_after(0);
        assert_eq!(port.apply(peer(1), step), Effect { answer: no_memory, ..NOTHING });
    }
    wait(&mut port, ANYBODY);
    refuse_allocation_after(0);
    assert_eq!(port.apply(peer(1), &request(2, 1)), Effect { answer: no_memory, ..NOTHING });
    assert!(!port.is_done(), "it goes on waiting");
    port.cancel(Errno::TimedOut);

    port.apply(peer(1), &request(3, 30));
    refuse_allocation_after(0);
    assert_eq!(port.begin_receive(ANYBODY), Err(Errno::NoMemory));
    assert_eq!(take(&mut port, ANYBODY).0, 30);
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! Servers of a declared protocol, driven step by step and by clients in the same process. No
//! kernel is involved.

use core::num::NonZeroU32;
use dvk::protocol::{
    read_reply, Answer, Caller, Reply::Later, Reply::Now, Request, CODE_MALFORMED, CODE_NO_REPLY,
    CODE_UNKNOWN,
};
use dvk::{
    CallError, Endpoint, Errno, How, Ipc, Message, Payload, PayloadError, Received, Then, Timeout,
};
use std::cell::RefCell;

dvk::error_codes! {
    /// Why a queue does not do it.
    pub enum QueueError {
        /// There is no room.
        Full = 1, "the queue is full";
        /// It has no readers.
        Closed = 7, "the queue is closed";
    }
}

dvk::payload! {
    /// How a queue is.
    pub struct State {
        /// Numbers in it.
        pub length: u32,
        /// Whether it takes more.
        pub open: bool,
    }
}

dvk::protocol! {
    /// A queue of numbers.
    pub trait Queue: client QueueClient, error QueueError {
        /// Appends a number.
        fn push(Push = 0x401 {
            /// The number.
            value: u64,
            /// Whether to close the queue behind it.
            last: bool,
        }) -> ();
        /// Takes the first number, as soon as there is one.
        fn pop(Pop = 0x402 {}) -> u64;
        /// How the queue is.
        fn state(GetState = 0x403 {}) -> State;
    }
    send {
        /// Removes all numbers.
        fn clear(Clear = 0x404 {});
    }
}

dvk::protocol! {
    /// What any server answers.
    trait Presence: client PresenceClient, error Errno {
        /// Gives the number back.
        fn ping(Ping = 0x10 { number: u16 }) -> u16;
    }
}

#[derive(Default)]
struct Numbers {
    numbers: Vec<u64>,
    closed: bool,
    waiting: Vec<Caller<Pop>>,
    late: Vec<(Endpoint, Message)>,
    notified: Vec<(Endpoint, u64)>,
}

impl Queue for Numbers {
    fn push(&mut self, _: Caller<Push>, push: Push) -> Answer<Push> {
        if self.closed {
            return Err(QueueError::Closed);
        }
        match self.waiting.pop() {
            Some(caller) => self.late.push(caller.answer(Ok(push.value))),
            None if self.numbers.len() == 2 => return Err(QueueError::Full),
            None => self.numbers.push(push.value),
        }
        self.closed = push.last;
        Ok(Now(()))
    }

    fn pop(&mut self, from: Caller<Pop>, _: Pop) -> Answer<Pop> {
        if self.numbers.is_empty() {
            self.waiting.push(from);
            return Ok(Later);
        }
        Ok(Now(self.numbers.remove(0)))
    }

    fn state(&mut self, _: Caller<GetState>, _: GetState) -> Answer<GetState> {
        Ok(Now(State { length: self.numbers.len() as u32, open: !self.closed }))
    }

    fn clear(&mut self, _: Endpoint, _: Clear) {
        self.numbers.clear();
    }

    fn notified(&mut self, from: Endpoint, bits: u64) {
        self.notified.push((from, bits));
    }
}

impl Presence for Numbers {
    fn ping(&mut self, _: Caller<Ping>, ping: Ping) -> Answer<Ping> {
        Ok(Now(ping.number))
    }
}

fn peer(slot: u32) -> Endpoint {
    Endpoint::new(slot, NonZeroU32::MIN)
}

fn received(message: Message, how: How) -> Received {
    Received { message: Message { source: peer(70).raw(), ..message }, how }
}

fn step(server: &mut Numbers, message: Message, how: How) -> Then {
    Queue::handle(server, &received(message, how))
}

/// The result of a request that is answered at once.
fn ask<R: Request>(server: &mut Numbers, request: R) -> Result<R::Reply, CallError<R::Error, ()>> {
    match step(server, request.message(), How::Request) {
        Then::Reply(reply) => read_reply::<R, ()>(peer(3), &reply),
        then => panic!("{then:?} instead of a reply"),
    }
}

#[test]
fn a_request_is_answered_with_its_result() {
    let mut server = Numbers::default();
    assert_eq!(ask(&mut server, Push { value: 8, last: false }), Ok(()));
    assert_eq!(ask(&mut server, GetState {}), Ok(State { length: 1, open: true }));
    assert_eq!(ask(&mut server, Pop {}), Ok(8));
}

#[test]
fn an_error_of_the_protocol_reaches_the_client() {
    let mut server = Numbers::default();
    assert_eq!(ask(&mut server, Push { value: 1, last: true }), Ok(()));
    let error = ask(&mut server, Push { value: 2, last: true }).unwrap_err();
    assert_eq!(error.refusal(), Some(QueueError::Closed));
    let error = CallError::<_, Errno>::Refused {
        request: "push",
        server: peer(3),
        error: QueueError::Closed,
    };
    assert_eq!(error.to_string(), "`push` was refused by 3.1: the queue is closed");
}

#[test]
fn the_layout_of_a_reply_is_fixed() {
    let mut server = Numbers { numbers: vec![0x0102], closed: true, ..Numbers::default() };
    let Then::Reply(reply) = step(&mut server, Message::new(0x403), How::Request) else {
        panic!("no reply");
    };
    assert_eq!((reply.kind, reply.flags, &reply.payload[..6]), (0x403, 0, &[1, 0, 0, 0, 0, 0][..]));
    let Then::Reply(reply) = step(&mut server, Message::new(0x401), How::Request) else {
        panic!("no reply");
    };
    assert_eq!(reply, Message { flags: 7, ..Message::new(0x401) });
}

#[test]
fn a_request_can_be_answered_later() {
    let mut server = Numbers::default();
    assert_eq!(step(&mut server, Pop {}.message(), How::Request), Then::Continue);
    assert_eq!(ask(&mut server, Push { value: 5, last: false }), Ok(()));
    let [(to, reply)] = server.late[..] else { panic!("{:?}", server.late) };
    assert_eq!(to, peer(70));
    assert_eq!(read_reply::<Pop, ()>(peer(3), &reply), Ok(5));
}

#[test]
fn an_unknown_request_is_refused() {
    let mut server = Numbers::default();
    let refused = Message { flags: CODE_UNKNOWN, ..Message::new(0x999) };
    assert_eq!(step(&mut server, Message::new(0x999), How::Request), Then::Reply(refused));
    assert_eq!(step(&mut server, Message::new(0x999), How::Send), Then::Continue);
    let reply = Message { flags: CODE_UNKNOWN, ..Message::new(Pop::KIND) };
    let error = read_reply::<Pop, Errno>(peer(3), &reply).unwrap_err();
    assert!(error.to_string().starts_with("`pop` was refused by 3.1: it does not know"), "{error}");
}

#[test]
fn a_field_without_a_value_is_refused() {
    let mut message = Push { value: 0, last: false }.message();
    message.payload[8] = 2;
    let then = step(&mut Numbers::default(), message, How::Request);
    assert_eq!(then, Then::Reply(Message { flags: CODE_MALFORMED, ..Message::new(Push::KIND) }));
}

#[test]
fn a_request_that_nobody_waits_for_is_dropped() {
    let mut server = Numbers::default();
    let push = Push { value: 1, last: false }.message();
    assert_eq!(step(&mut server, push, How::Send), Then::Continue);
    assert!(server.numbers.is_empty());
}

#[test]
fn a_message_without_reply_is_sent_and_not_called() {
    let mut server = Numbers { numbers: vec![1], ..Numbers::default() };
    let refused = Message { flags: CODE_NO_REPLY, ..Message::new(Clear::KIND) };
    assert_eq!(step(&mut server, Clear {}.message(), How::Request), Then::Reply(refused));
    assert_eq!(server.numbers, [1]);
    assert_eq!(step(&mut server, Clear {}.message(), How::Send), Then::Continue);
    assert!(server.numbers.is_empty());
}

#[test]
fn a_notification_is_known_by_how_it_was_sent() {
    let mut server = Numbers::default();
    let message = Message::notification(peer(70), 6);
    assert_eq!(step(&mut server, message, How::Notify), Then::Continue);
    assert_eq!(step(&mut server, message, How::Send), Then::Continue);
    assert_eq!(server.notified, [(peer(70), 6)]);
}

#[test]
fn a_server_may_have_several_protocols() {
    let mut server = Numbers::default();
    let mut both = |message, how| {
        let received = received(message, how);
        Presence::dispatch(&mut server, &received)
            .unwrap_or_else(|| server_of(&mut server, &received))
    };
    fn server_of(server: &mut Numbers, received: &Received) -> Then {
        Queue::handle(server, received)
    }
    let Then::Reply(reply) = both(Ping { number: 9 }.message(), How::Request) else {
        panic!("no reply");
    };
    assert_eq!(read_reply::<Ping, ()>(peer(3), &reply), Ok(9));
    assert!(matches!(both(GetState {}.message(), How::Request), Then::Reply(_)));
}

#[test]
fn a_reply_to_something_else_is_no_result() {
    let error = read_reply::<Pop, Errno>(peer(3), &Message::new(0x401)).unwrap_err();
    let wrong = PayloadError::Kind { expected: 0x402, found: 0x401 };
    assert_eq!(error, CallError::Reply { request: "pop", server: peer(3), error: wrong });
    let reply = Message { flags: 99, ..Message::new(Pop::KIND) };
    let error = read_reply::<Pop, Errno>(peer(3), &reply).unwrap_err();
    assert_eq!(error.to_string(), "`pop` was refused by 3.1: unknown error 0x63");
}

/// A server in the process of its client, which has one client at a time.
struct InProcess(RefCell<Numbers>);

impl Ipc for InProcess {
    type Error = Errno;

    fn send(&self, _: Endpoint, message: &Message, _: Timeout) -> Result<(), Errno> {
        step(&mut self.0.borrow_mut(), *message, How::Send);
        Ok(())
    }

    fn sendrec(&self, to: Endpoint, message: &Message, _: Timeout) -> Result<Message, Errno> {
        if to != peer(3) {
            return Err(Errno::NoEndpoint);
        }
        match step(&mut self.0.borrow_mut(), *message, How::Request) {
            Then::Reply(reply) => Ok(reply),
            Then::Continue | Then::Stop => Err(Errno::Deadlock),
        }
    }

    fn reply(&self, _: Endpoint, _: &Message) -> Result<(), Errno> {
        Err(Errno::WouldBlock)
    }

    fn notify(&self, _: Endpoint, bits: u64) -> Result<(), Errno> {
        step(&mut self.0.borrow_mut(), Message::notification(peer(70), bits), How::Notify);
        Ok(())
    }
}

#[test]
fn a_client_and_a_server_may_be_linked_into_one_process() {
    let ipc = InProcess(RefCell::default());
    let queue = QueueClient::new(&ipc, peer(3)).within(Timeout::from_millis(10));
    assert_eq!(queue.push(&Push { value: 1, last: false }), Ok(()));
    assert_eq!(queue.push(&Push { value: 2, last: false }), Ok(()));
    let full = queue.push(&Push { value: 3, last: false }).unwrap_err();
    assert_eq!(full.refusal(), Some(QueueError::Full));
    assert_eq!(queue.state(&GetState {}), Ok(State { length: 2, open: true }));
    assert_eq!(queue.pop(&Pop {}), Ok(1));
    assert_eq!(queue.clear(&Clear {}), Ok(()));
    assert_eq!(queue.pop(&Pop {}), Err(CallError::Exchange(Errno::Deadlock)));
    let nobody = QueueClient::new(&ipc, peer(4)).pop(&Pop {});
    assert_eq!(nobody, Err(CallError::Exchange(Errno::NoEndpoint)));
    ipc.notify(peer(3), 4).unwrap();
    assert_eq!(ipc.0.borrow().notified, [(peer(70), 4)]);
}

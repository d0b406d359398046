// SPDX-License-Identifier: GPL-2.0
//! KUnit tests of the glue: what the host tests of `dvk-core` cannot see.

use super::abi::errno::Errno;
use super::abi::ioctl::{self, HOW_REPLY};
use super::abi::wire::record::{Record, Step};
use super::abi::{Endpoint, Message};
use super::container::{self, Container, SlotChoice, Target};
use super::dvs::Registry;
use super::local_port::{LocalPort, Rest, Timeout};
use super::rules::fifo::Array;
use super::rules::port::{Filter, Mode, Outcome, PeerCall, Receive};
use super::storage::KernelArray;
use super::sys::{self, PollQueue, SoftirqsHeld};
use kernel::prelude::*;
use kernel::sync::Arc;

const LOCAL: u16 = 0;
const PEER: u16 = 1;
const STRANGER: u16 = 2;

/// A container where this node holds slots 64…95 and `PEER` 96…127.
fn container() -> Result<Arc<Container>> {
    let container = Container::new(7, LOCAL, &ioctl::Container::default())?;
    for (node, first_slot) in [(LOCAL, 64), (PEER, 96)] {
        let lease = container::lease(node, first_slot, 32, 1).map_err(|_| EINVAL)?;
        container.lease(lease).map_err(|_| EINVAL)?;
    }
    Ok(container)
}

fn bind(container: &Container) -> Result<Arc<LocalPort>> {
    let poll = Arc::pin_init(PollQueue::new(), GFP_KERNEL)?;
    container.bind(SlotChoice::Any, poll).map_err(|_| EBUSY)
}

fn remote(slot: u32) -> Endpoint {
    Endpoint::new(slot, core::num::NonZeroU32::MIN)
}

/// Gives `step` of `from` to `to`, and returns whether it was found on this node.
fn give(container: &Container, from: &LocalPort, to: &LocalPort, step: &Step) -> bool {
    let Ok(target @ Target::Local(_)) = container.route(to.endpoint()) else { return false };
    container.give(from.endpoint(), &target, to.endpoint(), step, || true).is_ok()
}

fn peer_of(container: &Container, port: &LocalPort) -> super::rules::port::Peer {
    super::rules::port::Peer { endpoint: port.endpoint(), node: container.local() }
}

/// Begins a `sendrec` of `client` to `server`, whose step is still to be given.
fn begin_request(
    container: &Container,
    client: &LocalPort,
    server: &LocalPort,
) -> Result<(SoftirqsHeld, u32)> {
    let held = SoftirqsHeld::new();
    let begun = client.begin(&held, Rest::Sleep, |port| {
        let call = port.begin_send(peer_of(container, server), Mode::Request)?;
        Ok((call, Some(call)))
    });
    let (call, _) = begun.map_err(|_| EINVAL)?;
    Ok((held, call))
}

fn wait(
    port: &LocalPort,
    held: SoftirqsHeld,
    call: u32,
    timeout: Timeout,
    message: &mut Message,
    cancel: impl Fn(PeerCall),
) -> Outcome {
    port.wait(held, None, (call, Rest::Sleep), timeout, message, cancel)
}

#[kunit_tests(dvk)]
mod cases {
    use super::*;

    #[test]
    fn array_keeps_what_it_is_given() -> Result {
        let mut array = KernelArray::default();
        for n in 0..1000 {
            assert!(array.push(n).is_ok());
        }
        array.truncate(10);
        assert_eq!(array.as_slice(), [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
        Ok(())
    }

    #[test]
    fn registry_finds_by_number() -> Result {
        let registry = KBox::pin_init(Registry::new(), GFP_KERNEL)?;
        for number in [9, 3, 65_535, 0] {
            assert_eq!(registry.add(number, Arc::new(number, GFP_KERNEL)?), Ok(()));
        }
        assert_eq!(registry.add(3, Arc::new(3, GFP_KERNEL)?), Err(Errno::Exists));
        assert_eq!(registry.get(65_535).map(|n| *n), Some(65_535));
        assert!(registry.get(4).is_none());
        let mut seen = KVec::new();
        registry.for_each(|number, _| assert!(seen.push(number, GFP_KERNEL).is_ok()));
        assert_eq!(seen.as_slice(), [0, 3, 9, 65_535]);
        assert_eq!(registry.remove(9).map(|n| *n), Ok(9));
        assert!(registry.get(9).is_none());
        assert_eq!(registry.first(), Some(0));
        Ok(())
    }

    #[test]
    fn request_and_reply_meet() -> Result {
        let container = container()?;
        let (client, server) = (bind(&container)?, bind(&container)?);
        let (held, call) = begin_request(&container, &client, &server)?;
        let message = Message::new(41);
        assert!(give(&container, &client, &server, &Step::Request { call, message }));
        assert!(server.is_readable());
        let received = server.with(|port| {
            let begun = port.begin_receive(Filter { from: None, requests_only: true });
            (begun, port.message().source())
        });
        assert!(matches!(received.0, Ok(Receive::Done { .. })));
        assert_eq!(received.1, client.endpoint());
        let reply = server.with(|port| port.reply(client.endpoint()));
        assert!(reply.is_ok_and(|to| to.call == call));
        let step = Step::Reply { call, message: Message::new(42) };
        assert!(give(&container, &server, &client, &step));
        let mut message = Message::ZERO;
        let outcome = wait(&client, held, call, Timeout::Forever, &mut message, |_| ());
        assert_eq!(outcome, Outcome::Received { how: HOW_REPLY });
        assert_eq!(message.kind, 42);
        container.unbind(&client);
        container.unbind(&server);
        Ok(())
    }

    #[test]
    fn timeout_takes_the_message_back() -> Result {
        let container = container()?;
        let (client, server) = (bind(&container)?, bind(&container)?);
        let (held, call) = begin_request(&container, &client, &server)?;
        let message = Message::new(1);
        assert!(give(&container, &client, &server, &Step::Request { call, message }));
        let timeout = Timeout::Until(sys::now_ns() + 2_000_000);
        let outcome = wait(&client, held, call, timeout, &mut Message::ZERO.clone(), |open| {
            let step = Step::Cancel { call: open.call };
            if let Some(answer) = container.tell(client.endpoint(), open.peer, &step) {
                client.take_answer(open.peer, open.call, answer);
            }
        });
        assert_eq!(outcome, Outcome::Failed(Errno::TimedOut));
        assert!(!server.is_readable());
        container.unbind(&client);
        container.unbind(&server);
        Ok(())
    }

    #[test]
    fn unbound_endpoint_is_stale() -> Result {
        let container = container()?;
        let port = bind(&container)?;
        let endpoint = port.endpoint();
        container.unbind(&port);
        assert!(matches!(container.route(endpoint), Err(Errno::Stale)));
        let next = bind(&container)?;
        assert_ne!(next.endpoint(), endpoint);
        assert!(matches!(container.route(endpoint), Err(Errno::Stale)));
        container.unbind(&next);
        Ok(())
    }

    #[test]
    fn destroyed_container_refuses_and_frees() -> Result {
        let container = container()?;
        let (client, server) = (bind(&container)?, bind(&container)?);
        let (held, call) = begin_request(&container, &client, &server)?;
        drop(held);
        container.destroy();
        let held = SoftirqsHeld::new();
        let message = &mut Message::ZERO.clone();
        let outcome = wait(&client, held, call, Timeout::Forever, message, |_| ());
        assert_eq!(outcome, Outcome::Failed(Errno::OwnerDead));
        assert!(matches!(container.route(server.endpoint()), Err(Errno::NoDevice)));
        assert!(server.is_dead());
        Ok(())
    }

    #[test]
    fn node_speaks_for_its_own_endpoints_only() -> Result {
        let container = container()?;
        let server = bind(&container)?;
        let step = Step::Request { call: 1, message: Message::new(1) };
        let record = Record { container: 7, from: remote(96), to: server.endpoint(), step };
        assert!(container.arrived(STRANGER, &record).is_err());
        assert!(!server.is_readable());
        assert!(matches!(container.arrived(PEER, &record), Ok(None)));
        assert!(server.is_readable());
        let own = Record { from: server.endpoint(), ..record };
        assert!(container.arrived(PEER, &own).is_err());
        container.unbind(&server);
        Ok(())
    }
}

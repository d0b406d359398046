// SPDX-License-Identifier: MIT OR Apache-2.0
//! The endpoints and memories of a process that takes orders, and how it obeys them. It makes no
//! difference whether the orders come from a case in this process or from one on another node.

use crate::blocked::until_thread_sleeps;
use crate::cases::stress;
use crate::dvs::{self, with_node};
use crate::lent::{digest, errno, noise, revoke};
use crate::order::{timeout, Answer, Order, Place, Text};
use anyhow::{Context, Result};
use dvk::raw::Arena;
use dvk::{Control, Endpoint, Limits, Message, Port, Slot, Timeout};
use dvk_abi::ioctl;
use rustix::event::{poll, PollFd, PollFlags, Timespec};
use rustix::thread::Pid;
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{mpsc, Arc, Mutex, MutexGuard, PoisonError};

/// What a process has. Cases and the threads of their calls share it.
#[derive(Default)]
pub(crate) struct Troupe {
    ports: Mutex<HashMap<u32, Arc<Port>>>,
    memories: Mutex<HashMap<u32, &'static Arena>>,
}

/// A thread that has begun an order.
pub(crate) type Job = Box<dyn FnOnce() + Send>;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Troupe {
    /// Does what an order says, for the endpoint with this number.
    pub(crate) fn obey(&self, number: u32, order: &Order) -> Answer {
        match self.ask(order) {
            Some(answer) => answer,
            None => self.with_port(number, order),
        }
        .unwrap_or_else(|error| Answer::Broken(format!("{order:?}: {error:#}")))
    }

    /// Does it in a thread, in that of `spawn`, and gives the answer to `told`. Returns when the
    /// thread sleeps in its call or is over with it; false if it sleeps. What is done over and over
    /// hardly sleeps, and is only begun.
    pub(crate) fn begin(
        &self,
        number: u32,
        order: Order,
        spawn: impl FnOnce(Job),
        told: impl FnOnce(Answer) + Send + 'static,
    ) -> Result<bool> {
        let port = lock(&self.ports).get(&number).cloned();
        let memories = lock(&self.memories).clone();
        let over = Arc::new(AtomicBool::new(false));
        let (sender, receiver) = mpsc::channel::<Pid>();
        let is_over = Arc::clone(&over);
        let repeats = matches!(order, Order::CopyOverAndOver { .. });
        spawn(Box::new(move || {
            // A receiver that is gone means that nobody waits for the thread to sleep.
            let _ = sender.send(rustix::thread::gettid());
            let answer = match port {
                Some(port) => act(&port, &memories, &order),
                None => Err(anyhow::anyhow!("there is no endpoint {number}")),
            };
            // The endpoint was let go of, before anybody can know that the call is over.
            is_over.store(true, Ordering::Release);
            told(answer.unwrap_or_else(|error| Answer::Broken(format!("{error:#}"))));
        }));
        let tid = receiver.recv().context("the thread did not start")?;
        until_thread_sleeps(tid, || repeats || over.load(Ordering::Acquire))?;
        Ok(over.load(Ordering::Acquire))
    }

    /// What is not for an endpoint, if it is that.
    fn ask(&self, order: &Order) -> Option<Result<Answer>> {
        Some(match *order {
            Order::Container { container, nodes } => make_container(container, nodes),
            Order::Locate { container, endpoint, node } => Control::open()
                .and_then(|control| {
                    control.endpoint_set_remote(container, Endpoint::from_raw(endpoint), node)
                })
                .map_answer(),
            Order::CatchSignals => {
                let caught = Arc::new(AtomicBool::new(false));
                signal_hook::flag::register(signal_hook::consts::SIGUSR1, caught)
                    .map(|_| Answer::Done)
                    .context("catch a signal")
            }
            Order::Map { memory, pages, writable } => self.map(memory, pages, writable),
            Order::Fill { memory, offset, len, seed, skip } => self.memory(memory).map(|arena| {
                arena.write(offset, &noise(seed, skip + len)[skip..]);
                Answer::Done
            }),
            Order::Digest { memory, offset, len } => self.memory(memory).map(|arena| {
                let mut bytes = vec![0; len];
                arena.read(offset, &mut bytes);
                Answer::Number(digest(&bytes))
            }),
            _ => return None,
        })
    }

    fn with_port(&self, number: u32, order: &Order) -> Result<Answer> {
        match *order {
            Order::Bind { container, server } => {
                let slot = server.map_or(Slot::Any, Slot::Server);
                let bound = Port::bind(container, slot).map(|port| {
                    let endpoint = port.endpoint().raw();
                    lock(&self.ports).insert(number, Arc::new(port));
                    endpoint
                });
                Ok(bound.into())
            }
            Order::Close => {
                lock(&self.ports).remove(&number);
                Ok(Answer::Done)
            }
            _ => {
                let port = lock(&self.ports).get(&number).cloned();
                let port = port.with_context(|| format!("there is no endpoint {number}"))?;
                let memories = lock(&self.memories).clone();
                act(&port, &memories, order)
            }
        }
    }

    fn map(&self, memory: u32, pages: usize, writable: bool) -> Result<Answer> {
        let arena = if writable { Arena::new(pages) } else { Arena::read_only(pages) };
        lock(&self.memories).insert(memory, arena.context("map memory")?);
        Ok(Answer::Done)
    }

    fn memory(&self, number: u32) -> Result<&'static Arena> {
        find(&lock(&self.memories), number)
    }
}

trait MapAnswer {
    fn map_answer(self) -> Result<Answer>;
}

impl MapAnswer for Result<(), dvk::Error> {
    /// Control calls that fail are the test's own fault: no case is about them.
    fn map_answer(self) -> Result<Answer> {
        self.map(|()| Answer::Done).context("a control call")
    }
}

type Memories = HashMap<u32, &'static Arena>;

fn find(memories: &Memories, number: u32) -> Result<&'static Arena> {
    memories.get(&number).copied().with_context(|| format!("there is no memory {number}"))
}

/// Makes a container on this node that spans two.
fn make_container(container: u32, nodes: [u32; 2]) -> Result<Answer> {
    let control = Control::open()?;
    control.dc_create(container, "between", Limits::default())?;
    for (node, number) in nodes.into_iter().zip(0..) {
        let first = dvs::FIRST_SLOT + number * dvs::SLOTS;
        control.dc_add_node(&with_node(node, dvs::lease(container, first, dvs::SLOTS)))?;
    }
    Ok(Answer::Done)
}

/// Makes a call of an endpoint.
fn act(port: &Port, memories: &Memories, order: &Order) -> Result<Answer> {
    let endpoint = Endpoint::from_raw;
    Ok(match *order {
        Order::Send { to, message, timeout_ns } => {
            port.send(endpoint(to), &message.0, timeout(timeout_ns)).into()
        }
        Order::Sendrec { to, message, timeout_ns } => {
            port.sendrec(endpoint(to), &message.0, timeout(timeout_ns)).into()
        }
        Order::Receive { from, timeout_ns } => {
            port.receive(endpoint(from), timeout(timeout_ns)).into()
        }
        Order::ReceiveRequest { from, timeout_ns } => {
            port.receive_request(endpoint(from), timeout(timeout_ns)).into()
        }
        Order::Reply { to, message } => port.reply(endpoint(to), &message.0).into(),
        Order::ReplyReceive { to, message, from, timeout_ns } => {
            let limit = timeout(timeout_ns);
            port.reply_receive(endpoint(to), &message.0, endpoint(from), limit).into()
        }
        Order::Notify { to, bits } => port.notify(endpoint(to), bits).into(),
        Order::WaitBind { slot, timeout_ns } => {
            port.wait_bind(slot, timeout(timeout_ns)).map(Endpoint::raw).into()
        }
        Order::WaitUnbind { endpoint: whose, timeout_ns } => {
            port.wait_unbind(endpoint(whose), timeout(timeout_ns)).into()
        }
        Order::Info => port.info().map_or_else(|error| Answer::failed(&error), Answer::Info),
        Order::Privileges => {
            port.privileges().map_or_else(|error| Answer::failed(&error), Answer::Privileges)
        }
        Order::SetPrivileges(privileges) => port.set_privileges(&privileges).into(),
        Order::Grant { memory, offset, len, to, access } => {
            let arena = find(memories, memory)?;
            let granted = crate::lent::grant(port, arena, offset, len, endpoint(to), access);
            granted.map_or_else(failed_with, |grant| Answer::Number(grant.raw()))
        }
        Order::Revoke { grant } => {
            revoke(port, dvk::GrantId::from_raw(grant)).map_or_else(failed_with, |()| Answer::Done)
        }
        Order::CopyFrom(place) => copy(port, memories, place, false)?,
        Order::CopyTo(place) => copy(port, memories, place, true)?,
        Order::CopyBetween { from, to, len, timeout_ns } => {
            port.copy_between(from.into(), to.into(), len, timeout(timeout_ns)).into()
        }
        Order::CopyOverAndOver { place, to } => loop {
            match copy(port, memories, place, to)? {
                Answer::Done => {}
                failed => break failed,
            }
        },
        Order::Poll { seconds } => {
            let mut files = [PollFd::new(port, PollFlags::IN)];
            poll(&mut files, Some(&Timespec { tv_sec: seconds, tv_nsec: 0 }))?;
            Answer::Number(files[0].revents().bits() as u64)
        }
        Order::Burst { to, count } => burst(port, endpoint(to), count).into(),
        Order::Storm { to } => loop {
            if let Err(error) = port.sendrec(endpoint(to), &Message::new(0), Timeout::Forever) {
                break Answer::failed(&error);
            }
        },
        Order::Count { to, client, requests } => {
            stress::count(port, endpoint(to), client, requests)?.into()
        }
        Order::Serve { requests } => stress::serve(port, requests)?.into(),
        Order::Echo => loop {
            match port.receive_request(Endpoint::ANY, Timeout::Forever) {
                Ok(request) => match port.reply(request.source(), &request.message) {
                    Err(error) if !error.is(dvk::Errno::WouldBlock) => {
                        break Answer::failed(&error)
                    }
                    _ => {}
                },
                Err(error) => break Answer::failed(&error),
            }
        },
        _ => anyhow::bail!("{order:?} is not for an endpoint"),
    })
}

fn failed_with(errno: dvk::Errno) -> Answer {
    Answer::Failed { errno: errno.raw().into(), copied: 0 }
}

fn copy(port: &Port, memories: &Memories, place: Place, to: bool) -> Result<Answer> {
    let arena = find(memories, place.memory)?;
    let mut block = ioctl::Copy {
        granted: place.lent.into(),
        address: arena.address() + place.offset as u64,
        len: place.len as u64,
        timeout_ns: place.timeout_ns,
        copied: u64::MAX,
    };
    let called = if to {
        arena.call::<{ ioctl::COPY_TO }, _>(port, &mut block)
    } else {
        arena.call::<{ ioctl::COPY_FROM }, _>(port, &mut block)
    };
    Ok(match called {
        Ok(()) => Answer::Done,
        Err(error) => Answer::Failed { errno: errno(error).raw().into(), copied: block.copied },
    })
}

fn burst(port: &Port, to: Endpoint, count: u32) -> Result<(), dvk::Error> {
    for kind in 0..count {
        let message = Message { payload: [kind as u8; 48], ..Message::new(kind) };
        // Both ways of sending take part in one order.
        if kind.is_multiple_of(3) {
            port.sendrec(to, &message, Timeout::Forever)?;
        } else {
            port.send(to, &message, Timeout::Forever)?;
        }
    }
    Ok(())
}

/// A message as orders have it.
impl From<&Message> for Text {
    fn from(message: &Message) -> Self {
        Self(*message)
    }
}

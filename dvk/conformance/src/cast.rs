// SPDX-License-Identifier: MIT OR Apache-2.0
//! Who takes part in a case, and where: all in one process, or some of them on another node.

use crate::blocked::{patience, until, WATCH};
use crate::cases::Side;
use crate::check::fails;
use crate::dvs::{HOME, NODE};
use crate::memory::Memory;
use crate::messenger::{next, Messenger};
use crate::order::{Answer, Order};
use crate::troupe::Troupe;
use crate::wish::{self, Failed, Outcome, Wish};
use anyhow::{ensure, Context, Result};
use dvk::{Endpoint, Errno, GrantId, Message, Port, Received, Slot, Timeout};
use dvk_abi::ioctl::{Info, Privileges};
use std::sync::{mpsc, Arc};

/// The two sides of a case, and the container they share.
///
/// Here both are this process. Between nodes one of them is a process on another node; which one is
/// said from outside, so that a case proves its rule from both ends.
pub(crate) struct Cast {
    /// The container.
    pub(crate) container: u32,
    near: Process,
    far: Process,
    /// Between nodes: what makes sure that all has arrived.
    probe: Option<Probe>,
}

/// An endpoint on each node. What one sends comes behind all that its node has sent before, since a
/// link keeps the order.
struct Probe {
    here: Port,
    there: Party,
    /// It answers as long as this is.
    _echo: Waiting<()>,
    nodes: [u32; 2],
    /// Whether cases may take long.
    is_long: bool,
}

impl Cast {
    /// Everybody in this process.
    pub(crate) fn here() -> Self {
        let process = Process::here();
        Self { container: HOME, near: process.clone(), far: process, probe: None }
    }

    /// One side on the other node, in a container that is made for it.
    pub(crate) fn between(
        container: u32,
        nodes: [u32; 2],
        side_there: Side,
        is_long: bool,
    ) -> Result<Self> {
        let (here, there) = (Process::here(), Process::there()?);
        for process in [&here, &there] {
            process.order(Order::Container { container, nodes })?;
        }
        let port = Port::bind(container, Slot::Any)?;
        let echo = there.bind_in(container, None)?;
        let waiting = echo.begin(Order::Echo.into())?;
        let probe = Probe { here: port, there: echo, _echo: waiting, nodes, is_long };
        let (near, far) = match side_there {
            Side::Far => (here, there),
            Side::Near => (there, here),
        };
        Ok(Self { container, near, far, probe: Some(probe) })
    }

    /// Whether somebody is on another node.
    pub(crate) fn is_between_nodes(&self) -> bool {
        self.probe.is_some()
    }

    /// The process of the far side.
    pub(crate) fn far_process(&self) -> &Process {
        &self.far
    }

    /// A new endpoint on the near side.
    pub(crate) fn near(&self) -> Result<Party> {
        self.near.bind_in(self.container, None)
    }

    /// A new endpoint on the far side.
    pub(crate) fn far(&self) -> Result<Party> {
        self.far.bind_in(self.container, None)
    }

    /// A new endpoint of this process that is a file of its own, for calls that only a program's
    /// own memory allows. Only for cases whose far side is never swapped.
    pub(crate) fn port(&self) -> Result<Port> {
        Ok(Port::bind(self.container, Slot::Any)?)
    }

    /// A server on the far side, which the near one is told of.
    pub(crate) fn far_server(&self, slot: u32) -> Result<Party> {
        let server = self.far.bind_in(self.container, Some(slot))?;
        self.announce(&server)?;
        Ok(server)
    }

    /// A process of its own on the far side, with an endpoint.
    pub(crate) fn far_puppet(&self) -> Result<(Puppet, Party)> {
        let puppet = self.far.start()?;
        let party = puppet.process.bind_in(self.container, None)?;
        Ok((puppet, party))
    }

    /// A process of its own on the near side, with an endpoint.
    pub(crate) fn near_puppet(&self) -> Result<(Puppet, Party)> {
        let puppet = self.near.start()?;
        let party = puppet.process.bind_in(self.container, None)?;
        Ok((puppet, party))
    }

    /// Tells the near side of a server on the far one.
    fn announce(&self, server: &Party) -> Result<()> {
        if !self.is_between_nodes() {
            return Ok(());
        }
        let [_, node] = self.nodes();
        let (container, endpoint) = (self.container, server.endpoint().raw());
        self.near.order(Order::Locate { container, endpoint, node })
    }

    /// Returns when everything that either side has sent so far has arrived.
    pub(crate) fn settle(&self) -> Result<()> {
        let Some(probe) = &self.probe else { return Ok(()) };
        let to = probe.there.endpoint();
        let came = probe.here.sendrec(to, &Message::new(0x7e57), Timeout::After(patience()));
        came.map(drop).context("make sure that all has arrived")
    }

    /// The nodes of the near and the far side.
    pub(crate) fn nodes(&self) -> [u32; 2] {
        match &self.probe {
            None => [NODE; 2],
            Some(Probe { nodes, .. }) if self.near.is_here() => *nodes,
            Some(Probe { nodes: [here, there], .. }) => [*there, *here],
        }
    }

    /// The node of this process, whichever side that is.
    pub(crate) fn this_node(&self) -> u32 {
        let [near, far] = self.nodes();
        if self.near.is_here() {
            near
        } else {
            far
        }
    }

    /// How often a case does what has to be done many times: `few` times between nodes, where each
    /// takes long, unless the cases may take long, too.
    pub(crate) fn rounds<T>(&self, all: T, few: T) -> T {
        match &self.probe {
            Some(probe) if !probe.is_long => few,
            _ => all,
        }
    }

    /// Checks that an endpoint names nobody any more to `other`.
    pub(crate) fn is_dead(&self, other: &Party, endpoint: Endpoint) -> Result<()> {
        if self.is_between_nodes() {
            // Only the endpoint's node knows, and `notify` does not wait for what that says.
            let sent = other.send(endpoint, &Message::new(0), self.at_once());
            return fails("send to the dead", sent, Errno::Stale);
        }
        fails("notify", other.notify(endpoint, 1), Errno::Stale)
    }

    /// The timeout of calls that end at once where the peer is on this node, and else have to ask.
    pub(crate) fn at_once(&self) -> Timeout {
        if self.is_between_nodes() {
            Timeout::After(patience())
        } else {
            Timeout::NoWait
        }
    }
}

/// A process that has endpoints.
#[derive(Clone)]
pub(crate) struct Process {
    place: Place,
    /// Where those are that it starts.
    messenger: Arc<Messenger>,
}

#[derive(Clone)]
enum Place {
    /// This one.
    Here(Arc<Troupe>),
    /// The one with this number, at the other end of the messenger's way.
    There(u32),
}

impl Process {
    fn here() -> Self {
        let (place, messenger) = (Place::Here(Arc::default()), Messenger::here());
        Self { place, messenger }
    }

    /// A new one on the other node.
    fn there() -> Result<Self> {
        let messenger = Messenger::there();
        let process = Self { place: Place::There(messenger.number()), messenger };
        process.order(Order::Process)?;
        Ok(process)
    }

    fn is_here(&self) -> bool {
        matches!(self.place, Place::Here(_))
    }

    /// Starts another one on the same node.
    pub(crate) fn start(&self) -> Result<Puppet> {
        let number = self.messenger.number();
        let process = Self { place: Place::There(number), messenger: Arc::clone(&self.messenger) };
        process.order(Order::Process)?;
        Ok(Puppet { process })
    }

    /// Binds an endpoint of it.
    pub(crate) fn bind_in(&self, container: u32, server: Option<u32>) -> Result<Party> {
        let number = self.messenger.number();
        let order = Order::Bind { container, server };
        let endpoint = wish::read(&order, self.ask(number, order.clone()))?;
        Ok(Party { process: self.clone(), number, endpoint })
    }

    /// Maps pages of it, behind which there is one that is not there.
    pub(crate) fn map(&self, pages: usize, writable: bool) -> Result<Memory> {
        let memory = self.messenger.number();
        self.order(Order::Map { memory, pages, writable })?;
        Ok(Memory { process: self.clone(), number: memory, pages })
    }

    /// Does what is not for an endpoint.
    pub(crate) fn order(&self, order: Order) -> Result<()> {
        let answer = self.ask(0, order.clone());
        Ok(wish::read(&order, answer)?)
    }

    /// Does something and says what came of it.
    pub(crate) fn ask(&self, endpoint: u32, order: Order) -> Result<Answer> {
        match &self.place {
            Place::Here(troupe) => Ok(troupe.obey(endpoint, &order)),
            Place::There(number) => self.messenger.ask(*number, endpoint, order),
        }
    }

    /// Begins something.
    fn begin(&self, endpoint: u32, order: Order) -> Result<mpsc::Receiver<Answer>> {
        match &self.place {
            Place::Here(troupe) => {
                let (sender, receiver) = mpsc::channel();
                let told = move |answer| {
                    // Who does not wait any more does not mind.
                    let _ = sender.send(answer);
                };
                troupe.begin(endpoint, order, |job| drop(std::thread::spawn(job)), told)?;
                Ok(receiver)
            }
            Place::There(number) => self.messenger.give(*number, endpoint, true, order),
        }
    }
}

/// A process whose life is the case's to end. Dropped, it stays until the case is over.
pub(crate) struct Puppet {
    process: Process,
}

impl Puppet {
    /// Kills it and waits until it is gone.
    pub(crate) fn kill(&self) -> Result<()> {
        self.process.order(Order::Kill)
    }

    /// Lets it leave by itself and waits until it is gone.
    pub(crate) fn dismiss(&self) -> Result<()> {
        self.process.order(Order::Dismiss)
    }

    /// Has it catch the signal of [`interrupt`](Self::interrupt).
    pub(crate) fn catch_signals(&self) -> Result<()> {
        self.process.order(Order::CatchSignals)
    }

    /// Sends it a signal.
    pub(crate) fn interrupt(&self) -> Result<()> {
        self.process.order(Order::Interrupt)
    }

    /// Replaces its program, and with it its endpoint.
    pub(crate) fn exec(&self) -> Result<()> {
        let Place::There(number) = self.process.place else { return Ok(()) };
        let answers = self.process.messenger.give(number, 0, false, Order::Exec)?;
        let answer = next(&answers, "exec")?;
        ensure!(matches!(answer, Answer::Waits), "exec: {answer:?}");
        // The new program answers, so the old one's files are closed.
        self.catch_signals()
    }
}

/// An endpoint, wherever it is. Dropping it closes it, once no call of it is open any more.
pub(crate) struct Party {
    process: Process,
    number: u32,
    endpoint: Endpoint,
}

impl Party {
    /// Its name.
    pub(crate) fn endpoint(&self) -> Endpoint {
        self.endpoint
    }

    /// The process it is in.
    pub(crate) fn process(&self) -> &Process {
        &self.process
    }

    /// Has it make a call, and waits for what that gives.
    pub(crate) fn call<T: Outcome>(&self, wish: Wish<T>) -> Result<T, Failed> {
        let answer = self.process.ask(self.number, wish.order.clone());
        wish::read(&wish.order, answer)
    }

    /// Has it begin a call; returns when it sleeps in it, or is over with it.
    pub(crate) fn begin<T: Outcome>(&self, wish: Wish<T>) -> Result<Waiting<T>> {
        let answers = self.process.begin(self.number, wish.order.clone())?;
        let first = match &self.process.place {
            Place::Here(_) => None,
            Place::There(_) => match next(&answers, &format!("{:?}", wish.order))? {
                Answer::Waits => None,
                answer => Some(answer),
            },
        };
        Ok(Waiting { wish, answers, answer: first.into() })
    }

    pub(crate) fn send(&self, to: Endpoint, m: &Message, timeout: Timeout) -> Result<(), Failed> {
        self.call(wish::send(to, m, timeout))
    }

    pub(crate) fn sendrec(
        &self,
        to: Endpoint,
        message: &Message,
        timeout: Timeout,
    ) -> Result<Message, Failed> {
        self.call(wish::sendrec(to, message, timeout))
    }

    pub(crate) fn receive(&self, from: Endpoint, timeout: Timeout) -> Result<Received, Failed> {
        self.call(wish::receive(from, timeout))
    }

    pub(crate) fn receive_request(
        &self,
        from: Endpoint,
        timeout: Timeout,
    ) -> Result<Received, Failed> {
        self.call(wish::receive_request(from, timeout))
    }

    /// Takes what must be there.
    pub(crate) fn take(&self, from: Endpoint) -> Result<Received, Failed> {
        self.receive(from, Timeout::NoWait)
    }

    /// Checks that there is nothing to take.
    pub(crate) fn is_empty(&self) -> Result<()> {
        fails("receive from any", self.take(Endpoint::ANY), Errno::WouldBlock)
    }

    pub(crate) fn reply(&self, to: Endpoint, message: &Message) -> Result<(), Failed> {
        self.call(Order::Reply { to: to.raw(), message: message.into() }.into())
    }

    pub(crate) fn notify(&self, to: Endpoint, bits: u64) -> Result<(), Failed> {
        self.call(Order::Notify { to: to.raw(), bits }.into())
    }

    pub(crate) fn wait_bind(&self, slot: u32, timeout: Timeout) -> Result<Endpoint, Failed> {
        self.call(wish::wait_bind(slot, timeout))
    }

    pub(crate) fn wait_unbind(&self, endpoint: Endpoint, timeout: Timeout) -> Result<(), Failed> {
        self.call(wish::wait_unbind(endpoint, timeout))
    }

    pub(crate) fn info(&self) -> Result<Info, Failed> {
        self.call(Order::Info.into())
    }

    pub(crate) fn privileges(&self) -> Result<Privileges, Failed> {
        self.call(Order::Privileges.into())
    }

    pub(crate) fn set_privileges(&self, privileges: &Privileges) -> Result<(), Failed> {
        self.call(Order::SetPrivileges(*privileges).into())
    }

    pub(crate) fn revoke(&self, grant: GrantId) -> Result<(), Failed> {
        self.call(Order::Revoke { grant: grant.raw() }.into())
    }
}

impl Drop for Party {
    fn drop(&mut self) {
        // Its process may be gone, and the endpoint with it.
        let _ = self.process.ask(self.number, Order::Close);
    }
}

/// A call that was begun.
pub(crate) struct Waiting<T> {
    wish: Wish<T>,
    answers: mpsc::Receiver<Answer>,
    answer: std::cell::RefCell<Option<Answer>>,
}

impl<T: Outcome> Waiting<T> {
    /// Whether the call is over.
    pub(crate) fn is_over(&self) -> bool {
        let mut answer = self.answer.borrow_mut();
        if answer.is_none() {
            *answer = self.answers.try_recv().ok();
        }
        answer.is_some()
    }

    /// Checks that the call goes on waiting.
    pub(crate) fn waits(&self, what: &str) -> Result<()> {
        std::thread::sleep(WATCH);
        ensure!(!self.is_over(), "{what}: the call is over, but should wait");
        Ok(())
    }

    /// What the call returned; it must be over soon.
    pub(crate) fn join(self, what: &str) -> Result<Result<T, Failed>> {
        until(what, || Ok(self.is_over()))?;
        let answer = self.answer.into_inner().context("a call that is over has an answer");
        Ok(wish::read(&self.wish.order, answer))
    }
}

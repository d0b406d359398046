// SPDX-License-Identifier: MIT OR Apache-2.0
//! The kernel's DVK as `dvsd` uses it, and the real one behind it.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use dvk::{
    AsyncPort, Control, DvsInit, Errno, Granted, Info, Lease, Limits, LinkInfo, Port, Received,
    Slot, Timeout, Transport,
};
use dvk_abi::limits::LEASE_SLOTS;
use dvk_abi::{Endpoint, Message};

use crate::carrier::{Carrier, Route};
use crate::containers::ContainerCall;
use crate::reconcile::{Call, SYSTEM_CONTAINER, SYSTEM_NAME};

/// What `dvsd` needs of a DVK; tests put their own in its place.
pub trait Kernel: Send + Sync {
    /// Makes a control call. One whose effect is there already succeeds.
    ///
    /// # Errors
    /// For people: what failed and why.
    fn control(&self, call: &Call) -> Result<(), String>;

    /// Makes a control call about a Distributed Container. One whose effect is there already succeeds.
    ///
    /// # Errors
    /// For people: what failed and why.
    fn container(&self, call: &ContainerCall) -> Result<(), String>;

    /// State and counters of the link to a node.
    ///
    /// # Errors
    /// For people: what failed and why.
    fn link(&self, node: u16) -> Result<LinkInfo, String>;

    /// The endpoints of a container that this kernel knows, those on other nodes included; none of a container that it does not have.
    ///
    /// # Errors
    /// For people: what failed and why.
    fn endpoints(&self, container: u32) -> Result<Vec<Info>, String>;

    /// Binds a new endpoint in the system container, in any free slot of this node's.
    ///
    /// # Errors
    /// For people: what failed and why.
    fn bind(&self) -> Result<Box<dyn Messenger>, String>;

    /// Binds a server slot of a container on this node. It needs a tokio runtime.
    ///
    /// # Errors
    /// For people: what failed and why.
    fn serve(&self, container: u32, slot: u32) -> Result<Box<dyn ServerPort>, String>;
}

/// What a [`ServerPort`] waits for.
pub type Receiving<'a> = Pin<Box<dyn Future<Output = Result<Received, String>> + Send + 'a>>;

/// A server's endpoint in a container: it receives without a thread that waits. It ends when it is dropped.
pub trait ServerPort: Send + Sync {
    /// Waits for a message; an error is that the endpoint has ended.
    fn receive(&self) -> Receiving<'_>;

    /// Answers a request, if its sender still waits for that.
    fn reply(&self, to: Endpoint, message: &Message);

    /// Copies out of memory that a program of this node has lent.
    ///
    /// # Errors
    /// For people: what failed and why.
    fn copy_from(&self, from: Granted, into: &mut [u8]) -> Result<(), String>;

    /// Copies into it.
    ///
    /// # Errors
    /// For people: what failed and why.
    fn copy_to(&self, to: Granted, from: &[u8]) -> Result<(), String>;
}

/// An endpoint in the system container.
pub trait Messenger: Send {
    /// Its name.
    fn endpoint(&self) -> Endpoint;

    /// Sends a request and waits for the reply.
    ///
    /// # Errors
    /// [`Failure::TimedOut`] if none came in time.
    fn request(
        &mut self,
        to: Endpoint,
        message: &Message,
        timeout: Duration,
    ) -> Result<Message, Failure>;

    /// Waits for a request; its sender is the message's source.
    ///
    /// # Errors
    /// [`Failure::TimedOut`] if none came in time.
    fn receive(&mut self, timeout: Duration) -> Result<Message, Failure>;

    /// Answers a request, if its sender still waits for that. Whatever else is wrong, the next
    /// receive tells.
    fn reply(&mut self, to: Endpoint, message: &Message);
}

/// Why an exchange failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// Its time was over.
    TimedOut,
    /// Anything else, for people.
    Other(String),
}

impl From<dvk::Error> for Failure {
    fn from(error: dvk::Error) -> Self {
        match error.errno() {
            Some(Errno::TimedOut | Errno::WouldBlock) => Self::TimedOut,
            _ => Self::Other(error.to_string()),
        }
    }
}

/// The kernel's own DVK.
#[derive(Debug)]
pub struct Dvk(Control);

impl Dvk {
    /// Opens `/dev/dvk`.
    ///
    /// # Errors
    /// For people: why there is no DVK to use.
    pub fn open() -> Result<Self, String> {
        Control::open().map(Self).map_err(|error| match error.raw_os_error() {
            2 | 6 | 19 => "/dev/dvk: the kernel has no DVK; boot the kernel of a DVS image".into(),
            _ => error.to_string(),
        })
    }
}

impl Kernel for Dvk {
    fn control(&self, call: &Call) -> Result<(), String> {
        let Self(control) = self;
        let (result, there) = match *call {
            Call::End => (control.dvs_end(), Some(Errno::NoDevice)),
            Call::Init { cluster, seat } => {
                let node = u32::from(seat.id);
                let init = DvsInit { cluster, node, incarnation: seat.incarnation };
                (control.dvs_init(&init), None)
            }
            Call::CreateContainer => {
                let created = control.dc_create(SYSTEM_CONTAINER, SYSTEM_NAME, Limits::default());
                (created, Some(Errno::Exists))
            }
            Call::AddNode { seat, first_slot, first_generation } => {
                let lease = Lease {
                    container: SYSTEM_CONTAINER,
                    node: u32::from(seat.id),
                    first_slot,
                    slots: LEASE_SLOTS,
                    first_generation,
                    ..Lease::default()
                };
                (control.dc_add_node(&lease), None)
            }
            Call::RemoveNode { node } => {
                (control.dc_remove_node(SYSTEM_CONTAINER, u32::from(node)), None)
            }
            Call::NodeUp { seat } => (control.node_up(u32::from(seat.id), seat.incarnation), None),
            Call::NodeDown { node } => (control.node_down(u32::from(node)), Some(Errno::NoDevice)),
            Call::LinkAttach { node, carrier } => {
                let transport = match carrier {
                    Carrier::Ethernet(Route { interface, mac }) => {
                        Transport::Ethernet { interface, address: mac.0 }
                    }
                    Carrier::Tipc => Transport::Tipc { frame_bytes: 0 },
                    // The proxy attaches itself.
                    Carrier::Proxy(_) => return Ok(()),
                };
                (control.link_attach(u32::from(node), transport), None)
            }
            Call::LinkDetach { node } => {
                (control.link_detach(u32::from(node)), Some(Errno::NotConnected))
            }
            Call::SetRemote { node, endpoint } => {
                let endpoint = Endpoint::from_raw(endpoint);
                let node = u32::from(node);
                (control.endpoint_set_remote(SYSTEM_CONTAINER, endpoint, node), None)
            }
        };
        match result {
            Err(error) if error.errno() != there || there.is_none() => Err(error.to_string()),
            _ => Ok(()),
        }
    }

    fn container(&self, call: &ContainerCall) -> Result<(), String> {
        let Self(control) = self;
        let (result, there) = match call {
            ContainerCall::Create { id, name, endpoints } => {
                // One is that of the services, which is not the container's own.
                let endpoints = if *endpoints == 0 { 0 } else { endpoints + 1 };
                let limits = Limits { endpoints, ..Limits::default() };
                (control.dc_create(u32::from(*id), name, limits), Some(Errno::Exists))
            }
            ContainerCall::AddNode { id, node, first_slot, first_generation } => {
                let lease = Lease {
                    container: u32::from(*id),
                    node: u32::from(*node),
                    first_slot: *first_slot,
                    slots: LEASE_SLOTS,
                    first_generation: *first_generation,
                    ..Lease::default()
                };
                (control.dc_add_node(&lease), None)
            }
            ContainerCall::RemoveNode { id, node } => {
                (control.dc_remove_node(u32::from(*id), u32::from(*node)), Some(Errno::NoDevice))
            }
            ContainerCall::Destroy { id } => {
                (control.dc_destroy(u32::from(*id)), Some(Errno::NoDevice))
            }
        };
        match result {
            Err(error) if error.errno() != there || there.is_none() => Err(error.to_string()),
            _ => Ok(()),
        }
    }

    fn link(&self, node: u16) -> Result<LinkInfo, String> {
        self.0.link_info(u32::from(node)).map_err(|error| error.to_string())
    }

    fn endpoints(&self, container: u32) -> Result<Vec<Info>, String> {
        match self.0.endpoints(container) {
            Err(error) if error.errno() == Some(Errno::NoDevice) => Ok(Vec::new()),
            other => other.map_err(|error| error.to_string()),
        }
    }

    fn bind(&self) -> Result<Box<dyn Messenger>, String> {
        match Port::bind(SYSTEM_CONTAINER, Slot::Any) {
            Ok(port) => Ok(Box::new(Bound(port))),
            Err(error) => Err(error.to_string()),
        }
    }

    fn serve(&self, container: u32, slot: u32) -> Result<Box<dyn ServerPort>, String> {
        let port = Port::bind(container, Slot::Server(slot)).map_err(|error| error.to_string())?;
        let port = AsyncPort::new(port)
            .map_err(|error| format!("wait for messages in container {container}: {error}"))?;
        Ok(Box::new(Serving(port)))
    }
}

struct Serving(AsyncPort);

impl ServerPort for Serving {
    fn receive(&self) -> Receiving<'_> {
        Box::pin(async { self.0.receive().await.map_err(|error| error.to_string()) })
    }

    fn reply(&self, to: Endpoint, message: &Message) {
        // The client may have timed out or died: that is its own affair.
        let _ = self.0.reply(to, message);
    }

    // Memory of this node is copied at once, whatever the timeout, and that of others is not copied.
    fn copy_from(&self, from: Granted, into: &mut [u8]) -> Result<(), String> {
        let copied = self.0.get_ref().copy_from(from, into, Timeout::NoWait);
        copied.map_err(|error| error.to_string())
    }

    fn copy_to(&self, to: Granted, from: &[u8]) -> Result<(), String> {
        self.0.get_ref().copy_to(to, from, Timeout::NoWait).map_err(|error| error.to_string())
    }
}

struct Bound(Port);

impl Messenger for Bound {
    fn endpoint(&self) -> Endpoint {
        self.0.endpoint()
    }

    fn request(
        &mut self,
        to: Endpoint,
        message: &Message,
        timeout: Duration,
    ) -> Result<Message, Failure> {
        Ok(self.0.sendrec(to, message, Timeout::After(timeout))?)
    }

    fn receive(&mut self, timeout: Duration) -> Result<Message, Failure> {
        let received = self.0.receive_request(Endpoint::ANY, Timeout::After(timeout))?;
        Ok(received.message)
    }

    fn reply(&mut self, to: Endpoint, message: &Message) {
        // The client may have timed out or died: that is its own affair.
        let _ = self.0.reply(to, message);
    }
}

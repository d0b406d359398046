// SPDX-License-Identifier: MIT OR Apache-2.0
//! The link whose frames are carried, as the kernel has it, or a test.

use core::time::Duration;
use dvk::{Control, Errno, Frames, Protocol, Timeout, Transport};

/// Why a link gives or takes no frames.
#[derive(Debug)]
pub enum Refused {
    /// Nothing was there in time.
    Quiet,
    /// Another transport carries the link now.
    TakenOver,
    /// Anything else.
    Failed(anyhow::Error),
}

/// A link to another node.
pub trait Link: Sync {
    /// Makes this proxy the link's transport.
    ///
    /// # Errors
    /// When the kernel refuses it.
    fn attach(&self) -> anyhow::Result<()>;

    /// Whether it still is.
    ///
    /// # Errors
    /// When the kernel does not say.
    fn is_attached(&self) -> anyhow::Result<bool>;

    /// Replaces `frames` by those that are to be sent, waiting for the first one.
    ///
    /// # Errors
    /// Says why there are none.
    fn get(&self, frames: &mut Frames, patience: Duration) -> Result<(), Refused>;

    /// Takes frames that came.
    ///
    /// # Errors
    /// Says why it does not.
    fn put(&self, frames: &Frames) -> Result<(), Refused>;
}

/// The link of the kernel to one node.
pub struct KernelLink {
    control: Control,
    node: u32,
    protocol: Protocol,
    frame_bytes: u32,
}

impl KernelLink {
    /// The link to `node`, to be carried over `protocol` in frames of at most `frame_bytes`; 0 for the longest there are.
    pub fn new(control: Control, node: u32, protocol: Protocol, frame_bytes: u32) -> Self {
        Self { control, node, protocol, frame_bytes }
    }
}

impl From<dvk::Error> for Refused {
    fn from(error: dvk::Error) -> Self {
        match error.errno() {
            Some(Errno::TimedOut | Errno::WouldBlock | Errno::Interrupted) => Self::Quiet,
            Some(Errno::NotConnected) => Self::TakenOver,
            _ => Self::Failed(error.into()),
        }
    }
}

impl Link for KernelLink {
    fn attach(&self) -> anyhow::Result<()> {
        let transport = Transport::Proxy { protocol: self.protocol, frame_bytes: self.frame_bytes };
        self.control.link_attach(self.node, transport)?;
        println!("carrying the link to node {}", self.node);
        Ok(())
    }

    fn is_attached(&self) -> anyhow::Result<bool> {
        Ok(self.control.link_info(self.node)?.transport == self.protocol.number())
    }

    fn get(&self, frames: &mut Frames, patience: Duration) -> Result<(), Refused> {
        let timeout = Timeout::After(patience);
        Ok(self.control.proxy_get(self.node, self.protocol, frames, timeout)?)
    }

    fn put(&self, frames: &Frames) -> Result<(), Refused> {
        Ok(self.control.proxy_put(self.node, self.protocol, frames)?)
    }
}

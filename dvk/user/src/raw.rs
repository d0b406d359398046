// SPDX-License-Identifier: MIT OR Apache-2.0
//! Calls with their argument blocks as the kernel sees them: for programs that test or trace the
//! kernel, and want to say what [`Port`](crate::Port) and [`Control`](crate::Control) never say.
//! Blocks that name memory are for an [`Arena`].
//!
//! ```no_run
//! use dvk_abi::ioctl::{Exchange, RECEIVE};
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let device = dvk::Device::open(0)?;
//! let mut block = Exchange { flags: 1, ..Exchange::default() };
//! let refused = dvk::raw::call::<RECEIVE, _>(&device, &mut block);
//! assert_eq!(refused, Err(rustix::io::Errno::INVAL));
//! # Ok(())
//! # }
//! ```

pub use crate::sys::{call, call_bare, call_null, Arena, Block, Layout, MemoryBlock};

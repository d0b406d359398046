// SPDX-License-Identifier: MIT OR Apache-2.0
//! Binder, as its user library uses it: a transaction with its reply, buffers given back together with the next command.

use super::{Address, Client, Pair, Server, MESSAGE_BYTES};
use crate::sys::Binder;
use anyhow::{bail, ensure, Context, Result};
use rustix::fs::{open, Mode, OFlags};
use rustix::mount::{mount, unmount, MountFlags, UnmountFlags};
use std::collections::VecDeque;
use std::path::{Path, PathBuf};

// `enum binder_driver_command_protocol` and `…_return_protocol` of Linux's `android/binder.h`; bits 16 to 29 have the number of
// bytes that follow.
const BC_TRANSACTION: u32 = 0x4040_6300;
const BC_REPLY: u32 = 0x4040_6301;
const BC_FREE_BUFFER: u32 = 0x4008_6303;
const BC_INCREFS_DONE: u32 = 0x4010_6308;
const BC_ACQUIRE_DONE: u32 = 0x4010_6309;
const BC_ENTER_LOOPER: u32 = 0x630c;
const BR_TRANSACTION: u32 = 0x8040_7202;
const BR_REPLY: u32 = 0x8040_7203;
const BR_TRANSACTION_COMPLETE: u32 = 0x7206;
const BR_INCREFS: u32 = 0x8010_7207;
const BR_ACQUIRE: u32 = 0x8010_7208;
const BR_NOOP: u32 = 0x720c;
const BR_SPAWN_LOOPER: u32 = 0x720d;

/// Of `struct binder_transaction_data`, where the number of bytes and their address are.
const DATA_SIZE: usize = 32;
const DATA_ADDRESS: usize = 48;

/// An instance of Binder of its own, mounted for as long as this is kept.
struct Instance(PathBuf);

impl Instance {
    fn mount() -> Result<Self> {
        static COUNT: core::sync::atomic::AtomicU32 = core::sync::atomic::AtomicU32::new(0);
        let number = COUNT.fetch_add(1, core::sync::atomic::Ordering::Relaxed);
        let process = std::process::id();
        let path = std::env::temp_dir().join(format!("dvk-bench-{process}-binder{number}"));
        std::fs::create_dir_all(&path)?;
        mount("binder", &path, "binder", MountFlags::empty(), None)
            .context("mounting binderfs (is CONFIG_ANDROID_BINDER_IPC_RUST on?)")?;
        Ok(Self(path))
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        // It goes with the machine at the latest.
        let _ = unmount(&self.0, UnmountFlags::DETACH);
        let _ = std::fs::remove_dir(&self.0);
    }
}

/// A thread's conversation with the driver.
struct Conversation {
    binder: Binder,
    /// Commands to give with the next exchange.
    commands: Vec<u8>,
    /// What the driver said and was not looked at yet: code and, for messages, their address.
    said: VecDeque<(u32, u64)>,
}

impl Conversation {
    fn open(device: &Path) -> Result<Self> {
        let flags = OFlags::RDWR | OFlags::CLOEXEC;
        let file = open(device, flags, Mode::empty())
            .with_context(|| format!("opening {}", device.display()))?;
        let binder = Binder::new(file).context("mapping Binder's buffer")?;
        Ok(Self { binder, commands: Vec::with_capacity(256), said: VecDeque::with_capacity(8) })
    }

    fn command(&mut self, code: u32, argument: &[u8]) {
        self.commands.extend_from_slice(&code.to_ne_bytes());
        self.commands.extend_from_slice(argument);
    }

    /// Appends a transaction or a reply that carries `message`, which must stay where it is until the next exchange.
    fn send(&mut self, code: u32, message: &[u8; MESSAGE_BYTES]) {
        let mut data = [0; 64];
        data[DATA_SIZE..][..8].copy_from_slice(&(MESSAGE_BYTES as u64).to_ne_bytes());
        data[DATA_ADDRESS..][..8].copy_from_slice(&(message.as_ptr() as u64).to_ne_bytes());
        self.command(code, &data);
    }

    /// Exchanges until the driver has said `wanted`, and takes the message that came with it.
    fn await_message(&mut self, wanted: u32) -> Result<[u8; MESSAGE_BYTES]> {
        loop {
            while let Some((code, address)) = self.said.pop_front() {
                if code == wanted {
                    let message = self.binder.received(address);
                    self.command(BC_FREE_BUFFER, &address.to_ne_bytes());
                    return message.context("binder: a message outside of the buffer");
                }
                match code {
                    BR_NOOP | BR_TRANSACTION_COMPLETE | BR_SPAWN_LOOPER => {}
                    other => bail!("binder: the driver says {other:#x} instead of {wanted:#x}"),
                }
            }
            self.exchange()?;
        }
    }

    fn exchange(&mut self) -> Result<()> {
        let mut buffer = [0; 256];
        let mut rest = self.binder.exchange(&self.commands, &mut buffer)?;
        self.commands.clear();
        while let Some((code, after)) = rest.split_first_chunk() {
            let code = u32::from_ne_bytes(*code);
            let bytes = (code >> 16 & 0x3fff) as usize;
            ensure!(bytes <= after.len(), "binder: half a message from the driver");
            let (argument, after) = after.split_at(bytes);
            match code {
                BR_INCREFS => self.command(BC_INCREFS_DONE, argument),
                BR_ACQUIRE => self.command(BC_ACQUIRE_DONE, argument),
                BR_TRANSACTION | BR_REPLY => {
                    let number = |at: usize| {
                        argument[at..].first_chunk().map_or(0, |bytes| u64::from_ne_bytes(*bytes))
                    };
                    ensure!(number(DATA_SIZE) == MESSAGE_BYTES as u64, "binder: a short message");
                    self.said.push_back((code, number(DATA_ADDRESS)));
                }
                _ => self.said.push_back((code, 0)),
            }
            rest = after;
        }
        Ok(())
    }
}

pub(super) fn round_trip() -> Result<Pair> {
    let instance = Instance::mount()?;
    let device = instance.0.join("binder");
    let of_client = device.clone();
    let server = move || -> Result<(Address, Server)> {
        let mut conversation = Conversation::open(&device)?;
        conversation.binder.become_context_manager().context("becoming context manager")?;
        conversation.command(BC_ENTER_LOOPER, &[]);
        let serve: Server = Box::new(move || loop {
            let message = conversation.await_message(BR_TRANSACTION)?;
            conversation.send(BC_REPLY, &message);
            conversation.exchange()?;
        });
        Ok(([0; 2], serve))
    };
    let client = move |_: Address| -> Result<Client> {
        let mut conversation = Conversation::open(&of_client)?;
        let mut message = [1; MESSAGE_BYTES];
        Ok(Box::new(move |count| {
            for _ in 0..count {
                conversation.send(BC_TRANSACTION, &message);
                message = conversation.await_message(BR_REPLY)?;
            }
            Ok(())
        }))
    };
    Ok(Pair { server: Box::new(server), client: Box::new(client), kept: Box::new(instance) })
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! Links that a proxy carries; the case is the proxy, and the peer as well.

use super::Case;
use crate::check::{equal, fails};
use crate::dvs;
use anyhow::{ensure, Context, Result};
use core::time::Duration;
use dvk::abi::ioctl::{LINK_DOWN, PROXY_BYTES_MAX, TRANSPORT_TCP};
use dvk::abi::wire::frame::{Frame, Kind, HEADER_BYTES, MIN_PAYLOAD_BYTES};
use dvk::{Control, Errno, Frames, Protocol, Timeout, Transport};
use std::thread;
use std::time::Instant;

/// Why no case is run between nodes.
const WHY: &str = "the proxy is the case";

pub(super) const CASES: &[Case] = &[
    Case::alone("proxy-gets-the-frames-of-its-link", WHY, gets),
    Case::alone("proxy-get-waits-for-a-frame", WHY, waits),
    Case::alone("proxy-puts-what-the-peer-sent", WHY, puts),
    Case::alone("proxy-put-of-strangers-is-counted", WHY, strangers),
    Case::alone("proxy-ends-with-its-transport", WHY, ends),
    Case::alone("proxy-frames-are-no-longer-than-said", WHY, lengths),
];

const PEER: u32 = 4;
const LIMIT: Timeout = Timeout::After(Duration::from_secs(5));
const TCP: Transport = Transport::Proxy { protocol: Protocol::Tcp, frame_bytes: 0 };

/// A peer whose link a proxy carries.
struct World {
    control: Control,
}

impl World {
    fn new() -> Result<Self> {
        let control = Control::open()?;
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?;
        control.node_up(PEER, since.as_millis() as u32 | 1)?;
        let world = Self { control };
        world.control.link_attach(PEER, TCP)?;
        Ok(world)
    }

    fn get(&self) -> Result<Frames> {
        let mut frames = Frames::new();
        self.control.proxy_get(PEER, Protocol::Tcp, &mut frames, LIMIT)?;
        Ok(frames)
    }
}

impl Drop for World {
    fn drop(&mut self) {
        // It may be down already.
        let _ = self.control.link_detach(PEER);
        let _ = self.control.node_down(PEER);
    }
}

/// The first frame of a batch.
fn first(frames: &Frames) -> Result<Frame<'_>> {
    let bytes = frames.iter().next().context("no frame")?;
    Frame::decode(bytes).map_err(|error| anyhow::anyhow!("not a frame: {error:?}"))
}

fn gets() -> Result<()> {
    let world = World::new()?;
    let frames = world.get()?;
    let hello = first(&frames)?;
    equal("kind", hello.header.kind, Kind::Hello)?;
    equal("destination", u32::from(hello.header.destination.node), PEER)?;
    equal("source", u32::from(hello.header.source.node), dvs::NODE)?;
    equal("transport", world.control.link_info(PEER)?.transport, TRANSPORT_TCP)?;
    // What was taken and not delivered is sent again.
    let again = world.get()?;
    equal("kind", first(&again)?.header.kind, Kind::Hello)
}

fn waits() -> Result<()> {
    let world = World::new()?;
    world.get()?;
    // A greeting is repeated after 20 ms, and then more and more seldom.
    let mut frames = Frames::new();
    for (timeout, errno) in
        [(Timeout::NoWait, Errno::WouldBlock), (Timeout::from_millis(5), Errno::TimedOut)]
    {
        let begun = Instant::now();
        let tried = loop {
            match world.control.proxy_get(PEER, Protocol::Tcp, &mut frames, timeout) {
                Ok(()) if begun.elapsed() < Duration::from_secs(5) => {}
                other => break other,
            }
        };
        fails("proxy_get of a link that has nothing to say", tried, errno)?;
        ensure!(frames.is_empty(), "there are {} bytes of frames", frames.bytes());
    }
    let unknown = world.control.proxy_get(PEER + 1, Protocol::Tcp, &mut frames, LIMIT);
    fails("proxy_get for a node that never was up", unknown, Errno::NoDevice)
}

fn puts() -> Result<()> {
    let world = World::new()?;
    let frames = world.get()?;
    let hello = first(&frames)?;
    // The peer answers with a greeting of its own: the link knows its stream then.
    let mut answer = hello.header;
    answer.kind = Kind::HelloAck;
    (answer.source, answer.destination) = (hello.header.destination, hello.header.source);
    answer.source.stream = 77;
    let mut bytes = vec![0; HEADER_BYTES + hello.payload.len()];
    let len = answer.encode(hello.payload, &mut bytes).context("encoding a greeting")?;
    let mut batch = Frames::new();
    batch.push(&bytes[..len]);
    world.control.proxy_put(PEER, Protocol::Tcp, &batch)?;
    let info = world.control.link_info(PEER)?;
    equal("frames received", info.frames_received, 1)?;
    ensure!(info.state != LINK_DOWN, "the link is down");
    let begun = Instant::now();
    loop {
        let frames = world.get()?;
        if first(&frames)?.header.destination.stream == 77 {
            return Ok(());
        }
        ensure!(begun.elapsed() < Duration::from_secs(5), "the link does not know the stream");
    }
}

fn strangers() -> Result<()> {
    let world = World::new()?;
    let frames = world.get()?;
    let before = world.control.link_info(PEER)?;
    let mut batch = Frames::new();
    batch.push(&[]);
    batch.push(&[0xff; 200]);
    // One from this node itself.
    batch.push(frames.iter().next().context("no frame")?);
    world.control.proxy_put(PEER, Protocol::Tcp, &batch)?;
    let after = world.control.link_info(PEER)?;
    equal("rejected", after.rejected, before.rejected + 3)?;
    equal("received", after.frames_received, before.frames_received)?;
    fails("no frames", world.control.proxy_put(PEER, Protocol::Tcp, &Frames::new()), Errno::Invalid)
}

fn ends() -> Result<()> {
    let world = World::new()?;
    thread::scope(|scope| {
        let waiting = scope.spawn(|| {
            let mut frames = Frames::new();
            loop {
                if let Err(error) =
                    world.control.proxy_get(PEER, Protocol::Tcp, &mut frames, Timeout::Forever)
                {
                    return error;
                }
            }
        });
        thread::sleep(Duration::from_millis(50));
        world.control.link_detach(PEER)?;
        let error = waiting.join().map_err(|_| anyhow::anyhow!("the thread panicked"))?;
        fails::<()>("proxy_get", Err(error), Errno::NotConnected)
    })?;
    let mut frames = Frames::new();
    frames.push(&[0; 64]);
    let put = world.control.proxy_put(PEER, Protocol::Tcp, &frames);
    fails("proxy_put", put, Errno::NotConnected)?;
    world.control.link_attach(PEER, TCP)?;
    world.get().map(drop)
}

fn lengths() -> Result<()> {
    let world = World::new()?;
    let attach = |frame_bytes| {
        let transport = Transport::Proxy { protocol: Protocol::Udp, frame_bytes };
        world.control.link_attach(PEER, transport)
    };
    let least = (HEADER_BYTES + MIN_PAYLOAD_BYTES) as u32;
    fails("frames too short for the protocol", attach(least - 1), Errno::TooLong)?;
    attach(least)?;
    // The proxy of before has nothing to carry any more.
    let before = world.control.proxy_get(PEER, Protocol::Tcp, &mut Frames::new(), LIMIT);
    fails("proxy_get over TCP", before, Errno::NotConnected)?;
    let mut frames = Frames::new();
    world.control.proxy_get(PEER, Protocol::Udp, &mut frames, LIMIT)?;
    ensure!(frames.iter().all(|frame| frame.len() <= least as usize), "a frame is longer");
    ensure!(frames.bytes() as u64 <= PROXY_BYTES_MAX, "the batch is too long");
    Ok(())
}

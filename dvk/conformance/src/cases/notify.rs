// SPDX-License-Identifier: MIT OR Apache-2.0
//! Notifications.

use super::exchange::{bind_shared, take};
use super::Case;
use crate::blocked::blocked;
use crate::check::{equal, fails};
use crate::dvs;
use anyhow::Result;
use dvk::{Endpoint, Errno, How, Message, Received, Timeout};
use dvk_abi::message::KIND_NOTIFY;
use std::sync::Arc;

pub(super) const CASES: &[Case] = &[
    Case::new("notify-never-blocks", never_blocks),
    Case::new("notify-is-delivered-with-source-and-bits", delivered),
    Case::new("notify-bits-are-ored-until-delivered", ored),
    Case::new("notify-is-kept-per-source", per_source),
    Case::new("notify-comes-before-queued-messages", before_messages),
    Case::new("notify-ends-a-waiting-receive", ends_receive),
    Case::new("receive-specific-leaves-notifies-of-others", specific),
    Case::new("notify-is-held-back-during-sendrec", held_back),
    Case::new("notify-without-bits-is-einval", without_bits),
];

fn is_notice(received: &Received, from: Endpoint, bits: u64) -> Result<()> {
    equal("how", received.how, How::Notify)?;
    equal("message", received.message, Message::notification(from, bits))?;
    equal("kind", received.message.kind, KIND_NOTIFY)
}

fn never_blocks() -> Result<()> {
    let (target, source) = (dvs::bind()?, dvs::bind()?);
    let to = target.endpoint();
    let notify = blocked(move || (0..100).try_for_each(|_| source.notify(to, 1)).map(|()| source))?;
    notify.join("100 notifies that nobody receives")??;
    Ok(())
}

fn delivered() -> Result<()> {
    let (target, source) = (dvs::bind()?, dvs::bind()?);
    for bits in [1, 1 << 63, u64::MAX] {
        source.notify(target.endpoint(), bits)?;
        is_notice(&take(&target, Endpoint::ANY)?, source.endpoint(), bits)?;
    }
    Ok(())
}

fn ored() -> Result<()> {
    let (target, source) = (dvs::bind()?, dvs::bind()?);
    for bits in [0b0001, 0b0100, 0b0101, 1 << 40] {
        source.notify(target.endpoint(), bits)?;
    }
    is_notice(&take(&target, Endpoint::ANY)?, source.endpoint(), 0b0101 | 1 << 40)?;
    let again = target.receive(Endpoint::ANY, Timeout::NoWait);
    fails("second receive", again, Errno::WouldBlock)?;
    source.notify(target.endpoint(), 0b1000)?;
    is_notice(&take(&target, Endpoint::ANY)?, source.endpoint(), 0b1000)
}

fn per_source() -> Result<()> {
    let (target, first, second) = (dvs::bind()?, dvs::bind()?, dvs::bind()?);
    first.notify(target.endpoint(), 1)?;
    second.notify(target.endpoint(), 2)?;
    first.notify(target.endpoint(), 4)?;
    let mut got = [take(&target, Endpoint::ANY)?, take(&target, Endpoint::ANY)?]
        .map(|received| (received.source(), received.message.notify_bits()));
    got.sort_unstable();
    let mut expected = [(first.endpoint(), Some(5)), (second.endpoint(), Some(2))];
    expected.sort_unstable();
    equal("notifications", got, expected)
}

fn before_messages() -> Result<()> {
    let (target, source, sender) = (dvs::bind()?, dvs::bind()?, dvs::bind()?);
    let to = target.endpoint();
    let send =
        blocked(move || sender.send(to, &Message::new(7), Timeout::Forever).map(|()| sender))?;
    source.notify(to, 2)?;
    is_notice(&take(&target, Endpoint::ANY)?, source.endpoint(), 2)?;
    equal("kind", take(&target, Endpoint::ANY)?.message.kind, 7)?;
    send.join("send to end")??;
    Ok(())
}

fn ends_receive() -> Result<()> {
    let (target, source) = (bind_shared()?, dvs::bind()?);
    for from in [Endpoint::ANY, source.endpoint()] {
        let port = Arc::clone(&target);
        let receive = blocked(move || port.receive(from, Timeout::Forever))?;
        receive.waits("receive before notify")?;
        source.notify(target.endpoint(), 16)?;
        is_notice(&receive.join("receive to end after notify")??, source.endpoint(), 16)?;
    }
    Ok(())
}

fn specific() -> Result<()> {
    let (target, wanted, other) = (bind_shared()?, dvs::bind()?, dvs::bind()?);
    let from = wanted.endpoint();
    other.notify(target.endpoint(), 1)?;
    fails("receive", target.receive(from, Timeout::NoWait), Errno::WouldBlock)?;
    let port = Arc::clone(&target);
    let receive = blocked(move || port.receive(from, Timeout::Forever))?;
    other.notify(target.endpoint(), 2)?;
    receive.waits("receive from one while another notifies")?;
    wanted.notify(target.endpoint(), 4)?;
    is_notice(&receive.join("receive to end")??, from, 4)?;
    is_notice(&take(&target, Endpoint::ANY)?, other.endpoint(), 3)
}

fn held_back() -> Result<()> {
    let (server, client, source) = (dvs::bind()?, bind_shared()?, dvs::bind()?);
    let (to, from) = (server.endpoint(), client.endpoint());
    let port = Arc::clone(&client);
    let request = blocked(move || port.sendrec(to, &Message::new(1), Timeout::Forever))?;
    source.notify(from, 1)?;
    take(&server, Endpoint::ANY)?;
    source.notify(from, 2)?;
    server.notify(from, 4)?;
    request.waits("sendrec while notifies come")?;
    server.reply(from, &Message::new(2))?;
    let reply = request.join("sendrec to end")??;
    equal("reply", (reply.source(), reply.kind), (to, 2))?;
    is_notice(&take(&client, source.endpoint())?, source.endpoint(), 3)?;
    is_notice(&take(&client, to)?, to, 4)
}

fn without_bits() -> Result<()> {
    let (target, source) = (dvs::bind()?, dvs::bind()?);
    fails("notify", source.notify(target.endpoint(), 0), Errno::Invalid)?;
    let receive = target.receive(Endpoint::ANY, Timeout::NoWait);
    fails("receive", receive, Errno::WouldBlock)
}

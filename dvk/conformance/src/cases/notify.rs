// SPDX-License-Identifier: MIT OR Apache-2.0
//! Notifications.

use super::Case;
use crate::cast::Cast;
use crate::check::{equal, fails};
use crate::wish;
use anyhow::Result;
use dvk::{Endpoint, Errno, How, Message, Received, Timeout};
use dvk_abi::message::KIND_NOTIFY;

pub(super) const CASES: &[Case] = &[
    Case::both("notify-never-blocks", never_blocks),
    Case::both("notify-is-delivered-with-source-and-bits", delivered),
    Case::both("notify-bits-are-ored-until-delivered", ored),
    Case::both("notify-is-kept-per-source", per_source),
    Case::both("notify-comes-before-queued-messages", before_messages),
    Case::both("notify-ends-a-waiting-receive", ends_receive),
    Case::both("receive-specific-leaves-notifies-of-others", specific),
    Case::both("notify-is-held-back-during-sendrec", held_back),
    Case::both("notify-without-bits-is-einval", without_bits),
];

fn is_notice(received: &Received, from: Endpoint, bits: u64) -> Result<()> {
    equal("how", received.how, How::Notify)?;
    equal("message", received.message, Message::notification(from, bits))?;
    equal("kind", received.message.kind, KIND_NOTIFY)
}

fn never_blocks(cast: &Cast) -> Result<()> {
    let (target, source) = (cast.near()?, cast.far()?);
    // Each returns before the next one is begun, and nobody receives.
    for _ in 0..100 {
        source.notify(target.endpoint(), 1)?;
    }
    Ok(())
}

fn delivered(cast: &Cast) -> Result<()> {
    let (target, source) = (cast.near()?, cast.far()?);
    for bits in [1, 1 << 63, u64::MAX] {
        source.notify(target.endpoint(), bits)?;
        cast.settle()?;
        is_notice(&target.take(Endpoint::ANY)?, source.endpoint(), bits)?;
    }
    Ok(())
}

fn ored(cast: &Cast) -> Result<()> {
    let (target, source) = (cast.near()?, cast.far()?);
    for bits in [0b0001, 0b0100, 0b0101, 1 << 40] {
        source.notify(target.endpoint(), bits)?;
    }
    cast.settle()?;
    is_notice(&target.take(Endpoint::ANY)?, source.endpoint(), 0b0101 | 1 << 40)?;
    target.is_empty()?;
    source.notify(target.endpoint(), 0b1000)?;
    cast.settle()?;
    is_notice(&target.take(Endpoint::ANY)?, source.endpoint(), 0b1000)
}

fn per_source(cast: &Cast) -> Result<()> {
    let (target, first, second) = (cast.near()?, cast.far()?, cast.far()?);
    first.notify(target.endpoint(), 1)?;
    second.notify(target.endpoint(), 2)?;
    first.notify(target.endpoint(), 4)?;
    cast.settle()?;
    let mut got = [target.take(Endpoint::ANY)?, target.take(Endpoint::ANY)?]
        .map(|received| (received.source(), received.message.notify_bits()));
    got.sort_unstable();
    let mut expected = [(first.endpoint(), Some(5)), (second.endpoint(), Some(2))];
    expected.sort_unstable();
    equal("notifications", got, expected)
}

fn before_messages(cast: &Cast) -> Result<()> {
    let (target, source, sender) = (cast.near()?, cast.far()?, cast.far()?);
    let to = target.endpoint();
    let send = sender.begin(wish::send(to, &Message::new(7), Timeout::Forever))?;
    source.notify(to, 2)?;
    cast.settle()?;
    is_notice(&target.take(Endpoint::ANY)?, source.endpoint(), 2)?;
    equal("kind", target.take(Endpoint::ANY)?.message.kind, 7)?;
    send.join("send to end")??;
    Ok(())
}

fn ends_receive(cast: &Cast) -> Result<()> {
    let (target, source) = (cast.near()?, cast.far()?);
    for from in [Endpoint::ANY, source.endpoint()] {
        let receive = target.begin(wish::receive(from, Timeout::Forever))?;
        receive.waits("receive before notify")?;
        source.notify(target.endpoint(), 16)?;
        is_notice(&receive.join("receive to end after notify")??, source.endpoint(), 16)?;
    }
    Ok(())
}

fn specific(cast: &Cast) -> Result<()> {
    let (target, wanted, other) = (cast.near()?, cast.far()?, cast.far()?);
    let from = wanted.endpoint();
    other.notify(target.endpoint(), 1)?;
    cast.settle()?;
    fails("receive", target.take(from), Errno::WouldBlock)?;
    let receive = target.begin(wish::receive(from, Timeout::Forever))?;
    other.notify(target.endpoint(), 2)?;
    cast.settle()?;
    receive.waits("receive from one while another notifies")?;
    wanted.notify(target.endpoint(), 4)?;
    is_notice(&receive.join("receive to end")??, from, 4)?;
    is_notice(&target.take(Endpoint::ANY)?, other.endpoint(), 3)
}

fn held_back(cast: &Cast) -> Result<()> {
    let (server, client, source) = (cast.near()?, cast.far()?, cast.near()?);
    let (to, from) = (server.endpoint(), client.endpoint());
    let request = client.begin(wish::sendrec(to, &Message::new(1), Timeout::Forever))?;
    cast.settle()?;
    source.notify(from, 1)?;
    server.take(Endpoint::ANY)?;
    source.notify(from, 2)?;
    server.notify(from, 4)?;
    cast.settle()?;
    request.waits("sendrec while notifies come")?;
    server.reply(from, &Message::new(2))?;
    let reply = request.join("sendrec to end")??;
    equal("reply", (reply.source(), reply.kind), (to, 2))?;
    is_notice(&client.take(source.endpoint())?, source.endpoint(), 3)?;
    is_notice(&client.take(to)?, to, 4)
}

fn without_bits(cast: &Cast) -> Result<()> {
    let (target, source) = (cast.near()?, cast.far()?);
    fails("notify", source.notify(target.endpoint(), 0), Errno::Invalid)?;
    cast.settle()?;
    target.is_empty()
}

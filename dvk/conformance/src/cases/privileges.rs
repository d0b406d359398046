// SPDX-License-Identifier: MIT OR Apache-2.0
//! What endpoints may do, and who says so.

use super::Case;
use crate::cast::{Cast, Party};
use crate::check::{equal, fails};
use crate::dvs::{self, HOME};
use anyhow::{ensure, Result};
use dvk::abi::ioctl::{
    MAY_ALL, MAY_NOTIFY, MAY_REACH_OTHERS, MAY_RECEIVE, MAY_REPLY, MAY_REQUEST, MAY_SEND,
    MAY_SET_PRIVILEGES, MAY_WAIT,
};
use dvk::{Endpoint, Errno, Message, Port, Privileges, Slot, Timeout};

pub(super) const CASES: &[Case] = &[
    Case::alone("privileges-are-all-but-one-after-a-bind", "it has no peer", initial),
    Case::alone("privileges-can-be-laid-down-and-not-taken-back", "it has no peer", laid_down),
    Case::both("call-without-privilege-is-eacces", calls),
    Case::both("server-out-of-reach-is-eacces", servers),
    Case::both("endpoint-out-of-reach-is-eacces", others),
    Case::both("notify-bits-without-privilege-are-eacces", bits),
    Case::both("privileges-of-others-need-the-privilege", of_others),
    Case::both("privileges-given-are-no-more-than-own", no_more_than_own),
    Case::alone("privileges-unknown-are-einval", "it has no peer", unknown),
];

/// Not to wait at all.
const NOW: Timeout = Timeout::NoWait;

fn initial() -> Result<()> {
    let user = dvs::bind()?.privileges()?;
    equal("calls of a user", user.calls, MAY_ALL & !MAY_SET_PRIVILEGES)?;
    equal("servers and bits", (user.servers, user.notify), (u64::MAX, u64::MAX))?;
    let server = Port::bind(HOME, Slot::Server(9))?.privileges()?;
    equal("calls of a server", server.calls, MAY_ALL)
}

/// Leaves `port` with these calls only.
fn only(port: &Port, calls: u32) -> Result<()> {
    let privileges = Privileges { endpoint: Endpoint::SELF.raw(), calls, ..port.privileges()? };
    Ok(port.set_privileges(&privileges)?)
}

fn laid_down() -> Result<()> {
    let port = dvs::bind()?;
    let before = port.privileges()?;
    only(&port, MAY_RECEIVE | MAY_SEND | MAY_REACH_OTHERS)?;
    let after = port.privileges()?;
    equal("calls", after.calls, MAY_RECEIVE | MAY_SEND | MAY_REACH_OTHERS)?;
    equal("whose", after.endpoint, port.endpoint().raw())?;
    fails("taking back", port.set_privileges(&before), Errno::Denied)?;
    equal("calls after trying", port.privileges()?, after)
}

/// The same for a party.
fn leave(party: &Party, calls: u32) -> Result<()> {
    let endpoint = Endpoint::SELF.raw();
    let privileges = Privileges { endpoint, calls, ..party.privileges()? };
    Ok(party.set_privileges(&privileges)?)
}

fn calls(cast: &Cast) -> Result<()> {
    let peer = cast.far()?;
    let to = peer.endpoint();
    let without = |call: u32| -> Result<Party> {
        let port = cast.near()?;
        leave(&port, MAY_ALL & !MAY_SET_PRIVILEGES & !call)?;
        Ok(port)
    };
    let message = Message::new(1);
    fails("send", without(MAY_SEND)?.send(to, &message, NOW), Errno::Denied)?;
    let limit = Timeout::from_millis(2_000);
    fails("sendrec", without(MAY_REQUEST)?.sendrec(to, &message, limit), Errno::Denied)?;
    let deaf = without(MAY_RECEIVE)?;
    fails("receive", deaf.receive(Endpoint::ANY, NOW), Errno::Denied)?;
    fails("receive_request", deaf.receive_request(Endpoint::ANY, NOW), Errno::Denied)?;
    fails("reply", without(MAY_REPLY)?.reply(to, &message), Errno::Denied)?;
    fails("notify", without(MAY_NOTIFY)?.notify(to, 1), Errno::Denied)?;
    let impatient = without(MAY_WAIT)?;
    fails("wait_bind", impatient.wait_bind(9, NOW), Errno::Denied)?;
    fails("wait_unbind", impatient.wait_unbind(to, NOW), Errno::Denied)?;
    cast.settle()?;
    ensure!(peer.info()?.senders == 0, "a call that was refused left a message");
    peer.is_empty()
}

fn servers(cast: &Cast) -> Result<()> {
    let (allowed, other) = (cast.far_server(9)?, cast.far_server(63)?);
    let port = cast.near()?;
    let privileges = port.privileges()?;
    port.set_privileges(&Privileges { servers: 1 << 9, ..privileges })?;
    port.notify(allowed.endpoint(), 1)?;
    fails("notify", port.notify(other.endpoint(), 1), Errno::Denied)?;
    fails("send", port.send(other.endpoint(), &Message::new(1), NOW), Errno::Denied)?;
    // That no one receives is for `send` to say, once it is allowed.
    fails("send", port.send(allowed.endpoint(), &Message::new(1), NOW), Errno::WouldBlock)
}

fn others(cast: &Cast) -> Result<()> {
    let (server, other, port) = (cast.far_server(9)?, cast.far()?, cast.near()?);
    leave(&port, MAY_ALL & !MAY_SET_PRIVILEGES & !MAY_REACH_OTHERS)?;
    fails("notify", port.notify(other.endpoint(), 1), Errno::Denied)?;
    fails("send", port.send(other.endpoint(), &Message::new(1), NOW), Errno::Denied)?;
    Ok(port.notify(server.endpoint(), 1)?)
}

fn bits(cast: &Cast) -> Result<()> {
    let (port, peer) = (cast.near()?, cast.far()?);
    let privileges = port.privileges()?;
    port.set_privileges(&Privileges { notify: 0b101, ..privileges })?;
    fails("notify", port.notify(peer.endpoint(), 0b111), Errno::Denied)?;
    port.notify(peer.endpoint(), 0b100)?;
    cast.settle()?;
    let received = peer.receive(Endpoint::ANY, NOW)?;
    equal("bits", received.message.notify_bits(), Some(0b100))
}

fn of_others(cast: &Cast) -> Result<()> {
    let (server, user, target) = (cast.far_server(9)?, cast.far()?, cast.near()?);
    let less = Privileges { servers: 0, ..target.privileges()? };
    fails("a user", user.set_privileges(&less), Errno::Denied)?;
    server.set_privileges(&less)?;
    equal("privileges of the other", target.privileges()?, less)?;
    fails("the other", target.notify(server.endpoint(), 1), Errno::Denied)
}

fn no_more_than_own(cast: &Cast) -> Result<()> {
    let (server, target) = (cast.far_server(9)?, cast.near()?);
    leave(&server, MAY_SET_PRIVILEGES | MAY_SEND)?;
    let before = target.privileges()?;
    fails("all calls", server.set_privileges(&before), Errno::Denied)?;
    equal("privileges of the other", target.privileges()?, before)?;
    server.set_privileges(&Privileges { calls: MAY_SEND, ..before })?;
    equal("calls of the other", target.privileges()?.calls, MAY_SEND)
}

fn unknown() -> Result<()> {
    let port = dvs::bind()?;
    let privileges = port.privileges()?;
    let calls = Privileges { calls: MAY_ALL + 1, ..privileges };
    fails("a call that does not exist", port.set_privileges(&calls), Errno::Invalid)?;
    let flags = Privileges { flags: 1, ..privileges };
    fails("a reserved field", port.set_privileges(&flags), Errno::Invalid)
}

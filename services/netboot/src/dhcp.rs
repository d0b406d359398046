// SPDX-License-Identifier: MIT OR Apache-2.0
//! Messages of DHCP (RFC 2131) with the options that network boot uses (RFC 2132, RFC 4578, the PXE specification 2.1).

use std::net::Ipv4Addr;

use dvs_config::Mac;

/// Port of servers.
pub const SERVER_PORT: u16 = 67;
/// Port of clients.
pub const CLIENT_PORT: u16 = 68;
/// Port of boot servers, where machines ask again that were offered a file without an address.
pub const BOOT_PORT: u16 = 4011;

/// What begins the options.
const COOKIE: [u8; 4] = [99, 130, 83, 99];
/// Length of all before the options.
const HEADER: usize = 240;
/// The least length of a message that every client takes (RFC 951).
const LEAST: usize = 300;

mod code {
    pub(super) const PAD: u8 = 0;
    pub(super) const MASK: u8 = 1;
    pub(super) const VENDOR: u8 = 43;
    pub(super) const ADDRESS: u8 = 50;
    pub(super) const LEASE: u8 = 51;
    pub(super) const KIND: u8 = 53;
    pub(super) const SERVER: u8 = 54;
    pub(super) const CLASS: u8 = 60;
    pub(super) const SERVER_NAME: u8 = 66;
    pub(super) const FILE: u8 = 67;
    pub(super) const USER_CLASS: u8 = 77;
    pub(super) const ARCHITECTURE: u8 = 93;
    pub(super) const UUID: u8 = 97;
    pub(super) const END: u8 = 255;
}

/// What a message says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Who is there?
    Discover,
    /// This could be yours.
    Offer,
    /// That I want.
    Request,
    /// It is yours.
    Ack,
    /// It is not.
    Nak,
    /// I have an address; what else is there?
    Inform,
}

impl Kind {
    fn number(self) -> u8 {
        match self {
            Self::Discover => 1,
            Self::Offer => 2,
            Self::Request => 3,
            Self::Ack => 5,
            Self::Nak => 6,
            Self::Inform => 8,
        }
    }

    fn of(number: u8) -> Option<Self> {
        let all = [Self::Discover, Self::Offer, Self::Request, Self::Ack, Self::Nak, Self::Inform];
        all.into_iter().find(|kind| kind.number() == number)
    }
}

/// What a machine asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// Discover, request or inform.
    pub kind: Kind,
    /// Its number, which the answer repeats.
    pub transaction: u32,
    /// It cannot be reached at an address that it has not taken yet.
    pub broadcast: bool,
    /// The address that it has.
    pub own: Ipv4Addr,
    /// Its MAC address.
    pub mac: Mac,
    /// The address that it wants.
    pub wanted: Option<Ipv4Addr>,
    /// The server whose offer it takes.
    pub server: Option<Ipv4Addr>,
    /// It boots over the network.
    pub boots: bool,
    /// It is iPXE.
    pub ipxe: bool,
    /// Processor and firmware (RFC 4578, 2.1): 0 is a BIOS, 7 and 9 are UEFI on x86-64.
    pub architecture: Option<u16>,
    /// What identifies the machine, which the answer repeats.
    pub uuid: Option<Vec<u8>>,
}

/// A message that is none, or not for servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no question of DHCP: {0}")]
pub struct NoQuestion(&'static str);

fn address(bytes: &[u8]) -> Option<Ipv4Addr> {
    Some(Ipv4Addr::from(<[u8; 4]>::try_from(bytes).ok()?))
}

/// The options of a message: number and content.
fn options(mut bytes: &[u8]) -> impl Iterator<Item = (u8, &[u8])> {
    std::iter::from_fn(move || loop {
        let (&code, rest) = bytes.split_first()?;
        match code {
            code::PAD => bytes = rest,
            code::END => return None,
            code => {
                let (&length, rest) = rest.split_first()?;
                let content = rest.get(..usize::from(length))?;
                bytes = &rest[content.len()..];
                return Some((code, content));
            }
        }
    })
}

impl Question {
    /// Reads a message.
    ///
    /// # Errors
    /// [`NoQuestion`] when it is malformed, an answer, or not about Ethernet.
    pub fn parse(bytes: &[u8]) -> Result<Self, NoQuestion> {
        let header = bytes.get(..HEADER).ok_or(NoQuestion("it is cut short"))?;
        if header[0] != 1 {
            return Err(NoQuestion("it is an answer"));
        }
        if header[1..3] != [1, 6] {
            return Err(NoQuestion("it is not about Ethernet"));
        }
        if header[236..240] != COOKIE {
            return Err(NoQuestion("it has no options"));
        }
        let number = |at: usize| u32::from_be_bytes([0, 1, 2, 3].map(|n| header[at + n]));
        let mut kind = None;
        let mut question = Question {
            kind: Kind::Discover,
            transaction: number(4),
            broadcast: header[10] & 0x80 != 0,
            own: Ipv4Addr::from(number(12)),
            mac: Mac([0, 1, 2, 3, 4, 5].map(|n| header[28 + n])),
            wanted: None,
            server: None,
            boots: false,
            ipxe: false,
            architecture: None,
            uuid: None,
        };
        for (code, content) in options(&bytes[HEADER..]) {
            match code {
                code::KIND => kind = content.first().copied().and_then(Kind::of),
                code::ADDRESS => question.wanted = address(content),
                code::SERVER => question.server = address(content),
                code::CLASS => question.boots = content.starts_with(b"PXEClient"),
                code::USER_CLASS => question.ipxe = content.ends_with(b"iPXE"),
                code::ARCHITECTURE => {
                    let first = content.first_chunk().copied();
                    question.architecture = first.map(u16::from_be_bytes);
                }
                code::UUID => question.uuid = Some(content.to_vec()),
                _ => {}
            }
        }
        question.kind = match kind {
            Some(kind @ (Kind::Discover | Kind::Request | Kind::Inform)) => kind,
            Some(_) => return Err(NoQuestion("it is what servers say")),
            None => return Err(NoQuestion("it is of no kind that servers answer")),
        };
        Ok(question)
    }
}

/// A file that a machine is to boot from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BootFile {
    /// Who has it, by TFTP.
    pub server: Ipv4Addr,
    /// Its name, at most 127 bytes.
    pub name: String,
}

/// An address for a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lease {
    /// The address.
    pub address: Ipv4Addr,
    /// The mask of its network.
    pub mask: Ipv4Addr,
    /// How long it may be used, in seconds.
    pub seconds: u32,
}

/// What a machine is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Offer, ack or nak.
    pub kind: Kind,
    /// Who says so.
    pub server: Ipv4Addr,
    /// The address that it may use.
    pub lease: Option<Lease>,
    /// What it boots from.
    pub file: Option<BootFile>,
}

impl Answer {
    /// The message that answers `question`.
    pub fn encode(&self, question: &Question) -> Vec<u8> {
        let mut bytes = vec![0; HEADER];
        bytes[..3].copy_from_slice(&[2, 1, 6]);
        bytes[4..8].copy_from_slice(&question.transaction.to_be_bytes());
        bytes[10] = u8::from(question.broadcast) << 7;
        if self.kind != Kind::Nak {
            bytes[12..16].copy_from_slice(&question.own.octets());
        }
        if let Some(lease) = &self.lease {
            bytes[16..20].copy_from_slice(&lease.address.octets());
        }
        bytes[28..34].copy_from_slice(&question.mac.0);
        bytes[236..240].copy_from_slice(&COOKIE);
        let option = |bytes: &mut Vec<u8>, code: u8, content: &[u8]| {
            let content = &content[..content.len().min(255)];
            bytes.extend([code, content.len() as u8]);
            bytes.extend_from_slice(content);
        };
        option(&mut bytes, code::KIND, &[self.kind.number()]);
        option(&mut bytes, code::SERVER, &self.server.octets());
        if let Some(lease) = &self.lease {
            option(&mut bytes, code::LEASE, &lease.seconds.to_be_bytes());
            option(&mut bytes, code::MASK, &lease.mask.octets());
        }
        if let Some(file) = &self.file {
            bytes[20..24].copy_from_slice(&file.server.octets());
            let name = &file.name.as_bytes()[..file.name.len().min(127)];
            bytes[108..108 + name.len()].copy_from_slice(name);
            option(&mut bytes, code::SERVER_NAME, file.server.to_string().as_bytes());
            option(&mut bytes, code::FILE, name);
            if self.lease.is_none() {
                // Only this makes it an answer about booting alone. UEFI firmware wants the second with the first: it says that the
                // file is to be taken from here, without asking around for others.
                option(&mut bytes, code::CLASS, b"PXEClient");
                option(&mut bytes, code::VENDOR, &[6, 1, 8, 255]);
            }
        }
        if let Some(uuid) = &question.uuid {
            option(&mut bytes, code::UUID, uuid);
        }
        bytes.push(code::END);
        bytes.resize(bytes.len().max(LEAST), 0);
        bytes
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A message as iPXE, or a BIOS, or UEFI firmware sends it.
    pub(crate) fn message(question: &Question) -> Vec<u8> {
        let mut bytes = vec![0; HEADER];
        bytes[..3].copy_from_slice(&[1, 1, 6]);
        bytes[4..8].copy_from_slice(&question.transaction.to_be_bytes());
        bytes[10] = u8::from(question.broadcast) << 7;
        bytes[12..16].copy_from_slice(&question.own.octets());
        bytes[28..34].copy_from_slice(&question.mac.0);
        bytes[236..].copy_from_slice(&COOKIE);
        let mut option = |code: u8, content: &[u8]| {
            bytes.extend([code, content.len() as u8]);
            bytes.extend_from_slice(content);
        };
        option(code::KIND, &[question.kind.number()]);
        if let Some(wanted) = question.wanted {
            option(code::ADDRESS, &wanted.octets());
        }
        if let Some(server) = question.server {
            option(code::SERVER, &server.octets());
        }
        if question.boots {
            option(code::CLASS, b"PXEClient:Arch:00000:UNDI:002001");
        }
        if question.ipxe {
            option(code::USER_CLASS, b"iPXE");
        }
        if let Some(architecture) = question.architecture {
            option(code::ARCHITECTURE, &architecture.to_be_bytes());
        }
        if let Some(uuid) = &question.uuid {
            option(code::UUID, uuid);
        }
        bytes.push(code::END);
        bytes
    }

    pub(crate) fn question(kind: Kind) -> Question {
        Question {
            kind,
            transaction: 0x1234_5678,
            broadcast: true,
            own: Ipv4Addr::UNSPECIFIED,
            mac: Mac([0x52, 0x54, 0, 0xd5, 0, 3]),
            wanted: None,
            server: None,
            boots: true,
            ipxe: false,
            architecture: Some(7),
            uuid: Some(vec![0; 17]),
        }
    }

    /// The content of an option of an answer.
    pub(crate) fn option_of(message: &[u8], wanted: u8) -> Option<&[u8]> {
        options(&message[HEADER..]).find(|(code, _)| *code == wanted).map(|(_, content)| content)
    }

    #[test]
    fn questions_are_read() {
        let asked = Question {
            wanted: Some([10, 0, 0, 7].into()),
            server: Some([10, 0, 0, 1].into()),
            ipxe: true,
            ..question(Kind::Request)
        };
        assert_eq!(Question::parse(&message(&asked)), Ok(asked));
        let plain = Question {
            boots: false,
            architecture: None,
            uuid: None,
            broadcast: false,
            ..question(Kind::Discover)
        };
        assert_eq!(Question::parse(&message(&plain)), Ok(plain));
    }

    #[test]
    fn an_answer_repeats_what_identifies_the_question() {
        let lease =
            Lease { address: [10, 0, 0, 9].into(), mask: [255, 255, 0, 0].into(), seconds: 3600 };
        let server = Ipv4Addr::new(10, 0, 0, 1);
        let file = BootFile { server, name: "dvs.efi".to_owned() };
        let answer = Answer { kind: Kind::Offer, server, lease: Some(lease), file: Some(file) };
        let bytes = answer.encode(&question(Kind::Discover));
        assert_eq!(bytes[0], 2);
        assert_eq!(bytes[4..8], [0x12, 0x34, 0x56, 0x78]);
        assert_eq!(bytes[16..20], [10, 0, 0, 9]);
        assert_eq!(bytes[20..24], [10, 0, 0, 1]);
        assert_eq!(bytes[108..116], *b"dvs.efi\0");
        assert_eq!(option_of(&bytes, code::FILE), Some(&b"dvs.efi"[..]));
        assert_eq!(option_of(&bytes, code::UUID), Some(&[0; 17][..]));
        assert_eq!(option_of(&bytes, code::LEASE), Some(&[0, 0, 14, 16][..]));
        assert!(Question::parse(&bytes).is_err());
    }

    #[test]
    fn an_answer_is_about_booting_alone_only_without_an_address() {
        let server = Ipv4Addr::new(10, 0, 0, 1);
        let file = Some(BootFile { server, name: "x".to_owned() });
        let answer = Answer { kind: Kind::Offer, server, lease: None, file };
        let bytes = answer.encode(&question(Kind::Discover));
        // The one without the other is refused by UEFI firmware.
        assert_eq!(option_of(&bytes, code::CLASS), Some(&b"PXEClient"[..]));
        assert_eq!(option_of(&bytes, code::VENDOR), Some(&[6, 1, 8, 255][..]));
        assert_eq!(option_of(&bytes, code::LEASE), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_question_or_refused(
            mut bytes in prop::collection::vec(any::<u8>(), 0..400),
            valid in any::<bool>(),
        ) {
            if valid && bytes.len() >= HEADER {
                bytes[..3].copy_from_slice(&[1, 1, 6]);
                bytes[236..240].copy_from_slice(&COOKIE);
            }
            if let Ok(question) = Question::parse(&bytes) {
                let server = Ipv4Addr::LOCALHOST;
                let answer = Answer { kind: Kind::Nak, server, lease: None, file: None };
                prop_assert!(answer.encode(&question).len() >= LEAST);
            }
        }
    }
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! Sending files by TFTP (RFC 1350), with the options for the size of blocks (RFC 2348), of the file (RFC 2349) and of windows
//! (RFC 7440).
//!
//! A transfer waits for nothing: a client that misses a block acknowledges the one before again, and gets what follows from there.

use std::io;
use std::ops::Range;

use crate::files::Content;

/// Port of servers.
pub const PORT: u16 = 69;
/// The largest block: what fits into an Ethernet frame with the headers of TFTP, UDP and IPv4.
pub const BLOCK_MAX: usize = 1468;
const BLOCK_DEFAULT: usize = 512;
/// The most blocks that are sent without an acknowledgement, whatever a client asks for.
const WINDOW_MAX: usize = 32;

mod operation {
    pub(super) const READ: u16 = 1;
    pub(super) const WRITE: u16 = 2;
    pub(super) const DATA: u16 = 3;
    pub(super) const ACKNOWLEDGE: u16 = 4;
    pub(super) const ERROR: u16 = 5;
    pub(super) const OPTIONS: u16 = 6;
}

/// Why a request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// There is no such file.
    NotFound,
    /// Files are read from here and never written.
    ReadOnly,
    /// It makes no sense.
    Malformed,
}

impl Refusal {
    /// The packet that says so.
    pub fn packet(self) -> Vec<u8> {
        let (code, text) = match self {
            Self::NotFound => (1_u16, "file not found"),
            Self::ReadOnly => (2, "files are only read from here"),
            Self::Malformed => (4, "the request makes no sense"),
        };
        let mut packet = operation::ERROR.to_be_bytes().to_vec();
        packet.extend(code.to_be_bytes());
        packet.extend(text.as_bytes());
        packet.push(0);
        packet
    }
}

/// A request to send a file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Request {
    /// Its name.
    pub file: String,
    block: Option<usize>,
    window: Option<usize>,
    size: bool,
}

impl Request {
    /// Reads the packet that begins a transfer; `None` when it is none that begins one, and needs no answer.
    ///
    /// # Errors
    /// [`Refusal`] when it is a request that cannot be carried out.
    pub fn parse(packet: &[u8]) -> Result<Option<Self>, Refusal> {
        let Some((operation, rest)) = packet.split_first_chunk() else { return Ok(None) };
        match u16::from_be_bytes(*operation) {
            operation::READ => {}
            operation::WRITE => return Err(Refusal::ReadOnly),
            _ => return Ok(None),
        }
        let rest = rest.strip_suffix(&[0]).ok_or(Refusal::Malformed)?;
        let words: Result<Vec<_>, _> =
            rest.split(|byte| *byte == 0).map(std::str::from_utf8).collect();
        let words = words.map_err(|_| Refusal::Malformed)?;
        let [file, mode, options @ ..] = &words[..] else { return Err(Refusal::Malformed) };
        if !mode.eq_ignore_ascii_case("octet") {
            return Err(Refusal::Malformed);
        }
        let mut request = Request { file: (*file).to_owned(), ..Self::default() };
        for option in options.chunks_exact(2) {
            let value = option[1].parse::<usize>().ok();
            match option[0].to_ascii_lowercase().as_str() {
                "blksize" => request.block = value.filter(|size| *size >= 8),
                "windowsize" => request.window = value.filter(|size| *size >= 1),
                "tsize" => request.size = true,
                // What is not known is not acknowledged, and so does not hold.
                _ => {}
            }
        }
        Ok(Some(request))
    }
}

/// A packet to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Packet {
    /// Which options hold.
    Options(Vec<u8>),
    /// A block of this number: a range of the file.
    Block(u16, Range<u64>),
}

impl Packet {
    /// Its bytes, given what the file has.
    ///
    /// # Errors
    /// When that cannot be read.
    pub fn encode(&self, content: &Content) -> io::Result<Vec<u8>> {
        match self {
            Self::Options(options) => Ok([&operation::OPTIONS.to_be_bytes()[..], options].concat()),
            Self::Block(number, range) => {
                let mut packet = operation::DATA.to_be_bytes().to_vec();
                packet.extend(number.to_be_bytes());
                packet.extend(content.read(range.clone())?);
                Ok(packet)
            }
        }
    }
}

/// A file that is being sent to one client.
#[derive(Clone, Debug)]
pub struct Transfer {
    /// Bytes of the file.
    length: u64,
    block: usize,
    window: usize,
    /// How many blocks the client has.
    acknowledged: usize,
    options: Option<Vec<u8>>,
    done: bool,
}

impl Transfer {
    /// Begins to send a file of `length` bytes as `request` asks; the transfer and the packets to send.
    pub fn begin(request: &Request, length: u64) -> (Self, Vec<Packet>) {
        let block = request.block.map_or(BLOCK_DEFAULT, |size| size.min(BLOCK_MAX));
        let window = request.window.map_or(1, |size| size.min(WINDOW_MAX));
        let mut options = Vec::new();
        let mut accept = |name: &str, value: u64| {
            options.extend(name.as_bytes());
            options.push(0);
            options.extend(value.to_string().as_bytes());
            options.push(0);
        };
        if request.block.is_some() {
            accept("blksize", block as u64);
        }
        if request.window.is_some() {
            accept("windowsize", window as u64);
        }
        if request.size {
            accept("tsize", length);
        }
        let options = (!options.is_empty()).then_some(options);
        let transfer = Self { length, block, window, acknowledged: 0, options, done: false };
        let packets = transfer.first();
        (transfer, packets)
    }

    /// Takes in a packet of the client and returns those to send.
    pub fn receive(&mut self, packet: &[u8]) -> Vec<Packet> {
        let Some(&[a, b, c, d]) = packet.first_chunk() else { return Vec::new() };
        match u16::from_be_bytes([a, b]) {
            operation::ACKNOWLEDGE => {
                let Some(count) = self.count_of(u16::from_be_bytes([c, d])) else {
                    return Vec::new();
                };
                self.acknowledged = count;
                self.options = None;
                if self.is_complete() {
                    self.done = true;
                    return Vec::new();
                }
                self.ahead()
            }
            operation::ERROR => {
                self.done = true;
                Vec::new()
            }
            // The request once more: what answered it was lost.
            operation::READ if self.acknowledged == 0 => self.first(),
            _ => Vec::new(),
        }
    }

    /// Whether it has come to its end, or the client has given up.
    pub fn is_done(&self) -> bool {
        self.done
    }

    /// Whether the client has said that it has all of it.
    pub fn is_complete(&self) -> bool {
        self.acknowledged == self.blocks()
    }

    /// The last block is shorter than the others, and empty if need be: that is how a client knows it.
    fn blocks(&self) -> usize {
        (self.length / self.block as u64) as usize + 1
    }

    /// How many blocks a client has that acknowledges the one with this number; numbers begin anew after 65,535. `None` when it is none
    /// of those under way.
    fn count_of(&self, number: u16) -> Option<usize> {
        let ahead = usize::from(number.wrapping_sub(self.acknowledged as u16));
        let count = self.acknowledged + ahead;
        (ahead <= self.window && count <= self.blocks()).then_some(count)
    }

    /// What a client gets that has got nothing yet.
    fn first(&self) -> Vec<Packet> {
        let options = self.options.clone().map(Packet::Options);
        options.map_or_else(|| self.ahead(), |options| vec![options])
    }

    /// What a client may get before its next acknowledgement.
    fn ahead(&self) -> Vec<Packet> {
        let last = self.blocks().min(self.acknowledged + self.window);
        (self.acknowledged..last)
            .map(|number| {
                let from = number as u64 * self.block as u64;
                let to = self.length.min(from + self.block as u64);
                Packet::Block((number + 1) as u16, from..to)
            })
            .collect()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;

    pub(crate) fn request(file: &str, options: &[(&str, usize)]) -> Vec<u8> {
        let mut packet = operation::READ.to_be_bytes().to_vec();
        let mut word = |text: &str| {
            packet.extend(text.as_bytes());
            packet.push(0);
        };
        word(file);
        word("octet");
        for (name, value) in options {
            word(name);
            word(&value.to_string());
        }
        packet
    }

    pub(crate) fn acknowledge(block: u16) -> Vec<u8> {
        [operation::ACKNOWLEDGE.to_be_bytes(), block.to_be_bytes()].concat()
    }

    /// A client that takes blocks in order and loses those packets, either way, for which `lost` says so; it asks again when it
    /// hears nothing. Returns what it has got.
    fn fetch(content: &[u8], options: &[(&str, usize)], mut lost: impl FnMut() -> bool) -> Vec<u8> {
        let asked = request("f", options);
        let parsed = Request::parse(&asked).unwrap().unwrap();
        let (mut transfer, mut packets) = Transfer::begin(&parsed, content.len() as u64);
        let content = Content::of(content);
        let window = transfer.window;
        let block = transfer.block;
        let (mut got, mut count, mut last) = (Vec::new(), 0_usize, false);
        let mut say = asked;
        for _ in 0..100_000 {
            let mut since = 0;
            for packet in std::mem::take(&mut packets) {
                if lost() {
                    continue;
                }
                let packet = packet.encode(&content).unwrap();
                match u16::from_be_bytes([packet[0], packet[1]]) {
                    operation::OPTIONS => say = acknowledge(0),
                    operation::DATA => {
                        let number = u16::from_be_bytes([packet[2], packet[3]]);
                        if number == (count + 1) as u16 && !last {
                            got.extend_from_slice(&packet[4..]);
                            count += 1;
                            since += 1;
                            last = packet.len() - 4 < block;
                        }
                        say = acknowledge(count as u16);
                        assert!(since <= window);
                    }
                    other => panic!("operation {other}"),
                }
            }
            if !lost() {
                packets = transfer.receive(&say);
            }
            if last && transfer.is_done() {
                return got;
            }
        }
        panic!("the transfer does not end");
    }

    #[test]
    fn files_arrive_whole_whatever_their_length() {
        for length in [0, 1, 511, 512, 513, 1024, 70_000] {
            let content: Vec<u8> = (0..length).map(|n| (n * 7 % 251) as u8).collect();
            for options in [&[][..], &[("blksize", 1000), ("tsize", 0)], &[("windowsize", 8)]] {
                assert_eq!(fetch(&content, options, || false), content, "{length} {options:?}");
            }
        }
    }

    #[test]
    fn block_numbers_begin_anew() {
        let content: Vec<u8> = (0..8 * 70_000_u32).map(|n| (n % 253) as u8).collect();
        assert!(fetch(&content, &[("blksize", 8), ("windowsize", 16)], || false) == content);
    }

    #[test]
    fn options_are_confirmed_within_limits() {
        let asked = request("f", &[("blksize", 9000), ("windowsize", 500), ("tsize", 0), ("x", 1)]);
        let request = Request::parse(&asked).unwrap().unwrap();
        let (_, packets) = Transfer::begin(&request, 99);
        let [packet] = &packets[..] else { panic!("{packets:?}") };
        let expected = b"\0\x06blksize\x001468\0windowsize\x0032\0tsize\x0099\0";
        assert_eq!(packet.encode(&Content::default()).unwrap(), expected);
    }

    #[test]
    fn what_is_no_request_is_refused_or_ignored() {
        assert_eq!(Request::parse(&acknowledge(3)), Ok(None));
        assert_eq!(Request::parse(&[]), Ok(None));
        assert_eq!(Request::parse(b"\0\x02f\0octet\0"), Err(Refusal::ReadOnly));
        for packet in [
            &b"\0\x01"[..],
            b"\0\x01f\0",
            b"\0\x01f\0mail\0",
            b"\0\x01f\0octet",
            b"\0\x01\xff\0octet\0",
        ] {
            assert_eq!(Request::parse(packet), Err(Refusal::Malformed), "{packet:?}");
        }
    }

    #[test]
    fn a_client_that_gives_up_ends_the_transfer() {
        let asked = Request::parse(&request("f", &[("tsize", 0)])).unwrap().unwrap();
        let (mut transfer, _) = Transfer::begin(&asked, 99);
        assert!(transfer.receive(&Refusal::Malformed.packet()).is_empty());
        assert!(transfer.is_done() && !transfer.is_complete());
    }

    proptest! {
        #[test]
        fn nothing_is_lost_on_a_bad_network(
            length in 0..3000_usize,
            window in 1..9_usize,
            seed in any::<u64>(),
        ) {
            let content: Vec<u8> = (0..length).map(|n| (n % 241) as u8).collect();
            let mut state = seed | 1;
            let lost = || {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                (state >> 33) % 4 == 0
            };
            prop_assert_eq!(fetch(&content, &[("blksize", 64), ("windowsize", window)], lost), content);
        }

        #[test]
        fn any_bytes_do_no_harm(packet in prop::collection::vec(any::<u8>(), 0..40)) {
            let _ = Request::parse(&packet);
            let asked = Request::parse(&request("f", &[])).unwrap().unwrap();
            let (mut transfer, _) = Transfer::begin(&asked, 99);
            prop_assert!(transfer.receive(&packet).len() <= 1);
        }
    }
}

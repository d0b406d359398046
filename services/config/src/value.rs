// SPDX-License-Identifier: MIT OR Apache-2.0
//! Values of single keys, checked when they are made.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::command_line;

/// Lets a type that parses from text and displays as it stand in the schema.
macro_rules! textual {
    ($type:ty, $error:ty) => {
        impl TryFrom<String> for $type {
            type Error = $error;

            fn try_from(text: String) -> Result<Self, $error> {
                text.parse()
            }
        }

        impl From<$type> for String {
            fn from(value: $type) -> Self {
                value.as_text()
            }
        }
    };
}
pub(crate) use textual;

/// The name of a cluster or a node: a host-name label (RFC 1123), 1 to 63 characters of `a-z`,
/// `0-9` and `-`, with no `-` at either end.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Name(String);

/// The text is no host-name label.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is no name, expected 1 to 63 lowercase letters, digits and inner hyphens, such as `rack3-a`"
)]
pub struct ParseNameError(String);

impl Name {
    /// The default cluster name.
    pub(crate) fn dvs() -> Self {
        Self("dvs".to_owned())
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn as_text(&self) -> String {
        self.0.clone()
    }
}

impl FromStr for Name {
    type Err = ParseNameError;

    fn from_str(text: &str) -> Result<Self, ParseNameError> {
        let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        if (1..=63).contains(&text.len())
            && text.bytes().all(fits)
            && !text.starts_with('-')
            && !text.ends_with('-')
        {
            Ok(Self(text.to_owned()))
        } else {
            Err(ParseNameError(text.to_owned()))
        }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

textual!(Name, ParseNameError);

/// The cluster's token: a secret of at least [`MIN_LEN`](Self::MIN_LEN) printable ASCII characters
/// without blanks at the ends. Its `Debug` form does not show it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Token(String);

/// The text cannot be a cluster token. The message does not repeat it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseTokenError {
    /// Too short to keep a guesser busy.
    #[error(
        "the cluster token has {0} characters, expected at least {min}; \
         `openssl rand -hex 16` makes a good one",
        min = Token::MIN_LEN
    )]
    TooShort(usize),
    /// Longer than any key needs to be.
    #[error("the cluster token has {0} characters, expected at most {max}", max = Token::MAX_LEN)]
    TooLong(usize),
    /// A control or non-ASCII character, or a blank at an end: likely an accident of copying.
    #[error("the cluster token holds a control or non-ASCII character, or a blank at an end")]
    Unprintable,
}

impl Token {
    /// Fewest characters of a token.
    pub const MIN_LEN: usize = 16;
    /// Most characters of a token.
    pub const MAX_LEN: usize = 256;

    /// The secret itself: for keying, never for display.
    pub fn secret(&self) -> &str {
        &self.0
    }

    fn as_text(&self) -> String {
        self.0.clone()
    }
}

impl FromStr for Token {
    type Err = ParseTokenError;

    fn from_str(text: &str) -> Result<Self, ParseTokenError> {
        let length = text.chars().count();
        if text.trim() != text || !text.bytes().all(|byte| (b' '..=b'~').contains(&byte)) {
            Err(ParseTokenError::Unprintable)
        } else if length < Self::MIN_LEN {
            Err(ParseTokenError::TooShort(length))
        } else if length > Self::MAX_LEN {
            Err(ParseTokenError::TooLong(length))
        } else {
            Ok(Self(text.to_owned()))
        }
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

textual!(Token, ParseTokenError);

/// An IPv4 address of an interface and the length of its network prefix: `10.0.2.15/24`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct InterfaceAddress {
    address: Ipv4Addr,
    prefix_len: u8,
}

/// The text is no interface address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseAddressError {
    /// Not of the form ADDRESS/LENGTH.
    #[error("`{0}` is no interface address, expected one like `10.0.2.15/24`")]
    Form(String),
    /// An address that no interface can have.
    #[error("{address} in `{text}` is {what}, expected the address of one machine")]
    NoHost {
        /// The whole text.
        text: String,
        /// Its address.
        address: Ipv4Addr,
        /// What the address is instead.
        what: &'static str,
    },
}

impl InterfaceAddress {
    /// The address.
    pub fn address(&self) -> Ipv4Addr {
        self.address
    }

    /// Length of the network prefix in bits, 1 to 32.
    pub fn prefix_len(&self) -> u8 {
        self.prefix_len
    }

    /// Whether the other address lies in the same network.
    pub fn network_contains(&self, other: Ipv4Addr) -> bool {
        (self.address.to_bits() ^ other.to_bits()) & self.mask() == 0
    }

    /// The mask of its network.
    pub fn netmask(&self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.mask())
    }

    fn mask(&self) -> u32 {
        u32::MAX << (32 - u32::from(self.prefix_len))
    }

    fn as_text(self) -> String {
        self.to_string()
    }
}

impl FromStr for InterfaceAddress {
    type Err = ParseAddressError;

    fn from_str(text: &str) -> Result<Self, ParseAddressError> {
        let form = || ParseAddressError::Form(text.to_owned());
        let (address, prefix) = text.split_once('/').ok_or_else(form)?;
        let address: Ipv4Addr = address.parse().map_err(|_| form())?;
        if prefix.is_empty() || !prefix.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(form());
        }
        let prefix_len = prefix.parse().ok().filter(|n| (1..=32).contains(n)).ok_or_else(form)?;
        let parsed = Self { address, prefix_len };
        let host = address.to_bits() & !parsed.mask();
        let what = if address.is_unspecified() {
            "the unspecified address"
        } else if address.is_multicast() {
            "a multicast address"
        } else if address.is_broadcast() {
            "the broadcast address"
        } else if address.is_loopback() {
            "a loopback address"
        } else if prefix_len < 31 && host == 0 {
            "the address of the network"
        } else if prefix_len < 31 && host == !parsed.mask() {
            "the broadcast address of the network"
        } else {
            return Ok(parsed);
        };
        Err(ParseAddressError::NoHost { text: text.to_owned(), address, what })
    }
}

impl fmt::Display for InterfaceAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix_len)
    }
}

textual!(InterfaceAddress, ParseAddressError);

/// IPv4 addresses from one to another, both included, such as `192.168.7.100-192.168.7.199`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct AddressRange {
    first: Ipv4Addr,
    last: Ipv4Addr,
}

/// A text that is no range of addresses.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseRangeError {
    /// It does not have the form of one.
    #[error("`{0}` is no range of addresses, expected one like `192.168.7.100-192.168.7.199`")]
    Form(String),
    /// It is longer than anybody needs.
    #[error(
        "`{text}` are {count} addresses, expected at most {max}",
        max = AddressRange::COUNT_MAX
    )]
    TooMany {
        /// The whole text.
        text: String,
        /// How many they are.
        count: u64,
    },
}

impl AddressRange {
    /// Most addresses of a range.
    pub const COUNT_MAX: u32 = 4096;

    /// The first address.
    pub fn first(&self) -> Ipv4Addr {
        self.first
    }

    /// How many there are from there; at least one.
    pub fn count(&self) -> u32 {
        self.last.to_bits() - self.first.to_bits() + 1
    }

    /// Whether all of them can be given to machines by the one that has `own`.
    ///
    /// # Errors
    /// For people: they are outside of its network, or its own address is among them.
    pub fn check_beside(&self, own: InterfaceAddress) -> Result<(), String> {
        let Self { first, last } = self;
        if !own.network_contains(*first) || !own.network_contains(*last) {
            return Err(format!("{self} is not all within the network of {own}"));
        }
        if (first..=last).contains(&&own.address()) {
            return Err(format!("{self} has the own address of the interface, {}", own.address()));
        }
        Ok(())
    }

    fn as_text(self) -> String {
        self.to_string()
    }
}

impl FromStr for AddressRange {
    type Err = ParseRangeError;

    fn from_str(text: &str) -> Result<Self, ParseRangeError> {
        let form = || ParseRangeError::Form(text.to_owned());
        let (first, last) = text.split_once('-').ok_or_else(form)?;
        let [first, last] = [first, last].map(|address| address.trim().parse::<Ipv4Addr>());
        let (Ok(first), Ok(last)) = (first, last) else { return Err(form()) };
        let count = u64::from(last.to_bits()) + 1;
        let count = count.checked_sub(u64::from(first.to_bits())).filter(|count| *count > 0);
        let count = count.ok_or_else(form)?;
        if count > u64::from(Self::COUNT_MAX) {
            return Err(ParseRangeError::TooMany { text: text.to_owned(), count });
        }
        Ok(Self { first, last })
    }
}

impl fmt::Display for AddressRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.first, self.last)
    }
}

textual!(AddressRange, ParseRangeError);

/// Kernel arguments for other machines, which may hold secrets. Does not show itself in debug output.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct KernelArguments(String);

/// A text that cannot be handed to a kernel. It does not quote the text, which may hold a secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseArgumentsError {
    /// The kernel would cut it off.
    #[error("the arguments have {0} characters, expected at most {max}", max = KernelArguments::MAX_LEN)]
    TooLong(usize),
    /// Line ends and the like.
    #[error("the arguments hold a control or non-ASCII character")]
    Unprintable,
    /// What machines load the kernel with would take it for something else.
    #[error(
        "the arguments hold `{0}`, which means something to iPXE and does not reach the kernel"
    )]
    Special(&'static str),
    /// One is meant for us and is none.
    #[error("in the arguments, {0}")]
    Configuration(String),
}

impl KernelArguments {
    /// Most characters: half of what the kernel takes.
    pub const MAX_LEN: usize = 1024;

    /// The arguments themselves, secrets included.
    pub fn secret(&self) -> &str {
        &self.0
    }

    /// Whether there is a secret among them.
    pub fn has_secret(&self) -> bool {
        !command_line::secrets(&self.0).is_empty()
    }

    /// The arguments with `***` in place of secrets.
    pub fn masked(&self) -> String {
        let mut text = self.0.clone();
        for secret in command_line::secrets(&self.0).into_iter().rev() {
            text.replace_range(secret, "***");
        }
        text
    }

    fn as_text(&self) -> String {
        self.0.clone()
    }
}

impl FromStr for KernelArguments {
    type Err = ParseArgumentsError;

    fn from_str(text: &str) -> Result<Self, ParseArgumentsError> {
        if !text.bytes().all(|byte| (b' '..=b'~').contains(&byte)) {
            return Err(ParseArgumentsError::Unprintable);
        }
        if text.len() > Self::MAX_LEN {
            return Err(ParseArgumentsError::TooLong(text.len()));
        }
        let words = || text.split(' ');
        let special = ["||", "&&"].into_iter().find(|special| words().any(|word| word == *special));
        if let Some(special) = special.or_else(|| text.contains("${").then_some("${")) {
            return Err(ParseArgumentsError::Special(special));
        }
        command_line::table(text)
            .map_err(|problem| ParseArgumentsError::Configuration(problem.message))?;
        Ok(Self(text.trim().to_owned()))
    }
}

impl fmt::Debug for KernelArguments {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KernelArguments(…)")
    }
}

textual!(KernelArguments, ParseArgumentsError);

/// A join token that a cluster has given out: `ID.SECRET`. Its `Debug` form does not show the secret.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct JoinToken {
    id: String,
    secret: String,
}

/// The text cannot be a join token that a cluster has given out. The message does not repeat it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "expected a token as `dvsctl token create` prints it: an id of 4 to 16 and a secret of 26 to 128 lower-case letters and \
     digits, with a dot between them"
)]
pub struct ParseJoinTokenError;

impl JoinToken {
    /// By which name people and nodes speak of it; no secret.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The secret itself: for keying, never for display.
    pub fn secret(&self) -> &str {
        &self.secret
    }

    fn as_text(&self) -> String {
        format!("{}.{}", self.id, self.secret)
    }
}

impl FromStr for JoinToken {
    type Err = ParseJoinTokenError;

    fn from_str(text: &str) -> Result<Self, ParseJoinTokenError> {
        let (id, secret) = text.split_once('.').ok_or(ParseJoinTokenError)?;
        let plain = |part: &str| {
            part.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
        };
        let fits = (4..=16).contains(&id.len()) && (26..=128).contains(&secret.len());
        match fits && plain(id) && plain(secret) {
            true => Ok(Self { id: id.to_owned(), secret: secret.to_owned() }),
            false => Err(ParseJoinTokenError),
        }
    }
}

impl fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "JoinToken({})", self.id)
    }
}

textual!(JoinToken, ParseJoinTokenError);

#[cfg(test)]
mod tests {
    use super::{
        AddressRange, InterfaceAddress, JoinToken, KernelArguments, Name, ParseTokenError, Token,
    };

    #[test]
    fn ranges_of_addresses_are_read_and_bounded() {
        let range: AddressRange = "10.0.0.5-10.0.0.9".parse().unwrap();
        assert_eq!((range.first(), range.count()), ([10, 0, 0, 5].into(), 5));
        assert_eq!(range.to_string().parse(), Ok(range));
        for text in ["", "10.0.0.5", "10.0.0.9-10.0.0.5", "10.0.0.5-x"] {
            assert!(text.parse::<AddressRange>().unwrap_err().to_string().contains("no range"));
        }
        assert_eq!("0.0.0.0-0.0.15.255".parse::<AddressRange>().unwrap().count(), 4096);
        let error = "10.0.0.0-10.255.255.255".parse::<AddressRange>().unwrap_err().to_string();
        assert!(error.contains("16777216 addresses, expected at most 4096"), "{error}");
    }

    #[test]
    fn addresses_that_cannot_be_given_away_are_refused() {
        let range: AddressRange = "10.0.0.5-10.0.0.9".parse().unwrap();
        let beside = |own: &str| range.check_beside(own.parse().unwrap());
        assert_eq!(beside("10.0.0.1/24"), Ok(()));
        assert!(beside("10.0.0.7/24").unwrap_err().contains("own address"));
        assert!(beside("10.0.1.1/24").unwrap_err().contains("network of 10.0.1.1/24"));
        assert!(beside("10.0.0.1/29").unwrap_err().contains("network"));
    }

    #[test]
    fn kernel_arguments_reach_the_kernel_and_do_not_show_secrets() {
        let parse = |text: &str| text.parse::<KernelArguments>();
        let arguments =
            parse("quiet dvs.cluster.token=\"sixteen letters or more\" dvs.node.name=a").unwrap();
        assert!(arguments.has_secret());
        let masked = "quiet dvs.cluster.token=\"***\" dvs.node.name=a";
        assert_eq!(arguments.masked(), masked);
        assert!(!format!("{arguments:?}").contains("sixteen"));
        assert!(!parse("quiet").unwrap().has_secret());
        for (bad, part) in [
            ("a\nb", "control"),
            ("a || b", "`||`"),
            ("a=${net0/mac}", "`${`"),
            ("dvs.cluster.tokn=abc", "did you mean `cluster.token`?"),
            (&"x".repeat(1025), "1025 characters"),
        ] {
            let error = parse(bad).unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        }
    }

    #[test]
    fn names_are_host_name_labels() {
        for good in ["a", "rack3-a", "0", &"x".repeat(63)] {
            assert_eq!(good.parse::<Name>().unwrap().as_str(), good);
        }
        for bad in ["", "-a", "a-", "A", "a.b", "ü", "a b", &"x".repeat(64)] {
            assert!(bad.parse::<Name>().is_err(), "{bad}");
        }
    }

    #[test]
    fn tokens_have_a_least_length_and_stay_secret() {
        assert_eq!("0123456789abcde".parse::<Token>(), Err(ParseTokenError::TooShort(15)));
        assert_eq!(" 123456789abcdef".parse::<Token>(), Err(ParseTokenError::Unprintable));
        assert_eq!("0123456789abcdé0".parse::<Token>(), Err(ParseTokenError::Unprintable));
        assert_eq!("x".repeat(257).parse::<Token>(), Err(ParseTokenError::TooLong(257)));
        let token: Token = "0123456789abcdef".parse().unwrap();
        assert!(!format!("{token:?}").contains("0123"));
        assert_eq!(token.secret(), "0123456789abcdef");
    }

    #[test]
    fn addresses_are_those_of_machines() {
        for good in ["10.0.2.15/24", "10.0.0.0/31", "192.0.2.7/32", "172.16.0.1/1"] {
            assert_eq!(good.parse::<InterfaceAddress>().unwrap().to_string(), good);
        }
        for bad in [
            "10.0.2.15",
            "10.0.2.15/0",
            "10.0.2.15/33",
            "10.0.2.15/+4",
            "10.0.2.15/",
            "10.0.2/24",
            "10.0.2.0/24",
            "10.0.2.255/24",
            "0.0.0.0/24",
            "224.0.0.1/24",
            "127.0.0.1/8",
            "255.255.255.255/32",
        ] {
            assert!(bad.parse::<InterfaceAddress>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_network_ends_where_its_prefix_says() {
        let address: InterfaceAddress = "10.0.2.15/23".parse().unwrap();
        assert!(address.network_contains("10.0.3.255".parse().unwrap()));
        assert!(!address.network_contains("10.0.4.0".parse().unwrap()));
        let single: InterfaceAddress = "10.0.2.15/32".parse().unwrap();
        assert!(!single.network_contains("10.0.2.14".parse().unwrap()));
    }

    #[test]
    fn a_join_token_has_an_id_that_may_be_shown_and_a_secret_that_may_not() {
        let secret = "abcdefghijklmnopqrstuvwxyz";
        let token: JoinToken = format!("ab12.{secret}").parse().unwrap();
        assert_eq!((token.id(), token.secret()), ("ab12", secret));
        assert_eq!(format!("{token:?}"), "JoinToken(ab12)");
        assert_eq!(String::from(token), format!("ab12.{secret}"));
        for wrong in [
            String::new(),
            secret.into(),
            format!("abc.{secret}"),
            format!("ab12.{}", &secret[1..]),
            format!("AB12.{secret}"),
            format!("ab12.{secret}."),
            format!("ab12.{}", "x".repeat(129)),
        ] {
            let error = wrong.parse::<JoinToken>().unwrap_err().to_string();
            assert!(!error.contains("xyz"), "{error}");
        }
    }
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! Typed views of a message's payload.

use dvk_abi::message::PAYLOAD_BYTES;
use dvk_abi::{Endpoint, Message};

/// Why a message is not a payload of the wanted type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PayloadError {
    /// The message's kind says that it is something else.
    #[error("a message of kind {found:#x} where {expected:#x} was expected")]
    Kind {
        /// The kind of the type asked for.
        expected: u32,
        /// The kind of the message.
        found: u32,
    },
    /// A field's bytes are no value of its type.
    #[error("field `{field}` of a message of kind {kind:#x} has no valid value")]
    Field {
        /// The kind of the message.
        kind: u32,
        /// The field's name.
        field: &'static str,
    },
}

/// Data that fits the payload of a message, without the kind that says what it is.
///
/// The parameters and results of a [`protocol!`](crate::protocol!) are such data: structures that
/// [`payload!`](crate::payload!) defines, a single [`Field`], or nothing, `()`.
pub trait Body: Sized {
    /// Bytes of the payload that the type takes, at most 48; the rest is zero.
    const BYTES: usize;

    /// Writes the fields in order.
    fn encode(&self, to: &mut PayloadWriter<'_>);

    /// Reads the fields in order.
    ///
    /// # Errors
    /// [`PayloadError::Field`] for bytes that [`encode`](Self::encode) never writes.
    fn decode(from: &mut PayloadReader<'_>) -> Result<Self, PayloadError>;

    /// A message of `kind` that carries this.
    fn message_of(&self, kind: u32) -> Message {
        const { assert!(Self::BYTES <= PAYLOAD_BYTES, "the payload does not fit a message") };
        let mut message = Message::new(kind);
        self.encode(&mut PayloadWriter { rest: &mut message.payload });
        message
    }

    /// What `message` carries, whatever its kind is.
    ///
    /// # Errors
    /// [`PayloadError::Field`] if the payload's bytes are no value of the type.
    fn view_of(message: &Message) -> Result<Self, PayloadError> {
        const { assert!(Self::BYTES <= PAYLOAD_BYTES, "the payload does not fit a message") };
        Self::decode(&mut PayloadReader { rest: &message.payload, kind: message.kind })
    }
}

impl Body for () {
    const BYTES: usize = 0;

    fn encode(&self, _: &mut PayloadWriter<'_>) {}

    fn decode(_: &mut PayloadReader<'_>) -> Result<Self, PayloadError> {
        Ok(())
    }
}

impl<F: Field> Body for F {
    const BYTES: usize = <F as Field>::BYTES;

    fn encode(&self, to: &mut PayloadWriter<'_>) {
        to.put(self);
    }

    fn decode(from: &mut PayloadReader<'_>) -> Result<Self, PayloadError> {
        from.get("value")
    }
}

/// Data that is known by the kind of its message. The macro [`payload!`](crate::payload!)
/// implements it.
///
/// MINIX 3 does the same with the union of its `message`: one member for each `m_type`, and an
/// assertion of the size for each member.
pub trait Payload: Body {
    /// The message kind that says the payload is of this type.
    const KIND: u32;

    /// The message that carries this.
    fn message(&self) -> Message {
        self.message_of(Self::KIND)
    }

    /// What `message` carries.
    ///
    /// # Errors
    /// [`PayloadError`] if it carries something else.
    fn view(message: &Message) -> Result<Self, PayloadError> {
        if message.kind != Self::KIND {
            return Err(PayloadError::Kind { expected: Self::KIND, found: message.kind });
        }
        Self::view_of(message)
    }
}

/// Where the fields of a payload are written, one after the other.
#[derive(Debug)]
pub struct PayloadWriter<'p> {
    rest: &'p mut [u8],
}

impl PayloadWriter<'_> {
    /// Writes the next field.
    ///
    /// # Panics
    /// If the payload is full, which [`Body::BYTES`] excludes for types of
    /// [`payload!`](crate::payload!).
    pub fn put<F: Field>(&mut self, field: &F) {
        let (bytes, rest) = core::mem::take(&mut self.rest).split_at_mut(F::BYTES);
        field.write(bytes);
        self.rest = rest;
    }
}

/// Where the fields of a payload are read from, one after the other.
#[derive(Debug)]
pub struct PayloadReader<'p> {
    rest: &'p [u8],
    kind: u32,
}

impl PayloadReader<'_> {
    /// Reads the next field, which has this name in errors.
    ///
    /// # Errors
    /// [`PayloadError::Field`] if the bytes are no value of the field's type.
    ///
    /// # Panics
    /// If the payload is at its end, like [`PayloadWriter::put`].
    pub fn get<F: Field>(&mut self, name: &'static str) -> Result<F, PayloadError> {
        let (bytes, rest) = self.rest.split_at(F::BYTES);
        self.rest = rest;
        F::read(bytes).ok_or(PayloadError::Field { kind: self.kind, field: name })
    }
}

/// A type that a field of a payload may have: integers, `bool`, [`Endpoint`], and arrays of those.
/// Lengths of text and data, and what they mean, are for the protocol to say.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be a field of a message",
    note = "fields are integers, `bool`, `Endpoint`, arrays of those, and types with `impl dvk::Field`"
)]
pub trait Field: Sized {
    /// Bytes it takes; fields are not padded.
    const BYTES: usize;

    /// Writes it, little-endian, to [`BYTES`](Self::BYTES) bytes.
    fn write(&self, to: &mut [u8]);

    /// Reads it from [`BYTES`](Self::BYTES) bytes; `None` if they are no value of the type.
    fn read(from: &[u8]) -> Option<Self>;
}

macro_rules! integer_fields {
    ($($integer:ty)*) => {$(
        impl Field for $integer {
            const BYTES: usize = size_of::<Self>();

            fn write(&self, to: &mut [u8]) {
                to.copy_from_slice(&self.to_le_bytes());
            }

            fn read(from: &[u8]) -> Option<Self> {
                Some(Self::from_le_bytes(from.try_into().ok()?))
            }
        }
    )*};
}

integer_fields! { u8 u16 u32 u64 u128 i8 i16 i32 i64 i128 }

impl Field for bool {
    const BYTES: usize = 1;

    fn write(&self, to: &mut [u8]) {
        u8::from(*self).write(to);
    }

    fn read(from: &[u8]) -> Option<Self> {
        match from {
            [0] => Some(false),
            [1] => Some(true),
            _ => None,
        }
    }
}

impl Field for Endpoint {
    const BYTES: usize = 8;

    fn write(&self, to: &mut [u8]) {
        self.raw().write(to);
    }

    fn read(from: &[u8]) -> Option<Self> {
        u64::read(from).map(Self::from_raw)
    }
}

impl<F: Field + Copy + Default, const N: usize> Field for [F; N] {
    const BYTES: usize = N * F::BYTES;

    fn write(&self, to: &mut [u8]) {
        for (element, bytes) in self.iter().zip(to.chunks_exact_mut(F::BYTES)) {
            element.write(bytes);
        }
    }

    fn read(from: &[u8]) -> Option<Self> {
        let mut elements = [F::default(); N];
        for (element, bytes) in elements.iter_mut().zip(from.chunks_exact(F::BYTES)) {
            *element = F::read(bytes)?;
        }
        Some(elements)
    }
}

/// Defines structures that messages carry, and implements [`Body`] and [`Payload`] for them.
///
/// Fields lie in the payload in the order given, little-endian, without padding; that they fit is
/// checked at compile time. Each structure has the message kind that follows its name, or none:
/// then it is a [`Body`] only, such as the result of a request.
///
/// ```
/// use dvk::{payload, Payload};
///
/// payload! {
///     /// Asks for a part of a file.
///     pub struct Read: 0x201 {
///         /// Which open file.
///         pub file: u32,
///         /// From which byte on.
///         pub offset: u64,
///     }
/// }
///
/// let message = Read { file: 3, offset: 4096 }.message();
/// assert_eq!(message.payload[..12], [3, 0, 0, 0, 0, 16, 0, 0, 0, 0, 0, 0]);
/// assert_eq!(Read::view(&message)?.offset, 4096);
/// # Ok::<(), dvk::PayloadError>(())
/// ```
///
/// ```compile_fail
/// dvk::payload! {
///     /// One byte too many.
///     struct Large: 0x202 {
///         bytes: [u8; 49],
///     }
/// }
/// ```
#[macro_export]
macro_rules! payload {
    ($(
        $(#[$attribute:meta])*
        $visibility:vis struct $name:ident $(: $kind:literal)? {
            $($(#[$field_attribute:meta])* $field_visibility:vis $field:ident : $type:ty),* $(,)?
        }
    )*) => {$(
        $(#[$attribute])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        $visibility struct $name {
            $($(#[$field_attribute])* $field_visibility $field: $type,)*
        }

        const _: () = assert!(
            <$name as $crate::Body>::BYTES <= 48,
            concat!("payload ", stringify!($name), " does not fit the 48 bytes of a message"),
        );

        impl $crate::Body for $name {
            const BYTES: usize = 0 $(+ <$type as $crate::Field>::BYTES)*;

            #[allow(unused_variables, reason = "a structure may have no fields")]
            fn encode(&self, to: &mut $crate::PayloadWriter<'_>) {
                $(to.put(&self.$field);)*
            }

            #[allow(unused_variables, reason = "a structure may have no fields")]
            fn decode(
                from: &mut $crate::PayloadReader<'_>,
            ) -> ::core::result::Result<Self, $crate::PayloadError> {
                Ok(Self { $($field: from.get(stringify!($field))?,)* })
            }
        }

        $(
            impl $crate::Payload for $name {
                const KIND: u32 = $kind;
            }
        )?
    )*};
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    crate::payload! {
        struct Empty: 0x100 {}

        struct Full: 0x101 {
            a: u8,
            b: i16,
            c: u32,
            d: bool,
            e: Endpoint,
            f: [u16; 8],
            g: u128,
        }
    }

    const _: () = assert!(Full::BYTES == PAYLOAD_BYTES);

    #[test]
    fn fields_are_little_endian_in_order_without_padding() {
        let full = Full {
            a: 1,
            b: -2,
            c: 0x0403_0201,
            d: true,
            e: Endpoint::from_raw(0x8877_6655_4433_2211),
            f: [0x0100; 8],
            g: 0xff,
        };
        let bytes = full.message().payload;
        assert_eq!(bytes[..8], [1, 0xfe, 0xff, 1, 2, 3, 4, 1]);
        assert_eq!(bytes[8..16], [0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88]);
        assert_eq!(bytes[16..20], [0, 1, 0, 1]);
        assert_eq!(bytes[32..], [0xff, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    }

    #[test]
    fn an_empty_payload_is_its_kind() {
        let message = Empty {}.message();
        assert_eq!(message, Message::new(0x100));
        assert_eq!(Empty::view(&message), Ok(Empty {}));
    }

    #[test]
    fn a_message_of_another_kind_is_refused() {
        let error = Full::view(&Empty {}.message()).unwrap_err();
        assert_eq!(error.to_string(), "a message of kind 0x100 where 0x101 was expected");
    }

    #[test]
    fn a_field_without_a_value_is_named() {
        let mut message = Message::new(0x101);
        message.payload[7] = 2;
        let error = Full::view(&message).unwrap_err();
        assert_eq!(error, PayloadError::Field { kind: 0x101, field: "d" });
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(
            a: u8, b: i16, c: u32, d: bool, e: u64, f: [u16; 8], g: u128,
        ) {
            let full = Full { a, b, c, d, e: Endpoint::from_raw(e), f, g };
            prop_assert_eq!(Full::view(&full.message()), Ok(full));
        }

        #[test]
        fn any_payload_is_read_or_refused(payload: [[u8; 16]; 3]) {
            let mut message = Message::new(Full::KIND);
            for (chunk, bytes) in message.payload.chunks_exact_mut(16).zip(payload) {
                chunk.copy_from_slice(&bytes);
            }
            match Full::view(&message) {
                Ok(full) => prop_assert_eq!(full.message(), message),
                Err(error) => {
                    prop_assert_eq!(error, PayloadError::Field { kind: 0x101, field: "d" });
                    prop_assert!(message.payload[7] > 1);
                }
            }
        }
    }
}

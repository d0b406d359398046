// SPDX-License-Identifier: MIT OR Apache-2.0
//! The macros that declare protocols and their errors.

use super::RESERVED_KINDS;

/// Whether a protocol can have messages of these kinds: they differ, and none is the DVK's own.
pub const fn are_kinds(kinds: &[u32]) -> bool {
    let mut at = 0;
    while at < kinds.len() {
        if kinds[at] >= RESERVED_KINDS {
            return false;
        }
        let mut before = 0;
        while before < at {
            if kinds[before] == kinds[at] {
                return false;
            }
            before += 1;
        }
        at += 1;
    }
    true
}

/// Declares a protocol: a trait for its servers, a client, and the structures of its messages.
///
/// A request is written as a method whose parameters are the fields of the structure named, with
/// the message kind after the name. It is made by `sendrec`. Its result is a [`Body`](crate::Body):
/// a structure of [`payload!`](crate::payload!), a single value, or `()`. Messages that have no
/// reply are sent by `send` and stand in a block of their own, which may be left out. That fields
/// fit a message and that kinds differ is checked at compile time.
///
/// The trait has, besides the methods declared,
/// - `notified(from, bits)`, for notifications, which does nothing unless it is implemented;
/// - `handle(&received)`, one step of the server: it calls the method that the message is for and
///   says what to do next. Give it to [`serve`](crate::serve), or call it from a loop that serves
///   several servers. A request of an unknown kind is refused with
///   [`CODE_UNKNOWN`](crate::protocol::CODE_UNKNOWN), one with a field that has no valid value with
///   [`CODE_MALFORMED`](crate::protocol::CODE_MALFORMED);
/// - `dispatch(&received)`, the same, but `None` for kinds of other protocols, for a server of
///   several.
///
/// ```
/// use dvk::protocol::{Answer, Caller, Reply::Now};
/// use dvk::{How, Message, Payload, Received, Then};
///
/// dvk::error_codes! {
///     /// Why a counter does not do it.
///     pub enum CounterError {
///         /// There are fewer counters.
///         Unknown = 1, "no counter has this number";
///     }
/// }
///
/// dvk::protocol! {
///     /// Numbers that clients add to.
///     pub trait Counters: client CounterClient, error CounterError {
///         /// Adds to a counter. The result is its new value.
///         fn add(Add = 0x301 {
///             /// Which counter.
///             counter: u32,
///             /// What to add.
///             by: i64,
///         }) -> i64;
///     }
///     send {
///         /// Sets all counters to zero.
///         fn clear(Clear = 0x302 {});
///     }
/// }
///
/// struct Few([i64; 4]);
///
/// impl Counters for Few {
///     fn add(&mut self, _: Caller<Add>, add: Add) -> Answer<Add> {
///         let counter = self.0.get_mut(add.counter as usize).ok_or(CounterError::Unknown)?;
///         *counter += add.by;
///         Ok(Now(*counter))
///     }
///
///     fn clear(&mut self, _: dvk::Endpoint, _: Clear) {
///         self.0.fill(0);
///     }
/// }
///
/// // A server's `main` is `dvk::serve(&port, |received| counters.handle(received))`, and a client
/// // calls `CounterClient::new(&port, server).add(&Add { counter: 2, by: 40 })`. A step without
/// // either:
/// let mut counters = Few([0, 0, 2, 0]);
/// let message = Add { counter: 2, by: 40 }.message();
/// let then = counters.handle(&Received { message, how: How::Request });
/// assert!(matches!(then, Then::Reply(Message { flags: 0, payload: [42, 0, ..], .. })));
/// ```
///
/// ```compile_fail
/// dvk::protocol! {
///     /// Two requests of one kind.
///     trait Twice: client TwiceClient, error dvk::Errno {
///         fn once(Once = 1 {}) -> ();
///         fn again(Again = 1 {}) -> ();
///     }
/// }
/// ```
#[macro_export]
macro_rules! protocol {
    (
        $(#[$attribute:meta])*
        $visibility:vis trait $server:ident: client $client:ident, error $error:ty {
            $(
                $(#[$request_attribute:meta])*
                fn $request:ident($Request:ident = $kind:literal {
                    $($(#[$field_attribute:meta])* $field:ident: $type:ty),* $(,)?
                }) -> $reply:ty;
            )*
        }
        $(send {
            $(
                $(#[$sent_attribute:meta])*
                fn $sent:ident($Sent:ident = $sent_kind:literal {
                    $($(#[$sent_field_attribute:meta])* $sent_field:ident: $sent_type:ty),* $(,)?
                });
            )*
        })?
    ) => {
        $crate::payload! {
            $(
                #[doc = concat!("The request [`", stringify!($request), "`](", stringify!($server), "::", stringify!($request), ").")]
                $visibility struct $Request: $kind {
                    $($(#[$field_attribute])* $visibility $field: $type,)*
                }
            )*
            $($(
                #[doc = concat!("The message [`", stringify!($sent), "`](", stringify!($server), "::", stringify!($sent), ").")]
                $visibility struct $Sent: $sent_kind {
                    $($(#[$sent_field_attribute])* $visibility $sent_field: $sent_type,)*
                }
            )*)?
        }

        const _: () = assert!(
            $crate::protocol::are_kinds(&[$($kind,)* $($($sent_kind,)*)?]),
            concat!("two messages of ", stringify!($server), " have one kind, or one has a kind of the DVK"),
        );

        $(
            const _: () = assert!(
                <$reply as $crate::Body>::BYTES <= 48,
                concat!("the result of ", stringify!($request), " does not fit the 48 bytes of a message"),
            );

            impl $crate::protocol::Request for $Request {
                type Reply = $reply;
                type Error = $error;
                const NAME: &'static str = stringify!($request);
            }
        )*

        $(#[$attribute])*
        $visibility trait $server {
            $(
                $(#[$request_attribute])*
                fn $request(
                    &mut self,
                    from: $crate::protocol::Caller<$Request>,
                    request: $Request,
                ) -> $crate::protocol::Answer<$Request>;
            )*

            $($(
                $(#[$sent_attribute])*
                fn $sent(&mut self, from: $crate::Endpoint, message: $Sent);
            )*)?

            /// Takes a notification. Nothing is done with it unless the server does.
            fn notified(&mut self, from: $crate::Endpoint, bits: u64) {
                let _ = (from, bits);
            }

            /// One step: gives what was received to its method. `None`, and nothing done, if it is
            /// a message of another protocol.
            fn dispatch(
                &mut self,
                received: &$crate::Received,
            ) -> ::core::option::Option<$crate::Then> {
                #[allow(unused_imports, reason = "a protocol may lack messages of one way")]
                use $crate::{protocol::{take_message, take_notification, take_request}, Payload};
                ::core::option::Option::Some(match received.message.kind {
                    _ if received.how == $crate::How::Notify => {
                        take_notification(received, |from, bits| self.notified(from, bits))
                    }
                    $($Request::KIND => take_request(received, |from, it| self.$request(from, it)),)*
                    $($($Sent::KIND => take_message(received, |from, it| self.$sent(from, it)),)*)?
                    _ => return ::core::option::Option::None,
                })
            }

            /// One step: gives what was received to its method, and refuses what is of another
            /// protocol.
            fn handle(&mut self, received: &$crate::Received) -> $crate::Then {
                self.dispatch(received).unwrap_or_else(|| $crate::protocol::refuse(received))
            }
        }

        #[doc = concat!("Makes the requests of [`", stringify!($server), "`] to a server.")]
        #[derive(Clone, Copy, Debug)]
        $visibility struct $client<'i, I: $crate::Ipc = $crate::Port> {
            ipc: &'i I,
            server: $crate::Endpoint,
            timeout: $crate::Timeout,
        }

        #[allow(dead_code, reason = "a program need not make every request")]
        impl<'i, I: $crate::Ipc> $client<'i, I> {
            /// A client of `server` that waits for every reply for ever.
            $visibility fn new(ipc: &'i I, server: $crate::Endpoint) -> Self {
                Self { ipc, server, timeout: $crate::Timeout::Forever }
            }

            /// The same, with this timeout for every call.
            $visibility fn within(self, timeout: $crate::Timeout) -> Self {
                Self { timeout, ..self }
            }

            $(
                $(#[$request_attribute])*
                ///
                /// # Errors
                /// The exchange failed, or the server refused.
                $visibility fn $request(
                    &self,
                    request: &$Request,
                ) -> ::core::result::Result<$reply, $crate::CallError<$error, I::Error>> {
                    self.ipc.call(self.server, request, self.timeout)
                }
            )*

            $($(
                $(#[$sent_attribute])*
                ///
                /// # Errors
                /// It was not received.
                $visibility fn $sent(&self, message: &$Sent) -> ::core::result::Result<(), I::Error> {
                    self.ipc.tell(self.server, message, self.timeout)
                }
            )*)?
        }
    };
}

/// Defines the errors of a protocol: for each its code, not 0, and what people read.
///
/// ```
/// use dvk::protocol::ErrorCode;
///
/// dvk::error_codes! {
///     /// Why a disk does not do it.
///     pub enum DiskError {
///         /// The device has fewer blocks.
///         Range = 1, "the block is beyond the end of the disk";
///     }
/// }
///
/// assert_eq!(DiskError::from_code(1), Some(DiskError::Range));
/// assert_eq!(DiskError::Range.to_string(), "the block is beyond the end of the disk");
/// ```
///
/// ```compile_fail
/// dvk::error_codes! {
///     /// Zero is success.
///     enum Wrong {
///         None = 0, "nothing is wrong";
///     }
/// }
/// ```
#[macro_export]
macro_rules! error_codes {
    (
        $(#[$attribute:meta])*
        $visibility:vis enum $name:ident {
            $($(#[$variant_attribute:meta])* $variant:ident = $code:literal, $text:literal;)*
        }
    ) => {
        $(#[$attribute])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u32)]
        $visibility enum $name {
            $($(#[$variant_attribute])* $variant = $code,)*
        }

        const _: () = assert!(
            $($code != 0 && $code < $crate::protocol::RESERVED_CODES)&&*,
            concat!("a code of ", stringify!($name), " is 0, or the same in every protocol"),
        );

        impl $crate::protocol::ErrorCode for $name {
            fn code(self) -> u32 {
                self as u32
            }

            fn from_code(code: u32) -> ::core::option::Option<Self> {
                match code {
                    $($code => ::core::option::Option::Some(Self::$variant),)*
                    _ => ::core::option::Option::None,
                }
            }
        }

        impl ::core::fmt::Display for $name {
            fn fmt(&self, f: &mut ::core::fmt::Formatter<'_>) -> ::core::fmt::Result {
                f.write_str(match self { $(Self::$variant => $text,)* })
            }
        }

        impl ::core::error::Error for $name {}
    };
}

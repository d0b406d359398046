// SPDX-License-Identifier: MIT OR Apache-2.0
//! What names things and users in requests.

use dvk::{Field, GrantId};

/// The most groups of a [`Who`], besides its own.
pub const GROUPS_MAX: u16 = 256;

macro_rules! numbers {
    ($($(#[$doc:meta])* $name:ident;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(u64);

        impl $name {
            /// Takes a value as it stands in a message. What it names is for the server to say.
            pub const fn from_raw(raw: u64) -> Self {
                Self(raw)
            }

            /// The value as it stands in a message.
            pub const fn raw(self) -> u64 {
                self.0
            }
        }

        impl Field for $name {
            const BYTES: usize = 8;

            fn write(&self, to: &mut [u8]) {
                Field::write(&self.0, to);
            }

            fn read(from: &[u8]) -> Option<Self> {
                <u64 as Field>::read(from).map(Self)
            }
        }
    )*};
}

numbers! {
    /// A node, as a server names it to a client that holds it. Two names of one file have the same; a node
    /// made after another was freed has not, even if it has its inode.
    NodeId;
    /// An open file of a client.
    FileId;
}

/// On whose behalf a request is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Who {
    /// The user. 0 is the superuser.
    pub user: u32,
    /// The group, which what is made belongs to.
    pub group: u32,
    /// Further groups: numbers of 4 bytes, little-endian, lent for reading. [`GrantId::NONE`] if there are
    /// none.
    pub groups: GrantId,
    /// How many there are, at most [`GROUPS_MAX`].
    pub groups_count: u16,
}

impl Who {
    /// A user with one group.
    pub const fn new(user: u32, group: u32) -> Self {
        Self { user, group, groups: GrantId::NONE, groups_count: 0 }
    }
}

impl Field for Who {
    const BYTES: usize = 18;

    fn write(&self, to: &mut [u8]) {
        self.user.write(&mut to[..4]);
        self.group.write(&mut to[4..8]);
        self.groups.write(&mut to[8..16]);
        self.groups_count.write(&mut to[16..]);
    }

    fn read(from: &[u8]) -> Option<Self> {
        let who = Self {
            user: Field::read(&from[..4])?,
            group: Field::read(&from[4..8])?,
            groups: Field::read(&from[8..16])?,
            groups_count: Field::read(&from[16..])?,
        };
        (who.groups_count <= GROUPS_MAX).then_some(who)
    }
}

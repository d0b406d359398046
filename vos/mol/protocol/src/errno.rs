// SPDX-License-Identifier: MIT OR Apache-2.0
//! Why a server of MoL does not do something: the errors of POSIX.

use core::fmt;
use dvk::protocol::ErrorCode;

macro_rules! errors {
    ($($(#[$doc:meta])* $variant:ident = $name:literal, $value:literal, $text:literal;)*) => {
        /// Why a server refuses. The codes are Linux's on x86-64, so that a gateway passes them on as
        /// they are.
        ///
        /// It is not [`dvk::Errno`], which says why the DVK carried no message: a request that is
        /// refused with one of these was carried, and so was its answer.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u32)]
        pub enum Errno {
            $($(#[$doc])* $variant = $value,)*
        }

        impl Errno {
            /// Every error, in the order of its value.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The name it has in `errno.h`.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// What it means, for people.
            pub const fn text(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }
        }

        impl ErrorCode for Errno {
            fn code(self) -> u32 {
                self as u32
            }

            fn from_code(code: u32) -> Option<Self> {
                match code { $($value => Some(Self::$variant),)* _ => None }
            }
        }
    };
}

errors! {
    /// Only the owner, or the superuser, may do this.
    NotPermitted = "EPERM", 1, "only the owner or the superuser may do this";
    /// There is no entry of this name.
    NoEntry = "ENOENT", 2, "there is no such file or directory";
    /// The device failed, or what is on it contradicts itself.
    Io = "EIO", 5, "the device failed, or what is on it is damaged";
    /// There is no such device.
    NoSuchDevice = "ENXIO", 6, "there is no such device";
    /// The number names nothing that the client has open or holds, or it is not open for this.
    BadFile = "EBADF", 9, "the file or device is not open for this";
    /// The server has no memory for it.
    NoMemory = "ENOMEM", 12, "the server has no memory for this";
    /// The mode of the file or of a directory does not allow it.
    Denied = "EACCES", 13, "the permissions do not allow this";
    /// The memory is not lent, not for this, or not so much of it.
    Fault = "EFAULT", 14, "the memory named is not lent, not for this, or too small";
    /// Somebody else uses it.
    Busy = "EBUSY", 16, "it is in use";
    /// The name is taken.
    Exists = "EEXIST", 17, "it exists already";
    /// The names are on different file systems.
    CrossDevice = "EXDEV", 18, "the two are on different file systems";
    /// The device cannot do this at all.
    NoDevice = "ENODEV", 19, "the device has no such operation";
    /// A directory was needed.
    NotDirectory = "ENOTDIR", 20, "it is not a directory";
    /// Anything but a directory was needed.
    IsDirectory = "EISDIR", 21, "it is a directory";
    /// A parameter has a value that the request cannot have.
    Invalid = "EINVAL", 22, "a parameter has a value that it cannot have";
    /// The server's table of open files or held nodes is full.
    TableFull = "ENFILE", 23, "the server has as many open files as it can";
    /// The client has as many open files or held nodes as it may.
    TooManyOpen = "EMFILE", 24, "the client has as many open files as it may";
    /// The file would be larger than the format can say.
    TooLarge = "EFBIG", 27, "the file would be larger than the file system can have it";
    /// The device is full.
    NoSpace = "ENOSPC", 28, "no space is left on the device";
    /// The file system or the device is read-only.
    ReadOnly = "EROFS", 30, "the file system or device is read-only";
    /// The file has as many names as the format can say.
    TooManyLinks = "EMLINK", 31, "the file has as many links as the file system can count";
    /// A name is longer than the format allows.
    NameTooLong = "ENAMETOOLONG", 36, "the name is longer than the file system allows";
    /// The file system or device does not offer the request.
    NotSupported = "ENOSYS", 38, "the server does not offer this";
    /// The directory has entries.
    NotEmpty = "ENOTEMPTY", 39, "the directory is not empty";
    /// A path leads through too many symbolic links.
    LinkLoop = "ELOOP", 40, "the path leads through too many symbolic links";
    /// Another server does this now.
    Elsewhere = "EREMOTE", 66, "another server answers for the device now";
    /// The node was held by the client once, and is not any more.
    Stale = "ESTALE", 116, "the node is not held any more";
    /// What is on the device is not a file system of a known kind.
    NotFileSystem = "EUCLEAN", 117, "what is on the device is no file system, or a damaged one";
}

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.text(), self.name())
    }
}

impl core::error::Error for Errno {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_codes_are_those_of_linux() {
        use rustix::io::Errno as Linux;
        let linux = [
            Linux::PERM,
            Linux::NOENT,
            Linux::IO,
            Linux::NXIO,
            Linux::BADF,
            Linux::NOMEM,
            Linux::ACCESS,
            Linux::FAULT,
            Linux::BUSY,
            Linux::EXIST,
            Linux::XDEV,
            Linux::NODEV,
            Linux::NOTDIR,
            Linux::ISDIR,
            Linux::INVAL,
            Linux::NFILE,
            Linux::MFILE,
            Linux::FBIG,
            Linux::NOSPC,
            Linux::ROFS,
            Linux::MLINK,
            Linux::NAMETOOLONG,
            Linux::NOSYS,
            Linux::NOTEMPTY,
            Linux::LOOP,
            Linux::REMOTE,
            Linux::STALE,
            Linux::UCLEAN,
        ];
        let codes: Vec<_> = Errno::ALL.iter().map(|errno| errno.code() as i32).collect();
        assert_eq!(codes, linux.map(Linux::raw_os_error));
    }

    #[test]
    fn a_code_is_its_error_and_others_are_none() {
        let known: Vec<_> = (0..=256).filter_map(Errno::from_code).collect();
        assert_eq!(known, Errno::ALL);
        assert_eq!(Errno::from_code(0), None);
    }
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! The variables of UEFI in which systemd's boot loader tells what it has started (<https://systemd.io/BOOT_LOADER_INTERFACE>), as Linux calls
//! them.

/// Where Linux shows them.
pub const VARIABLES: &str = "/sys/firmware/efi/efivars";
/// The path of the image, if it is one whose tries are counted.
pub const COUNTED: &str = "LoaderBootCountPath-4a67b082-0a4c-41cf-b6c7-440b29bb8c4f";
/// The name of the image.
pub const SELECTED: &str = "LoaderEntrySelected-4a67b082-0a4c-41cf-b6c7-440b29bb8c4f";
/// The identifier of the partition that the loader is on.
pub const PARTITION: &str = "LoaderDevicePartUUID-4a67b082-0a4c-41cf-b6c7-440b29bb8c4f";

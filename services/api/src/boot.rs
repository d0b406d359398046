// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a node boots from.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Answer of `GET /v1/boot`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct BootStatus {
    /// The node that answers, if it has an id.
    pub node: Option<u32>,
    /// The version that it runs.
    pub version: String,
    /// The disk with slots that it has booted from; `None` if there is none.
    pub disk: Option<BootDisk>,
    /// Why there is none, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

/// A disk with slots for images.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct BootDisk {
    /// The device of the volume that is booted from.
    pub device: String,
    /// The images on the disk, and those that were there and are remembered; the newest last.
    pub images: Vec<BootImage>,
}

/// An image of a disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct BootImage {
    /// Numbers images in the order in which they came to the disk.
    pub number: u32,
    /// Its version, as far as is known.
    pub version: Option<String>,
    /// SHA-256 of its file, as far as is known.
    pub sha256: Option<String>,
    /// What came of it.
    pub state: BootImageState,
    /// Why it was given up, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<String>,
    /// Whether it runs.
    pub runs: bool,
    /// Whether it is started next.
    pub next: bool,
}

/// See [`BootImage::state`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum BootImageState {
    /// The node works with it, or has.
    Confirmed,
    /// It is on the disk, and nobody knows yet whether the node works with it.
    Trying,
    /// The node does not work with it.
    GivenUp,
    /// A newer one has its slot.
    Replaced,
}

/// Answer of `GET /v1/boot/disk?disk=/dev/vda`: a disk that could be made one that boots.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DiskFound {
    /// The disk.
    pub disk: String,
    /// Its size in bytes.
    pub bytes: u64,
    /// What is on it, for people; `None` for nothing.
    pub found: Option<String>,
}

/// An element of `GET /v1/boot/disks`: a whole disk that could be written to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DiskListed {
    /// The disk.
    pub disk: String,
    /// Its size in bytes.
    pub bytes: u64,
    /// Its model, as it says itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// What is on it, for people; `None` for nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub found: Option<String>,
    /// Why it cannot be made one that boots, for people; `None` if it can.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unfit: Option<String>,
}

/// `POST /v1/boot/disk`: make a disk one that boots, with the image that the node runs itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct InstallRequest {
    /// The disk, such as `/dev/vda`.
    pub disk: String,
    /// Whether what is on it may be lost.
    #[serde(default)]
    pub wipe: bool,
}

/// Answer of `POST /v1/boot/disk`, and of `PUT /v1/boot/disk`, whose body is a unified kernel image: the disk boots the node from now on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Installed {
    /// The node that answers, if it has an id.
    pub node: Option<u32>,
    /// The disk.
    pub disk: String,
    /// Its size in bytes.
    pub bytes: u64,
}

/// `POST /v1/boot/disk/wipe`: make a disk that boots a node one that boots nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WipeRequest {
    /// The disk, such as `/dev/vda`.
    pub disk: String,
    /// Only say whether it could be.
    #[serde(default)]
    pub dry_run: bool,
}

/// Answer of `POST /v1/boot/disk/wipe`: the disk boots nothing any more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Wiped {
    /// The node that answers, if it has an id.
    pub node: Option<u32>,
    /// The disk.
    pub disk: String,
    /// Whether it was only looked at.
    pub dry_run: bool,
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! The commands about files of file servers.

use std::convert::Infallible;
use std::path::PathBuf;
use std::str::FromStr;

use clap::{Args, Subcommand};

#[derive(Debug, Subcommand)]
pub(crate) enum FsCommand {
    /// Copy a file, or a directory with all that is in it, to a file server or from one
    ///
    /// One side is DC:/path, a path of the file server in that container; the other one is a path here, or - for standard input or
    /// output. What is copied to a directory that is there comes into it under its own name. Permissions, times and symbolic links are
    /// kept. A file has its old content until all of the new one has come; at a file server it is on stable storage then.
    Cp(CpArguments),
    /// List a directory
    Ls {
        #[command(flatten)]
        place: FsPlace,
        /// The directory, or a file
        #[arg(value_name = "DC:PATH")]
        path: There,
    },
    /// Remove files
    Rm {
        #[command(flatten)]
        place: FsPlace,
        /// And directories with all that is in them
        #[arg(short, long)]
        recursive: bool,
        /// What to remove
        #[arg(value_name = "DC:PATH", required = true)]
        paths: Vec<There>,
    },
    /// Make a directory
    Mkdir {
        #[command(flatten)]
        place: FsPlace,
        /// Make those above it as well, and be content if it is there
        #[arg(short, long)]
        parents: bool,
        /// The directory
        #[arg(value_name = "DC:PATH")]
        path: There,
    },
    /// Mount a file system of a file server here, until it is unmounted or this is told to end by Ctrl-C
    ///
    /// It takes root, or the program fusermount3; without root, only you can see what is mounted. Users and groups are those of the file
    /// system, by their numbers, and Linux here checks who may do what. What was written is with the file server when the write has
    /// returned, and on stable storage after fsync. Ctrl-C unmounts; what is still in use then is unmounted when nobody uses it any
    /// more, or at once if it is pressed again. If the connection or the node at its other end is lost, this unmounts and fails.
    Mount(MountArguments),
}

#[derive(Debug, Args)]
pub(crate) struct MountArguments {
    #[command(flatten)]
    pub(crate) place: FsPlace,
    /// Where mol-fuse is in the container
    #[arg(long, value_name = "PATH", default_value = "/bin/mol-fuse")]
    pub(crate) fuse: String,
    /// Change nothing
    #[arg(long)]
    pub(crate) read_only: bool,
    /// What to mount: a whole file system
    #[arg(value_name = "DC:/")]
    pub(crate) from: There,
    /// The directory to mount it on, in which nothing is
    #[arg(value_name = "DIRECTORY")]
    pub(crate) at: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct CpArguments {
    #[command(flatten)]
    pub(crate) place: FsPlace,
    /// Copy directories with all that is in them
    #[arg(short, long)]
    pub(crate) recursive: bool,
    /// What to copy
    #[arg(value_name = "SOURCE")]
    pub(crate) from: Side,
    /// Where to
    #[arg(value_name = "TARGET")]
    pub(crate) to: Side,
}

/// Which file server of a container.
#[derive(Debug, Args)]
pub(crate) struct FsPlace {
    /// The file server: a slot, in which it is found on its own node only, or the group that it serves for [default: the only one of
    /// the virtual OS's manifest]
    #[arg(long, value_name = "SLOT|GROUP")]
    pub(crate) server: Option<String>,
    /// Which of its mounts [default: the first]
    #[arg(long, value_name = "LABEL")]
    pub(crate) label: Option<String>,
    /// Id of the node on which it is asked [default: the one that it is on]
    #[arg(long)]
    pub(crate) node: Option<u32>,
    /// Where mol-ftp is in the container
    #[arg(long, value_name = "PATH", default_value = "/bin/mol-ftp")]
    pub(crate) ftp: String,
}

/// A path of a container's file server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct There {
    pub(crate) dc: String,
    /// From the root of the mount.
    pub(crate) path: String,
}

/// One side of a copy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    /// A path here; `-` is standard input or output.
    Here(PathBuf),
    There(There),
}

impl FromStr for There {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once(':') {
            Some((dc, path)) if !dc.is_empty() && !dc.contains('/') => {
                // The paths of a mount all begin at its root.
                let path = format!("/{}", path.trim_start_matches('/'));
                Ok(Self { dc: dc.to_owned(), path })
            }
            _ => Err("write DC:/path, with the name of the container"),
        }
    }
}

impl FromStr for Side {
    type Err = Infallible;

    /// A colon before any slash means that it is there. `./a:b` is a file here.
    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(text.parse().map_or_else(|_| Self::Here(text.into()), Self::There))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_colon_says_that_it_is_there() {
        let side = |text: &str| text.parse::<Side>().unwrap();
        let there = |dc: &str, path: &str| Side::There(There { dc: dc.into(), path: path.into() });
        assert_eq!(side("web:/a/b:c"), there("web", "/a/b:c"));
        assert_eq!(side("web:"), there("web", "/"));
        assert_eq!(side("web:a"), there("web", "/a"));
        for here in ["a", "./a:b", "/x:y", ":/a", "-"] {
            assert_eq!(side(here), Side::Here(here.into()));
        }
        assert!("a".parse::<There>().is_err());
    }
}

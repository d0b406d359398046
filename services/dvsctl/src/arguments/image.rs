// SPDX-License-Identifier: MIT OR Apache-2.0
//! The commands about images of containers.

use std::path::PathBuf;

use clap::Subcommand;

#[derive(Debug, Subcommand)]
pub(crate) enum ImageCommand {
    /// Bring an image into the cluster from a file, and wait until the nodes that keep it have it
    ///
    /// The file is an archive of an OCI image, as `skopeo copy … oci-archive:FILE` and `docker save` make it. A name that stands for another
    /// image stands for this one from then on; containers that run go on with what they were made of.
    Import {
        /// The archive
        file: PathBuf,
        /// Name of the image [default: that of the file]
        #[arg(long)]
        name: Option<String>,
    },
    /// All images, and the nodes that have them
    List,
    /// End the name of an image
    ///
    /// Its archive goes when no container is made of it any more.
    Remove {
        /// Name of the image
        name: String,
    },
}

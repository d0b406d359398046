// SPDX-License-Identifier: MIT OR Apache-2.0
#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod apt;
mod artefacts;
mod bench;
mod cpio;
mod digest;
mod dissector;
mod doctor;
mod fetch;
mod fuzz;
mod image;
mod initramfs;
mod install;
mod kconfig;
mod kernel;
mod manifest;
mod package;
mod patches;
mod pxe;
mod qemu;
mod release;
mod resolution;
mod source;
mod squashfs;
mod step;
mod store;
mod test;
mod tidy;
mod toolchain;
mod tree;
mod userspace;
mod workspace;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

use kernel::{Image, Variant};
use source::{Origin, Pins};
use step::Session;

/// The one entrance for building, running, testing and measuring dvs.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    /// Show everything that the commands of a step say
    #[arg(long, short, global = true)]
    verbose: bool,
    /// Build the kernel from this source tree or tarball instead of the distribution's package
    #[arg(long, global = true, value_name = "DIR|TARBALL", env = "DVS_KERNEL_SRC")]
    kernel_src: Option<PathBuf>,
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Build everything that a node boots
    Build,
    /// Build or configure the kernel
    #[command(subcommand)]
    Kernel(KernelTask),
    /// Compile the programs of the image and pack the root of a node
    Initramfs,
    /// Make what machines boot from: for the network, as a CD image, as a disk image
    Image(image::Image),
    /// Boot machines over the network
    #[command(subcommand)]
    Pxe(pxe::Pxe),
    /// Say what this machine lacks, and install it
    Doctor {
        /// Install what is missing
        #[arg(long)]
        install: bool,
    },
    /// Run a virtual cluster, or act on one
    Qemu(Box<qemu::Qemu>),
    /// Run the tests, all or of one kind
    Test(test::Test),
    /// Measure, and print figures
    #[command(subcommand)]
    Bench(bench::Bench),
    /// Feed random hostile input to the DVK or a part of it
    #[command(subcommand)]
    Fuzz(fuzz::Fuzz),
    /// Check the invariants and the hygiene of the tree
    Tidy(tidy::Tidy),
    /// Remove what can be built again
    Clean {
        /// Remove downloads and tools as well
        #[arg(long)]
        all: bool,
    },
}

#[derive(Subcommand)]
enum KernelTask {
    /// Build it, and print where it is
    Build {
        /// Which kernel
        #[arg(long, value_enum, default_value_t = Variant::Node)]
        kernel: Variant,
    },
    /// Print where its complete configuration is
    Config {
        /// Which kernel
        #[arg(long, value_enum, default_value_t = Variant::Node)]
        kernel: Variant,
    },
    /// Show its menu, and print what was changed there as lines for a fragment
    Menuconfig {
        /// Which kernel
        #[arg(long, value_enum, default_value_t = Variant::Node)]
        kernel: Variant,
    },
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("{}", step::report(&error));
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<ExitCode> {
    let session = Session::new(arguments.verbose)?;
    let origin = Origin::new(arguments.kernel_src.as_deref());
    match &arguments.task {
        Task::Build => {
            let built = artefacts::build(&session, &origin, Variant::Node, Image::Vmlinux, false)?;
            let boot = kernel::build(&session, &origin, Variant::Node, Image::BzImage)?;
            println!("vmlinux   {}", built.kernel.image.display());
            println!("bzImage   {}", boot.image.display());
            println!("config    {}", boot.config.display());
            println!("initramfs {}", built.root.node.display());
            println!("dvsctl    {}", built.root.programs.path("dvsctl").display());
        }
        Task::Kernel(KernelTask::Build { kernel }) => {
            for image in [Image::Vmlinux, Image::BzImage] {
                println!("{}", kernel::build(&session, &origin, *kernel, image)?.image.display());
            }
        }
        Task::Kernel(KernelTask::Config { kernel }) => {
            println!("{}", kernel::config(&session, &origin, *kernel)?.display());
        }
        Task::Kernel(KernelTask::Menuconfig { kernel }) => {
            kernel::menuconfig(&session, &origin, *kernel)?;
        }
        Task::Initramfs => {
            println!("{}", initramfs::build(&session, false, release::VERSION)?.node.display());
        }
        Task::Image(image) => image.run(&session, &origin)?,
        Task::Pxe(pxe) => pxe.run(&session, &origin)?,
        Task::Doctor { install } => {
            doctor::examine(&session, &Pins::read(&session)?.tools, *install)?
        }
        Task::Qemu(qemu) => return qemu.run(&session, &origin),
        Task::Test(test) => return Ok(test.run(&session, &origin)),
        Task::Bench(bench) => return bench.run(&session, &origin),
        Task::Fuzz(fuzz) => return fuzz.run(&session, &origin),
        Task::Tidy(tidy) => tidy.run(&session.workspace.root)?,
        Task::Clean { all } => clean(&session, *all)?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Removes the compiled programs of this checkout and the cache of all checkouts, but for downloads and tools unless `all`.
fn clean(session: &Session, all: bool) -> Result<()> {
    store::remove(&session.workspace.target.join("image"))?;
    if all {
        return store::remove(&session.workspace.cache);
    }
    ["trees", "kernels", "initramfs", "logs"]
        .iter()
        .try_for_each(|kind| store::remove(&session.workspace.cache.join(kind)))
}

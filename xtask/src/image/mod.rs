// SPDX-License-Identifier: MIT OR Apache-2.0
//! `cargo xtask image`: what machines boot from, and what containers of MoL are made of, under `target/images`, each with a
//! manifest of sizes and hashes.

mod iso;
mod mol;
pub(crate) mod oci;
mod recipes;
mod sbom;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::ValueEnum;
use dvs_bootdisk::layout;
use dvs_image::disk;
use dvs_image::uki::{self, Section};
use dvs_image::volume::{self, File, Kind, BOOT_LABEL};
use dvs_netboot::files::{COMMAND_LINE, INITRAMFS, IPXE_BIOS, LINUX, UNIFIED};
use serde::{Deserialize, Serialize};

use crate::artefacts::{self, Artefacts};
use crate::digest::sha256_of;
use crate::doctor::{self, Need};
use crate::kernel;
use crate::manifest;
use crate::release;
use crate::source::{Origin, Pins};
use crate::step::{Session, Step};
use crate::store;
use recipes::{within, Recipes};
use sbom::Bill;

/// The packages that boot loaders are taken from, by what has files of them.
const PACKAGES: [(&str, &[What]); 4] = [
    ("ipxe", &[What::Pxe]),
    ("isolinux", &[What::Iso]),
    ("syslinux-common", &[What::Iso]),
    ("systemd-boot-efi", &[What::Pxe, What::Iso, What::Disk, What::Bundle]),
];
/// systemd's stub, which is made a unified kernel image.
const STUB: &str = "usr/lib/systemd/boot/efi/linuxx64.efi.stub";
/// Where a node has systemd's boot loader, which chooses among them.
const LOADER: &str = "/usr/libexec/dvs/systemd-bootx64.efi";
/// What the manifest of a folder of images is called.
pub(crate) const MANIFEST: &str = "manifest.json";

/// What can be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum What {
    /// Kernel and root for network boot, and both in one UEFI program
    Pxe,
    /// A CD image for BIOS and UEFI, also for USB sticks
    Iso,
    /// A disk image for UEFI
    Disk,
    /// What nodes are upgraded by
    Bundle,
    /// What containers of the virtual OS MoL are made of
    Mol,
}

impl What {
    fn name(self) -> &'static str {
        match self {
            Self::Pxe => "pxe",
            Self::Iso => "iso",
            Self::Disk => "disk",
            Self::Bundle => "bundle",
            Self::Mol => "mol",
        }
    }
}

/// Make what machines boot from, and what containers of MoL are made of.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Image {
    /// What to make; everything if not given
    #[arg(value_enum)]
    what: Vec<What>,
    /// Have nodes that run it say that they are of this version, such as 1.2.3
    #[arg(long, default_value = release::VERSION)]
    release: String,
}

impl Image {
    /// Makes the images and says where they are.
    ///
    /// # Errors
    /// As [`build`].
    pub(crate) fn run(&self, session: &Session, origin: &Origin) -> Result<()> {
        let what = if self.what.is_empty() { What::value_variants() } else { &self.what };
        let images = folder(session);
        let mut built = None;
        for &what in what {
            let folder = match (what, &built) {
                // Containers need no kernel, which would take minutes.
                (What::Mol, _) => mol::build(session, &images)?,
                (_, Some(built)) => build(session, built, what, &images)?,
                (_, None) => {
                    let built = built.insert(artefacts::of_version(
                        session,
                        origin,
                        kernel::Variant::Node,
                        kernel::Image::BzImage,
                        false,
                        &self.release,
                    )?);
                    build(session, built, what, &images)?
                }
            };
            let text = fs::read_to_string(folder.join(MANIFEST))
                .with_context(|| format!("reading the manifest in {}", folder.display()))?;
            let manifest: Manifest = serde_json::from_str(&text).context("reading the manifest")?;
            for entry in manifest.files {
                let path = folder.join(&entry.name);
                println!("{} {:>9} {}", entry.sha256, entry.bytes, path.display());
            }
        }
        Ok(())
    }
}

/// Makes the image of MoL; returns its archive.
///
/// # Errors
/// As [`build`].
pub(crate) fn mol(session: &Session) -> Result<PathBuf> {
    let images = folder(session);
    mol::build(session, &images)?;
    Ok(path(&images, What::Mol))
}

/// Where images are.
pub(crate) fn folder(session: &Session) -> PathBuf {
    session.workspace.target.join("images")
}

/// The file that machines boot from, or that an image is imported from; for network boot, the folder of what is served.
pub(crate) fn path(folder: &Path, what: What) -> PathBuf {
    let folder = folder.join(what.name());
    match what {
        What::Pxe => folder,
        What::Iso => folder.join("dvs.iso"),
        What::Disk => folder.join("dvs.img"),
        What::Bundle => folder.join("bundle.dvs"),
        What::Mol => folder.join(mol::file_name()),
    }
}

/// What is in a folder of images.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Manifest {
    files: Vec<Entry>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Entry {
    name: String,
    bytes: u64,
    sha256: String,
}

/// Makes an image from what a node boots, in a folder of its own in `images`; returns that folder. What was there before is replaced
/// as a whole.
///
/// # Errors
/// When a boot loader is not to be had, xorriso fails, or the image is larger than it may be.
pub(crate) fn build(
    session: &Session,
    built: &Artefacts,
    what: What,
    images: &Path,
) -> Result<PathBuf> {
    if what == What::Mol {
        return mol::build(session, images);
    }
    let recipes = Recipes::read(&session.workspace.root)?;
    if what == What::Iso {
        doctor::require(session, &[Need::Images], &Pins::read(session)?.tools)?;
    }
    let ingredients = Ingredients::gather(session, &recipes, built)?;
    let bill = bill(session, built, what, &recipes)?;
    replace(session, images, what, |step, work, folder| {
        bill.write(folder)?;
        match what {
            What::Pxe => ingredients.pxe(session, &recipes, folder),
            What::Iso => ingredients.iso(session, step, &recipes, work, folder),
            What::Disk => ingredients.disk(session, folder),
            What::Bundle => ingredients.bundle(built, folder),
            What::Mol => Ok(()),
        }
    })
}

/// What such an image consists of.
fn bill(session: &Session, built: &Artefacts, what: What, recipes: &Recipes) -> Result<Bill> {
    let root = &session.workspace.root;
    let manifest = manifest::Manifest::resolved(session)?;
    let mut bill = Bill::of("dvs", &built.root.release.name());
    manifest.packages(false).iter().try_for_each(|packages| bill.programs(root, packages))?;
    manifest.initial.pins().chain(manifest.node.pins()).for_each(|pin| bill.package(pin));
    for (package, of) in PACKAGES {
        if of.contains(&what) {
            bill.package(recipes.pin(package)?);
        }
    }
    let kernel = &built.kernel.image;
    let kernel = fs::read(kernel).with_context(|| format!("reading {}", kernel.display()))?;
    bill.kernel(&kernel)?;
    Ok(bill)
}

/// Has `make` fill a folder, which then takes the place of the one of this image; `make` also gets the name of a folder to work in,
/// which it may create.
fn replace(
    session: &Session,
    images: &Path,
    what: What,
    make: impl FnOnce(&mut Step, &Path, &Path) -> Result<()>,
) -> Result<PathBuf> {
    fs::create_dir_all(images).with_context(|| format!("creating {}", images.display()))?;
    let _lock = session.store.lock("images", || {
        session.notice("images", "waiting for another dvs build that makes images");
    })?;
    let partial = images.join("partial");
    let work = images.join("work");
    store::remove(&partial)?;
    store::remove(&work)?;
    fs::create_dir(&partial).with_context(|| format!("creating {}", partial.display()))?;
    let mut step = session.begin("images", &format!("making the {} image", what.name()))?;
    make(&mut step, &work, &partial)?;
    let total = describe(&partial)?;
    store::remove(&work)?;
    let folder = images.join(what.name());
    // A machine that runs from the old one keeps it: its files go only when it ends.
    store::remove(&folder)?;
    fs::rename(&partial, &folder).with_context(|| format!("renaming {}", partial.display()))?;
    let size = total as f64 / 1e6;
    step.finish(&format!("{} image made: {size:.1} MB in {}", what.name(), folder.display()));
    Ok(folder)
}

/// Writes the manifest of a folder, and returns the size of what is in it in bytes.
fn describe(folder: &Path) -> Result<u64> {
    let mut files = Vec::new();
    for path in crate::tree::files(folder, &[MANIFEST])? {
        let full = folder.join(&path);
        let metadata =
            fs::metadata(&full).with_context(|| format!("reading {}", full.display()))?;
        let sha256 = sha256_of(&full)?;
        files.push(Entry { name: path.display().to_string(), bytes: metadata.len(), sha256 });
    }
    let total = files.iter().map(|file| file.bytes).sum();
    let text = serde_json::to_string_pretty(&Manifest { files }).context("writing a manifest")?;
    let path = folder.join(MANIFEST);
    fs::write(&path, text + "\n").with_context(|| format!("writing {}", path.display()))?;
    Ok(total)
}

/// What images are made of.
struct Ingredients {
    linux: PathBuf,
    initramfs: PathBuf,
    command_line: String,
    /// Kernel, root and command line in one UEFI program.
    unified: Vec<u8>,
}

impl Ingredients {
    fn gather(session: &Session, recipes: &Recipes, built: &Artefacts) -> Result<Self> {
        let command_line = recipes.with_volume();
        let unified = unified(session, recipes, built, &command_line)?;
        within("the unified kernel image", unified.len() as u64, recipes.budgets.unified)?;
        let (linux, initramfs) = (built.kernel.image.clone(), built.root.node.clone());
        Ok(Self { linux, initramfs, command_line, unified })
    }

    fn pxe(&self, session: &Session, recipes: &Recipes, folder: &Path) -> Result<()> {
        let mut total = 0;
        for (from, name) in [(&self.linux, LINUX), (&self.initramfs, INITRAMFS)] {
            total += fs::copy(from, folder.join(name))
                .with_context(|| format!("copying {}", from.display()))?;
        }
        within("what is loaded over the network", total, recipes.budgets.pxe)?;
        let (_, ipxe) = recipes.member(session, "ipxe", "usr/lib/ipxe/undionly.kpxe")?;
        write(&folder.join(IPXE_BIOS), &ipxe)?;
        write(&folder.join(UNIFIED), &self.unified)?;
        write(&folder.join(COMMAND_LINE), recipes.command_line.as_bytes())
    }

    fn iso(
        &self,
        session: &Session,
        step: &mut Step,
        recipes: &Recipes,
        work: &Path,
        folder: &Path,
    ) -> Result<()> {
        let program = File { path: layout::FALLBACK, content: &self.unified };
        let size = volume::size_for(self.unified.len());
        let boot_volume = volume::build(size, Kind::Cd, BOOT_LABEL, &[program])
            .context("making the boot volume of the CD")?;
        let (_, isolinux) = recipes.member(session, "isolinux", "usr/lib/ISOLINUX/isolinux.bin")?;
        let (stick, _) = recipes.member(session, "isolinux", "usr/lib/ISOLINUX/isohdpfx.bin")?;
        let ldlinux = "usr/lib/syslinux/modules/bios/ldlinux.c32";
        let (_, ldlinux) = recipes.member(session, "syslinux-common", ldlinux)?;
        let parts = iso::Parts {
            command_line: &self.command_line,
            isolinux: &isolinux,
            ldlinux: &ldlinux,
            stick: &stick,
            unified: &self.unified,
            boot_volume: &boot_volume,
        };
        let target = folder.join("dvs.iso");
        iso::build(step, &parts, work, &target)?;
        let size = fs::metadata(&target).context("reading the size of the CD image")?.len();
        within("the CD image", size, recipes.budgets.iso)
    }

    fn bundle(&self, built: &Artefacts, folder: &Path) -> Result<()> {
        let key = release::signing_key()?;
        let release = built.root.release.name();
        let bundle = dvs_bundle::write(&release, std::env::consts::ARCH, &self.unified, &key)?;
        write(&folder.join("bundle.dvs"), &bundle)
    }

    fn disk(&self, session: &Session, folder: &Path) -> Result<()> {
        // The one that nodes install.
        let loader = manifest::Manifest::resolved(session)?.packaged(session, LOADER)?;
        let files = layout::files(&loader, &self.unified, env!("CARGO_PKG_VERSION"));
        let files: Vec<_> = files.iter().map(|(path, content)| File { path, content }).collect();
        let size = usize::try_from(disk::BOOT_VOLUME).context("making the disk image")?;
        let boot_volume = volume::build(size, Kind::Fat32, BOOT_LABEL, &files)
            .context("making the boot volume of the disk")?;
        let bytes = disk::build(&boot_volume).context("making the disk image")?;
        write_sparse(&folder.join("dvs.img"), &bytes)
    }
}

/// Kernel and root of a node with a command line of its own, as a program for UEFI: an image that is not as it should be, for tests.
///
/// # Errors
/// As [`build`].
pub(crate) fn unified_with(
    session: &Session,
    built: &Artefacts,
    command_line: &str,
) -> Result<Vec<u8>> {
    unified(session, &Recipes::read(&session.workspace.root)?, built, command_line)
}

fn unified(
    session: &Session,
    recipes: &Recipes,
    built: &Artefacts,
    command_line: &str,
) -> Result<Vec<u8>> {
    let read = |path: &Path| fs::read(path).with_context(|| format!("reading {}", path.display()));
    let (path, stub) = recipes.member(session, "systemd-boot-efi", STUB)?;
    let release = os_release(&built.root.release.name(), &built.kernel.drivers()?);
    let (kernel, root) = (read(&built.kernel.image)?, read(&built.root.node)?);
    let sections = [
        Section { name: ".osrel", content: release.as_bytes() },
        Section { name: ".cmdline", content: command_line.as_bytes() },
        Section { name: ".initrd", content: &root },
        Section { name: ".linux", content: &kernel },
    ];
    uki::build(&stub, &sections)
        .with_context(|| format!("making a unified kernel image of {}", path.display()))
}

/// What the boot loader's menu calls the image. It has no field for the version, by which the loader would order images: their order is
/// that of their numbers. Nodes that are to be upgraded to the image look for the drivers that they need.
fn os_release(release: &str, drivers: &BTreeSet<String>) -> String {
    let drivers = drivers.iter().map(String::as_str).collect::<Vec<_>>().join(" ");
    format!("ID=dvs\nNAME=dvs\nPRETTY_NAME=\"dvs {release}\"\nDVS_DRIVERS=\"{drivers}\"\n")
}

fn write(path: &Path, content: &[u8]) -> Result<()> {
    fs::write(path, content).with_context(|| format!("writing {}", path.display()))
}

/// Writes a file in which runs of zeros take no space.
fn write_sparse(path: &Path, content: &[u8]) -> Result<()> {
    use std::os::unix::fs::FileExt;
    let attempt = || -> std::io::Result<()> {
        let file = fs::File::create(path)?;
        file.set_len(content.len() as u64)?;
        disk::occupied(content).try_for_each(|(at, piece)| file.write_all_at(piece, at))
    };
    attempt().with_context(|| format!("writing {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manifest_tells_sizes_and_hashes_of_all_files() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("b"), "abc").unwrap();
        fs::write(folder.path().join("a"), "").unwrap();
        assert_eq!(describe(folder.path()).unwrap(), 3);
        let text = fs::read_to_string(folder.path().join(MANIFEST)).unwrap();
        let manifest: Manifest = serde_json::from_str(&text).unwrap();
        let names: Vec<_> =
            manifest.files.iter().map(|file| (file.name.as_str(), file.bytes)).collect();
        assert_eq!(names, [("a", 0), ("b", 3)]);
        assert!(manifest.files[1].sha256.starts_with("ba7816bf8f01cfea"));
        // Once more: the manifest is not in itself.
        assert_eq!(describe(folder.path()).unwrap(), 3);
    }
}

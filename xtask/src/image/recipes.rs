// SPDX-License-Identifier: MIT OR Apache-2.0
//! `images/recipes.toml`: what boot images are made of, and how large they may be.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{ensure, Context, Result};
use dvs_image::{unasked, watchdog};
use serde::Deserialize;

use crate::package::{self, Pin, FREE};
use crate::step::Session;

/// Where it is in the checkout.
const PATH: &str = "images/recipes.toml";

/// All recipes.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Recipes {
    /// The kernel's command line in every image. What watches over it is added as it is read, and what keeps devices away.
    pub(crate) command_line: String,
    /// What is added to it but where a boot server hands over a command line.
    volume_arguments: String,
    /// How large images may be.
    pub(crate) budgets: Budgets,
    packages: BTreeMap<String, Package>,
}

/// Sizes that are not to be exceeded, in bytes.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Budgets {
    /// Kernel and root together.
    pub(crate) pxe: u64,
    /// The CD image.
    pub(crate) iso: u64,
    /// The unified kernel image.
    pub(crate) unified: u64,
}

/// A package of Debian's.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Package {
    suite: String,
    version: String,
    sha256: String,
}

impl Recipes {
    /// Reads those of the checkout `root`.
    ///
    /// # Errors
    /// When they cannot be read or understood.
    pub(crate) fn read(root: &Path) -> Result<Self> {
        let path = root.join(PATH);
        let text =
            fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
        let mut recipes: Self =
            toml::from_str(&text).with_context(|| format!("reading {}", path.display()))?;
        let watched = watchdog::arguments(watchdog::START_S);
        recipes.command_line = format!("{} {} {watched}", recipes.command_line, unasked::ARGUMENTS);
        Ok(recipes)
    }

    /// The kernel's command line on CDs and disks, and in the program for UEFI.
    pub(crate) fn with_volume(&self) -> String {
        format!("{} {}", self.command_line, self.volume_arguments)
    }

    /// A package by its name.
    ///
    /// # Errors
    /// When it is not recorded.
    pub(crate) fn pin<'a>(&'a self, package: &'a str) -> Result<Pin<'a>> {
        let found = self.packages.get(package);
        let Package { suite, version, sha256 } =
            found.with_context(|| format!("{PATH} records no package {package}"))?;
        Ok(Pin { package, suite, component: FREE, version, sha256, recorded: PATH })
    }

    /// The file `member` of a package, fetched if it is not in the cache.
    ///
    /// # Errors
    /// When the package is not recorded or not to be had, or has no such file.
    pub(crate) fn member(
        &self,
        session: &Session,
        package: &str,
        member: &str,
    ) -> Result<(PathBuf, Vec<u8>)> {
        let path = package::unpacked(session, self.pin(package)?)?.join(member);
        let content = fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
        Ok((path, content))
    }
}

/// Refuses what has become larger than it may be.
///
/// # Errors
/// When `bytes` is beyond the budget of `what`.
pub(crate) fn within(what: &str, bytes: u64, budget: u64) -> Result<()> {
    ensure!(
        bytes <= budget,
        "{what} takes {bytes} bytes, {} more than the {budget} that {PATH} allows: make it smaller, or raise the budget and say \
         in the commit why",
        bytes - budget
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of_this_tree() -> Recipes {
        Recipes::read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("..")).unwrap()
    }

    #[test]
    fn every_package_that_images_take_is_recorded_by_version_and_hash() {
        let recipes = of_this_tree();
        for (package, _) in super::super::PACKAGES {
            let pin = recipes.pin(package).unwrap();
            assert!(pin.sha256.len() == 64 && !pin.version.is_empty(), "{pin:?}");
        }
        assert_eq!(recipes.packages.len(), super::super::PACKAGES.len());
        // Nodes hand over the iPXE that a boot server does.
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../rootfs/manifest.toml");
        let root: toml::Table = toml::from_str(&fs::read_to_string(root).unwrap()).unwrap();
        let packaged = root["node"]["packaged"].as_array().unwrap();
        let on_nodes: Vec<_> =
            packaged.iter().filter(|it| it["package"].as_str() == Some("ipxe")).collect();
        let pin = recipes.pin("ipxe").unwrap();
        assert_eq!(on_nodes.len(), 1);
        assert_eq!(
            (on_nodes[0]["version"].as_str(), on_nodes[0]["sha256"].as_str()),
            (Some(pin.version), Some(pin.sha256))
        );
        let error = recipes.pin("lilo").unwrap_err().to_string();
        assert!(error.contains("records no package lilo"), "{error}");
    }

    #[test]
    fn every_image_restarts_a_machine_that_hangs() {
        let recipes = of_this_tree();
        let lines = [recipes.with_volume(), recipes.command_line];
        for line in lines {
            let watched = line.split(' ').filter(|word| watchdog::is_argument(word)).count();
            assert_eq!(watched, 4, "{line}");
        }
    }

    #[test]
    fn three_programs_fit_on_the_boot_volume_of_a_disk() {
        let recipes = of_this_tree();
        assert!(3 * recipes.budgets.unified < dvs_image::disk::BOOT_VOLUME);
    }

    #[test]
    fn a_budget_is_kept_or_the_build_fails() {
        assert!(within("the CD image", 5, 5).is_ok());
        let error = within("the CD image", 7, 5).unwrap_err().to_string();
        assert!(error.contains("the CD image takes 7 bytes, 2 more than the 5"), "{error}");
    }
}

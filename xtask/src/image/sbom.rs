// SPDX-License-Identifier: MIT OR Apache-2.0
//! What an image is made of: a bill of materials in the JSON form of CycloneDX 1.5, beside the image. The same ingredients give the
//! same bytes.

use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{ensure, Context, Result};
use serde::Serialize;

use crate::package::Pin;
use crate::userspace::TARGET;

/// What the file is called.
pub(super) const FILE: &str = "sbom.cdx.json";

/// Where the header of a kernel says where its version is (Documentation/arch/x86/boot.rst), and from where that counts.
const VERSION_POINTER: usize = 0x20e;
const SETUP_BASE: usize = 0x200;

/// A bill of materials.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Bill {
    bom_format: &'static str,
    spec_version: &'static str,
    version: u32,
    metadata: Metadata,
    components: BTreeSet<Component>,
}

#[derive(Debug, Serialize)]
struct Metadata {
    component: Component,
}

/// One ingredient.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
struct Component {
    name: String,
    version: String,
    #[serde(rename = "type")]
    kind: &'static str,
    /// The package URL, by which scanners know it.
    #[serde(skip_serializing_if = "Option::is_none")]
    purl: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    licenses: Vec<License>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    hashes: Vec<Hash>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
struct License {
    expression: String,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
struct Hash {
    alg: &'static str,
    content: String,
}

impl Component {
    fn new(kind: &'static str, name: &str, version: &str) -> Self {
        let (name, version) = (name.to_owned(), version.to_owned());
        Self { name, version, kind, purl: None, licenses: Vec::new(), hashes: Vec::new() }
    }

    fn licensed(mut self, expression: &str) -> Self {
        if !expression.is_empty() {
            // Cargo takes a slash for `OR`, which is none of SPDX.
            self.licenses = vec![License { expression: expression.replace('/', " OR ") }];
        }
        self
    }

    fn hashed(mut self, sha256: &str) -> Self {
        self.hashes = vec![Hash { alg: "SHA-256", content: sha256.to_owned() }];
        self
    }
}

impl Bill {
    /// An empty one of an image of a release.
    pub(super) fn of(name: &str, version: &str) -> Self {
        let component = Component::new("operating-system", name, version);
        Self {
            bom_format: "CycloneDX",
            spec_version: "1.5",
            version: 1,
            metadata: Metadata { component },
            components: BTreeSet::new(),
        }
    }

    /// Adds packages of this workspace with all the crates that are linked into their programs, and what these are linked with besides.
    ///
    /// # Errors
    /// When cargo, the compiler or the C library does not say what there is.
    pub(super) fn programs(&mut self, root: &Path, packages: &BTreeSet<String>) -> Result<()> {
        let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut command = Command::new(cargo);
        // Each set of programs is compiled as one, and so has the features of all of it.
        command.current_dir(root).args(["tree", "--locked", "--target", TARGET, "--no-dedupe"]);
        command.args([
            "--edges",
            "normal,no-proc-macro",
            "--prefix",
            "none",
            "--format",
            "{p}|{l}",
        ]);
        command.args(packages.iter().flat_map(|package| ["--package", package]));
        let lock = root.join("Cargo.lock");
        let lock =
            fs::read_to_string(&lock).with_context(|| format!("reading {}", lock.display()))?;
        self.components.extend(crates(&said(&mut command)?, &checksums(&lock)?)?);
        let compiler = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
        let compiler = said(Command::new(compiler).current_dir(root).arg("--version"))?;
        let version = compiler.split_whitespace().nth(1);
        let version = version.with_context(|| format!("rustc says of its version: {compiler}"))?;
        let library = Component::new("library", "rust-std", version);
        self.components.insert(library.licensed("MIT OR Apache-2.0"));
        let library = said(Command::new("getconf").arg("GNU_LIBC_VERSION"))?;
        let version = library.trim().strip_prefix("glibc ");
        let version = version.with_context(|| format!("the C library says: {library}"))?;
        let library = Component::new("library", "glibc", version);
        self.components.insert(library.licensed("LGPL-2.1-or-later"));
        Ok(())
    }

    /// Adds a kernel: a `bzImage`.
    ///
    /// # Errors
    /// When it does not say its version.
    pub(super) fn kernel(&mut self, image: &[u8]) -> Result<()> {
        let release = kernel_release(image).context("the kernel does not say its version")?;
        let kernel = Component::new("operating-system", "linux", &release);
        self.components.insert(kernel.licensed("GPL-2.0-only WITH Linux-syscall-note"));
        Ok(())
    }

    /// Adds a package of Debian's, of which files are in the image.
    pub(super) fn package(&mut self, pin: Pin<'_>) {
        let Pin { package, version, suite, sha256, .. } = pin;
        let mut component = Component::new("application", package, version).hashed(sha256);
        let escaped: String = version.chars().map(escaped).collect();
        component.purl = Some(format!("pkg:deb/debian/{package}@{escaped}?distro={suite}"));
        self.components.insert(component);
    }

    /// Writes it into a folder.
    ///
    /// # Errors
    /// When that fails.
    pub(super) fn write(&self, folder: &Path) -> Result<()> {
        let text = serde_json::to_string_pretty(self).context("writing a bill of materials")?;
        super::write(&folder.join(FILE), (text + "\n").as_bytes())
    }
}

/// What a command says.
fn said(command: &mut Command) -> Result<String> {
    let attempt = format!("asking {}", command.get_program().to_string_lossy());
    let output = command.output().with_context(|| attempt.clone())?;
    ensure!(output.status.success(), "{attempt}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The crates that `cargo tree` lists, `name vVERSION[ (where)]|LICENCE` on each line; those that come from the registry have their hash.
fn crates(
    tree: &str,
    checksums: &BTreeMap<(String, String), String>,
) -> Result<BTreeSet<Component>> {
    let read = |line: &str| {
        let (package, licence) = line.split_once('|')?;
        let mut words = package.split(' ');
        let name = words.next().filter(|name| !name.is_empty())?;
        let version = words.next()?.strip_prefix('v')?;
        let component = Component::new("library", name, version).licensed(licence.trim());
        Some(match checksums.get(&(name.to_owned(), version.to_owned())) {
            Some(sha256) => {
                let purl = Some(format!("pkg:cargo/{name}@{version}"));
                Component { purl, ..component.hashed(sha256) }
            }
            None => component,
        })
    };
    let lines = tree.lines().filter(|line| !line.is_empty());
    lines.map(|line| read(line).with_context(|| format!("`cargo tree` says `{line}`"))).collect()
}

/// The hashes that a lock file has, by name and version.
fn checksums(lock: &str) -> Result<BTreeMap<(String, String), String>> {
    #[derive(serde::Deserialize)]
    struct Lock {
        package: Vec<Package>,
    }
    #[derive(serde::Deserialize)]
    struct Package {
        name: String,
        version: String,
        checksum: Option<String>,
    }
    let lock: Lock = toml::from_str(lock).context("reading Cargo.lock")?;
    let packages = lock.package.into_iter();
    Ok(packages.filter_map(|it| Some(((it.name, it.version), it.checksum?))).collect())
}

/// The version in the header of a kernel.
fn kernel_release(image: &[u8]) -> Option<String> {
    let pointer = image.get(VERSION_POINTER..)?.first_chunk()?;
    let text = image.get(SETUP_BASE + usize::from(u16::from_le_bytes(*pointer))..)?;
    let text = text.split(|&byte| byte == 0 || byte == b' ').next()?;
    let text = String::from_utf8(text.to_vec()).ok()?;
    text.starts_with(|first: char| first.is_ascii_digit()).then_some(text)
}

/// A character of a version in a package URL.
fn escaped(character: char) -> String {
    match character {
        '+' => "%2B".to_owned(),
        ':' => "%3A".to_owned(),
        '~' | '.' | '-' => character.to_string(),
        other if other.is_ascii_alphanumeric() => other.to_string(),
        other => other.to_string().bytes().map(|byte| format!("%{byte:02X}")).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHA: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    #[test]
    fn crates_are_listed_once_with_licence_and_hash() {
        let lock = format!(
            "version = 4\n[[package]]\nname = \"serde\"\nversion = \"1.0.1\"\nchecksum = \"{SHA}\"\n\
             [[package]]\nname = \"own\"\nversion = \"0.1.0\"\n"
        );
        let tree = "own v0.1.0 (/checkout/own)|MIT OR Apache-2.0\nserde v1.0.1|MIT/Apache-2.0\n\n\
                    serde v1.0.1|MIT/Apache-2.0\n";
        let found = crates(tree, &checksums(&lock).unwrap()).unwrap();
        let found: Vec<_> = found.iter().collect();
        assert_eq!(found.len(), 2);
        assert_eq!((found[0].name.as_str(), &found[0].purl), ("own", &None));
        assert_eq!(found[1].purl.as_deref(), Some("pkg:cargo/serde@1.0.1"));
        assert_eq!(found[1].licenses[0].expression, "MIT OR Apache-2.0");
        assert_eq!(found[1].hashes[0].content, SHA);
        assert!(crates("nonsense", &BTreeMap::new()).is_err());
    }

    #[test]
    fn a_kernel_says_its_version_in_its_header() {
        let mut image = vec![0; 0x3000];
        image[VERSION_POINTER..VERSION_POINTER + 2].copy_from_slice(&0x2000_u16.to_le_bytes());
        image[0x2200..0x2220].copy_from_slice(b"7.2.13 (dvs@dvs) #1 SMP PREEMPT\0");
        assert_eq!(kernel_release(&image).as_deref(), Some("7.2.13"));
        assert_eq!(kernel_release(&image[..0x2200]), None);
        assert_eq!(kernel_release(&[0; 0x3000]), None);
    }

    #[test]
    fn the_same_ingredients_give_the_same_bill() {
        let bill = |order: [&str; 2]| {
            let mut bill = Bill::of("dvs", "1.2.3");
            for package in order {
                let (suite, component, recorded) = ("bookworm", "main", "here");
                let version = "3:6.04~git1+dfsg-1";
                bill.package(Pin { package, suite, component, version, sha256: SHA, recorded });
            }
            let folder = tempfile::tempdir().unwrap();
            bill.write(folder.path()).unwrap();
            fs::read_to_string(folder.path().join(FILE)).unwrap()
        };
        let text = bill(["a", "b"]);
        assert_eq!(text, bill(["b", "a"]));
        let json: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(json["bomFormat"], "CycloneDX");
        assert_eq!(json["metadata"]["component"]["version"], "1.2.3");
        assert_eq!(
            json["components"][0]["purl"],
            "pkg:deb/debian/a@3%3A6.04~git1%2Bdfsg-1?distro=bookworm"
        );
    }

    /// Asks cargo, as images do.
    #[test]
    fn the_first_process_of_a_node_is_linked_with_what_it_uses() {
        let mut bill = Bill::of("dvs", "1.2.3");
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        bill.programs(&root, &BTreeSet::from(["dvs-init".to_owned()])).unwrap();
        let has = |name: &str| bill.components.iter().any(|component| component.name == name);
        assert!(has("dvs-init") && has("rustix") && has("rust-std") && has("glibc"));
        assert!(!has("proptest") && !has("serde_derive"), "what is not linked is no ingredient");
    }
}

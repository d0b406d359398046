// SPDX-License-Identifier: MIT OR Apache-2.0
//! `rootfs/manifest.toml`: what goes into the image of a node, and what is laid over it for tests.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{ensure, Context, Result};
use serde::Deserialize;
use walkdir::WalkDir;

use crate::cpio::{Archive, Node};
use crate::install::{self, On, Tool};
use crate::package::{self, Pin, FREE};
use crate::step::Session;
use crate::userspace::Programs;

/// Where it is in the checkout.
const MANIFEST: &str = "rootfs/manifest.toml";

/// The whole manifest.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Manifest {
    /// What the kernel unpacks, which mounts the root.
    #[serde(default)]
    pub(crate) initial: Layer,
    /// The root of every node.
    pub(crate) node: Layer,
    /// What nodes under test have besides.
    pub(crate) test: Layer,
    /// What is laid over that for benchmarks: programs that ours are compared with.
    #[serde(default)]
    pub(crate) bench: Layer,
    /// What is laid over it for a suite of tests of file systems.
    #[serde(default)]
    pub(crate) posix: Layer,
    /// What containers of the virtual OS MoL are made of.
    pub(crate) mol: Layer,
    /// What a kernel is timed with that has nothing to do.
    #[serde(default)]
    pub(crate) shell: Layer,
}

/// Entries of one archive.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Layer {
    directories: Vec<Directory>,
    devices: Vec<Device>,
    programs: Vec<Program>,
    files: Vec<StaticFile>,
    packaged: Vec<Packaged>,
    installed: Vec<Installed>,
    links: Vec<Link>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Directory {
    path: String,
    #[serde(default = "executable")]
    mode: u32,
}

/// A character device.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Device {
    path: String,
    mode: u32,
    major: u32,
    minor: u32,
}

/// A binary of this workspace.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Program {
    path: String,
    package: String,
    binary: String,
    /// The source of a program in C, relative to the checkout; its package is that of the library for C.
    c: Option<String>,
    #[serde(default = "executable")]
    mode: u32,
}

/// A file of this checkout.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct StaticFile {
    path: String,
    /// Relative to the checkout.
    source: String,
    #[serde(default = "readable")]
    mode: u32,
}

/// A file of a package of Debian's, or a directory with all that is in it.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Packaged {
    path: String,
    package: String,
    suite: String,
    #[serde(default = "free")]
    component: String,
    version: String,
    sha256: String,
    /// Whether the suite replaces versions, so that another one may have to be taken.
    #[serde(default)]
    moves: bool,
    /// Where it is in the package.
    member: String,
    /// Of the file, or of each file in the directory.
    #[serde(default = "executable")]
    mode: u32,
    /// Whether it is one program for many (busybox), and has a link beside it for each name that it lists.
    #[serde(default)]
    applets: bool,
}

impl Packaged {
    fn pin(&self) -> Pin<'_> {
        Pin {
            package: &self.package,
            suite: &self.suite,
            component: &self.component,
            version: &self.version,
            sha256: &self.sha256,
            recorded: MANIFEST,
        }
    }
}

/// A program of a crate of crates.io, which `cargo install` builds.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Installed {
    path: String,
    package: String,
    version: String,
    binary: String,
}

/// A symbolic link.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Link {
    path: String,
    target: String,
}

fn executable() -> u32 {
    0o755
}

fn readable() -> u32 {
    0o644
}

fn free() -> String {
    FREE.to_owned()
}

impl Manifest {
    /// Reads the manifest of the checkout `root`.
    ///
    /// # Errors
    /// When it cannot be read or understood.
    pub(crate) fn read(root: &Path) -> Result<Self> {
        let path = root.join(MANIFEST);
        let text =
            fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
        toml::from_str(&text).with_context(|| format!("reading {}", path.display()))
    }

    /// Reads it, and what is in the place of packages of a node that are no longer offered as they are recorded.
    ///
    /// # Errors
    /// As [`Manifest::read`], and when the archive is needed and cannot be asked.
    pub(crate) fn resolved(session: &Session) -> Result<Self> {
        let mut manifest = Self::read(&session.workspace.root)?;
        for packaged in manifest.node.packaged.iter_mut().filter(|packaged| packaged.moves) {
            let (version, sha256) = package::resolved(session, packaged.pin())?;
            (packaged.version, packaged.sha256) = (version, sha256);
        }
        Ok(manifest)
    }

    /// A file of a package that is at `path` of a node.
    ///
    /// # Errors
    /// When it is none, or cannot be had.
    pub(crate) fn packaged(&self, session: &Session, path: &str) -> Result<Vec<u8>> {
        let packaged = self.node.packaged.iter().find(|packaged| packaged.path == path);
        let packaged = packaged.with_context(|| format!("{MANIFEST} has no package for {path}"))?;
        let file = package::unpacked(session, packaged.pin())?.join(&packaged.member);
        fs::read(&file).with_context(|| format!("reading {}", file.display()))
    }

    /// The packages whose binaries the node holds, and with `test`, after these, the others that its overlay does. The two are compiled
    /// apart: features that programs of tests ask of a library must not change what is shipped.
    pub(crate) fn packages(&self, test: bool) -> Vec<BTreeSet<String>> {
        let node: BTreeSet<_> =
            self.initial.packages().into_iter().chain(self.node.packages()).collect();
        let others = test.then(|| self.test.packages().difference(&node).cloned().collect());
        std::iter::once(node).chain(others).collect()
    }

    /// The programs in C among them: each binary with its source.
    pub(crate) fn c_programs(&self, test: bool) -> Vec<(String, String)> {
        self.programs(test)
            .filter_map(|program| Some((program.binary.clone(), program.c.clone()?)))
            .collect()
    }

    /// The names by which a program of the node is called besides its own, each with the binary: links of the root to it.
    pub(crate) fn names(&self) -> Vec<(String, String)> {
        let Layer { links, programs, .. } = &self.node;
        let name = |link: &Link| {
            let program = programs.iter().find(|program| program.path == link.target)?;
            let (_, name) = link.path.rsplit_once('/')?;
            Some((name.to_owned(), program.binary.clone()))
        };
        links.iter().filter_map(name).collect()
    }

    fn programs(&self, test: bool) -> impl Iterator<Item = &Program> {
        let overlay = test.then_some(&self.test);
        [&self.initial, &self.node].into_iter().chain(overlay).flat_map(|layer| &layer.programs)
    }
}

impl Layer {
    /// The packages of its programs.
    pub(crate) fn packages(&self) -> BTreeSet<String> {
        self.programs.iter().map(|program| program.package.clone()).collect()
    }

    /// The packages of Debian's that it has files of.
    pub(crate) fn pins(&self) -> impl Iterator<Item = Pin<'_>> {
        self.packaged.iter().map(Packaged::pin)
    }

    /// Whether one of its programs is at `path`.
    pub(crate) fn has_program(&self, path: &str) -> bool {
        self.programs.iter().any(|program| program.path == path)
    }

    /// Adds the programs that are installed to an archive of the rest.
    ///
    /// # Errors
    /// When one cannot be built, or has the place of something else.
    pub(crate) fn add_installed(&self, session: &Session, archive: &mut Archive) -> Result<()> {
        for Installed { path, package, version, binary } in &self.installed {
            let tool = Tool { name: binary, package, version, on: On::Node };
            let file = install::program(session, &tool)?;
            let bytes = fs::read(&file).with_context(|| format!("reading {}", file.display()))?;
            archive.add(path, executable(), Node::File(bytes))?;
        }
        Ok(())
    }

    /// Puts the layer's content into an archive, but for what is installed.
    ///
    /// `unpacked` says where the files of a package are.
    ///
    /// # Errors
    /// When a file is missing, two entries collide, or a program does not list its applets.
    pub(crate) fn archive(
        &self,
        root: &Path,
        programs: &Programs,
        unpacked: impl Fn(Pin<'_>) -> Result<PathBuf>,
    ) -> Result<Archive> {
        let mut archive = Archive::default();
        let read = |path: &Path| {
            fs::read(path).map(Node::File).with_context(|| format!("reading {}", path.display()))
        };
        for Directory { path, mode } in &self.directories {
            archive.add(path, *mode, Node::Directory)?;
        }
        for &Device { ref path, mode, major, minor } in &self.devices {
            archive.add(path, mode, Node::Device { major, minor })?;
        }
        for Program { path, binary, mode, .. } in &self.programs {
            archive.add(path, *mode, read(&programs.path(binary))?)?;
        }
        for StaticFile { path, source, mode } in &self.files {
            archive.add(path, *mode, read(&root.join(source))?)?;
        }
        for packaged in &self.packaged {
            let file = unpacked(packaged.pin())?.join(&packaged.member);
            if file.is_dir() {
                add_directory(&mut archive, &packaged.path, packaged.mode, &file)?;
                continue;
            }
            archive.add(&packaged.path, packaged.mode, read(&file)?)?;
            if packaged.applets {
                link_applets(&mut archive, &packaged.path, &file)?;
            }
        }
        for Link { path, target } in &self.links {
            archive.add(path, 0o777, Node::Link(target.clone()))?;
        }
        Ok(archive)
    }
}

/// Adds what is in `directory` as what is in `path`: files with this mode, and links.
fn add_directory(archive: &mut Archive, path: &str, mode: u32, directory: &Path) -> Result<()> {
    archive.add(path, executable(), Node::Directory)?;
    for entry in WalkDir::new(directory).min_depth(1).sort_by_file_name() {
        let entry = entry.with_context(|| format!("reading {}", directory.display()))?;
        let name = entry.path().strip_prefix(directory).unwrap_or(entry.path());
        let name = format!("{path}/{}", name.display());
        let reading = || format!("reading {}", entry.path().display());
        if entry.file_type().is_dir() {
            archive.add(&name, executable(), Node::Directory)?;
        } else if entry.file_type().is_symlink() {
            let target = fs::read_link(entry.path()).with_context(reading)?;
            archive.add(&name, 0o777, Node::Link(target.display().to_string()))?;
        } else {
            archive.add(&name, mode, Node::File(fs::read(entry.path()).with_context(reading)?))?;
        }
    }
    Ok(())
}

/// Adds a link to the program at `path`, beside it, for each name that its file on this host lists.
fn link_applets(archive: &mut Archive, path: &str, file: &Path) -> Result<()> {
    let listed = Command::new(file)
        .arg("--list")
        .output()
        .with_context(|| format!("asking {} for its list of applets", file.display()))?;
    ensure!(
        listed.status.success(),
        "asking {} for its list of applets: it ended with {}",
        file.display(),
        listed.status
    );
    let (directory, program) = path.rsplit_once('/').unwrap_or(("", path));
    let names = String::from_utf8_lossy(&listed.stdout);
    let is_link = |name: &&str| !name.is_empty() && !name.contains('/') && *name != program;
    for name in names.lines().filter(is_link) {
        archive.add(&format!("{directory}/{name}"), 0o777, Node::Link(program.to_owned()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_keys_are_errors_that_point_at_their_line() {
        let error = toml::from_str::<Manifest>("[node]\n[test]\nfile = []\n[mol]\n")
            .unwrap_err()
            .to_string();
        assert!(error.contains("line 3") && error.contains("unknown field `file`"), "{error}");
    }

    #[test]
    fn the_manifest_of_this_tree_names_packages_of_this_workspace() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let manifest = Manifest::read(&root).unwrap();
        let lock = fs::read_to_string(root.join("Cargo.lock")).unwrap();
        let all = manifest.packages(true).into_iter().flatten().chain(manifest.mol.packages());
        for package in all {
            assert!(
                lock.contains(&format!("name = \"{package}\"")),
                "{package} is no package here"
            );
        }
        let [node] = &manifest.packages(false)[..] else { panic!("one set") };
        assert!(node.contains("dvs-programs") && !node.contains("dvk-conformance"));
        assert_eq!(manifest.packages(true)[0], *node, "what is shipped is compiled as ever");
        assert!(manifest.packages(true)[1].is_disjoint(node));
    }

    #[test]
    fn packages_are_recorded_by_version_and_hash() {
        let manifest = Manifest::read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("..")).unwrap();
        let pins: Vec<_> = [&manifest.node, &manifest.bench, &manifest.posix]
            .into_iter()
            .flat_map(Layer::pins)
            .collect();
        for package in ["busybox-static", "nbd-server"] {
            assert!(pins.iter().any(|pin| pin.package == package), "{pins:?}");
        }
        for pin in pins {
            assert!(pin.sha256.len() == 64 && !pin.version.is_empty(), "{pin:?}");
        }
        // Containers of MoL and the bare shell have what nodes have for containers without an image.
        for packaged in manifest.mol.packaged.iter().chain(&manifest.shell.packaged) {
            let same = manifest.node.packaged.iter().find(|it| it.package == packaged.package);
            assert_eq!(Some(packaged.pin()), same.map(Packaged::pin));
        }
    }

    #[test]
    fn a_program_for_many_has_a_link_for_each_name_that_it_lists() {
        use std::os::unix::fs::PermissionsExt as _;
        let directory = tempfile::tempdir().unwrap();
        let layer = |list: &str| {
            let program = directory.path().join("many");
            fs::write(&program, format!("#!/bin/sh\n{list}\n")).unwrap();
            fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
            let text = "[node]\n[test]\n[mol]\npackaged = [{ path = \"/bin/many\", package = \"many\", suite = \"s\", \
                        version = \"1\", sha256 = \"0\", member = \"many\", applets = true }]\n";
            let manifest: Manifest = toml::from_str(text).unwrap();
            let programs = Programs::in_directory(directory.path());
            let root = |_: Pin<'_>| Ok(directory.path().to_path_buf());
            manifest.mol.archive(directory.path(), &programs, root)
        };
        let archive = layer("printf 'many\\n[\\nsh\\nlinux/thing\\n'").unwrap();
        let links: Vec<_> = archive
            .entries()
            .filter_map(|(name, _, node)| {
                Some((name, matches!(node, Node::Link(_)).then_some(node)?))
            })
            .collect();
        let many = Node::Link("many".to_owned());
        assert_eq!(links, [("bin/[", &many), ("bin/sh", &many)]);
        let error = layer("exit 3").unwrap_err().to_string();
        assert!(error.contains("list of applets: it ended with exit status: 3"), "{error}");
    }

    #[test]
    fn a_layer_becomes_an_archive() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("motd"), "hello").unwrap();
        fs::write(directory.path().join("tool"), "program").unwrap();
        fs::create_dir_all(directory.path().join("firmware/deep")).unwrap();
        fs::write(directory.path().join("firmware/deep/card-1.bin"), "code").unwrap();
        std::os::unix::fs::symlink("deep/card-1.bin", directory.path().join("firmware/card"))
            .unwrap();
        let text = "[node]\ndirectories = [{ path = \"/run\" }]\n\
                    devices = [{ path = \"/dev/console\", mode = 0o600, major = 5, minor = 1 }]\n\
                    files = [{ path = \"/etc/motd\", source = \"motd\" }]\n\
                    links = [{ path = \"/bin\", target = \"usr/bin\" }]\n\
                    packaged = [{ path = \"/tool\", package = \"tools\", suite = \"s\", version = \"1\", \
                    sha256 = \"0\", member = \"tool\" }, { path = \"/lib/firmware/x\", package = \"tools\", suite = \"s\", \
                    component = \"c\", version = \"1\", sha256 = \"0\", member = \"firmware\", mode = 0o644 }]\n[test]\n[mol]\n";
        let manifest: Manifest = toml::from_str(text).unwrap();
        let programs = Programs::in_directory(directory.path());
        let components = std::cell::RefCell::new(Vec::new());
        let unpacked = |pin: Pin<'_>| {
            assert_eq!((pin.package, pin.version), ("tools", "1"));
            components.borrow_mut().push(pin.component.to_owned());
            Ok(directory.path().to_path_buf())
        };
        let archive = manifest.node.archive(directory.path(), &programs, unpacked).unwrap();
        let mut expected = Archive::default();
        expected.add("/run", 0o755, Node::Directory).unwrap();
        expected.add("/dev/console", 0o600, Node::Device { major: 5, minor: 1 }).unwrap();
        expected.add("/etc/motd", 0o644, Node::File(b"hello".to_vec())).unwrap();
        expected.add("/tool", 0o755, Node::File(b"program".to_vec())).unwrap();
        expected.add("/bin", 0o777, Node::Link("usr/bin".into())).unwrap();
        expected.add("/lib/firmware/x/card", 0o777, Node::Link("deep/card-1.bin".into())).unwrap();
        let code = Node::File(b"code".to_vec());
        expected.add("/lib/firmware/x/deep/card-1.bin", 0o644, code).unwrap();
        assert_eq!(archive.bytes(), expected.bytes());
        assert_eq!(*components.borrow(), ["main", "c"]);
    }
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! The kernel: configured from fragments, with the DVK's sources mounted in it, built incrementally, kept by content.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;

use anyhow::{bail, ensure, Context, Result};
use clap::ValueEnum;
use walkdir::WalkDir;

use crate::digest::Digest;
use crate::doctor::{self, Need};
use crate::kconfig::{Lost, Options};
use crate::patches;
use crate::source::{self, Origin, Pins, Source};
use crate::step::{Session, Step};
use crate::store::Lock;
use crate::toolchain::{self, Toolchain};
use crate::tree::{self, Mount};

/// What a kernel is for: which fragments it is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Variant {
    /// What nodes run.
    Node,
    /// The same, with what the DVK is compared with and nodes have no use for.
    Bench,
    /// With the kernel's own unit tests (KUnit), run at boot, and with KASAN, lockdep, UBSAN and the debug assertions of Rust: finds
    /// mistakes, seven times slower.
    Debug,
}

impl Variant {
    /// The fragments in `kernel/config`, later ones winning.
    fn fragments(self) -> &'static [&'static str] {
        match self {
            Self::Node => &["base", "dvk", "virtual", "baremetal"],
            Self::Bench => &["base", "dvk", "virtual", "bench"],
            Self::Debug => &["base", "dvk", "virtual", "test", "debug"],
        }
    }

    /// What it is called on command lines and in reports.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Node => "node",
            Self::Bench => "bench",
            Self::Debug => "debug",
        }
    }

    /// The step that builds it. Each has its own, and so a log of its own.
    fn step(self) -> &'static str {
        match self {
            Self::Node => "kernel node",
            Self::Bench => "kernel bench",
            Self::Debug => "kernel debug",
        }
    }

    /// Whether the kernel has unit tests, which it runs at boot.
    pub(crate) fn has_unit_tests(self) -> bool {
        self.fragments().contains(&"test")
    }
}

/// Which file of the kernel is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Image {
    /// The ELF file, which QEMU boots directly (PVH): nothing is compressed, so it is there seconds earlier.
    Vmlinux,
    /// The compressed image that firmware and boot loaders take.
    BzImage,
}

impl Image {
    /// The name of the file, which is also make's target.
    fn file(self) -> &'static str {
        match self {
            Self::Vmlinux => "vmlinux",
            Self::BzImage => "bzImage",
        }
    }

    fn in_objects(self) -> &'static str {
        match self {
            Self::Vmlinux => "vmlinux",
            Self::BzImage => "arch/x86/boot/bzImage",
        }
    }
}

/// A built kernel in the cache.
#[derive(Clone, Debug)]
pub(crate) struct Kernel {
    /// The file that was asked for.
    pub(crate) image: PathBuf,
    /// Its configuration.
    pub(crate) config: PathBuf,
    /// What would be modules, had it any: a path on each line.
    builtin: PathBuf,
}

/// Of those paths, where drivers are.
const DRIVERS: &str = "kernel/drivers/";

impl Kernel {
    /// The names of the drivers that are built in, as modules have them.
    ///
    /// # Errors
    /// When the list cannot be read.
    pub(crate) fn drivers(&self) -> Result<BTreeSet<String>> {
        let path = &self.builtin;
        let text =
            fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
        Ok(drivers(&text))
    }
}

fn drivers(builtin: &str) -> BTreeSet<String> {
    let paths = builtin.lines().filter_map(|line| line.strip_prefix(DRIVERS));
    let names = paths.filter_map(|path| path.rsplit('/').next()?.strip_suffix(".ko"));
    names.map(|name| name.replace('-', "_")).collect()
}

/// A place to build in: source, toolchain, objects.
struct Site<'a> {
    session: &'a Session,
    pins: Pins,
    source: Source,
    toolchain: Toolchain,
    variant: Variant,
    wanted: Options,
    /// The object directory of this variant. Kbuild knows what each object depends on, configuration and commands included, so a
    /// changed fragment costs what depends on it.
    objects: PathBuf,
    /// Names what is built, but for the driver: source, patches, fragments, toolchain.
    key: String,
}

/// What Kbuild calls the list of what is built in.
const BUILTIN: &str = "modules.builtin";

/// How many kernels of each kind the cache keeps.
const KEPT: usize = 8;

/// Builds the kernel, or finds it built.
///
/// # Errors
/// When a tool is missing, the source cannot be had, an option is lost, or the compilation fails.
pub(crate) fn build(
    session: &Session,
    origin: &Origin,
    variant: Variant,
    image: Image,
) -> Result<Kernel> {
    let site = Site::choose(session, origin, variant)?;
    let mut digest = Digest::new(image.file(), 2);
    digest.text("objects", &site.key);
    for mount in driver(session) {
        digest.tree(&mount.at.to_string_lossy(), &mount.from, mount.skip)?;
    }
    let key = digest.finish();
    let title = format!("{} kernel, {}", variant.name(), site.source.title);
    let found = |entry: PathBuf| Kernel {
        image: entry.join(image.file()),
        config: entry.join("config"),
        builtin: entry.join(BUILTIN),
    };
    if let Some(entry) = session.store.find("kernels", &key) {
        session.cached(variant.step(), &title);
        return Ok(found(entry));
    }
    let _lock = site.enter()?;
    if let Some(entry) = session.store.find("kernels", &key) {
        session.cached(variant.step(), &title);
        return Ok(found(entry));
    }
    let mut step = session.begin(variant.step(), &format!("configuring {title}"))?;
    site.seed(&mut step)?;
    site.mount(&mut step)?;
    site.configure(&mut step)?;
    step.now(&format!("compiling {title}"));
    let objects = site.compile(&mut step, image)?;
    let entry = session.store.create("kernels", &key, |directory| {
        let files = [(image.in_objects(), image.file()), (".config", "config"), (BUILTIN, BUILTIN)];
        for (from, to) in files {
            let from = site.objects.join(from);
            fs::copy(&from, directory.join(to))
                .with_context(|| format!("copying {} to the cache", from.display()))?;
        }
        Ok(())
    })?;
    session.store.prune("kernels", KEPT)?;
    step.finish(&format!("{title}: {objects} objects compiled"));
    Ok(found(entry))
}

/// Makes the final configuration and says where it is.
///
/// # Errors
/// As [`build`].
pub(crate) fn config(session: &Session, origin: &Origin, variant: Variant) -> Result<PathBuf> {
    let (site, _lock) = configured(session, origin, variant)?;
    Ok(site.objects.join(".config"))
}

/// A site with its final configuration, for as long as the lock is held.
fn configured<'a>(
    session: &'a Session,
    origin: &Origin,
    variant: Variant,
) -> Result<(Site<'a>, Lock)> {
    let site = Site::choose(session, origin, variant)?;
    let lock = site.enter()?;
    let mut step =
        session.begin(variant.step(), &format!("configuring the {} kernel", variant.name()))?;
    site.seed(&mut step)?;
    site.mount(&mut step)?;
    site.configure(&mut step)?;
    step.finish("configured");
    Ok((site, lock))
}

/// Runs the kernel's menu and prints what was changed, as lines for a fragment. Nothing else remembers the changes.
///
/// # Errors
/// As [`build`], and when the menu fails.
pub(crate) fn menuconfig(session: &Session, origin: &Origin, variant: Variant) -> Result<()> {
    let (site, _lock) = configured(session, origin, variant)?;
    let before = site.read_config()?;
    site.forget_configuration()?;
    let status = site.make().arg("menuconfig").status().context("running make menuconfig")?;
    ensure!(
        status.success(),
        "running make menuconfig: {status}; it needs a terminal and the headers of ncurses (package libncurses-dev)"
    );
    let changes = site.read_config()?.changes_from(&before);
    if changes.is_empty() {
        eprintln!("nothing was changed");
    } else {
        eprintln!("changed; put what you want to keep into a fragment in kernel/config:");
        changes.iter().for_each(|line| println!("{line}"));
    }
    Ok(())
}

/// The folders that make up the driver, and where they are in `drivers/dvk`.
fn driver(session: &Session) -> [Mount; 3] {
    let mount = |from: &str, at: &str, skip| Mount {
        from: session.workspace.join(from),
        at: at.into(),
        skip,
    };
    // Editing a host test must not rebuild a kernel.
    let tests = &["tests", "tests.rs"];
    [
        mount("dvk/kmod", "", &["README.md"]),
        mount("dvk/abi/src", "abi", tests),
        mount("dvk/core/src", "core", tests),
    ]
}

/// Feeds what the kernels of this checkout are made of.
///
/// # Errors
/// When a file cannot be read.
pub(crate) fn sources(session: &Session, digest: &mut Digest) -> Result<()> {
    digest.tree("kernel", &session.workspace.join("kernel"), &["README.md"])?;
    for mount in driver(session) {
        digest.tree(&mount.at.to_string_lossy(), &mount.from, mount.skip)?;
    }
    Ok(())
}

/// The options that a variant's fragments ask for.
fn wanted(fragments: &Path, variant: Variant) -> Result<Options> {
    let mut wanted = Options::default();
    for name in variant.fragments() {
        let path = fragments.join(format!("{name}.config"));
        let text =
            fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
        let fragment =
            Options::parse(&text).with_context(|| format!("reading {}", path.display()))?;
        wanted.merge(fragment);
    }
    Ok(wanted)
}

impl<'a> Site<'a> {
    fn choose(session: &'a Session, origin: &Origin, variant: Variant) -> Result<Self> {
        let pins = Pins::read(session)?;
        let wanted = wanted(&session.workspace.join("kernel/config"), variant)?;
        let tools = &pins.tools;
        let compilers = toolchain::find_rust(&tools.rustc).zip(toolchain::find_llvm(tools.llvm));
        let (rust, llvm) = match compilers {
            Some(found) => found,
            None => {
                doctor::require(session, &[Need::Userspace, Need::Kernel], tools)?;
                doctor::compilers(tools)?
            }
        };
        let source = source::prepare(session, &pins, origin)?;
        let toolchain = Toolchain::assemble(session, tools, rust, llvm)?;
        let mut digest = Digest::new("objects", 1);
        digest.text("toolchain", &toolchain.identity());
        let objects =
            source.entry.join("objects").join(digest.clone().finish()).join(variant.name());
        digest.text("source", &source.key);
        digest.text("patches", &patches::key(&session.workspace.join("kernel/patches"))?);
        digest.text("options", &wanted.to_string());
        let key = digest.finish();
        Ok(Self { session, pins, source, toolchain, variant, wanted, objects, key })
    }

    /// Takes the tree for us alone, with everything there that building needs.
    fn enter(&self) -> Result<Lock> {
        doctor::require(self.session, &[Need::Userspace, Need::Kernel], &self.pins.tools)?;
        let lock = self.session.store.lock(&self.source.lock_name(), || {
            let why = "waiting for another dvs build that works in the same tree";
            self.session.notice(self.variant.step(), why);
        })?;
        Ok(lock)
    }

    /// Makes sure that there is an object directory. A variant's first one starts as a copy of another variant's, as most objects
    /// are the same.
    fn seed(&self, step: &mut Step) -> Result<()> {
        if self.objects.exists() {
            return Ok(());
        }
        let partial = self.objects.with_extension("partial");
        crate::store::remove(&partial)?;
        let parent = self.objects.parent().unwrap_or(&self.objects);
        fs::create_dir_all(parent).with_context(|| format!("creating {}", parent.display()))?;
        let other = Variant::value_variants()
            .iter()
            .map(|variant| self.objects.with_file_name(variant.name()))
            .find(|path| path.join("vmlinux").exists());
        match other {
            Some(other) => {
                let mut copy = Command::new("cp");
                step.run(copy.args(["--archive", "--reflink=auto"]).arg(&other).arg(&partial))?;
                relocate(&partial, &other, &self.objects)?;
            }
            None => fs::create_dir(&partial)
                .with_context(|| format!("creating {}", partial.display()))?,
        }
        fs::rename(&partial, &self.objects)
            .with_context(|| format!("renaming {}", partial.display()))?;
        self.forget_configuration()
    }

    fn make(&self) -> Command {
        self.toolchain.make(&self.source.tree(), &self.objects)
    }

    /// Brings the patches and the driver's sources into the tree. Only files that changed are touched, so make stays incremental.
    fn mount(&self, step: &mut Step) -> Result<()> {
        let patches = self.session.workspace.join("kernel/patches");
        patches::apply(
            &mut |command| step.run(command),
            &self.source.tree(),
            &self.source.patched(),
            &patches,
        )?;
        let mounts = driver(self.session);
        let kconfig = mounts[0].from.join("Kconfig");
        ensure!(kconfig.exists(), "mounting the driver: {} is missing", kconfig.display());
        tree::mirror(&self.source.tree().join("drivers/dvk"), &mounts)?;
        Ok(())
    }

    fn stamp(&self) -> PathBuf {
        self.objects.join("dvs-configured")
    }

    fn forget_configuration(&self) -> Result<()> {
        crate::store::remove(&self.stamp())
    }

    fn read_config(&self) -> Result<Options> {
        let path = self.objects.join(".config");
        let text =
            fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
        Options::parse(&text).with_context(|| format!("reading {}", path.display()))
    }

    /// Makes `.config` from tinyconfig and the fragments, and checks that every option that was asked for is in it.
    fn configure(&self, step: &mut Step) -> Result<()> {
        let mut digest = Digest::new("configuration", 1);
        digest.text("options", &self.wanted.to_string());
        digest.file("Kconfig", &self.session.workspace.join("dvk/kmod/Kconfig"))?;
        let fresh = digest.finish();
        if fs::read_to_string(self.stamp()).is_ok_and(|stamp| stamp == fresh) {
            return Ok(());
        }
        step.run(self.make().arg("tinyconfig"))?;
        let path = self.objects.join(".config");
        fs::write(&path, self.wanted.over(&self.read_config()?))
            .with_context(|| format!("writing {}", path.display()))?;
        step.run(self.make().arg("olddefconfig"))?;
        let lost = self.wanted.lost_in(&self.read_config()?);
        if !lost.is_empty() {
            bail!(
                "configuring the {} kernel: {} of the options that kernel/config/{{{}}}.config ask for did not survive:{}\n  to do:   \
                 give them what they depend on (`cargo xtask kernel menuconfig`, then `/` and the name), or do not ask for them",
                self.variant.name(),
                lost.len(),
                self.variant.fragments().join(","),
                lost.iter().map(|lost: &Lost| format!("\n  - {lost}")).collect::<String>()
            );
        }
        fs::write(self.stamp(), fresh)
            .with_context(|| format!("writing {}", self.stamp().display()))
    }

    /// Compiles, and returns how many objects that took.
    fn compile(&self, step: &mut Step, image: Image) -> Result<u32> {
        let jobs = thread::available_parallelism().map_or(1, usize::from);
        let mut targets = vec![image.file()];
        if !self.objects.join("vmlinux").exists() {
            // The driver first: its mistakes should not show only after all the rest of a kernel.
            targets.insert(0, "drivers/dvk/");
        }
        let mut objects = 0;
        for target in targets {
            step.watch(self.make().arg(format!("-j{jobs}")).arg(target), |line| {
                let compiled = is_compilation(line);
                objects += u32::from(compiled);
                compiled.then(|| format!("{objects} objects"))
            })?;
        }
        Ok(objects)
    }
}

/// Puts the place `to` for `from` into what Kbuild keeps of the commands in `objects`. An object whose command has changed is made
/// again; so would be Rust's, and the tool objtool, and with it every object that it has checked.
fn relocate(objects: &Path, from: &Path, to: &Path) -> Result<()> {
    let (from, to) = (from.to_string_lossy(), to.to_string_lossy());
    for entry in WalkDir::new(objects) {
        let entry = entry.with_context(|| format!("listing {}", objects.display()))?;
        let path = entry.path();
        if !entry.file_type().is_file() || path.extension() != Some("cmd".as_ref()) {
            continue;
        }
        let text =
            fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
        if text.contains(&*from) {
            fs::write(path, text.replace(&*from, &to))
                .with_context(|| format!("writing {}", path.display()))?;
        }
    }
    Ok(())
}

/// Whether a line of the kernel's make says that an object was compiled, such as `  CC      fs/ext4/super.o`.
fn is_compilation(line: &str) -> bool {
    let mut words = line.split_whitespace();
    line.starts_with("  ")
        && matches!(words.next(), Some("CC" | "AS" | "RUSTC" | "HOSTCC" | "HOSTRUSTC"))
        && words.next().is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compilations_are_told_from_other_lines() {
        for line in ["  CC      fs/ext4/super.o", "  RUSTC L rust/core.o", "  AS      a.o"] {
            assert!(is_compilation(line), "{line}");
        }
        for line in
            ["  AR      fs/built-in.a", "make[1]: Entering", "  CALL    scripts/x.sh", "CC x", ""]
        {
            assert!(!is_compilation(line), "{line}");
        }
    }

    #[test]
    fn drivers_are_told_from_what_else_is_built_in() {
        let list = "kernel/fs/ext4/ext4.ko\nkernel/drivers/ata/ahci.ko\nkernel/drivers/usb/storage/usb-storage.ko\n";
        let found = drivers(list);
        assert_eq!(found.iter().map(String::as_str).collect::<Vec<_>>(), ["ahci", "usb_storage"]);
    }

    #[test]
    fn a_copy_of_objects_has_its_own_commands() {
        let directory = tempfile::tempdir().unwrap();
        let command = directory.path().join("rust/.core.o.cmd");
        let object = directory.path().join("rust/core.o");
        fs::create_dir(directory.path().join("rust")).unwrap();
        fs::write(&command, "savedcmd_rust/core.o := rustc --out-dir /o/node/rust\n").unwrap();
        fs::write(&object, "/o/node/rust").unwrap();
        relocate(directory.path(), Path::new("/o/node"), Path::new("/o/bench")).unwrap();
        let text = fs::read_to_string(command).unwrap();
        assert_eq!(text, "savedcmd_rust/core.o := rustc --out-dir /o/bench/rust\n");
        assert_eq!(fs::read_to_string(object).unwrap(), "/o/node/rust");
    }

    #[test]
    fn every_fragment_of_this_tree_is_well_formed() {
        let fragments = Path::new(env!("CARGO_MANIFEST_DIR")).join("../kernel/config");
        for &variant in Variant::value_variants() {
            let wanted = wanted(&fragments, variant).unwrap().to_string();
            assert!(wanted.contains("CONFIG_DVK=y\n"));
            assert!(wanted.contains("# CONFIG_SLUB_TINY is not set\n"));
            assert_eq!(wanted.contains("CONFIG_KUNIT=y\n"), variant.has_unit_tests());
            assert_eq!(wanted.contains("CONFIG_ANDROID_"), variant == Variant::Bench);
            assert_eq!(wanted.contains("CONFIG_KASAN=y\n"), variant == Variant::Debug);
        }
    }
}

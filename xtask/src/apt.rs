// SPDX-License-Identifier: MIT OR Apache-2.0
//! Fetching a package of another Debian suite from the mirror that this machine uses, verified by apt's chain of signatures, without
//! touching the machine's own package lists.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{bail, ensure, Context, Result};

use crate::step::{self, Step};

/// The keys that sign Debian's archives; package `debian-archive-keyring`, always installed.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// A repository that apt is configured for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Repository {
    /// Base address, in any of apt's schemes.
    pub(crate) uri: String,
    /// Suites, such as `bookworm` or `bookworm-updates`.
    pub(crate) suites: Vec<String>,
    /// Components, such as `main`.
    pub(crate) components: Vec<String>,
}

/// The binary repositories of a file in the one-line format (sources.list(5)).
pub(crate) fn parse_list(text: &str) -> Vec<Repository> {
    let parse = |line: &str| {
        let line = line.split('#').next().unwrap_or_default().trim();
        let rest =
            line.strip_prefix("deb").filter(|rest| rest.starts_with([' ', '\t', '[']))?.trim();
        let rest = match rest.strip_prefix('[') {
            Some(options) => options.split_once(']')?.1,
            None => rest,
        };
        let mut words = rest.split_whitespace().map(str::to_owned);
        Some(Repository {
            uri: words.next()?,
            suites: vec![words.next()?],
            components: words.collect(),
        })
    };
    text.lines().filter_map(parse).collect()
}

/// The enabled binary repositories of a file in the deb822 format (sources.list(5)).
pub(crate) fn parse_deb822(text: &str) -> Vec<Repository> {
    stanzas(text)
        .into_iter()
        .filter(|stanza| {
            let disabled = field(stanza, "Enabled").is_some_and(|value| {
                matches!(value.to_lowercase().as_str(), "no" | "false" | "off" | "0")
            });
            !disabled && words(stanza, "Types").iter().any(|kind| kind == "deb")
        })
        .flat_map(|stanza| {
            let suites = words(&stanza, "Suites");
            let components = words(&stanza, "Components");
            words(&stanza, "URIs")
                .into_iter()
                .map(|uri| Repository {
                    uri,
                    suites: suites.clone(),
                    components: components.clone(),
                })
                .collect::<Vec<_>>()
        })
        .collect()
}

/// Fields of a paragraph, in order, with folded lines joined.
type Stanza = Vec<(String, String)>;

/// The paragraphs of a control file.
fn stanzas(text: &str) -> Vec<Stanza> {
    let mut stanzas = vec![Stanza::new()];
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let Some(current) = stanzas.last_mut() else { continue };
        if line.trim().is_empty() {
            stanzas.push(Stanza::new());
        } else if line.starts_with([' ', '\t']) {
            if let Some((_, value)) = current.last_mut() {
                value.push('\n');
                value.push_str(line.trim());
            }
        } else if let Some((name, value)) = line.split_once(':') {
            current.push((name.trim().to_owned(), value.trim().to_owned()));
        }
    }
    stanzas.retain(|stanza| !stanza.is_empty());
    stanzas
}

fn field<'a>(stanza: &'a Stanza, name: &str) -> Option<&'a str> {
    stanza
        .iter()
        .find(|(present, _)| present.eq_ignore_ascii_case(name))
        .map(|(_, value)| value.as_str())
}

fn words(stanza: &Stanza, name: &str) -> Vec<String> {
    field(stanza, name).unwrap_or_default().split_whitespace().map(str::to_owned).collect()
}

/// The address of the Debian mirror among `repositories`: the one that has `codename` itself, not an add-on to it.
pub(crate) fn mirror<'a>(repositories: &'a [Repository], codename: &str) -> Option<&'a str> {
    repositories
        .iter()
        .find(|repository| {
            repository.suites.iter().any(|suite| suite == codename || suite == "stable")
                && repository.components.iter().any(|component| component == "main")
        })
        .map(|repository| repository.uri.as_str())
}

/// A version of a package that some suite offers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Offer {
    /// The package.
    pub(crate) package: String,
    /// Its version, such as `7.2.13-1`.
    pub(crate) version: String,
    /// The hash of the .deb file, from the signed index.
    pub(crate) sha256: String,
}

/// What `apt-cache show` lists.
pub(crate) fn parse_offers(text: &str) -> Vec<Offer> {
    stanzas(text)
        .iter()
        .filter_map(|stanza| {
            Some(Offer {
                package: field(stanza, "Package")?.to_owned(),
                version: field(stanza, "Version")?.to_owned(),
                sha256: field(stanza, "SHA256")?.to_lowercase(),
            })
        })
        .collect()
}

/// The offer of `version`, or else the first, which is the newest.
fn preferred<'a>(offers: &'a [Offer], version: &str) -> Option<&'a Offer> {
    offers.iter().find(|offer| offer.version == version).or_else(|| offers.first())
}

/// An apt configuration of our own, in a directory of our own.
#[derive(Debug)]
pub(crate) struct Archive {
    directory: PathBuf,
}

impl Archive {
    /// Points apt at `suites` of the mirror that the machine is configured for.
    ///
    /// # Errors
    /// When this machine is not a Debian, its mirror is not found, or files cannot be written.
    pub(crate) fn configure(directory: &Path, suites: &[String], component: &str) -> Result<Self> {
        let codename = codename(&fs::read_to_string("/etc/os-release").unwrap_or_default())?;
        let repositories = configured(Path::new("/etc/apt"))?;
        let Some(uri) = mirror(&repositories, &codename) else {
            bail!("finding a Debian mirror: no source in /etc/apt offers {codename} main");
        };
        ensure!(Path::new(KEYRING).exists(), "verifying packages: {KEYRING} is missing");
        for part in ["sources", "lists/partial", "cache/archives/partial"] {
            let path = directory.join(part);
            fs::create_dir_all(&path).with_context(|| format!("creating {}", path.display()))?;
        }
        let write = |name: &str, text: &str| {
            let path = directory.join(name);
            fs::write(&path, text).with_context(|| format!("writing {}", path.display()))
        };
        write(
            "sources/kernel.sources",
            &format!(
                "Types: deb\nURIs: {uri}\nSuites: {}\nComponents: {component}\nSigned-By: {KEYRING}\n",
                suites.join(" ")
            ),
        )?;
        // The machine's own settings stay in force (proxies, timeouts), but not its hooks: they are about the machine's own lists
        // and archives, which somebody may be using at this moment.
        write(
            "apt.conf",
            "#clear APT::Update;\n#clear DPkg::Pre-Invoke;\n#clear DPkg::Post-Invoke;\n",
        )?;
        Ok(Self { directory: directory.to_path_buf() })
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.env("LC_ALL", "C").arg("-c").arg(self.directory.join("apt.conf"));
        for (option, value) in [
            ("Dir::Etc::SourceList", "/dev/null".into()),
            ("Dir::Etc::SourceParts", self.directory.join("sources")),
            ("Dir::Etc::Preferences", "/dev/null".into()),
            ("Dir::Etc::PreferencesParts", "/dev/null".into()),
            ("Dir::State::Lists", self.directory.join("lists")),
            ("Dir::Cache", self.directory.join("cache")),
            ("APT::Sandbox::User", "root".into()),
            ("Acquire::Languages", "none".into()),
            ("Acquire::Retries", "3".into()),
        ] {
            command.arg("-o").arg(format!("{option}={}", value.display()));
        }
        // Mirrors may be frozen for longer than their lists are valid. What is taken from them is known by its signature, and
        // the recorded version by its hash.
        command.arg("-o").arg("Acquire::Check-Valid-Until=false");
        // Descriptions for software centres are of no use here, and large.
        command.arg("-o").arg("Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false");
        command
    }

    /// Fetches the signed lists of packages.
    ///
    /// # Errors
    /// When apt fails.
    pub(crate) fn update(&self, step: &mut Step) -> Result<()> {
        step.run(self.command("apt-get").arg("update"))
    }

    /// The names of the packages that begin with `prefix`.
    ///
    /// # Errors
    /// When apt fails.
    pub(crate) fn names(&self, prefix: &str) -> Result<Vec<String>> {
        let text = step::answer(self.command("apt-cache").args(["pkgnames", prefix]))?;
        Ok(text.lines().map(str::to_owned).collect())
    }

    /// All versions of a package, newest first.
    ///
    /// # Errors
    /// When apt fails, as it does when there is no such package.
    pub(crate) fn offers(&self, package: &str) -> Result<Vec<Offer>> {
        let text =
            step::answer(self.command("apt-cache").args(["show", "--all-versions", package]))?;
        Ok(parse_offers(&text))
    }

    /// The recorded version of a package, or else the newest that is offered, with a remark: suites that move replace versions.
    ///
    /// # Errors
    /// When there is none, or the archive's recorded version is not what was recorded.
    pub(crate) fn preferred(
        &self,
        step: &mut Step,
        package: &str,
        version: &str,
        sha256: &str,
    ) -> Result<Offer> {
        let offers = self.offers(package)?;
        let Some(offer) = preferred(&offers, version) else {
            bail!("asking the archive for {package}: apt knows it, but no version of it");
        };
        if offer.version != version {
            let taken = &offer.version;
            step.remark(&format!(
                "the recorded version {version} of {package} is no longer offered; using {taken}"
            ));
        } else {
            ensure!(
                offer.sha256 == sha256,
                "verifying {package} {version}: the archive's signed index gives SHA-256 {}, this checkout records {sha256}",
                offer.sha256
            );
        }
        Ok(offer.clone())
    }

    /// Downloads an offered package into `directory`; apt checks it against the signed lists.
    ///
    /// # Errors
    /// When apt fails or leaves no package there.
    pub(crate) fn download(
        &self,
        step: &mut Step,
        offer: &Offer,
        directory: &Path,
    ) -> Result<PathBuf> {
        step.run(
            self.command("apt-get")
                .current_dir(directory)
                .arg("download")
                .arg(format!("{}={}", offer.package, offer.version)),
        )?;
        fs::read_dir(directory)
            .with_context(|| format!("listing {}", directory.display()))?
            .filter_map(|entry| Some(entry.ok()?.path()))
            .find(|path| path.extension().is_some_and(|extension| extension == "deb"))
            .with_context(|| format!("downloading {}: apt-get left no package", offer.package))
    }
}

/// All binary repositories of an apt configuration directory.
fn configured(etc: &Path) -> Result<Vec<Repository>> {
    let mut paths = vec![etc.join("sources.list")];
    if let Ok(entries) = fs::read_dir(etc.join("sources.list.d")) {
        paths.extend(entries.filter_map(|entry| Some(entry.ok()?.path())));
    }
    paths.sort();
    let mut repositories = Vec::new();
    for path in paths.iter().filter(|path| path.is_file()) {
        let text =
            fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("list") => repositories.extend(parse_list(&text)),
            Some("sources") => repositories.extend(parse_deb822(&text)),
            _ => {}
        }
    }
    Ok(repositories)
}

/// The codename of the Debian release that an os-release(5) file describes.
fn codename(os_release: &str) -> Result<String> {
    let value = |name: &str| {
        os_release
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix('='))
            .map(|value| value.trim_matches('"').to_owned())
    };
    match (value("ID").as_deref(), value("VERSION_CODENAME")) {
        (Some("debian"), Some(codename)) => Ok(codename),
        _ => bail!(
            "fetching the kernel source from Debian's archive: this machine does not run a Debian release; \
             give a source tree or tarball with `--kernel-src`"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn repository(uri: &str, suites: &[&str], components: &[&str]) -> Repository {
        let own = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect();
        Repository { uri: uri.to_owned(), suites: own(suites), components: own(components) }
    }

    #[test]
    fn the_recorded_version_is_preferred_and_then_the_newest() {
        let offer = |version: &str| Offer {
            package: "loader".into(),
            version: version.into(),
            sha256: "0".repeat(64),
        };
        let offers = [offer("262-1"), offer("261-2")];
        let chosen = |version| preferred(&offers, version).map(|offer| offer.version.as_str());
        assert_eq!(chosen("261-2"), Some("261-2"));
        assert_eq!(chosen("260-1"), Some("262-1"));
        assert_eq!(preferred(&[], "260-1"), None);
    }

    #[test]
    fn one_line_sources() {
        let text = "# deb http://old.example/debian bookworm main\n\
                    deb-src http://mirror.example/debian bookworm main\n\
                    deb http://mirror.example/debian bookworm main contrib # near\n\
                    deb [arch=amd64 signed-by=/a/key.gpg] https://other.example/apt stable-x thing\n\
                    debris\n";
        assert_eq!(
            parse_list(text),
            [
                repository("http://mirror.example/debian", &["bookworm"], &["main", "contrib"]),
                repository("https://other.example/apt", &["stable-x"], &["thing"]),
            ]
        );
    }

    #[test]
    fn deb822_sources() {
        let text = "# A comment\nTypes: deb deb-src\nURIs: http://a.example/debian\n http://b.example/debian\n\
                    Suites: bookworm bookworm-updates\nComponents: main\n\n\
                    Types: deb-src\nURIs: http://c.example/debian\nSuites: sid\nComponents: main\n\n\n\
                    Enabled: no\nTypes: deb\nURIs: http://d.example/debian\nSuites: sid\nComponents: main\n";
        let suites = ["bookworm", "bookworm-updates"];
        assert_eq!(
            parse_deb822(text),
            [
                repository("http://a.example/debian", &suites, &["main"]),
                repository("http://b.example/debian", &suites, &["main"]),
            ]
        );
    }

    #[test]
    fn the_mirror_is_the_one_with_the_release_itself() {
        let repositories = [
            repository("http://vendor.example/apt", &["bookworm"], &["tool"]),
            repository("http://m.example/debian-security", &["bookworm-security"], &["main"]),
            repository("http://m.example/debian", &["bookworm", "bookworm-updates"], &["main"]),
        ];
        assert_eq!(mirror(&repositories, "bookworm"), Some("http://m.example/debian"));
        assert_eq!(mirror(&repositories[..2], "bookworm"), None);
    }

    #[test]
    fn offers_of_a_package() {
        let text = "Package: linux-source-7.2\nVersion: 7.2.13-1\nDescription: source\n of the kernel\nSHA256: ABCD\n\n\
                    Package: linux-source-7.2\nVersion: 7.2.9-1~bpo13+1\nSHA256: 1234\n";
        let versions: Vec<_> =
            parse_offers(text).into_iter().map(|offer| (offer.version, offer.sha256)).collect();
        assert_eq!(
            versions,
            [("7.2.13-1".into(), "abcd".into()), ("7.2.9-1~bpo13+1".into(), "1234".to_owned())]
        );
    }

    #[test]
    fn other_systems_are_told_what_to_do() {
        assert_eq!(codename("ID=debian\nVERSION_CODENAME=bookworm\n").unwrap(), "bookworm");
        let error = codename("ID=\"fedora\"\n").unwrap_err();
        assert!(error.to_string().contains("--kernel-src"));
    }
}

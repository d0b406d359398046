// SPDX-License-Identifier: MIT OR Apache-2.0
//! Where contexts are kept.

use std::fs::{self, DirBuilder};
use std::io::{self, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use crate::{Context, Error};

/// The environment variable that names the folder.
pub const FOLDER_VARIABLE: &str = "DVSCTL_CONFIG";

/// A folder with contexts, and which of them is used where none is named. Nobody else may look into it.
#[derive(Clone, Debug)]
pub struct Folder(PathBuf);

impl Folder {
    /// This folder.
    pub fn new(path: PathBuf) -> Self {
        Self(path)
    }

    /// The folder of who runs the program: [`FOLDER_VARIABLE`], or `dvs` where the XDG base directory specification has
    /// configurations.
    ///
    /// # Errors
    /// When the environment does not say where that is.
    pub fn of_user() -> Result<Self, Error> {
        let of =
            |name: &str| std::env::var_os(name).filter(|text| !text.is_empty()).map(PathBuf::from);
        let found = of(FOLDER_VARIABLE)
            .or_else(|| {
                of("XDG_CONFIG_HOME").filter(|path| path.is_absolute()).map(|path| path.join("dvs"))
            })
            .or_else(|| of("HOME").map(|home| home.join(".config/dvs")));
        let missing =
            "neither DVSCTL_CONFIG, XDG_CONFIG_HOME nor HOME says where contexts are kept";
        found.map(Self).ok_or_else(|| Error::Wrong(missing.into()))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }

    fn contexts(&self) -> PathBuf {
        self.0.join("contexts")
    }

    /// The file of a context.
    pub fn file(&self, name: &str) -> PathBuf {
        self.contexts().join(format!("{name}.toml"))
    }

    fn current_file(&self) -> PathBuf {
        self.0.join("current")
    }

    /// The names of all contexts, sorted.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn names(&self) -> Result<Vec<String>, Error> {
        let path = self.contexts();
        let failed = |source| Error::File { attempt: "read", path: path.clone(), source };
        let entries = match fs::read_dir(&path) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(failed(error)),
        };
        let mut names = Vec::new();
        for entry in entries {
            let file = entry.map_err(failed)?.file_name();
            names.extend(
                file.to_str().and_then(|file| file.strip_suffix(".toml")).map(str::to_owned),
            );
        }
        names.sort();
        Ok(names)
    }

    /// The context of a name.
    ///
    /// # Errors
    /// When there is none, or its file is not in order.
    pub fn read(&self, name: &str) -> Result<Context, Error> {
        check_name(name).map_err(Error::Wrong)?;
        let path = self.file(name);
        match fs::read_to_string(&path) {
            Ok(text) => Context::parse(&text)
                .map_err(|error| Error::Wrong(format!("{}: {error}", path.display()))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let known = self.names()?.join(", ");
                let known = if known.is_empty() { "none".to_owned() } else { known };
                Err(Error::Wrong(format!(
                    "there is no context {name}; there are: {known}; make one with `dvsctl context add`"
                )))
            }
            Err(source) => Err(Error::File { attempt: "read", path, source }),
        }
    }

    /// Keeps a context, in place of one of that name.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&self, name: &str, context: &Context) -> Result<(), Error> {
        check_name(name).map_err(Error::Wrong)?;
        let text = context.to_toml().map_err(Error::Wrong)?;
        self.replace(&self.file(name), &text)
    }

    /// Forgets a context.
    ///
    /// # Errors
    /// When there is none, or it cannot be removed.
    pub fn remove(&self, name: &str) -> Result<(), Error> {
        check_name(name).map_err(Error::Wrong)?;
        // What is not in order can be removed all the same.
        if !self.file(name).exists() {
            self.read(name)?;
        }
        let path = self.file(name);
        fs::remove_file(&path).map_err(|source| Error::File { attempt: "remove", path, source })
    }

    /// The context that is used where none is named.
    ///
    /// # Errors
    /// When that cannot be read.
    pub fn current(&self) -> Result<Option<String>, Error> {
        let path = self.current_file();
        match fs::read_to_string(&path) {
            Ok(text) => Ok(Some(text.trim().to_owned()).filter(|name| !name.is_empty())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(Error::File { attempt: "read", path, source }),
        }
    }

    /// Chooses the context that is used where none is named.
    ///
    /// # Errors
    /// When there is no such context, or that cannot be written.
    pub fn choose(&self, name: Option<&str>) -> Result<(), Error> {
        if let Some(name) = name {
            self.read(name)?;
        }
        let text = name.map(|name| format!("{name}\n")).unwrap_or_default();
        self.replace(&self.current_file(), &text)
    }

    /// Makes a file say this. Whoever reads it sees the old text or the new one, whole.
    fn replace(&self, path: &Path, text: &str) -> Result<(), Error> {
        let failed = |attempt| {
            let path = path.to_owned();
            move |source| Error::File { attempt, path, source }
        };
        let folder = path.parent().unwrap_or(&self.0);
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)
            .map_err(failed("make a folder for"))?;
        let replace = || -> io::Result<()> {
            // Readable for its owner alone from the first moment on.
            let mut file = tempfile::NamedTempFile::new_in(folder)?;
            file.write_all(text.as_bytes())?;
            file.as_file().sync_all()?;
            file.persist(path)?;
            Ok(())
        };
        replace().map_err(failed("write"))
    }
}

/// Says what is wrong with a name of a context.
///
/// # Errors
/// For people.
pub fn check_name(name: &str) -> Result<(), String> {
    let fits = |c: char| c.is_ascii_alphanumeric() || "-_.@".contains(c);
    match (1..=100).contains(&name.len()) && name.chars().all(fits) && !name.starts_with('.') {
        true => Ok(()),
        false => {
            Err(format!("`{name}` is no name of a context: expected letters, digits, - _ . and @"))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::time::Duration;

    use super::*;

    fn context() -> Context {
        let token = "sixteen letters or more".parse().unwrap();
        let valid = Duration::from_secs(3600);
        Context::new(&token, "lab".parse().unwrap(), &["h:1".parse().unwrap()], "me", valid)
            .unwrap()
    }

    #[test]
    fn contexts_are_kept_chosen_and_removed_and_nobody_else_reads_them() {
        let directory = tempfile::tempdir().unwrap();
        let folder = Folder::new(directory.path().join("deep/dvs"));
        assert_eq!((folder.names().unwrap(), folder.current().unwrap()), (vec![], None));
        let error = folder.read("a").unwrap_err().to_string();
        assert!(error.starts_with("there is no context a; there are: none; make one"), "{error}");
        folder.write("b", &context()).unwrap();
        folder.write("a", &context()).unwrap();
        assert_eq!(folder.names().unwrap(), ["a", "b"]);
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&folder.file("a")), 0o600);
        assert_eq!((mode(folder.path()), mode(&folder.contexts())), (0o700, 0o700));
        folder.choose(Some("b")).unwrap();
        assert_eq!(folder.current().unwrap().as_deref(), Some("b"));
        assert!(folder.choose(Some("c")).unwrap_err().to_string().contains("there are: a, b"));
        fs::write(folder.file("a"), "x").unwrap();
        assert!(folder.read("a").unwrap_err().to_string().contains("contexts/a.toml"));
        folder.remove("a").unwrap();
        assert!(folder.remove("a").unwrap_err().to_string().contains("there are: b"));
        for name in ["", "../x", "a/b", ".x"] {
            assert!(folder.read(name).unwrap_err().to_string().contains("no name of a context"));
        }
    }
}

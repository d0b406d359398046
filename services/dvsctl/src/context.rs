// SPDX-License-Identifier: MIT OR Apache-2.0
//! `dvsctl context`: which cluster is meant, and what proves to it that its owner is an administrator.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use dvs_api::Version;
use dvs_client::{Address, Client, Context, Folder, SOCKET};
use dvs_config::Token;
use serde::Serialize;

use crate::arguments::{AddArguments, Arguments, ContextCommand, Output, TokenArguments};
use crate::cluster::{Cluster, Error};
use crate::table::Table;
use crate::{print, Failure};

/// How long before a certificate ends everybody who uses it is told.
const WARNING: Duration = Duration::from_secs(14 * 24 * 3600);

/// The cluster that the command line means.
pub(crate) fn cluster(arguments: &Arguments) -> Result<Cluster, Failure> {
    let on_node = Path::new(SOCKET).exists();
    let folder = match (Folder::of_user(), on_node) {
        (Ok(folder), _) => Some(folder),
        // A service has no home, and needs none on a node.
        (Err(_), true) if arguments.context.is_none() => None,
        (Err(error), _) => return Err(error.into()),
    };
    let current = || folder.as_ref().map_or(Ok(None), Folder::current);
    let name = match &arguments.context {
        Some(name) => Some(name.clone()),
        None => current()?,
    };
    let Some(endpoints) = &arguments.endpoints else {
        return match (name, folder) {
            (Some(name), Some(folder)) => {
                let context = folder.read(&name)?;
                warn(&name, &context)?;
                Ok(Cluster::new(context.clients(&name)?))
            }
            _ if on_node => Ok(Cluster::new(vec![Client::new(Address::Socket(SOCKET.into()), None)])),
            _ => Err(Failure::Refused(
                "no cluster is named: make a context with `dvsctl context add`, or name nodes with --endpoint or DVSCTL_ENDPOINTS"
                    .into(),
            )),
        };
    };
    let secure = endpoints.iter().any(|endpoint| matches!(endpoint, Address::Tls(_)));
    let credentials = match (name, folder) {
        (Some(name), Some(folder)) if secure => {
            let context = folder.read(&name)?;
            warn(&name, &context)?;
            Some(context.credentials(&name)?)
        }
        _ => None,
    };
    let client = |endpoint: &Address| Client::new(endpoint.clone(), credentials.clone());
    Ok(Cluster::new(endpoints.iter().map(client).collect()))
}

fn warn(name: &str, context: &Context) -> Result<(), Failure> {
    let left = context.expires()?.duration_since(SystemTime::now()).unwrap_or_default();
    if !left.is_zero() && left < WARNING {
        eprintln!(
            "note: the certificate of context {name} ends in {}: see `dvsctl context renew {name}`",
            whole(left)
        );
    }
    Ok(())
}

pub(crate) fn run(arguments: &Arguments, command: &ContextCommand) -> Result<ExitCode, Failure> {
    let folder = Folder::of_user()?;
    let output = arguments.output;
    let named = |name: &Option<String>| -> Result<String, Failure> {
        let chosen = name.clone().or_else(|| arguments.context.clone());
        match chosen.map_or_else(|| folder.current(), |name| Ok(Some(name)))? {
            Some(name) => Ok(name),
            None => Err(Failure::Refused("no context is in use; name one".into())),
        }
    };
    match command {
        ContextCommand::Add(add) => self::add(&folder, arguments, add)?,
        ContextCommand::List => {
            let current = folder.current()?;
            let about = |name: &String| About::of(&folder, name, current.as_deref());
            let all = folder.names()?.iter().map(about).collect::<Result<Vec<_>, _>>()?;
            print(output, &all, || list(&all))?;
        }
        ContextCommand::Use { name } => {
            folder.choose(Some(name))?;
            told(
                output,
                &About::of(&folder, name, Some(name))?,
                &format!("context {name} is in use"),
            )?;
        }
        ContextCommand::Show { name } => {
            let name = named(name)?;
            let about = About::of(&folder, &name, folder.current()?.as_deref())?;
            print(output, &about, || show(&about))?;
        }
        ContextCommand::Renew { name, token } => {
            let name = named(name)?;
            let old = folder.read(&name)?;
            let endpoints: Result<Vec<Address>, _> =
                old.endpoints.iter().map(|endpoint| endpoint.parse()).collect();
            let endpoints =
                endpoints.map_err(|error| Failure::Refused(format!("context {name}: {error}")))?;
            let context = make(&name, old.cluster, &endpoints, token)?;
            folder.write(&name, &context)?;
            let about = About::of(&folder, &name, folder.current()?.as_deref())?;
            told(output, &about, &format!("context {name} is valid until {}", about.expires))?;
        }
        ContextCommand::Export { name, directory } => {
            let context = folder.read(name)?;
            export(&context, directory)?;
            let about = About::of(&folder, name, folder.current()?.as_deref())?;
            let name = format!("node.{}.dvs", context.cluster);
            told(output, &about, &format!("written; nodes prove to be {name}"))?;
        }
        ContextCommand::Remove { name } => {
            folder.remove(name)?;
            if folder.current()?.as_deref() == Some(name) {
                folder.choose(None)?;
                eprintln!("note: it was in use; choose another with `dvsctl context use`");
            }
            if !matches!(output, Output::Json | Output::Yaml) {
                print(output, &(), || format!("context {name} is forgotten\n"))?;
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn told(output: Output, about: &About, text: &str) -> Result<(), Failure> {
    print(output, about, || format!("{text}\n"))
}

fn add(folder: &Folder, arguments: &Arguments, add: &AddArguments) -> Result<(), Failure> {
    let name = &add.name;
    if folder.names()?.contains(name) {
        return Err(Failure::Refused(format!(
            "there is a context {name} already: remove it first, or make its certificate anew with `dvsctl context renew {name}`"
        )));
    }
    let endpoints = arguments.endpoints.clone().unwrap_or_default();
    if endpoints.is_empty() {
        let text = "a context needs the address of at least one node: name it with --endpoint https://HOST:PORT";
        return Err(Failure::Refused(text.into()));
    }
    let context = make(name, add.cluster.clone(), &endpoints, &add.token)?;
    folder.write(name, &context)?;
    if folder.current()?.is_none() {
        folder.choose(Some(name))?;
    }
    let about = About::of(folder, name, folder.current()?.as_deref())?;
    let used = if about.current { ", and in use" } else { "" };
    let text = format!(
        "context {name} is kept in {}{used}; it is valid until {}",
        about.file, about.expires
    );
    told(arguments.output, &about, &text)
}

/// Makes a context and sees that a node accepts it.
fn make(
    name: &str,
    cluster: dvs_config::Name,
    endpoints: &[Address],
    arguments: &TokenArguments,
) -> Result<Context, Failure> {
    let token = token(&arguments.token_file)?;
    let context = Context::new(&token, cluster, endpoints, &arguments.owner, arguments.valid)?;
    if arguments.no_check {
        return Ok(context);
    }
    let reached = Cluster::new(context.clients(name)?);
    match reached.first(|endpoint| endpoint.get::<Version>("/v1/version")) {
        Ok(_) => Ok(context),
        Err(Error::Unreachable(why) | Error::Untrusted(why)) => Err(Failure::Refused(format!(
            "no node accepted context {name}, so it is not kept: {why} (--no-check keeps it all the same)"
        ))),
        Err(error) => Err(error.into()),
    }
}

fn export(context: &Context, directory: &Path) -> Result<(), Failure> {
    let refused = |what: &Path, error: io::Error| {
        Failure::Refused(format!("write {}: {error}", what.display()))
    };
    fs::create_dir_all(directory).map_err(|error| refused(directory, error))?;
    for (name, text) in ["authority.pem", "certificate.pem", "key.pem"].iter().zip(context.pem()) {
        let path = directory.join(name);
        // What was there may be open to others.
        let _ = fs::remove_file(&path);
        let mut options = fs::OpenOptions::new();
        options.write(true).create_new(true).mode(0o600);
        let mut file = options.open(&path).map_err(|error| refused(&path, error))?;
        file.write_all(text.as_bytes()).map_err(|error| refused(&path, error))?;
    }
    Ok(())
}

fn token(file: &Path) -> Result<Token, Failure> {
    let text = match file == Path::new("-") {
        true => io::read_to_string(io::stdin()),
        false => fs::read_to_string(file),
    };
    let refused = |why: String| {
        Failure::Refused(format!("read the cluster token from {}: {why}", file.display()))
    };
    let text = text.map_err(|error| refused(error.to_string()))?;
    text.trim().parse().map_err(|error: dvs_config::ParseTokenError| refused(error.to_string()))
}

/// What there is to say of a context.
#[derive(Debug, Serialize)]
struct About {
    name: String,
    current: bool,
    cluster: String,
    endpoints: Vec<String>,
    expires: String,
    expired: bool,
    file: String,
    #[serde(skip)]
    left: Duration,
}

impl About {
    fn of(folder: &Folder, name: &str, current: Option<&str>) -> Result<Self, Failure> {
        let context = folder.read(name)?;
        let expires = context.expires()?;
        let left = expires.duration_since(SystemTime::now()).unwrap_or_default();
        Ok(Self {
            name: name.to_owned(),
            current: current == Some(name),
            cluster: context.cluster.to_string(),
            endpoints: context.endpoints,
            expires: humantime::format_rfc3339_seconds(expires).to_string(),
            expired: left.is_zero(),
            file: folder.file(name).display().to_string(),
            left,
        })
    }

    fn rest(&self) -> String {
        match self.expired {
            true => "ended".into(),
            false => whole(self.left),
        }
    }
}

/// A time in its largest unit.
fn whole(time: Duration) -> String {
    let of =
        |count: u64, unit: &str| format!("{count} {unit}{}", if count == 1 { "" } else { "s" });
    match time.as_secs() {
        s if s >= 2 * 86_400 => of(s / 86_400, "day"),
        s if s >= 2 * 3_600 => of(s / 3_600, "hour"),
        s => of(s / 60, "minute"),
    }
}

fn list(all: &[About]) -> String {
    let mut table = Table::new(&["IN USE", "NAME", "CLUSTER", "VALID FOR", "ENDPOINTS"]);
    for about in all {
        let used = if about.current { "*" } else { "" };
        table.row([
            used.to_owned(),
            about.name.clone(),
            about.cluster.clone(),
            about.rest(),
            about.endpoints.join(" "),
        ]);
    }
    table.to_string()
}

fn show(about: &About) -> String {
    let mut table = Table::new(&[]);
    let mut row = |name: &str, value: String| table.row([name.to_owned(), value]);
    row("name", about.name.clone());
    row("in use", if about.current { "yes" } else { "no" }.into());
    row("cluster", about.cluster.clone());
    row("endpoints", about.endpoints.join(" "));
    row("valid until", format!("{} ({})", about.expires, about.rest()));
    row("file", about.file.clone());
    table.to_string()
}

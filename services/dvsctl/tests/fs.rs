// SPDX-License-Identifier: MIT OR Apache-2.0
//! Files of a container's file server by the program itself, against whole daemons on a pretended segment. What stands for the program
//! in the container copies them to and from a folder.

#[path = "../../dvsd/tests/fake/mod.rs"]
mod fake;
mod mounted;
mod program;

use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::sync::{Arc, Mutex};

use dvs_api::{Container, ContainerPhase, Node, NodeState};
use dvs_exec::{Decoder, Frame, Request};
use fake::{eventually, Segment};
use program::{failure, program};
use vos_transfer::{unpack, Local, Packer};

fn dvsctl(urls: &[String], words: &[&str]) -> Output {
    program(urls, words).output().unwrap()
}

/// What a command that succeeded printed.
fn done(output: &Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// A cluster of three nodes with a container on the last two, and a folder with the files of the server in it.
struct World {
    _segment: Segment,
    urls: Vec<String>,
    files: tempfile::TempDir,
    here: tempfile::TempDir,
    /// What was run, with the number of the node.
    run: Arc<Mutex<Vec<(u32, String)>>>,
}

impl World {
    fn new() -> Self {
        let segment = Segment::new();
        let urls = segment.boot_all(3);
        let ready = || {
            let nodes = dvsctl(&urls, &["node", "list", "-o", "json"]).stdout;
            let nodes: Vec<Node> = serde_json::from_slice(&nodes).unwrap_or_default();
            let status = dvsctl(&urls, &["cluster", "status", "-o", "json"]).stdout;
            let status: Option<dvs_api::ClusterStatus> = serde_json::from_slice(&status).ok();
            let count = nodes.iter().filter(|node| node.state == NodeState::Ready).count();
            (count, status.is_some_and(|status| status.majority))
        };
        eventually(ready, |ready| *ready == (3, true));
        let (files, here) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let run = Arc::<Mutex<Vec<_>>>::default();
        for number in 1..=3 {
            let (folder, run) = (files.path().to_owned(), run.clone());
            segment.runtime_of(number).run(Arc::new(move |stream, request: &Request| {
                run.lock().unwrap().push((u32::from(number) - 1, request.command.join(" ")));
                serve(stream, request, &folder);
            }));
        }
        done(&dvsctl(&urls, &["dc", "create", "web", "--nodes", "1,2"]));
        let shown = || {
            let shown = dvsctl(&urls, &["dc", "show", "web", "-o", "json"]).stdout;
            let shown: Option<Container> = serde_json::from_slice(&shown).ok();
            shown.map_or(0, |web| {
                let places = web.places.iter();
                places.filter(|place| place.phase == ContainerPhase::Running).count()
            })
        };
        eventually(shown, |count| *count == 2);
        Self { _segment: segment, urls, files, here, run }
    }

    /// By way of one node, which passes on what is for others.
    fn fs(&self, words: &[&str]) -> Output {
        dvsctl(&self.urls[..1], &[&["fs"], words].concat())
    }

    fn here(&self, name: &str) -> String {
        self.here.path().join(name).display().to_string()
    }

    /// What was run since the last time.
    fn ran(&self) -> Vec<(u32, String)> {
        std::mem::take(&mut *self.run.lock().unwrap())
    }
}

/// The input of what is run.
struct Input {
    stream: UnixStream,
    decoder: Decoder,
    bytes: Vec<u8>,
    is_over: bool,
}

impl Read for Input {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        while self.bytes.is_empty() && !self.is_over {
            match self.decoder.take().unwrap() {
                Some(Frame::Input(bytes)) => self.bytes = bytes,
                Some(Frame::EndOfInput) => self.is_over = true,
                Some(other) => panic!("{other:?}"),
                None => {
                    let mut bytes = [0; 4096];
                    let length = self.stream.read(&mut bytes)?;
                    self.is_over |= length == 0;
                    self.decoder.push(&bytes[..length]);
                }
            }
        }
        let length = self.bytes.len().min(into.len());
        into[..length].copy_from_slice(&self.bytes[..length]);
        self.bytes.drain(..length);
        Ok(length)
    }
}

/// Its output.
struct Outcome(UnixStream);

impl Outcome {
    fn say(&mut self, frame: &Frame) -> io::Result<()> {
        let mut bytes = Vec::new();
        frame.encode(&mut bytes).map_err(io::Error::other)?;
        self.0.write_all(&bytes)
    }
}

impl Write for Outcome {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.say(&Frame::Output(bytes.to_vec()))?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Does what `mol-ftp` does, with a folder.
fn serve(stream: UnixStream, request: &Request, folder: &Path) {
    let mut outcome = Outcome(stream.try_clone().unwrap());
    let input = Input { stream, decoder: Decoder::default(), bytes: Vec::new(), is_over: false };
    let (status, error) = match act(request, folder, input, &mut outcome) {
        Ok(()) => (0, String::new()),
        Err(error) if error == "absent" => (127, "no such program\n".to_owned()),
        Err(error) => {
            let name = request.command[0].rsplit('/').next().unwrap_or_default();
            (1, format!("{name}: {error}\n"))
        }
    };
    // Whoever is not there any more need not be told.
    let _ = outcome.say(&Frame::Error(error.into_bytes()));
    let _ = outcome.say(&Frame::Exited(status));
}

fn act(
    request: &Request,
    folder: &Path,
    mut input: Input,
    outcome: &mut Outcome,
) -> Result<(), String> {
    let words: Vec<&str> = request.command.iter().map(String::as_str).collect();
    let path = || -> PathBuf {
        let path = words.last().unwrap().trim_start_matches('/');
        if path.is_empty() {
            folder.to_owned()
        } else {
            folder.join(path)
        }
    };
    let text = |error: &dyn std::fmt::Display| error.to_string();
    match words[..] {
        ["/bin/mol-ftp", "where", ..] if words.contains(&"nobody") => {
            Err("no server serves for group `nobody`".into())
        }
        ["/bin/mol-ftp", "where", ..] => {
            let place = br#"{"server":"files","nodes":[2],"endpoint":null}"#;
            outcome.write_all(place).map_err(|error| text(&error))
        }
        ["/bin/mol-ftp", "send", ..] => {
            let mut out = io::BufWriter::new(outcome);
            Local::new(path())
                .send(words.contains(&"-r"), &mut Packer::new(&mut out))
                .map_err(|error| text(&error))
        }
        ["/bin/mol-ftp", "receive", ..] => {
            unpack(&mut input, &mut Local::new(path())).map_err(|error| text(&error))
        }
        ["/bin/mol-ftp", "ls", "-o", "json", ..] => {
            let entry = |name: &str| {
                format!(
                    r#"{{"name":"{name}","kind":"file","mode":420,"links":1,"user":0,"group":0,"bytes":7,"modified_s":9,"new":true}}"#
                )
            };
            let all: Vec<_> = fs::read_dir(path())
                .map_err(|error| text(&error))?
                .map(|found| entry(&found.unwrap().file_name().into_string().unwrap()))
                .collect();
            outcome
                .write_all(format!("[{}]", all.join(",")).as_bytes())
                .map_err(|error| text(&error))
        }
        ["/bin/mol-ftp", "rm", "-r", ..] => {
            fs::remove_dir_all(path()).map_err(|error| text(&error))
        }
        ["/bin/mol-ftp", "mkdir", "-p", ..] => {
            fs::create_dir_all(path()).map_err(|error| text(&error))
        }
        ["/bin/mol-fuse", "--stdio", ..] => mounted::serve(&mut input, outcome),
        _ => Err("absent".into()),
    }
}

#[test]
fn trees_and_files_go_there_and_back() {
    let world = World::new();
    fs::create_dir_all(world.here.path().join("site/a/empty")).unwrap();
    let large: Vec<u8> = (0..3_000_001_u32).map(|at| (at / 7 % 251) as u8).collect();
    fs::write(world.here.path().join("site/a/large"), &large).unwrap();
    symlink("a/large", world.here.path().join("site/link")).unwrap();

    let copied = done(&world.fs(&["cp", "-r", &world.here("site"), "web:/"]));
    assert!(copied.starts_with("copied 1 file, 3 directories, 1 link, 2929 KiB in "), "{copied}");
    assert!(copied.ends_with("/s), by node 2\n"), "{copied}");
    let ran = world.ran();
    let receive = "/bin/mol-ftp receive --server files -- /".to_owned();
    assert_eq!(ran, [(1, "/bin/mol-ftp where".into()), (2, receive)]);
    assert!(fs::read(world.files.path().join("site/a/large")).unwrap() == large);

    let json = done(&world.fs(&["cp", "-r", "web:/site", &world.here("back"), "-o", "json"]));
    let report: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!((&report["files"], &report["bytes"]), (&1.into(), &3_000_001.into()), "{json}");
    assert!(fs::read(world.here.path().join("back/a/large")).unwrap() == large);
    assert_eq!(fs::read_link(world.here.path().join("back/link")).unwrap(), Path::new("a/large"));

    // In and out of pipes, where nothing but the content is to be.
    let mut child = program(&world.urls, &["fs", "cp", "-", "web:/piped", "--label", "x"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(&large).unwrap();
    done(&child.wait_with_output().unwrap());
    let receive = "/bin/mol-ftp receive --server files --label x -- /piped";
    assert_eq!(world.ran().last().unwrap().1, receive);
    let output = world.fs(&["cp", "web:/piped", "-"]);
    assert!(output.status.success() && output.stdout == large, "{:?}", output.stderr);
}

#[test]
fn what_is_there_is_listed_made_and_removed() {
    let world = World::new();
    done(&world.fs(&["mkdir", "-p", "web:/a/b", "--server", "files", "--node", "1"]));
    assert_eq!(world.ran(), [(1, "/bin/mol-ftp mkdir -p --server files -- /a/b".into())]);
    let listed = done(&world.fs(&["ls", "web:/a"]));
    let row: Vec<_> = listed.lines().nth(1).unwrap().split_whitespace().collect();
    assert_eq!(row, ["file", "0644", "1", "0", "0", "7", "1970-01-01T00:00:09Z", "b"]);
    let json = done(&world.fs(&["ls", "web:/a", "-o", "json"]));
    assert!(
        json.starts_with(r#"[{"name":"b","kind":"file""#) && json.contains(r#""new":true"#),
        "{json}"
    );
    done(&world.fs(&["rm", "-r", "web:/a"]));
    assert!(!world.files.path().join("a").exists());
}

#[test]
fn what_fails_is_told_and_leaves_what_was_there() {
    let world = World::new();
    let refused = |words: &[&str], parts: &[&str]| {
        let error = failure(&world.fs(words), 1);
        for part in parts {
            assert!(error.contains(part), "{error}");
        }
        world.ran()
    };
    fs::write(world.files.path().join("f"), "old").unwrap();
    fs::create_dir(world.files.path().join("d")).unwrap();
    fs::write(world.here.path().join("here"), "here").unwrap();
    refused(&["cp", "shop:/f", "-"], &["there is no container shop"]);
    let parts = ["no file server is found in web: ", "no server serves for group `nobody`"];
    let ran = refused(&["ls", "web:/", "--server", "nobody"], &parts);
    assert_eq!(ran.len(), 2, "on each of its nodes");
    let parts = ["/usr/mol-ftp cannot be run in web on node", "--ftp says where"];
    refused(&["ls", "web:/", "--ftp", "/usr/mol-ftp"], &parts);
    refused(
        &["cp", "web:/none", &world.here("x")],
        &["web on node 2: cannot read ", "No such file"],
    );
    refused(&["cp", "web:/d", &world.here("x")], &["d is a directory; it is copied with -r"]);
    refused(&["cp", &world.here("none"), "web:/f"], &["cannot read ", "/none: No such file"]);
    refused(&["cp", &world.here("here"), "web:/none/f"], &["web on node 2: ", "No such file"]);
    refused(&["cp", "web:/f", &world.here("none/x")], &["No such file"]);
    // More than all buffers on the way have room for, when the other end has given up already.
    fs::write(world.here.path().join("large"), vec![7; 20 << 20]).unwrap();
    refused(&["cp", &world.here("large"), "web:/none/f"], &["web on node 2: ", "No such file"]);
    refused(&["cp", "-r", "web:/d", "-"], &["a directory cannot go where only"]);
    // What cannot be read in the middle of a tree.
    fs::create_dir(world.here.path().join("tree")).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(world.here("tree/socket")).unwrap();
    refused(&["cp", "-r", &world.here("tree"), "web:/"], &["/socket is no file, directory"]);
    assert_eq!(fs::read_to_string(world.files.path().join("f")).unwrap(), "old");
    assert!(!world.here.path().join("x").exists());
    for words in [&["cp", "web:/a", "web:/b"][..], &["cp", "a", "b"], &["ls", "a"], &["rm"]] {
        assert_eq!(world.fs(words).status.code(), Some(2), "{words:?}");
    }
}

#[test]
fn a_copy_that_is_interrupted_ends_the_other_end() {
    let world = World::new();
    fs::write(world.files.path().join("f"), "old").unwrap();
    let mut child = program(&world.urls, &["fs", "cp", "-", "web:/f"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(&vec![7; 300_000]).unwrap();
    let begun = || fs::read_dir(world.files.path()).unwrap().count();
    eventually(begun, |count| *count == 2);
    let id = child.id().to_string();
    let killed = std::process::Command::new("kill").args(["-INT", &id]).status().unwrap();
    assert!(killed.success());
    eventually(begun, |count| *count == 1);
    drop(stdin);
    let error = failure(&child.wait_with_output().unwrap(), 1);
    assert!(error.contains("the stream was cut off after "), "{error}");
    assert_eq!(fs::read_to_string(world.files.path().join("f")).unwrap(), "old");
}

#[test]
fn what_cannot_be_mounted_is_told_before_it_is() {
    let world = World::new();
    let refused = |words: &[&str], why: &str| {
        let error = failure(&world.fs(&[&["mount"], words].concat()), 1);
        assert!(error.contains(why), "{error}");
    };
    let here = world.here("");
    refused(
        &["web:/a", &here],
        "cannot mount web:/a: only a whole file system can be mounted, web:/",
    );
    refused(&["web:/", &world.here("none")], "/none: No such file");
    refused(&["shop:/", &here], "there is no container shop");
    refused(&["web:/", &here, "--server", "nobody"], "no file server is found in web: ");
    fs::write(world.here("file"), "").unwrap();
    refused(&["web:/", &world.here("file")], "/file: it is no directory");
    refused(&["web:/", &here], "it is not empty");
}

/// A mount that has been told of.
struct Mount {
    child: std::process::Child,
    at: String,
}

impl World {
    fn mount(&self) -> Mount {
        let at = self.here("at");
        fs::create_dir_all(&at).unwrap();
        let mut child = program(&self.urls[..1], &["fs", "mount", "web:/", &at])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let stdout = child.stdout.as_mut().unwrap();
        io::BufRead::read_line(&mut io::BufReader::new(stdout), &mut line).unwrap();
        let mount = Mount { child, at };
        assert_eq!(
            line,
            format!("web:/ is mounted on {}, by node 2\n", mount.at),
            "that takes root and /dev/fuse"
        );
        mount
    }
}

impl Mount {
    fn interrupt(&self) {
        let id = self.child.id().to_string();
        let killed = std::process::Command::new("kill").args(["-INT", &id]).status().unwrap();
        assert!(killed.success());
    }

    fn end(self) -> Output {
        let output = self.child.wait_with_output().unwrap();
        assert_eq!(fs::read_dir(&self.at).unwrap().count(), 0, "it is unmounted");
        output
    }
}

#[test]
#[ignore = "it mounts, which takes root and /dev/fuse"]
fn a_mount_is_there_until_it_is_ended() {
    let world = World::new();
    let mount = world.mount();
    let ran = world.ran();
    assert_eq!(
        ran,
        [(1, "/bin/mol-ftp where".into()), (2, "/bin/mol-fuse --stdio --server files".into())]
    );
    let file = format!("{}/{}", mount.at, mounted::NAME);
    assert_eq!(fs::read(&file).unwrap(), mounted::content());
    assert_eq!(
        fs::write(&file, "x").unwrap_err().raw_os_error(),
        Some(38),
        "it knows no such request"
    );
    mount.interrupt();
    let output = mount.end();
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");

    // By others, and while it is in use.
    let mount = world.mount();
    let unmounted = std::process::Command::new("umount").arg(&mount.at).status().unwrap();
    assert!(unmounted.success());
    assert!(mount.end().status.success());
    let mut mount = world.mount();
    let open = fs::File::open(&file).unwrap();
    mount.interrupt();
    let mut line = String::new();
    let stderr = mount.child.stderr.as_mut().unwrap();
    io::BufRead::read_line(&mut io::BufReader::new(stderr), &mut line).unwrap();
    assert!(line.contains("is in use, and is unmounted when nobody uses it any more"), "{line}");
    assert_eq!(io::read_to_string(&open).unwrap().as_bytes(), mounted::content());
    drop(open);
    assert!(mount.end().status.success());
}

#[test]
#[ignore = "it mounts, which takes root and /dev/fuse"]
fn a_mount_whose_server_is_lost_is_an_error() {
    let world = World::new();
    let mount = world.mount();
    assert!(fs::metadata(format!("{}/{}", mount.at, mounted::END)).is_err());
    let output = mount.end();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(error.contains("at any more: web on node 2: the disk is lost"), "{error}");
    let at = world.here("at");
    let error = failure(&world.fs(&["mount", "web:/", &at, "--fuse", "/usr/mol-fuse"]), 1);
    assert!(error.contains("/usr/mol-fuse cannot be run in web on node 2"), "{error}");
    assert!(error.contains("--fuse says where"), "{error}");
}

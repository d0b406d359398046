// SPDX-License-Identifier: MIT OR Apache-2.0
//! A pretended runtime: its containers are entries of a table, and a command in one repeats its input.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command};
use std::sync::{Arc, Mutex};

use dvs_runtime::{
    Decoder, End, Fault, Frame, Kind, Log, Phase, Request, Root, Spec, Stats, Status,
};
use dvsd::containers::Runtime;

/// What stands for a program: it is given the stream of whoever runs it, and what is to be run.
pub(crate) type Program = Arc<dyn Fn(UnixStream, &Request) + Send + Sync>;

/// The containers of one machine, by what the runtime calls them.
#[derive(Clone, Default)]
pub(crate) struct FakeRuntime(Arc<Mutex<Machine>>);

#[derive(Default)]
struct Machine {
    containers: BTreeMap<String, (Spec, Phase)>,
    /// Images that are unpacked, with the text of their archives.
    images: BTreeMap<String, String>,
    /// How many were made so far.
    made: usize,
    /// Why none can be made.
    trouble: Option<String>,
    /// What runs in place of a command that repeats its input.
    program: Option<Program>,
}

#[allow(dead_code, reason = "not every test needs everything")]
impl FakeRuntime {
    /// From now on none can be made, and why; or it is well again.
    pub(crate) fn fail(&self, why: Option<&str>) {
        self.0.lock().unwrap().trouble = why.map(str::to_owned);
    }

    /// From now on this stands for every command.
    pub(crate) fn run(&self, program: Program) {
        self.0.lock().unwrap().program = Some(program);
    }

    /// What there is, in order.
    pub(crate) fn specs(&self) -> Vec<Spec> {
        self.0.lock().unwrap().containers.values().map(|(spec, _)| spec.clone()).collect()
    }

    /// How many were made so far.
    pub(crate) fn made(&self) -> usize {
        self.0.lock().unwrap().made
    }

    /// Somebody ends the first process of all of them.
    pub(crate) fn crash(&self) {
        let mut machine = self.0.lock().unwrap();
        machine.containers.values_mut().for_each(|(_, phase)| *phase = Phase::Stopped);
    }
}

fn fault(kind: Kind, message: &str) -> Fault {
    Fault { kind, message: message.to_owned() }
}

impl Runtime for FakeRuntime {
    fn create(&self, spec: &Spec) -> Result<(), Fault> {
        spec.check().map_err(|error| fault(Kind::Invalid, &error.to_string()))?;
        let mut machine = self.0.lock().unwrap();
        if let Some(why) = &machine.trouble {
            return Err(fault(Kind::Failed, why));
        }
        match &spec.root {
            Root::Image(name) if !machine.images.contains_key(name) => {
                return Err(fault(Kind::NotFound, "there is no such image"));
            }
            _ => {}
        }
        if machine.containers.contains_key(&spec.name) {
            return Err(fault(Kind::Exists, "there is one"));
        }
        machine.containers.insert(spec.name.clone(), (spec.clone(), Phase::Created));
        machine.made += 1;
        Ok(())
    }

    fn update(&self, spec: &Spec) -> Result<(), Fault> {
        match self.0.lock().unwrap().containers.get_mut(&spec.name) {
            Some((before, _)) if spec.is_adjusted(before) => {
                *before = spec.clone();
                Ok(())
            }
            Some(_) => Err(fault(Kind::State, "it cannot be changed")),
            None => Err(fault(Kind::NotFound, "there is none")),
        }
    }

    /// Somebody listens everywhere, and says by whom it was called.
    fn dial(&self, name: &str, port: u16) -> Result<TcpStream, Fault> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut served, _) = listener.accept().unwrap();
        served.write_all(format!("{name}:{port}\n").as_bytes()).unwrap();
        Ok(stream)
    }

    fn log(&self, name: &str, from: u64) -> Result<Log, Fault> {
        let machine = self.0.lock().unwrap();
        let (spec, _) =
            machine.containers.get(name).ok_or_else(|| fault(Kind::NotFound, "there is none"))?;
        let bytes = format!("{}\n", spec.process.command.join(" ")).into_bytes();
        let begins = (from as usize).min(bytes.len());
        Ok(Log { begins: begins as u64, bytes: bytes[begins..].to_vec() })
    }

    fn images(&self) -> Result<BTreeSet<String>, Fault> {
        Ok(self.0.lock().unwrap().images.keys().cloned().collect())
    }

    fn import(&self, archive: &Path, name: &str) -> Result<(), Fault> {
        let text = std::fs::read_to_string(archive)
            .map_err(|error| fault(Kind::Failed, &error.to_string()))?;
        if !text.starts_with("image") {
            return Err(fault(Kind::Invalid, "that is no image"));
        }
        self.0.lock().unwrap().images.insert(name.to_owned(), text);
        Ok(())
    }

    fn remove_image(&self, name: &str) -> Result<(), Fault> {
        let mut machine = self.0.lock().unwrap();
        let used = Root::Image(name.to_owned());
        if machine.containers.values().any(|(spec, _)| spec.root == used) {
            return Err(fault(Kind::State, "a container is made of it"));
        }
        machine.images.remove(name);
        Ok(())
    }

    fn start(&self, name: &str) -> Result<(), Fault> {
        match self.0.lock().unwrap().containers.get_mut(name) {
            Some((_, phase @ Phase::Created)) => {
                *phase = Phase::Running;
                Ok(())
            }
            Some(_) => Err(fault(Kind::State, "it was started")),
            None => Err(fault(Kind::NotFound, "there is none")),
        }
    }

    fn delete(&self, name: &str) -> Result<(), Fault> {
        self.0.lock().unwrap().containers.remove(name);
        Ok(())
    }

    fn list(&self) -> Result<Vec<Status>, Fault> {
        let machine = self.0.lock().unwrap();
        let status = |(name, (spec, phase)): (&String, &(Spec, Phase))| Status {
            name: name.clone(),
            dvk: spec.dvk,
            phase: *phase,
            pid: None,
            end: (*phase == Phase::Stopped).then_some(End { status: 1, out_of_memory: 0 }),
        };
        let mut all: Vec<_> = machine.containers.iter().map(status).collect();
        // One that somebody else made is nobody's affair.
        all.push(Status {
            name: "other".into(),
            dvk: 0,
            phase: Phase::Stopped,
            pid: None,
            end: None,
        });
        Ok(all)
    }

    fn stats(&self, name: &str) -> Result<Stats, Fault> {
        match self.0.lock().unwrap().containers.get(name) {
            Some(_) => {
                Ok(Stats { cpu_us: 1_500_000, memory: 1 << 20, processes: 2, ..Stats::default() })
            }
            None => Err(fault(Kind::NotFound, "there is none")),
        }
    }

    fn exec(&self, name: &str, request: Request) -> Result<(UnixStream, Child), Fault> {
        let machine = self.0.lock().unwrap();
        if !machine.containers.contains_key(name) {
            return Err(fault(Kind::NotFound, "there is none"));
        }
        let (ours, theirs) = UnixStream::pair().unwrap();
        let program = machine.program.clone();
        std::thread::spawn(move || match program {
            Some(program) => program(theirs, &request),
            None => drop(repeat(theirs, &request)),
        });
        Ok((ours, Command::new("true").spawn().unwrap()))
    }
}

/// Says what is run, repeats its input, and ends with status 7 at its end, or by a signal.
fn repeat(mut stream: UnixStream, request: &Request) -> Option<()> {
    let mut say = {
        let mut stream = stream.try_clone().unwrap();
        move |frame: Frame| {
            let mut bytes = Vec::new();
            frame.encode(&mut bytes).unwrap();
            stream.write_all(&bytes).ok()
        }
    };
    say(Frame::Error(format!("{}\n", request.command.join(" ")).into_bytes()))?;
    let (mut decoder, mut bytes) = (Decoder::default(), [0; 1024]);
    loop {
        let length = stream.read(&mut bytes).ok().filter(|length| *length > 0)?;
        decoder.push(&bytes[..length]);
        while let Some(frame) = decoder.take().unwrap() {
            match frame {
                Frame::Input(bytes) => say(Frame::Output(bytes))?,
                Frame::EndOfInput => return say(Frame::Exited(7)),
                Frame::Signal(number) => return say(Frame::Exited(128 + number)),
                other => panic!("{other:?}"),
            }
        }
    }
}

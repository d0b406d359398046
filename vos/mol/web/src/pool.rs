// SPDX-License-Identifier: MIT OR Apache-2.0
//! The threads that wait for files. Each has a source of its own; a file is read by the thread that has opened it, a block at
//! a time, so that clients who take their time keep no thread from others.

use crate::conditions::Version;
use crate::failover::{self, Failure, Located, Patient, Reading};
use crate::source::{Entry, Fault, Source};
use crate::target::Target;
use core::sync::atomic::{AtomicUsize, Ordering};
use core::time::Duration;
use hyper::body::Bytes;
use std::collections::HashMap;
use std::sync::mpsc::{channel, Receiver, Sender};
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::oneshot;

/// Whom a thread answers.
type Reply<T> = oneshot::Sender<Result<T, Failure>>;

/// A job, and its place in what the thread has to do, until the thread is done with it.
struct Task {
    job: Job,
    load: Load,
}

enum Job {
    Locate { target: Target, worker: Worker, began: Duration, reply: Reply<Place> },
    Read { id: u64, position: u64, bytes: usize, began: Duration, reply: Reply<Bytes> },
    Close { id: u64 },
}

/// A thread, as others see it.
#[derive(Clone, Debug)]
struct Worker {
    tasks: Sender<Task>,
    /// What it has to do and what it has open.
    load: Arc<AtomicUsize>,
    began: Instant,
}

impl Worker {
    /// Whether the thread will do it.
    fn give(&self, job: Job) -> bool {
        self.tasks.send(Task { job, load: Load::new(&self.load) }).is_ok()
    }

    async fn ask<T>(&self, job: impl FnOnce(Duration, Reply<T>) -> Job) -> Result<T, Failure> {
        let (reply, answer) = oneshot::channel();
        let ended = || Failure::Fault(Fault::Failed("a thread of the server has ended".to_owned()));
        if !self.give(job(self.began.elapsed(), reply)) {
            return Err(ended());
        }
        answer.await.unwrap_or_else(|_| Err(ended()))
    }
}

/// One more thing for a thread, until it is done.
#[derive(Debug)]
struct Load(Arc<AtomicUsize>);

impl Load {
    fn new(load: &Arc<AtomicUsize>) -> Self {
        load.fetch_add(1, Ordering::Relaxed);
        Self(load.clone())
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What a request is for.
#[derive(Debug)]
pub enum Place {
    /// A file.
    File(File),
    /// A directory whose address lacks the `/` at its end.
    NoSlash,
    /// What a directory without an `index.html` has.
    List(Vec<Entry>),
}

/// A file that is open at a thread, until this is dropped.
#[derive(Debug)]
pub struct File {
    worker: Worker,
    id: u64,
    version: Version,
    _load: Load,
}

impl Drop for File {
    fn drop(&mut self) {
        // A thread that has ended has nothing open.
        let _ = self.worker.give(Job::Close { id: self.id });
    }
}

impl File {
    fn new(worker: &Worker, id: u64, version: Version) -> Self {
        Self { worker: worker.clone(), id, version, _load: Load::new(&worker.load) }
    }

    /// What it was when it was opened.
    pub fn version(&self) -> Version {
        self.version
    }

    /// Reads up to so many bytes from byte `position` on, and one at least.
    ///
    /// # Errors
    /// [`Failure`].
    pub async fn read(&self, position: u64, bytes: usize) -> Result<Bytes, Failure> {
        let id = self.id;
        self.worker.ask(|began, reply| Job::Read { id, position, bytes, began, reply }).await
    }
}

/// All the threads.
#[derive(Debug)]
pub struct Pool {
    workers: Vec<Worker>,
}

impl Pool {
    /// Starts a thread for each of these sources.
    pub fn start<S: Source + Send + 'static>(sources: Vec<S>) -> Self {
        let began = Instant::now();
        let begin = |source| {
            let (tasks, to_do) = channel();
            let worker = Worker { tasks, load: Arc::default(), began };
            std::thread::spawn(move || work(source, &to_do, began));
            worker
        };
        Self { workers: sources.into_iter().map(begin).collect() }
    }

    /// Has the thread with the least to do look for what a target is for.
    ///
    /// # Errors
    /// [`Failure`].
    pub async fn locate(&self, target: Target) -> Result<Place, Failure> {
        let least = self.workers.iter().min_by_key(|worker| worker.load.load(Ordering::Relaxed));
        let none = || Failure::Fault(Fault::Failed("the server has no threads".to_owned()));
        let worker = least.ok_or_else(none)?;
        let itself = worker.clone();
        worker.ask(|began, reply| Job::Locate { target, worker: itself, began, reply }).await
    }
}

/// Somebody who waits for a thread.
struct Waiting<'r, T> {
    began: Instant,
    reply: &'r Reply<T>,
}

impl<T> Patient for Waiting<'_, T> {
    fn now(&self) -> Duration {
        self.began.elapsed()
    }

    fn pause(&self, time: Duration) {
        std::thread::sleep(time);
    }

    fn is_alone(&self) -> bool {
        self.reply.is_closed()
    }
}

/// Does what there is to do until nobody can ask any more.
fn work<S: Source>(mut source: S, to_do: &Receiver<Task>, began: Instant) {
    let mut open: HashMap<u64, Reading<S::Open>> = HashMap::new();
    let mut next_id = 0;
    for Task { job, load } in to_do {
        match job {
            Job::Locate { target, worker, began: asked, reply } => {
                let waiting = Waiting { began, reply: &reply };
                let located = failover::locate(&mut source, &waiting, asked, &target);
                let place = located.map(|located| match located {
                    Located::File(reading) => {
                        next_id += 1;
                        let file = File::new(&worker, next_id, reading.version());
                        open.insert(next_id, reading);
                        Place::File(file)
                    }
                    Located::NoSlash => Place::NoSlash,
                    Located::List(entries) => Place::List(entries),
                });
                drop(load);
                // If nobody waits any more, the file is dropped, and closed as the next job.
                let _ = reply.send(place);
            }
            Job::Read { id, position, bytes, began: asked, reply } => {
                let waiting = Waiting { began, reply: &reply };
                let read = match open.get_mut(&id) {
                    None => Err(Failure::Short),
                    Some(reading) => {
                        let mut block = vec![0; bytes];
                        failover::read(&mut source, &waiting, asked, reading, position, &mut block)
                            .map(|count| {
                                block.truncate(count);
                                Bytes::from(block)
                            })
                    }
                };
                drop(load);
                let _ = reply.send(read);
            }
            Job::Close { id } => {
                if let Some(reading) = open.remove(&id) {
                    reading.close(&mut source);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::Found;
    use std::sync::Mutex;

    /// Finds directories, each once it may.
    struct Gate(Mutex<Receiver<()>>);

    impl Source for Gate {
        type Open = ();

        fn find(&mut self, _: &[u8], _: Duration) -> Result<Found<()>, Fault> {
            let lost = |_| Fault::Absent;
            self.0.get_mut().unwrap().recv().map(|()| Found::Directory).map_err(lost)
        }

        fn list(&mut self, _: &[u8], _: Duration) -> Result<Vec<Entry>, Fault> {
            Ok(Vec::new())
        }

        fn read(&mut self, (): &(), _: u64, _: &mut [u8], _: Duration) -> Result<usize, Fault> {
            Ok(0)
        }

        fn close(&mut self, (): ()) {}
    }

    #[tokio::test]
    async fn a_thread_that_works_for_a_client_who_has_gone_is_not_free() {
        let (stays_shut, first) = channel();
        let (opens, second) = channel();
        let pool = Pool::start(vec![Gate(Mutex::new(first)), Gate(Mutex::new(second))]);
        let locate = || pool.locate(Target::parse("/d").unwrap());
        let gone = tokio::time::timeout(Duration::from_millis(50), locate()).await;
        assert!(gone.is_err(), "the first thread waits");
        for _ in 0..3 {
            opens.send(()).unwrap();
            let located = tokio::time::timeout(Duration::from_secs(30), locate()).await;
            assert!(matches!(located, Ok(Ok(Place::NoSlash))), "{located:?}");
        }
        drop(stays_shut);
    }
}

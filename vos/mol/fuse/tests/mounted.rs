// SPDX-License-Identifier: MIT OR Apache-2.0
//! A file server in a thread, mounted here. That takes root and /dev/fuse, so it is not in the normal run:
//! `cargo test -p mol-fuse -- --ignored`. One of the tests runs a program of others, which `PJDFSTEST` names.

use core::num::NonZeroU32;
use dvk::{Endpoint, GrantId, Granted, How, Ipc, Message, Received, Then, Timeout};
use mol_fs::disk::{Disk, DiskError, Memory};
use mol_fs::format::make;
use mol_fs::server::{OpenError, Outside, Server};
use mol_fuse::{run, Gateway};
use mol_protocol::file::FileServer;
use mol_protocol::Errno;
use mol_vdd::lend::Lend;
use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{symlink, FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc::{channel, Sender};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

const SERVER: Endpoint = Endpoint::new(9, NonZeroU32::MIN);
const CLIENT: Endpoint = Endpoint::new(70, NonZeroU32::MIN);

/// What the server and the gateway share.
struct World {
    /// What is lent; each grant is used for one thing.
    memory: Mutex<(u64, BTreeMap<u64, Vec<u8>>)>,
    disk: Arc<Mutex<Memory>>,
}

struct Shared(Arc<Mutex<Memory>>);

impl Disk for Shared {
    fn bytes(&self) -> u64 {
        self.0.lock().unwrap().bytes()
    }

    fn is_read_only(&self) -> bool {
        false
    }

    fn read(&mut self, position: u64, into: &mut [u8]) -> Result<(), DiskError> {
        self.0.lock().unwrap().read(position, into)
    }

    fn write(&mut self, position: u64, from: &[u8]) -> Result<(), DiskError> {
        self.0.lock().unwrap().write(position, from)
    }

    fn flush(&mut self) -> Result<(), DiskError> {
        Ok(())
    }
}

struct Reach(Arc<World>);

impl Outside for Reach {
    fn seconds(&self) -> u32 {
        let now = std::time::SystemTime::now();
        now.duration_since(std::time::UNIX_EPOCH).unwrap().as_secs() as u32
    }

    fn copy_from(&self, from: Granted, into: &mut [u8]) -> Result<(), Errno> {
        let memory = self.0.memory.lock().unwrap();
        let bytes = memory.1.get(&from.grant.raw()).ok_or(Errno::Fault)?;
        let range = bytes.get(from.offset as usize..).and_then(|it| it.get(..into.len()));
        into.copy_from_slice(range.ok_or(Errno::Fault)?);
        Ok(())
    }

    fn copy_to(&self, to: Granted, from: &[u8]) -> Result<(), Errno> {
        let mut memory = self.0.memory.lock().unwrap();
        let bytes = memory.1.get_mut(&to.grant.raw()).ok_or(Errno::Fault)?;
        let range = bytes.get_mut(to.offset as usize..).and_then(|it| it.get_mut(..from.len()));
        range.ok_or(Errno::Fault)?.copy_from_slice(from);
        Ok(())
    }

    fn is_gone(&self, _: Endpoint) -> bool {
        false
    }

    fn open(&self, _: &str, _: bool) -> Result<Box<dyn Disk>, OpenError> {
        Ok(Box::new(Shared(self.0.disk.clone())))
    }
}

/// A message for the server, and where its answer goes.
type Call = (Message, Sender<Message>);

struct Desk {
    world: Arc<World>,
    calls: Mutex<Sender<Call>>,
}

impl Ipc for Desk {
    type Error = &'static str;

    fn send(&self, _: Endpoint, _: &Message, _: Timeout) -> Result<(), Self::Error> {
        Err("nothing is sent")
    }

    fn sendrec(&self, _: Endpoint, message: &Message, _: Timeout) -> Result<Message, Self::Error> {
        let (answer, answered) = channel();
        let message = Message { source: CLIENT.raw(), ..*message };
        self.calls.lock().unwrap().send((message, answer)).map_err(|_| "it has ended")?;
        answered.recv().map_err(|_| "it has ended")
    }

    fn reply(&self, _: Endpoint, _: &Message) -> Result<(), Self::Error> {
        Err("nothing is replied to")
    }

    fn notify(&self, _: Endpoint, _: u64) -> Result<(), Self::Error> {
        Err("nobody is notified")
    }
}

impl Lend for Desk {
    fn lend<R>(
        &self,
        to: Endpoint,
        memory: &[u8],
        work: impl FnOnce(GrantId) -> R,
    ) -> Result<R, Self::Error> {
        self.lend_mut(to, &mut memory.to_vec(), work)
    }

    fn lend_mut<R>(
        &self,
        _: Endpoint,
        memory: &mut [u8],
        work: impl FnOnce(GrantId) -> R,
    ) -> Result<R, Self::Error> {
        let grant = {
            let mut all = self.world.memory.lock().unwrap();
            all.0 += 1;
            let grant = all.0;
            all.1.insert(grant, memory.to_vec());
            grant
        };
        let done = work(GrantId::from_raw(grant));
        let lent = self.world.memory.lock().unwrap().1.remove(&grant).expect("it is lent");
        memory.copy_from_slice(&lent);
        Ok(done)
    }
}

/// Starts a server with a disk of so many bytes, and a gateway to it.
fn serve(bytes: usize) -> (Arc<World>, Gateway<Desk>, JoinHandle<usize>) {
    let mut disk = Memory::new(bytes);
    make(&mut disk, 1024, 2048, 0).unwrap();
    let world = Arc::new(World { memory: Mutex::default(), disk: Arc::new(Mutex::new(disk)) });
    let (calls, called) = channel::<Call>();
    let outside = Reach(world.clone());
    let server = std::thread::spawn(move || {
        let mut server = Server::new(outside, 4 << 20);
        server.mount_label("disk", false).unwrap();
        for (message, answer) in called {
            match server.handle(&Received { message, how: How::Request }) {
                Then::Reply(reply) => drop(answer.send(reply)),
                other => panic!("{other:?}, where a reply is due"),
            }
        }
        let clients = server.clients().len();
        server.end();
        clients
    });
    let desk = Desk { world: world.clone(), calls: Mutex::new(calls) };
    let gateway = Gateway::new(desk, SERVER, "").unwrap();
    (world, gateway, server)
}

/// Has `fsck.minix` look at the image.
fn is_sound(world: &World) {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(world.disk.lock().unwrap().content()).unwrap();
    let checked = Command::new("/usr/sbin/fsck.minix").arg("-f").arg(file.path()).output();
    let checked = checked.expect("fsck.minix of util-linux");
    let said = String::from_utf8_lossy(&checked.stdout);
    assert!(checked.status.success() && said.lines().count() == 1, "{said}");
}

struct Mounted {
    session: fuser::BackgroundSession,
    folder: tempfile::TempDir,
    server: JoinHandle<usize>,
    world: Arc<World>,
}

impl Mounted {
    fn new(bytes: usize) -> Self {
        let (world, gateway, server) = serve(bytes);
        let folder = tempfile::tempdir().unwrap();
        let config = run::config("disk", false);
        let session = fuser::spawn_mount(gateway, folder.path(), &config)
            .expect("mounting takes root and /dev/fuse");
        Self { session, folder, server, world }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Unmounts, and has `fsck.minix` look at the image.
    fn end(self) {
        self.session.umount_and_join().unwrap();
        self.server.join().unwrap();
        is_sound(&self.world);
    }
}

#[test]
#[ignore = "it mounts, which takes root and /dev/fuse"]
fn a_linux_elsewhere_is_answered_over_streams() {
    // The session's end is not Linux's device but two pipes, which this passes on, as it could over a connection.
    let device = OpenOptions::new().read(true).write(true).open("/dev/fuse").unwrap();
    let folder = tempfile::tempdir().unwrap();
    let options = format!(
        "fd={},rootmode=40000,user_id=0,group_id=0,default_permissions,allow_other",
        std::os::fd::AsRawFd::as_raw_fd(&device)
    );
    let options = std::ffi::CString::new(options).unwrap();
    let flags = rustix::mount::MountFlags::NODEV;
    rustix::mount::mount("far", folder.path(), "fuse.far", flags, Some(options.as_c_str()))
        .expect("mounting takes root");
    let (requests, mut ask) = std::io::pipe().unwrap();
    let (mut answers, tell) = std::io::pipe().unwrap();
    let linux = device.try_clone().unwrap();
    let asking = std::thread::spawn(move || {
        let mut bytes = vec![0; vos_transfer::MESSAGE_MAX];
        while let Ok(count) = rustix::io::read(&linux, &mut bytes[..]) {
            ask.write_all(&bytes[..count]).unwrap();
        }
    });
    let answering = std::thread::spawn(move || {
        while let Some(answer) = vos_transfer::message(&mut answers).unwrap() {
            // A request may have been given up.
            let _ = rustix::io::write(&device, &answer);
        }
    });
    let (world, gateway, server) = serve(16 << 20);
    let serving = std::thread::spawn(move || mol_fuse::far::serve(gateway.far(), requests, tell));
    let path = |name: &str| folder.path().join(name);
    let data: Vec<u8> = (0..3_000_000_u32).map(|at| (at / 3 % 251) as u8).collect();
    fs::write(path("f"), &data).unwrap();
    assert!(content(&path("f")) == data);
    fs::create_dir(path("d")).unwrap();
    std::os::unix::fs::chown(path("d"), Some(7), Some(1001)).unwrap();
    fs::set_permissions(path("d"), Permissions::from_mode(0o775)).unwrap();
    fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
    // By a group that only Linux knows of.
    let words = ["--reuid", "1500", "--regid", "2000", "--groups", "1001", "touch", "d/g"];
    let touched = Command::new("setpriv").args(words).current_dir(folder.path()).status().unwrap();
    assert!(touched.success());
    assert_eq!(fs::metadata(path("d/g")).unwrap().uid(), 1500);
    rustix::mount::unmount(folder.path(), rustix::mount::UnmountFlags::empty()).unwrap();
    asking.join().unwrap();
    serving.join().unwrap().unwrap();
    answering.join().unwrap();
    server.join().unwrap();
    is_sound(&world);
}

fn content(path: &Path) -> Vec<u8> {
    fs::read(path).unwrap()
}

#[test]
#[ignore = "it mounts, which takes root and /dev/fuse"]
fn linux_uses_files_of_a_server() {
    let mounted = Mounted::new(16 << 20);
    let path = |name: &str| mounted.path(name);
    let data: Vec<u8> = (0..3_000_000_u32).map(|at| (at / 3 % 251) as u8).collect();
    fs::write(path("f"), &data).unwrap();
    assert!(content(&path("f")) == data);
    fs::create_dir(path("d")).unwrap();
    fs::rename(path("f"), path("d/g")).unwrap();
    symlink("d/g", path("s")).unwrap();
    fs::hard_link(path("d/g"), path("h")).unwrap();
    assert!(content(&path("s")) == data);
    assert_eq!(fs::read_link(path("s")).unwrap(), Path::new("d/g"));
    let metadata = fs::metadata(path("h")).unwrap();
    assert_eq!((metadata.nlink(), metadata.len()), (2, 3_000_000));
    assert_eq!(metadata.ino(), fs::metadata(path("d/g")).unwrap().ino());
    fs::remove_file(path("h")).unwrap();
    assert_eq!(fs::metadata(path("d/g")).unwrap().nlink(), 1);

    // Holes, appending, cutting, and writing in between.
    let mut file = OpenOptions::new().read(true).append(true).open(path("d/g")).unwrap();
    file.write_all(b"end").unwrap();
    file.set_len(3_500_000).unwrap();
    file.write_all(b"more").unwrap();
    file.sync_all().unwrap();
    file.seek(SeekFrom::Start(2_999_999)).unwrap();
    let mut part = [1; 6];
    file.read_exact(&mut part).unwrap();
    assert_eq!(part, [data[2_999_999], b'e', b'n', b'd', 0, 0]);
    assert_eq!(fs::metadata(path("d/g")).unwrap().len(), 3_500_004);

    // A file without a name.
    fs::remove_file(path("d/g")).unwrap();
    assert_eq!(file.metadata().unwrap().nlink(), 0);
    let mut part = [0; 2];
    file.read_exact_at(&mut part, 3_000_001).unwrap();
    assert_eq!(&part, b"nd");
    drop(file);

    // Many names, and what is there twice or not at all.
    for index in 0..300 {
        File::create(path(&format!("d/name-{index}"))).unwrap();
    }
    let mut names: Vec<_> =
        fs::read_dir(path("d")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    names.dedup();
    assert_eq!(names.len(), 300);
    let numbers: Vec<_> = fs::read_dir(path("d")).unwrap().map(|entry| entry.unwrap()).collect();
    for entry in numbers.iter().take(10) {
        use std::os::unix::fs::DirEntryExt;
        assert_eq!(entry.ino(), fs::metadata(entry.path()).unwrap().ino());
    }
    // They keep the directory open.
    drop(numbers);
    let exclusive = OpenOptions::new().write(true).create_new(true).open(path("d/name-3"));
    assert_eq!(exclusive.unwrap_err().raw_os_error(), Some(17));
    assert_eq!(fs::remove_dir(path("d")).unwrap_err().raw_os_error(), Some(39));
    assert_eq!(fs::metadata(path("none")).unwrap_err().raw_os_error(), Some(2));
    let long = "x".repeat(61);
    assert_eq!(fs::write(path(&long), "").unwrap_err().raw_os_error(), Some(36));
    fs::remove_dir_all(path("d")).unwrap();
    mounted.end();
}

#[test]
#[ignore = "it mounts, which takes root and /dev/fuse"]
fn owners_permissions_and_times_are_those_of_the_file_system() {
    let mounted = Mounted::new(4 << 20);
    let path = |name: &str| mounted.path(name);
    let mut options = OpenOptions::new();
    let mut file =
        options.write(true).create(true).truncate(true).mode(0o4755).open(path("f")).unwrap();
    file.write_all(b"x").unwrap();
    std::os::unix::fs::chown(path("f"), Some(1000), Some(1001)).unwrap();
    let metadata = fs::metadata(path("f")).unwrap();
    assert_eq!((metadata.uid(), metadata.gid()), (1000, 1001));
    fs::set_permissions(path("f"), Permissions::from_mode(0o640)).unwrap();
    assert_eq!(fs::metadata(path("f")).unwrap().mode(), 0o100_640);
    let old = std::time::UNIX_EPOCH + std::time::Duration::from_secs(77);
    file.set_times(fs::FileTimes::new().set_accessed(old).set_modified(old)).unwrap();
    let metadata = fs::metadata(path("f")).unwrap();
    assert_eq!((metadata.atime(), metadata.mtime()), (77, 77));
    assert!(metadata.ctime() > 1_000_000);
    drop(file);

    // Another user, who has nothing but what others have, and one of the group.
    fs::set_permissions(mounted.folder.path(), Permissions::from_mode(0o755)).unwrap();
    let as_user = |user: &str, command: &str| {
        let words = ["--reuid", user, "--regid", "2000", "--groups", "1001", "sh", "-c", command];
        let folder = mounted.folder.path();
        Command::new("setpriv").args(words).current_dir(folder).status().unwrap().success()
    };
    assert!(as_user("1500", "cat f"), "by one of its groups");
    assert!(!as_user("1500", "echo y > f"));
    assert!(!as_user("1500", "touch g"), "the directory is another's");
    fs::create_dir(path("open")).unwrap();
    std::os::unix::fs::chown(path("open"), None, Some(1001)).unwrap();
    fs::set_permissions(path("open"), Permissions::from_mode(0o1770)).unwrap();
    assert!(as_user(
        "1500",
        "umask 022; mkdir open/d && echo x > open/g && mkfifo open/p && ln -s g open/s"
    ));
    let metadata = fs::metadata(path("open/g")).unwrap();
    assert_eq!((metadata.uid(), metadata.gid(), metadata.mode()), (1500, 2000, 0o100_644));
    assert!(!as_user("1501", "rm -f open/g"), "the directory is sticky");
    assert!(as_user("1500", "rm open/g open/p open/s && rmdir open/d"));
    mounted.end();
}

#[test]
#[ignore = "it mounts, which takes root and /dev/fuse, and runs pjdfstest, which PJDFSTEST names"]
fn a_posix_suite_passes_but_for_what_the_format_cannot_express() {
    let program = std::env::var_os("PJDFSTEST").expect("PJDFSTEST says where pjdfstest is");
    let mounted = Mounted::new(64 << 20);
    fs::set_permissions(mounted.folder.path(), Permissions::from_mode(0o755)).unwrap();
    let other = tempfile::tempdir_in("/dev/shm").unwrap();
    // Those that mount it anew come first: others leave files open, with which Linux does not do that.
    let all = include_str!("../posix/pjdfstest.toml");
    let others = all.replace("allow_remount = true", "allow_remount = false");
    for (configuration, only) in [(all, Some("erofs")), (&others, None)] {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), configuration).unwrap();
        let mut suite = Command::new(&program);
        suite.arg("-c").arg(file.path()).arg("-s").arg(other.path());
        let ended = suite.arg("-p").arg(mounted.folder.path()).args(only).status().unwrap();
        assert!(ended.success(), "{ended}");
    }
    mounted.end();
}

#[test]
#[ignore = "it mounts, which takes root and /dev/fuse"]
fn a_full_disk_is_told() {
    let mounted = Mounted::new(1 << 20);
    let mut file = File::create(mounted.path("f")).unwrap();
    let block = vec![7; 65_536];
    let error = loop {
        if let Err(error) = file.write_all(&block) {
            break error;
        }
    };
    assert_eq!(error.raw_os_error(), Some(28));
    drop(file);
    let of = rustix::fs::statvfs(mounted.folder.path()).unwrap();
    assert!(of.f_bfree < 4, "{} blocks are free", of.f_bfree);
    assert_eq!((of.f_namemax, of.f_bsize), (60, 1024));
    fs::remove_file(mounted.path("f")).unwrap();
    fs::write(mounted.path("g"), &block).unwrap();
    mounted.end();
}

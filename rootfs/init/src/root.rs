// SPDX-License-Identifier: MIT OR Apache-2.0
//! From the initial root, which the kernel has unpacked into memory, to the root of the node: an image in it that stays compressed, and is
//! mounted with what is written kept in memory over it.
//!
//! What else is in the initial root, as that of images for tests has more, lies over the image as if it had been written there.

use std::env;
use std::ffi::CString;
use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use dvs_image::root::{Checksum, CHECKSUM, IMAGE, KIND};
use rustix::mount::{mount, mount_move, MountFlags};
use rustix::process::chroot;

use crate::fault::Fault;
use crate::sys;

/// Where the parts are put together, in the initial root.
const STAGE: &str = "/root.stage";
/// The directory of the initial root that is a mount point already.
const DEVICES: &str = "/dev";
/// What the kernel has started.
const PROGRAM: &str = "/init";

/// Makes the image the root, with `/dev` as it is mounted now.
///
/// # Errors
/// Without its root, a node is none: the caller ends it.
pub(crate) fn enter() -> Result<(), Fault> {
    let part = |name: &str| PathBuf::from(format!("{STAGE}/{name}"));
    let (image, upper, work, root) = (part("image"), part("upper"), part("work"), part("root"));
    for folder in [Path::new(STAGE), &image, &upper, &work, &root] {
        let attempt = format!("make the folder {}", folder.display());
        fs::create_dir(folder).map_err(Fault::when(attempt))?;
    }
    mount_image(&image)?;
    lay_over(Path::new("/"), &upper)?;
    let options = format!(
        "lowerdir={},upperdir={},workdir={}",
        image.display(),
        upper.display(),
        work.display()
    );
    let options = CString::new(options).map_err(Fault::when("name the layers of the root"))?;
    mount("overlay", &root, "overlay", MountFlags::empty(), &*options)
        .map_err(Fault::when(format!("mount the root over {IMAGE}")))?;
    mount_move(DEVICES, root.join("dev")).map_err(Fault::when("move /dev into the root"))?;
    // The initial root stays below, and out of sight.
    let change = || -> io::Result<()> {
        env::set_current_dir(&root)?;
        mount_move(".", "/")?;
        chroot(".")?;
        env::set_current_dir("/")
    };
    change().map_err(Fault::when(format!("change to the root over {IMAGE}")))
}

/// Looks whether the image is whole, mounts it, and leaves it to the kernel alone.
fn mount_image(target: &Path) -> Result<(), Fault> {
    let mount_it = || -> io::Result<()> {
        let image = File::open(IMAGE)?;
        let expected = fs::read_to_string(CHECKSUM)?;
        let found = Checksum::of(&image)?.to_string();
        if found != expected.trim() {
            let expected = expected.trim();
            return Err(io::Error::other(format!(
                "it is damaged: its checksum is {found} instead of {expected}; boot another image, or write this one anew"
            )));
        }
        // The mount holds it from then on.
        let (_device, number) = sys::loop_device(image.as_fd())?;
        Ok(mount(format!("/dev/loop{number}"), target, KIND, MountFlags::RDONLY, c"")?)
    };
    mount_it().map_err(Fault::when(format!("mount {IMAGE} of the initial root")))
}

/// Moves what there is in the initial root into `upper`, and removes what is of no use any more.
fn lay_over(initial: &Path, upper: &Path) -> Result<(), Fault> {
    let name = |path: &str| path.trim_start_matches('/').to_owned();
    let list = || fs::read_dir(initial)?.collect::<io::Result<Vec<_>>>();
    for entry in list().map_err(Fault::when("list the initial root"))? {
        let file = entry.file_name();
        let is = |path: &str| file == *name(path);
        let path = entry.path();
        if is(STAGE) || is(DEVICES) {
            continue;
        }
        if is(IMAGE) || is(CHECKSUM) || is(PROGRAM) {
            let attempt = format!("remove {} of the initial root", path.display());
            fs::remove_file(&path).map_err(Fault::when(attempt))?;
            continue;
        }
        let attempt = format!("lay {} over the root", path.display());
        fs::rename(&path, upper.join(&file)).map_err(Fault::when(attempt))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_else_is_in_the_initial_root_lies_over_the_image() {
        let folder = tempfile::tempdir().unwrap();
        let initial = folder.path();
        let below = |path: &str| initial.join(path.trim_start_matches('/'));
        let upper = below(STAGE).join("upper");
        fs::create_dir_all(&upper).unwrap();
        fs::create_dir_all(below("/dev/pts")).unwrap();
        fs::create_dir_all(below("/usr/bin")).unwrap();
        for file in [IMAGE, CHECKSUM, PROGRAM, "/usr/bin/dvsd", "/root.squashfs.old"] {
            fs::write(below(file), file).unwrap();
        }
        lay_over(initial, &upper).unwrap();
        let names = |folder: &Path| {
            let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name());
            let mut names: Vec<_> = entries.map(|name| name.into_string().unwrap()).collect();
            names.sort();
            names
        };
        assert_eq!(names(initial), ["dev", "root.stage"]);
        assert_eq!(names(&upper), ["root.squashfs.old", "usr"]);
        assert_eq!(fs::read_to_string(upper.join("usr/bin/dvsd")).unwrap(), "/usr/bin/dvsd");
        assert!(below("/dev/pts").exists());
    }
}

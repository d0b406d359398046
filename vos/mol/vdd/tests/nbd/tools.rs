// SPDX-License-Identifier: MIT OR Apache-2.0
//! The programs of QEMU and of libnbd as clients.

use crate::{Gateway, Shared};
use std::process::Command;

/// What a program says, if it succeeds.
fn run(program: &str, arguments: &[&str]) -> Result<String, String> {
    let output = Command::new(program).args(arguments).output().unwrap_or_else(|error| {
        panic!("running {program}: {error}; `cargo xtask doctor --install` installs it")
    });
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    match output.status.success() {
        true => Ok(said),
        false => Err(said),
    }
}

#[test]
fn nbdinfo_is_told_what_the_device_is_like() {
    let gateway = Gateway::start(&Shared::new(1 << 20, false));
    for name in ["disk", ""] {
        let info = run("nbdinfo", &[&gateway.uri(name)]).expect("it is told");
        for line in [
            "export-size: 1048576",
            "is_read_only: false",
            "can_flush: true",
            "can_fua: true",
            "can_trim: true",
            "can_zero: true",
            "can_multi_conn: true",
            "block_size_minimum: 512",
        ] {
            assert!(info.contains(line), "{line} is missing in {info}");
        }
    }
    let list = run("nbdinfo", &["--list", &gateway.uri("")]).expect("there is a list");
    assert!(list.contains("export=\"disk\""), "{list}");
    let other = run("nbdinfo", &[&gateway.uri("other")]).expect_err("there is no such export");
    assert!(other.contains("No such file or directory"), "{other}");
    let read_only = Gateway::start(&Shared::new(1 << 20, true));
    let info = run("nbdinfo", &[&read_only.uri("disk")]).expect("it is told");
    assert!(info.contains("is_read_only: true") && info.contains("can_trim: false"), "{info}");
}

#[test]
fn qemu_io_writes_reads_zeroes_and_flushes() {
    let export = Shared::new(1 << 20, false);
    let gateway = Gateway::start(&export);
    let uri = gateway.uri("disk");
    let commands = [
        "write -P 0x5a 64k 64k",
        "write -f -P 0x3c 1k 512",
        "flush",
        "write -z 80k 4k",
        "discard 96k 4k",
        "read -P 0x5a 64k 16k",
        "read -P 0 80k 4k",
        "read -P 0x5a 100k 28k",
    ];
    let mut arguments = vec!["-f", "raw"];
    arguments.extend(commands.iter().flat_map(|command| ["-c", command]));
    arguments.push(&uri);
    let said = run("qemu-io", &arguments).expect("all of it is done");
    assert!(!said.contains("failed"), "{said}");
    assert!(export.content(65_536, 16_384).iter().all(|byte| *byte == 0x5a));
    assert!(export.content(81_920, 4096).iter().all(|byte| *byte == 0));
    assert!(export.content(98_304, 4096).iter().all(|byte| *byte == 0), "it is trimmed");
    assert_eq!(export.content(1024, 512), [0x3c; 512]);
    assert!(*export.flushes.lock().unwrap() > 0);
}

#[test]
fn qemu_img_copies_an_image_there_and_back() {
    let (export, folder) = (Shared::new(3 << 20, false), tempfile::tempdir().expect("a folder"));
    let gateway = Gateway::start(&export);
    let image = folder.path().join("image");
    let content: Vec<u8> = (0..3_u32 << 20).map(|at| (at / 700) as u8).collect();
    std::fs::write(&image, &content).expect("an image");
    let (path, uri) = (image.to_str().expect("a name"), gateway.uri("disk"));
    run("qemu-img", &["convert", "-n", "-f", "raw", "-O", "raw", path, &uri]).expect("a copy");
    assert!(export.content(0, content.len()) == content);
    run("qemu-img", &["compare", "-f", "raw", "-F", "raw", path, &uri]).expect("they are equal");
    let back = folder.path().join("back");
    run("nbdcopy", &[&uri, back.to_str().expect("a name")]).expect("a copy back");
    assert!(std::fs::read(back).expect("it is there") == content);
}

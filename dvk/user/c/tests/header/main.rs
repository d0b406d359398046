// SPDX-License-Identifier: MIT OR Apache-2.0
//! The C header is what the ABI says: it is generated anew, compiled, and compared with Rust.

mod source;
mod text;

use source::{folder, Source};
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// The header in the tree, written anew first if that is asked for, whichever test comes first.
fn committed() -> PathBuf {
    static WRITTEN: OnceLock<()> = OnceLock::new();
    let path = folder().join("user/c/include/dvk.h");
    WRITTEN.get_or_init(|| {
        if std::env::var_os("UPDATE_HEADER").is_some() {
            write(&path, &text::header(&Source::read()));
        }
    });
    path
}

/// Runs a program and gives its output.
fn run(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let (out, err) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{command:?}: {}\n{out}{err}", output.status);
    out.into_owned()
}

/// The C compiler, with the warnings that a user may have.
fn cc(language: &str) -> Command {
    let mut command = Command::new("cc");
    command.args(["-x", language, "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-I"]);
    command.arg(committed().parent().expect("a file is in a folder"));
    command
}

fn write(path: &Path, text: &str) {
    std::fs::write(path, text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
}

#[test]
fn the_committed_header_is_current() {
    let generated = text::header(&Source::read());
    let found = std::fs::read_to_string(committed()).unwrap_or_default();
    let differs = found.lines().zip(generated.lines()).position(|(old, new)| old != new);
    assert!(
        found == generated,
        "dvk/user/c/include/dvk.h is not what the sources say (from line {} on): \
         run `UPDATE_HEADER=1 cargo test -p dvk-c` and look at the difference",
        differs.unwrap_or_else(|| found.lines().count().min(generated.lines().count())) + 1,
    );
}

#[test]
fn every_call_of_the_abi_is_a_function() {
    let source = Source::read();
    assert!(source.numbers.len() >= 37, "calls were not found");
    for number in &source.numbers {
        let name = format!("dvk_{}", number.name.to_lowercase());
        assert!(source.functions.iter().any(|known| known.name == name), "there is no {name}");
    }
}

/// A program in each language prints every number, size and offset; they print the same.
#[test]
fn c_and_rust_agree() {
    let source = Source::read();
    let folder = tempfile::tempdir().unwrap();
    let (mut c, mut rust) = (String::new(), String::new());
    let mut add = |label: &str, in_c: &str, in_rust: &str| {
        writeln!(c, "printf(\"{label} %llu\\n\", (unsigned long long)({in_c}));").unwrap();
        writeln!(rust, "println!(\"{label} {{}}\", ({in_rust}) as u64);").unwrap();
    };
    for constant in &source.constants {
        let rust = match constant.name.strip_prefix("ENDPOINT_").filter(|_| constant.ty == "u64") {
            Some(name) => format!("Endpoint::{name}.raw()"),
            // Those of the library's protocols are not in the ABI, and have plain values.
            None if constant.name.starts_with("CODE_")
                || constant.name.starts_with("RESERVED_") =>
            {
                constant.value.to_string()
            }
            None => constant.name.clone(),
        };
        add(&constant.name, &text::constant_name(constant), &rust);
    }
    for number in &source.numbers {
        add(&number.name, &text::number_name(number), &number.name);
    }
    for structure in &source.structures {
        let (name, in_c) = (&structure.name, text::structure_name(&structure.name));
        add(name, &format!("sizeof({in_c})"), &format!("size_of::<{name}>()"));
        add(name, &format!("_Alignof({in_c})"), &format!("align_of::<{name}>()"));
        for (field, ..) in &structure.fields {
            let label = format!("{name}.{field}");
            let offset = format!("offsetof({in_c}, {field})");
            add(&label, &offset, &format!("offset_of!({name}, {field})"));
            let size = format!("sizeof((({in_c} *)0)->{field})");
            add(&label, &size, &format!("bytes(|it: &{name}| &it.{field})"));
        }
    }
    let c = format!("#include <dvk.h>\n#include <stdio.h>\nint main(void) {{\n{c}return 0;\n}}\n");
    let rust = format!(
        "use dvk_abi::{{endpoint::*, ioctl::*, limits::*, message::*}};\n\
         use std::mem::{{align_of, offset_of, size_of}};\n\
         fn bytes<T, F>(_: fn(&T) -> &F) -> usize {{ size_of::<F>() }}\n\
         fn main() {{\n{rust}}}\n"
    );
    write(&folder.path().join("layout.c"), &c);
    write(&folder.path().join("layout.rs"), &rust);
    let in_folder = |name: &str| folder.path().join(name);
    run(cc("c").arg("-std=c11").arg(in_folder("layout.c")).arg("-o").arg(in_folder("c")));
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let abi = source::folder().join("abi/src/lib.rs");
    run(Command::new(&rustc)
        .args(["--edition=2021", "--crate-type=rlib", "--crate-name=dvk_abi", "--cap-lints=allow"])
        .arg(abi)
        .arg("--out-dir")
        .arg(folder.path()));
    run(Command::new(&rustc)
        .args(["--edition=2021", "--cap-lints=allow", "-L"])
        .arg(folder.path())
        .args(["--extern", "dvk_abi", "-o"])
        .arg(in_folder("rust"))
        .arg(in_folder("layout.rs")));
    let (c, rust) =
        (run(&mut Command::new(in_folder("c"))), run(&mut Command::new(in_folder("rust"))));
    assert!(c.lines().count() > 300, "{c}");
    for (c, rust) in c.lines().zip(rust.lines()) {
        assert_eq!(c, rust, "C and Rust differ");
    }
    assert_eq!(c.lines().count(), rust.lines().count());
}

#[test]
fn the_header_is_c_and_cpp() {
    let folder = tempfile::tempdir().unwrap();
    let (source, object) = (folder.path().join("empty"), folder.path().join("object"));
    let compile = |language: &str, standard: &str, text: &str| {
        write(&source, text);
        let mut cc = cc(language);
        cc.arg(standard).arg("-c").arg(&source).arg("-o").arg(&object);
        cc
    };
    let twice = "#include <dvk.h>\n#include <dvk.h>\n";
    run(&mut compile("c", "-std=c11", twice));
    run(&mut compile("c", "-std=gnu17", twice));
    // The C compiler of a machine need not come with one for C++.
    if compile("c++", "-std=c++17", "int i;\n").output().unwrap().status.success() {
        run(&mut compile("c++", "-std=c++17", twice));
    }
}

#[test]
fn a_c_program_links_and_says_what_is_wrong() {
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("pair");
    let example = source::folder().join("user/c/examples/pair.c");
    run(cc("c")
        .arg("-std=gnu11")
        .arg(example)
        .args(["-x", "none"])
        .arg(library())
        .arg("-o")
        .arg(&program));
    let output = Command::new(&program).arg("4000000000").output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let message = String::from_utf8_lossy(&output.stderr);
    assert_eq!(message, "open: No such file or directory\n");
}

/// Builds `libdvk.a`, which cargo does not do for the tests of a package. The directory is one of
/// its own, since cargo may still use the other.
fn library() -> PathBuf {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("libdvk");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    run(Command::new(cargo)
        .args(["build", "--quiet", "--locked", "--offline", "--package", "dvk-c", "--target-dir"])
        .arg(&target)
        .current_dir(env!("CARGO_MANIFEST_DIR")));
    target.join("debug/libdvk.a")
}

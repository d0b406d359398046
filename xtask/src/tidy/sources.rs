// SPDX-License-Identifier: MIT OR Apache-2.0
//! What holds for source files: where `unsafe` is, what the code shared with the kernel may use, names, length, no loose ends.

use super::scan::Scan;
use super::{directory, extension, file_name, is_in, join, line_of, Problem, Tree};

/// Lines beyond which a module is no longer read in one sitting.
const LINES_MAX: usize = 900;

/// Words that name a place to put things instead of a thing.
const EMPTY_NAMES: [&str; 8] =
    ["common", "helper", "helpers", "manager", "managers", "misc", "util", "utils"];

pub(super) fn check(tree: &Tree) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (path, text) in tree.iter() {
        let rust = extension(path) == "rs";
        if !rust && !matches!(extension(path), "c" | "h") {
            continue;
        }
        let scan = Scan::new(text);
        problems.extend(length(path, text));
        problems.extend(file_names(path));
        problems.extend(loose_ends(path, &scan));
        if rust {
            problems.extend(white_space(path, text));
            problems.extend(module_names(path, &scan));
            if may_be_unsafe(path) {
                problems.extend(unjustified(path, &scan));
            } else {
                problems.extend(unsafe_words(path, &scan));
            }
            if is_in(path, "dvk/abi/src") || is_in(path, "dvk/core/src") {
                problems.extend(host_only(path, &scan));
            }
        }
    }
    problems.extend(crate_roots(tree));
    problems
}

/// Whether `unsafe` is allowed in the file.
fn may_be_unsafe(path: &str) -> bool {
    is_in(path, "dvk/kmod")
        || path.starts_with("dvk/bench/src/sys")
        || path.starts_with("dvk/user/src/sys")
        || path.starts_with("dvk/user/c/src/ffi")
        || path.starts_with("dvk/fuzz/src/guest/sys")
        || path.starts_with("rootfs/init/src/sys")
}

fn unsafe_words(path: &str, scan: &Scan) -> Vec<Problem> {
    let found = scan.words().filter(|&(_, word)| word == "unsafe");
    let problem = |(at, _)| {
        Problem::new(
            path,
            line_of(&scan.code, at),
            "`unsafe` is not allowed here",
            "what can break memory is to be read in few places only",
            "use a safe function of rustix or of the `sys` module of dvk/bench, dvk/user or rootfs/init, or add one there",
        )
    };
    found.map(problem).collect()
}

/// Unsafe blocks and implementations without a `SAFETY:` comment in their statement.
fn unjustified(path: &str, scan: &Scan) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (at, word) in scan.words() {
        let after = scan.code_after(at + word.len());
        let is_impl =
            after.strip_prefix("impl").is_some_and(|rest| rest.starts_with([' ', '<', '\n']));
        if word != "unsafe" || !(after.starts_with('{') || is_impl) {
            continue;
        }
        let start = scan.code[..at].rfind([';', '{', '}']).map_or(0, |end| end + 1);
        if !scan.comments[start..at].contains("SAFETY:") {
            problems.push(Problem::new(
                path,
                line_of(&scan.code, at),
                "nothing says why this `unsafe` is sound",
                "nobody can review what is not argued",
                "write `// SAFETY: …` above the statement, with the reason why the conditions hold",
            ));
        }
    }
    problems
}

/// Every crate root says that it has no unsafe code, so that the compiler sees to it as well.
fn crate_roots(tree: &Tree) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (manifest, _) in tree.iter().filter(|(path, _)| file_name(path) == "Cargo.toml") {
        let folder = directory(manifest);
        let source = join(folder, "src");
        let binaries = join(&source, "bin");
        let is_root = |path: &str| {
            extension(path) == "rs"
                && (directory(path) == binaries
                    || directory(path) == source && matches!(file_name(path), "lib.rs" | "main.rs"))
        };
        let has_sys = tree.iter().any(|(path, _)| is_in(path, &source) && may_be_unsafe(path));
        for (path, text) in tree.iter().filter(|(path, _)| is_root(path)) {
            let code = Scan::new(text).code;
            if lints(&code, "forbid") || (has_sys && lints(&code, "deny")) {
                continue;
            }
            let remedy = if has_sys {
                "write `#![deny(unsafe_code)]` here and `#[allow(unsafe_code)]` at the module that has it"
            } else {
                "write `#![forbid(unsafe_code)]`"
            };
            problems.push(Problem::new(
                path,
                1,
                "the crate does not say that it has no unsafe code",
                "the compiler sees uses that a search for the word cannot, such as in macros",
                remedy,
            ));
        }
    }
    problems
}

/// Whether the code has the inner attribute `level` for the lint `unsafe_code`.
fn lints(code: &str, level: &str) -> bool {
    let dense: String = code.split_whitespace().collect();
    let start = format!("#![{level}(");
    dense.match_indices(&start).any(|(at, _)| {
        let list = &dense[at + start.len()..];
        list[..list.find(')').unwrap_or(0)].split(',').any(|lint| lint == "unsafe_code")
    })
}

/// What compiles on the host only, in the code that the kernel compiles too.
fn host_only(path: &str, scan: &Scan) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (at, word) in scan.words() {
        let is_path = scan.code_after(at + word.len()).starts_with("::");
        let is_first = !scan.code[..at].trim_end().ends_with("::");
        let (what, remedy) = match word {
            "std" | "alloc" if is_path && is_first => (
                format!("`{word}::` does not exist in the kernel"),
                "use `core`, and take memory from the caller",
            ),
            "crate" if is_path => (
                "`crate::` is the whole driver in the kernel".to_owned(),
                "write the path with `super::`, or with `self::` below",
            ),
            "crate" if scan.code[..at].trim_end().ends_with("extern") => {
                ("`extern crate` names what the kernel does not have".to_owned(), "use `core`")
            }
            _ => continue,
        };
        problems.push(Problem::new(
            path,
            line_of(&scan.code, at),
            what,
            "this folder is mounted as a module of the driver and must compile there unchanged",
            remedy,
        ));
    }
    problems
}

/// A file that says at its top what it is generated from is as long as that makes it.
fn is_generated(text: &str) -> bool {
    text.lines().take(10).any(|line| line.starts_with(" * Generated from "))
}

fn length(path: &str, text: &str) -> Option<Problem> {
    let lines = text.lines().count();
    (lines > LINES_MAX && !is_generated(text)).then(|| {
        Problem::new(
            path,
            LINES_MAX + 1,
            format!("the module has {lines} lines"),
            "beyond 900 it is not read in one sitting",
            "move a noun of it to a module of its own",
        )
    })
}

/// The word of `name` that names nothing.
pub(super) fn empty_name(name: &str) -> Option<&'static str> {
    let is_part = |empty: &&&str| name.split(['_', '-', '.']).any(|part| part == **empty);
    EMPTY_NAMES.iter().find(is_part).copied()
}

/// The problem that a name with the word `empty` in it is.
pub(super) fn empty_name_problem(path: &str, line: usize, empty: &str) -> Problem {
    Problem::new(
        path,
        line,
        format!("the name has `{empty}` in it"),
        "it says nothing of what is inside, so anything ends up there",
        "name it after the thing it is about",
    )
}

fn file_names(path: &str) -> Option<Problem> {
    let empty = path.split('/').find_map(empty_name)?;
    Some(empty_name_problem(path, 1, empty))
}

/// Modules within a file; those of their own file are seen by [`file_names`].
fn module_names(path: &str, scan: &Scan) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut previous = "";
    for (at, word) in scan.words() {
        if previous == "mod" && scan.code_after(at + word.len()).starts_with('{') {
            let problem = |empty| empty_name_problem(path, line_of(&scan.code, at), empty);
            problems.extend(empty_name(word).map(problem));
        }
        previous = word;
    }
    problems
}

/// Marks of work that is not finished.
fn loose_ends(path: &str, scan: &Scan) -> Vec<Problem> {
    let why = "what is in the tree is finished, or it is not there";
    let mut problems = Vec::new();
    for (at, word) in scan.words() {
        let is_macro = scan.code_after(at + word.len()).starts_with('!')
            && !scan.code_after(at + word.len()).starts_with("!=");
        if is_macro && matches!(word, "todo" | "unimplemented") {
            let what = format!("`{word}!` stands in for code");
            let remedy = "write the code, or return an error that says what is not supported";
            problems.push(Problem::new(path, line_of(&scan.code, at), what, why, remedy));
        }
    }
    for mark in ["FIXME", "TODO", "XXX"] {
        for (at, _) in scan.comments.match_indices(mark) {
            let what = format!("a comment says {mark}");
            let remedy = "do it now, or open an issue and say here what holds today";
            problems.push(Problem::new(path, line_of(&scan.comments, at), what, why, remedy));
        }
    }
    problems
}

fn white_space(path: &str, text: &str) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let what = if line.contains('\t') {
            "there is a tab"
        } else if line.ends_with(char::is_whitespace) {
            "there is white space at the end of the line"
        } else {
            continue;
        };
        let why = "differences that nobody sees make diffs that nobody can read";
        problems.push(Problem::new(
            path,
            index + 1,
            what,
            why,
            "run rustfmt, or write `\\t` in a string",
        ));
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::super::tests::{heads, tree};
    use super::*;

    fn found(path: &str, text: &str) -> Vec<String> {
        heads(&check(&tree(&[(path, text)])))
    }

    #[test]
    fn unsafe_is_allowed_in_few_places() {
        let text = "// SAFETY: it is\nunsafe impl Send for X {}\n";
        for path in [
            "dvk/kmod/file.rs",
            "dvk/bench/src/sys.rs",
            "dvk/user/src/sys.rs",
            "dvk/user/c/src/ffi.rs",
            "dvk/fuzz/src/guest/sys.rs",
            "rootfs/init/src/sys/clock.rs",
        ] {
            assert_eq!(found(path, text), [""; 0]);
        }
        for path in [
            "dvk/core/src/port.rs",
            "dvk/user/src/port.rs",
            "dvk/user/c/src/lib.rs",
            "qemu/src/sys.rs",
            "x.rs",
        ] {
            assert_eq!(found(path, text), [format!("{path}:2: `unsafe` is not allowed here")]);
        }
    }

    #[test]
    fn the_word_unsafe_alone_is_no_problem() {
        let text =
            "//! unsafe\n#![forbid(unsafe_code)]\nconst A: &str = \"unsafe { }\"; /* unsafe */\n";
        assert_eq!(found("x.rs", text), [""; 0]);
    }

    #[test]
    fn every_unsafe_block_of_the_driver_is_justified() {
        let text = "\
fn f() {
    // SAFETY: one
    let a =
        unsafe { g() };
    let b = unsafe { g() };
    // SAFETY: two
    let (c, d) = (unsafe { g() }, unsafe { g() });
    unsafe
    {
        g()
    }
}
unsafe impl Send for X {}
/// # Safety
/// Never.
unsafe fn h(callback: unsafe extern \"C\" fn()) {}
";
        let lines = [5, 7, 8, 13]
            .map(|line| format!("dvk/kmod/a.rs:{line}: nothing says why this `unsafe` is sound"));
        assert_eq!(found("dvk/kmod/a.rs", text), lines);
    }

    #[test]
    fn crate_roots_forbid_unsafe_code() {
        let forbid = "#![forbid(unsafe_code)]";
        let deny = "#![deny(missing_docs,\n unsafe_code)]";
        let files = |lib, sys| {
            let names = ["a/Cargo.toml", "rootfs/init/Cargo.toml", "rootfs/init/src/sys.rs"];
            let [first, second, third] = names;
            tree(&[
                (first, ""),
                ("a/src/lib.rs", lib),
                (second, ""),
                ("rootfs/init/src/main.rs", sys),
                (third, ""),
            ])
        };
        assert_eq!(heads(&check(&files(forbid, deny))), [""; 0]);
        assert_eq!(heads(&check(&files(forbid, forbid))), [""; 0]);
        let what = "the crate does not say that it has no unsafe code";
        assert_eq!(heads(&check(&files(deny, forbid))), [format!("a/src/lib.rs:1: {what}")]);
        let commented = "// #![forbid(unsafe_code)]";
        assert_eq!(
            heads(&check(&files(commented, "#![warn(unsafe_code)]"))),
            [format!("a/src/lib.rs:1: {what}"), format!("rootfs/init/src/main.rs:1: {what}")]
        );
        let binaries = tree(&[("a/Cargo.toml", ""), ("a/src/bin/b.rs", ""), ("a/src/c.rs", "")]);
        assert_eq!(heads(&check(&binaries)), [format!("a/src/bin/b.rs:1: {what}")]);
    }

    #[test]
    fn what_the_kernel_compiles_too_uses_nothing_of_the_host() {
        let text = "\
use std::fmt;
use core::alloc::Layout;
use alloc::vec::Vec;
use crate::port;
pub(crate) use super::abi; // std::fmt
extern crate alloc;
";
        let expected = [
            "1: `std::` does not exist in the kernel",
            "3: `alloc::` does not exist in the kernel",
            "4: `crate::` is the whole driver in the kernel",
            "6: `extern crate` names what the kernel does not have",
        ];
        for path in ["dvk/abi/src/a.rs", "dvk/core/src/link/a.rs"] {
            assert_eq!(found(path, text), expected.map(|rest| format!("{path}:{rest}")));
        }
        assert_eq!(found("dvk/core/tests/a.rs", text), [""; 0]);
    }

    #[test]
    fn modules_are_named_after_something() {
        assert_eq!(found("a/src/utils.rs", ""), ["a/src/utils.rs:1: the name has `utils` in it"]);
        assert_eq!(found("a/common/b.c", ""), ["a/common/b.c:1: the name has `common` in it"]);
        assert_eq!(
            found("a/node_manager.rs", ""),
            ["a/node_manager.rs:1: the name has `manager` in it"]
        );
        assert_eq!(found("a/utility.rs", ""), [""; 0]);
        assert_eq!(
            found("a.rs", "fn f() {}\nmod helpers {}\nmod misc;"),
            ["a.rs:2: the name has `helpers` in it"]
        );
    }

    #[test]
    fn modules_can_be_read_in_one_sitting() {
        assert_eq!(found("a.rs", &"\n".repeat(900)), [""; 0]);
        assert_eq!(found("a.c", &"\n".repeat(901)), ["a.c:901: the module has 901 lines"]);
        let generated = format!("/*\n * Generated from b.\n */{}", "\n".repeat(901));
        assert_eq!(found("a.h", &generated), [""; 0]);
    }

    #[test]
    fn nothing_is_left_for_later() {
        let text = "fn f() {\n    todo!()\n}\nfn g() { unimplemented! (\"x\") } // \u{46}IXME: g\nfn todo() {}\n";
        let expected = [
            "a.rs:2: `todo!` stands in for code",
            "a.rs:4: `unimplemented!` stands in for code",
            "a.rs:4: a comment says \u{46}IXME",
        ];
        assert_eq!(found("a.rs", text), expected);
        assert_eq!(found("a.rs", "fn f() { if todo != 0 { g(\"\u{46}IXME\") } }\n"), [""; 0]);
    }

    #[test]
    fn white_space_is_visible() {
        let expected =
            ["a.rs:1: there is white space at the end of the line", "a.rs:2: there is a tab"];
        assert_eq!(found("a.rs", "a \n\tb\n"), expected);
        assert_eq!(found("a.c", "\tb\n"), [""; 0]);
    }
}

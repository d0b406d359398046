// SPDX-License-Identifier: MIT OR Apache-2.0
//! Every file says its licence in its first line, and it is the one of its folder.

use super::{extension, file_name, is_in, Problem, Tree};

/// What comes before the licence expression.
const TAG: &str = "SPDX-License-Identifier:";
const WHY: &str = "whoever takes a file alone must know what they may do with it";

/// Folders whose files are not under [`ELSEWHERE`]. What is compiled into the kernel must be compatible with the GPL-2.0; what
/// is compiled on both sides is under either licence.
const FOLDERS: [(&str, &str); 5] = [
    ("dvk/abi", "GPL-2.0 OR MIT"),
    ("dvk/core", "GPL-2.0 OR MIT"),
    ("dvk/kmod", "GPL-2.0"),
    ("kernel/config", "GPL-2.0"),
    ("kernel/patches", "GPL-2.0"),
];
const ELSEWHERE: &str = "MIT OR Apache-2.0";

/// The licence that the file at `path` must have.
pub(super) fn licence_of(path: &str) -> &'static str {
    let folder = FOLDERS.iter().find(|(folder, _)| is_in(path, folder));
    folder.map_or(ELSEWHERE, |(_, licence)| licence)
}

/// Whether a file can be expected to have a comment as its first line.
fn has_licence(path: &str, text: &str) -> bool {
    let known = [
        "c", "config", "css", "h", "html", "js", "ld", "lua", "md", "patch", "py", "rs", "S", "sh",
        "svg", "toml", "yaml", "yml",
    ];
    if is_in(path, "LICENSES") {
        return false;
    }
    known.contains(&extension(path))
        || matches!(file_name(path), "Makefile" | "Kconfig")
        || text.starts_with("#!/")
}

/// The licence expression that a line gives.
fn expression(line: &str) -> Option<&str> {
    let (_, expression) = line.split_once(TAG)?;
    let expression = expression.trim();
    let expression =
        expression.strip_suffix("*/").or(expression.strip_suffix("-->")).unwrap_or(expression);
    Some(expression.trim())
}

pub(super) fn check(tree: &Tree) -> Vec<Problem> {
    tree.iter().filter_map(|(path, text)| check_file(path, text)).collect()
}

fn check_file(path: &str, text: &str) -> Option<Problem> {
    if !has_licence(path, text) {
        return None;
    }
    let wanted = licence_of(path);
    let line = if text.starts_with("#!/") { 2 } else { 1 };
    let what = match text.lines().nth(line - 1).and_then(expression) {
        Some(found) if found == wanted => return None,
        Some(found) => format!("the licence is `{found}`"),
        None => "the licence is not stated in the first line".to_owned(),
    };
    Some(Problem::new(path, line, what, WHY, format!("write `{TAG} {wanted}` in a comment")))
}

#[cfg(test)]
mod tests {
    use super::super::tests::{heads, tree};
    use super::*;

    #[test]
    fn each_folder_has_its_licence() {
        let tree = tree(&[
            ("dvk/abi/src/lib.rs", "// SPDX-License-Identifier: GPL-2.0 OR MIT\n"),
            ("dvk/kmod/Makefile", "# SPDX-License-Identifier: GPL-2.0\n"),
            ("dvk/kmod/x.h", "/* SPDX-License-Identifier: GPL-2.0 */\n"),
            ("dvk/user/README.md", "<!-- SPDX-License-Identifier: MIT OR Apache-2.0 -->\n"),
            ("kernel/patches/1.patch", "SPDX-License-Identifier: GPL-2.0\n"),
            (".ci/run", "#!/bin/sh\n# SPDX-License-Identifier: MIT OR Apache-2.0\n"),
        ]);
        assert_eq!(heads(&check(&tree)), [""; 0]);
    }

    #[test]
    fn another_licence_is_a_problem() {
        let tree = tree(&[
            ("dvk/core/src/lib.rs", "// SPDX-License-Identifier: MIT OR Apache-2.0\n"),
            ("dvk/kmod/x.rs", "// SPDX-License-Identifier: GPL-2.0 OR MIT\n"),
            ("dvk/user/src/lib.rs", "// SPDX-License-Identifier: GPL-2.0\n"),
        ]);
        let found = heads(&check(&tree));
        assert_eq!(
            found,
            [
                "dvk/core/src/lib.rs:1: the licence is `MIT OR Apache-2.0`",
                "dvk/kmod/x.rs:1: the licence is `GPL-2.0 OR MIT`",
                "dvk/user/src/lib.rs:1: the licence is `GPL-2.0`",
            ]
        );
    }

    #[test]
    fn no_licence_is_a_problem_and_so_is_a_late_one() {
        let late = "fn f() {}\n// SPDX-License-Identifier: MIT OR Apache-2.0\n";
        let tree = tree(&[("a.rs", ""), ("b.rs", late), ("run", "#!/bin/sh\necho\n")]);
        let what = "the licence is not stated in the first line";
        assert_eq!(
            heads(&check(&tree)),
            ["a.rs:1", "b.rs:1", "run:2"].map(|at| format!("{at}: {what}"))
        );
    }

    #[test]
    fn data_and_licences_state_none() {
        let tree =
            tree(&[("LICENSES/MIT.txt", "MIT"), ("Cargo.lock", ""), ("rootfs/etc/passwd", "root")]);
        assert_eq!(check(&tree), []);
    }
}

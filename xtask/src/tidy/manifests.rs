// SPDX-License-Identifier: MIT OR Apache-2.0
//! What holds for crates: who may depend on whom, versions in one place, lints inherited, a README each.

use std::collections::BTreeMap;

use toml::de::{DeTable, DeValue};
use toml::Spanned;

use super::licences::licence_of;
use super::sources::{empty_name, empty_name_problem};
use super::{directory, file_name, is_in, join, line_of, Problem, Tree};

const ROOT: &str = "Cargo.toml";
/// Tables of dependencies that end up in what is built.
const LINKED: [&str; 2] = ["build-dependencies", "dependencies"];
const ALL: [&str; 3] = ["build-dependencies", "dependencies", "dev-dependencies"];

/// A dependency as a manifest names it.
struct Dependency<'a> {
    name: &'a str,
    line: usize,
    value: &'a DeValue<'a>,
}

pub(super) fn check(tree: &Tree) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut manifests = BTreeMap::new();
    for (path, text) in tree.iter().filter(|(path, _)| file_name(path) == ROOT) {
        match DeTable::parse(text) {
            Ok(table) => drop(manifests.insert(path, (text, table.into_inner()))),
            Err(error) => {
                let line = line_of(text, error.span().map_or(0, |span| span.start));
                let what = format!("this is not TOML: {}", error.message().replace('\n', " "));
                let why = "nothing of the crate can be built";
                problems.push(Problem::new(path, line, what, why, "correct it"));
            }
        }
    }
    let nothing = DeTable::new();
    let root = manifests.get(ROOT).map_or(&nothing, |(_, table)| table);
    let folders = folders(root);
    for (path, (text, table)) in &manifests {
        if let Some(package) = table_at(table, &["package"]) {
            problems.extend(package_problems(tree, root, path, text, table, package));
            problems.extend(dependency_problems(&folders, path, text, table));
        }
    }
    problems
}

/// The folders of the crates of the workspace, by the name under which they are depended on.
fn folders(root: &DeTable<'_>) -> BTreeMap<String, String> {
    let mut folders = BTreeMap::new();
    for (name, value) in table_at(root, &["workspace", "dependencies"]).into_iter().flatten() {
        let path = value.get_ref().as_table().and_then(|table| value_at(table, &["path"]));
        if let Some(path) = path.and_then(DeValue::as_str) {
            folders.insert(name.get_ref().to_string(), path.to_owned());
        }
    }
    folders
}

fn package_problems(
    tree: &Tree,
    root: &DeTable<'_>,
    path: &str,
    text: &str,
    table: &DeTable<'_>,
    package: &DeTable<'_>,
) -> Vec<Problem> {
    let mut problems = Vec::new();
    let folder = directory(path);
    let mut add = |what: &str, why, remedy: String| {
        let line = line_of(text, text.find("[package]").unwrap_or(0));
        problems.push(Problem::new(path, line, what, why, remedy));
    };
    if tree.text(&join(folder, "README.md")).is_none() {
        add(
            "the crate has no README.md",
            "whoever looks at the folder must learn its role",
            "write a paragraph on what it does and what it must not do".to_owned(),
        );
    }
    if !is_true(value_at(table, &["lints", "workspace"])) {
        add(
            "the crate does not take the lints of the workspace",
            "what is wrong in one crate is wrong in all",
            "write `workspace = true` under `[lints]`".to_owned(),
        );
    }
    if !is_false(inherited(root, package, "publish")) {
        add(
            "the crate could be published by mistake",
            "a name and version once given away cannot be taken back",
            "write `publish.workspace = true`".to_owned(),
        );
    }
    let wanted = licence_of(path).replace("GPL-2.0", "GPL-2.0-only");
    if inherited(root, package, "license").and_then(DeValue::as_str) != Some(wanted.as_str()) {
        add(
            "the crate has not the licence of its folder",
            "what tools collect must be what the files say",
            format!("write `license = \"{wanted}\"`, or `license.workspace = true` if that is it"),
        );
    }
    let members = value_at(root, &["workspace", "members"]).and_then(DeValue::as_array);
    let is_member = |member: &Spanned<DeValue<'_>>| member.get_ref().as_str() == Some(folder);
    if path != ROOT && !members.is_some_and(|members| members.iter().any(is_member)) {
        add(
            "the crate is not a member of the workspace",
            "it is neither built nor tested with the rest",
            format!("add \"{folder}\" to `members` in the Cargo.toml of the root"),
        );
    }
    let name = package.iter().find(|(key, _)| key.get_ref() == "name");
    if let Some((key, value)) = name {
        let empty = value.get_ref().as_str().and_then(empty_name);
        let line = line_of(text, key.span().start);
        problems.extend(empty.map(|empty| empty_name_problem(path, line, empty)));
    }
    problems
}

fn dependency_problems(
    folders: &BTreeMap<String, String>,
    path: &str,
    text: &str,
    table: &DeTable<'_>,
) -> Vec<Problem> {
    let mut problems = Vec::new();
    for dependency in dependencies(text, table, &ALL) {
        let given = dependency.value.as_table();
        let from_workspace = given.is_some_and(|given| is_true(value_at(given, &["workspace"])));
        if !from_workspace {
            problems.push(Problem::new(
                path,
                dependency.line,
                format!("`{}` is not taken from the workspace", dependency.name),
                "versions in several places drift apart",
                format!(
                    "name its version in `[workspace.dependencies]` and write `{}.workspace = true` here",
                    dependency.name
                ),
            ));
        }
    }
    let mut forbid = |dependency: Dependency<'_>, why, remedy: &str| {
        let what = format!("the crate must not depend on `{}`", dependency.name);
        problems.push(Problem::new(path, dependency.line, what, why, remedy));
    };
    let folder = directory(path);
    if folder == "dvk/abi" || folder == "dvk/core" {
        for dependency in dependencies(text, table, &LINKED) {
            if folder == "dvk/abi" || dependency.name != "dvk-abi" {
                forbid(
                    dependency,
                    "this folder is compiled in the kernel too, which has no crates",
                    "write what is needed here, or move the code out of the folder",
                );
            }
        }
    }
    if is_in(folder, "vos") {
        for dependency in dependencies(text, table, &ALL) {
            if folders.get(dependency.name).is_some_and(|folder| is_in(folder, "services")) {
                forbid(
                    dependency,
                    "services know a virtual OS only through its manifest, and it knows nothing of them",
                    "use the `dvk` library",
                );
            }
        }
    }
    problems
}

/// The dependencies in the tables of these names, of all targets.
fn dependencies<'a>(text: &str, table: &'a DeTable<'a>, names: &[&str]) -> Vec<Dependency<'a>> {
    let mut tables: Vec<_> = names.iter().filter_map(|name| table_at(table, &[name])).collect();
    for (_, target) in table_at(table, &["target"]).into_iter().flatten() {
        let target = target.get_ref().as_table();
        tables.extend(
            target
                .into_iter()
                .flat_map(|target| names.iter().filter_map(move |name| table_at(target, &[name]))),
        );
    }
    let dependency = |(key, value): (&'a Spanned<_>, &'a Spanned<DeValue<'a>>)| {
        let name: &'a std::borrow::Cow<'a, str> = key.get_ref();
        Dependency { name, line: line_of(text, key.span().start), value: value.get_ref() }
    };
    tables.into_iter().flatten().map(dependency).collect()
}

/// A key of the package, taken from the workspace if it says so.
fn inherited<'a>(
    root: &'a DeTable<'a>,
    package: &'a DeTable<'a>,
    key: &str,
) -> Option<&'a DeValue<'a>> {
    let value = value_at(package, &[key])?;
    let asks = value.as_table().is_some_and(|table| is_true(value_at(table, &["workspace"])));
    if asks {
        value_at(root, &["workspace", "package", key])
    } else {
        Some(value)
    }
}

fn value_at<'a>(table: &'a DeTable<'a>, path: &[&str]) -> Option<&'a DeValue<'a>> {
    let (last, tables) = path.split_last()?;
    let table = table_at(table, tables)?;
    table.iter().find(|(key, _)| key.get_ref() == last).map(|(_, value)| value.get_ref())
}

fn table_at<'a>(table: &'a DeTable<'a>, path: &[&str]) -> Option<&'a DeTable<'a>> {
    match path {
        [] => Some(table),
        _ => value_at(table, path)?.as_table(),
    }
}

fn is_true(value: Option<&DeValue<'_>>) -> bool {
    value.and_then(DeValue::as_bool) == Some(true)
}

fn is_false(value: Option<&DeValue<'_>>) -> bool {
    value.and_then(DeValue::as_bool) == Some(false)
}

#[cfg(test)]
mod tests {
    use super::super::tests::{heads, tree};
    use super::*;

    const WORKSPACE: &str = "\
[workspace]
members = [\"a\", \"dvk/abi\", \"dvk/core\", \"vos/x\"]
[workspace.package]
license = \"MIT OR Apache-2.0\"
publish = false
[workspace.dependencies]
dvk-abi = { path = \"dvk/abi\" }
dvs-api = { path = \"services/api\" }
serde = \"1.0\"
";
    const PACKAGE: &str = "\
[package]
name = \"a\"
license.workspace = true
publish.workspace = true
[lints]
workspace = true
";

    fn found(path: &str, text: &str) -> Vec<String> {
        let readme = join(directory(path), "README.md");
        let files = tree(&[(ROOT, WORKSPACE), (path, text), (readme.as_str(), "")]);
        heads(&check(&files))
    }

    #[test]
    fn a_crate_as_it_should_be() {
        let text = format!(
            "{PACKAGE}[dependencies]\nserde.workspace = true\n\
             [dev-dependencies]\ndvs-api = {{ workspace = true, features = [\"x\"] }}\n"
        );
        assert_eq!(found("a/Cargo.toml", &text), [""; 0]);
    }

    #[test]
    fn versions_are_in_the_workspace_only() {
        let text = format!(
            "{PACKAGE}[dependencies]\nserde = \"1.0\"\n[build-dependencies]\nx = {{ path = \"../x\" }}\n\
             [target.'cfg(unix)'.dev-dependencies]\ny.version = \"1\"\n"
        );
        let expected = [(10, "x"), (8, "serde"), (12, "y")].map(|(line, name)| {
            format!("a/Cargo.toml:{line}: `{name}` is not taken from the workspace")
        });
        assert_eq!(found("a/Cargo.toml", &text), expected);
    }

    #[test]
    fn a_crate_has_lints_licence_and_readme_and_is_a_member_that_stays_here() {
        let files =
            tree(&[(ROOT, WORKSPACE), ("b/Cargo.toml", "[package]\nname = \"my-utils\"\n")]);
        let expected = [
            "1: the crate has no README.md",
            "1: the crate does not take the lints of the workspace",
            "1: the crate could be published by mistake",
            "1: the crate has not the licence of its folder",
            "1: the crate is not a member of the workspace",
            "2: the name has `utils` in it",
        ];
        assert_eq!(heads(&check(&files)), expected.map(|rest| format!("b/Cargo.toml:{rest}")));
    }

    #[test]
    fn what_is_inherited_counts() {
        let workspace = WORKSPACE.replace("false", "true");
        let files =
            tree(&[(ROOT, workspace.as_str()), ("a/Cargo.toml", PACKAGE), ("a/README.md", "")]);
        assert_eq!(
            heads(&check(&files)),
            ["a/Cargo.toml:1: the crate could be published by mistake"]
        );
    }

    #[test]
    fn the_shared_crates_depend_on_each_other_only() {
        let package =
            PACKAGE.replace("license.workspace = true", "license = \"GPL-2.0-only OR MIT\"");
        let with = |name: &str| format!("{package}[dependencies]\n{name}.workspace = true\n");
        let problem = |at: &str, name: &str| {
            vec![format!("{at}/Cargo.toml:8: the crate must not depend on `{name}`")]
        };
        assert_eq!(found("dvk/core/Cargo.toml", &with("dvk-abi")), [""; 0]);
        assert_eq!(found("dvk/core/Cargo.toml", &with("serde")), problem("dvk/core", "serde"));
        assert_eq!(found("dvk/abi/Cargo.toml", &with("dvk-abi")), problem("dvk/abi", "dvk-abi"));
        let tested = format!("{package}[dev-dependencies]\nserde.workspace = true\n");
        assert_eq!(found("dvk/abi/Cargo.toml", &tested), [""; 0]);
        assert_eq!(
            found("dvk/abi/Cargo.toml", PACKAGE),
            ["dvk/abi/Cargo.toml:1: the crate has not the licence of its folder"]
        );
    }

    #[test]
    fn a_virtual_os_knows_nothing_of_services() {
        let with = |name: &str| format!("{PACKAGE}[dev-dependencies]\n{name}.workspace = true\n");
        assert_eq!(found("vos/x/Cargo.toml", &with("serde")), [""; 0]);
        assert_eq!(
            found("vos/x/Cargo.toml", &with("dvs-api")),
            ["vos/x/Cargo.toml:8: the crate must not depend on `dvs-api`"]
        );
    }

    #[test]
    fn a_manifest_that_is_none() {
        let problems = found("a/Cargo.toml", "[package]\nname =\n");
        assert!(problems[0].starts_with("a/Cargo.toml:2: this is not TOML: "), "{problems:?}");
    }
}

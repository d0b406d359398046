// SPDX-License-Identifier: MIT OR Apache-2.0
//! Relative links of Markdown lead to files and headings that exist, and every folder says what it is for.

use std::collections::BTreeSet;

use super::{directory, extension, join, line_of, Problem, Tree};

/// Folders below the top that are no crates but have a role of their own.
const FOLDERS: [&str; 1] = ["dvk/kmod"];

pub(super) fn check(tree: &Tree) -> Vec<Problem> {
    let mut problems = folders(tree);
    for (path, text) in tree.iter().filter(|(path, _)| extension(path) == "md") {
        for (line, target) in links(text) {
            if let Err(what) = resolve(tree, path, &target) {
                problems.push(Problem::new(
                    path,
                    line,
                    what,
                    "whoever follows it ends up nowhere",
                    "correct it, or name the thing without a link",
                ));
            }
        }
    }
    problems
}

fn folders(tree: &Tree) -> Vec<Problem> {
    let mut folders: BTreeSet<_> =
        tree.iter().filter_map(|(path, _)| Some(path.split_once('/')?.0)).collect();
    folders.extend(FOLDERS.into_iter().filter(|folder| tree.exists(folder)));
    let has_role = |folder: &&str| !folder.starts_with('.') && *folder != "LICENSES";
    let without = |folder: &&str| tree.text(&join(folder, "README.md")).is_none();
    let problem = |folder: &str| {
        Problem::new(
            &join(folder, "README.md"),
            1,
            "the folder has no README.md",
            "whoever looks at it must learn its role",
            "write a paragraph on what belongs in it and what does not",
        )
    };
    folders.into_iter().filter(has_role).filter(without).map(problem).collect()
}

/// Targets of the links and images of a Markdown text with their lines. Code is left out, and so is what is no path: addresses,
/// and items that rustdoc resolves.
fn links(text: &str) -> Vec<(usize, String)> {
    let prose = without_code(text);
    let mut links = Vec::new();
    for (at, _) in prose.match_indices("](") {
        let rest = &prose[at + 2..];
        let target = match rest.strip_prefix('<') {
            Some(rest) => rest.split('>').next(),
            None => rest.split([')', ' ', '\n']).next(),
        };
        links.push((line_of(&prose, at), target.unwrap_or_default().to_owned()));
    }
    for (index, line) in prose.lines().enumerate() {
        let definition = line.trim_start().strip_prefix('[').and_then(|line| line.split_once("]:"));
        if let Some((label, target)) = definition.filter(|(label, _)| !label.contains(']')) {
            let target = target.split_whitespace().next().unwrap_or_default();
            let is_footnote = label.starts_with('^');
            if !is_footnote {
                links.push((index + 1, target.trim_matches(['<', '>']).to_owned()));
            }
        }
    }
    links.retain(|(_, target)| {
        !(target.contains("://") || target.contains("::") || target.starts_with("mailto:"))
    });
    links.sort();
    links
}

/// The text with fenced blocks and code spans blanked; lines stay where they are.
fn without_code(text: &str) -> String {
    let mut prose = String::with_capacity(text.len());
    let mut fence: Option<&str> = None;
    for line in text.split_inclusive('\n') {
        let start = line.trim_start();
        let marker = ["```", "~~~"].into_iter().find(|marker| start.starts_with(marker));
        match (fence, marker) {
            (Some(open), Some(marker)) if open == marker => fence = None,
            (None, Some(marker)) => fence = Some(marker),
            (None, None) => {
                prose.push_str(&without_spans(line));
                continue;
            }
            _ => {}
        }
        prose.push('\n');
    }
    prose
}

/// A line without the text between runs of backticks of the same length.
fn without_spans(line: &str) -> String {
    let mut prose = String::new();
    let mut rest = line;
    while let Some(start) = rest.find('`') {
        prose.push_str(&rest[..start]);
        let ticks = rest[start..].bytes().take_while(|&byte| byte == b'`').count();
        let (marker, body) = rest[start..].split_at(ticks);
        match body.find(marker) {
            Some(end) => rest = &body[end + ticks..],
            None => {
                prose.push_str(marker);
                rest = body;
            }
        }
    }
    prose + rest
}

/// Whether the link `target` in the file `from` leads somewhere; if not, what is wrong.
fn resolve(tree: &Tree, from: &str, target: &str) -> Result<(), String> {
    let (file, anchor) = target.split_once('#').unwrap_or((target, ""));
    let path = if file.is_empty() { Some(from.to_owned()) } else { walk(directory(from), file) };
    let path = path.ok_or_else(|| format!("the link to `{target}` leads out of the tree"))?;
    if !tree.exists(&path) {
        return Err(format!("the link to `{target}` leads to nothing: there is no `{path}`"));
    }
    let text = tree.text(&path).filter(|_| extension(&path) == "md" && !anchor.is_empty());
    if text.is_some_and(|text| !anchors(text).contains(anchor)) {
        return Err(format!("the link to `{target}` leads to no heading of `{path}`"));
    }
    Ok(())
}

/// Where the relative path `target` leads from `folder`; `None` if that is out of the tree.
fn walk(folder: &str, target: &str) -> Option<String> {
    if target.starts_with('/') {
        return None;
    }
    let mut path: Vec<_> = folder.split('/').filter(|part| !part.is_empty()).collect();
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(path.pop()?),
            _ => path.push(part),
        }
    }
    Some(path.join("/"))
}

/// The anchors of the headings, as forges and mdBook make them.
fn anchors(text: &str) -> BTreeSet<String> {
    // Code spans are part of a heading's text, so only whole blocks are left out.
    let prose = without_code(text);
    let headings = text.lines().zip(prose.lines()).filter(|(_, prose)| prose.starts_with('#'));
    headings.map(|(heading, _)| anchor(heading.trim_start_matches('#'))).collect()
}

fn anchor(heading: &str) -> String {
    let lower = heading.trim().to_lowercase();
    let kept = lower.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.map(|c| if c == ' ' { '-' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::super::tests::{heads, tree};
    use super::*;

    #[test]
    fn links_are_found_where_they_are_links() {
        let text = "\
[a](a.md) ![b](b.svg \"title\") `[c](c.md)` [d](https://d/) [e](<e f.md>)
```text
[g](g.md)
```
[`h`](crate::h) ``[i](i.md) ` `` [j]
[k](mailto:k) a ` b [l](l.md)

[j]: j.md
[^m]: [n](n.md)
";
        let found = links(text);
        let expected =
            [(1, "a.md"), (1, "b.svg"), (1, "e f.md"), (6, "l.md"), (8, "j.md"), (9, "n.md")];
        assert_eq!(found, expected.map(|(line, target)| (line, target.to_owned())));
    }

    #[test]
    fn links_lead_somewhere() {
        let text = "\
[a](guide.md) [b](../dvk/core) [c](../LICENSE) [d](guide.md#a-heading-with-code)
[e](#here) [f](./guide.md#gone) [g](../../out) [h](/docs) [i](gone.md) [j](#there)

# Here
";
        let guide = "```sh\n# gone\n```\n## A heading, with `code`!\n";
        let files = tree(&[
            ("docs/README.md", text),
            ("docs/guide.md", guide),
            ("dvk/core/x.rs", ""),
            ("dvk/README.md", ""),
            ("LICENSE", ""),
        ]);
        let expected = [
            "the link to `#there` leads to no heading of `docs/README.md`",
            "the link to `../../out` leads out of the tree",
            "the link to `./guide.md#gone` leads to no heading of `docs/guide.md`",
            "the link to `/docs` leads out of the tree",
            "the link to `gone.md` leads to nothing: there is no `docs/gone.md`",
        ];
        assert_eq!(heads(&check(&files)), expected.map(|what| format!("docs/README.md:2: {what}")));
    }

    #[test]
    fn folders_say_what_they_are_for() {
        let files = tree(&[
            ("README.md", ""),
            (".ci/run", ""),
            ("LICENSES/MIT.txt", ""),
            ("dvk/README.md", ""),
            ("dvk/kmod/file.rs", ""),
            ("dvk/kmod/sub/file.rs", ""),
            ("kernel/a", ""),
        ]);
        let what = "the folder has no README.md";
        let expected =
            ["dvk/kmod/README.md:1", "kernel/README.md:1"].map(|at| format!("{at}: {what}"));
        assert_eq!(heads(&check(&files)), expected);
    }
}

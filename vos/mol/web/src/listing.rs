// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a directory without an `index.html` shows.

use crate::source::{Entry, Kind};
use crate::target::{encode, Target};
use core::fmt::Write;

/// A page with the names of a directory: directories first, each in the order of its bytes.
pub fn page(target: &Target, entries: &[Entry]) -> String {
    let mut entries: Vec<_> = entries.iter().collect();
    entries.sort_by(|one, other| {
        let key = |entry: &Entry| entry.kind != Kind::Directory;
        key(one).cmp(&key(other)).then_with(|| one.name.cmp(&other.name))
    });
    let title = escape(&format!("/{}", String::from_utf8_lossy(&target.path())));
    let mut page = format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head><meta charset=\"utf-8\"><title>{title}</title></head>\n\
         <body>\n<h1>{title}</h1>\n<table>\n"
    );
    if !target.is_root() {
        page.push_str("<tr><td><a href=\"../\">../</a></td><td></td></tr>\n");
    }
    for Entry { name, kind, bytes } in entries {
        let (slash, size) = match kind {
            Kind::Directory => ("/", String::new()),
            Kind::File => ("", bytes.to_string()),
            Kind::Other => continue,
        };
        let (address, text) = (encode(name), escape(&String::from_utf8_lossy(name)));
        // Writing to a string does not fail.
        let _ = writeln!(
            page,
            "<tr><td><a href=\"{address}{slash}\">{text}{slash}</a></td><td align=\"right\">{size}</td></tr>"
        );
    }
    page.push_str("</table>\n</body>\n</html>\n");
    page
}

/// Text that is nothing but text in HTML. What would not be seen, or turn the direction of writing, is replaced.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            '\u{200e}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => {
                escaped.push('\u{fffd}');
            }
            _ if character.is_control() => escaped.push('\u{fffd}'),
            _ => escaped.push(character),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn entry(name: &[u8], kind: Kind, bytes: u64) -> Entry {
        Entry { name: name.to_vec(), kind, bytes }
    }

    #[test]
    fn directories_come_first_and_names_are_in_order() {
        let target = Target::parse("/d/").unwrap();
        let page = page(
            &target,
            &[
                entry(b"b", Kind::File, 12),
                entry(b"a", Kind::File, 7),
                entry(b"z", Kind::Directory, 64),
                entry(b"pipe", Kind::Other, 0),
            ],
        );
        let links: Vec<_> =
            page.split("href=\"").skip(1).map(|rest| rest.split('"').next().unwrap()).collect();
        assert_eq!(links, ["../", "z/", "a", "b"]);
        assert!(page.contains("<td align=\"right\">12</td>"), "{page}");
        assert!(
            !super::page(&Target::parse("/").unwrap(), &[]).contains("../"),
            "there is no more"
        );
    }

    #[test]
    fn a_name_is_text_and_an_address_and_nothing_else() {
        let target = Target::parse("/%3Cb%3E/").unwrap();
        let name = b"javascript:<script>alert('\"&\")</script>\n\xff".as_slice();
        let page = page(&target, &[entry(name, Kind::File, 0)]);
        assert!(page.contains("<title>/&lt;b&gt;</title>"), "{page}");
        assert!(
            page.contains(
                "href=\"javascript%3A%3Cscript%3Ealert%28%27%22%26%22%29%3C%2Fscript%3E%0A%FF\""
            ),
            "{page}"
        );
        assert!(page.contains(">javascript:&lt;script&gt;alert(&#39;&quot;&amp;&quot;)&lt;/script&gt;\u{fffd}\u{fffd}</a>"), "{page}");
    }

    proptest! {
        #[test]
        fn no_name_makes_a_tag(name in prop::collection::vec(1..=255_u8, 1..30)) {
            let root = Target::parse("/").unwrap();
            let tags = |name: &[u8]| {
                let page = page(&root, &[entry(name, Kind::File, 0)]);
                (page.matches('<').count(), page.matches('>').count(), page.matches('"').count())
            };
            prop_assert_eq!(tags(&name), tags(b"a"));
        }
    }
}

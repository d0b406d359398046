// SPDX-License-Identifier: MIT OR Apache-2.0
//! Tells the code of a Rust or C file from its comments and literals, so that a word is found only where it counts.

/// A file taken apart. Both texts have the length and the line breaks of the original, so that offsets and lines are the same;
/// what does not belong in one is spaces there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Scan {
    /// The code, without comments, strings and characters.
    pub(super) code: String,
    /// The comments, doc comments included.
    pub(super) comments: String,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Class {
    Code,
    Comment,
    Literal,
}

impl Scan {
    /// Takes `text` apart. Any text is accepted; a literal or comment without end goes to the end of the text.
    pub(super) fn new(text: &str) -> Self {
        let mut scan = Self {
            code: String::with_capacity(text.len()),
            comments: String::with_capacity(text.len()),
        };
        let mut at = 0;
        while at < text.len() {
            let (class, len) = piece(text, at);
            scan.push(class, &text[at..at + len]);
            at += len;
        }
        scan
    }

    fn push(&mut self, class: Class, piece: &str) {
        for (target, own) in [(&mut self.code, Class::Code), (&mut self.comments, Class::Comment)] {
            if class == own {
                target.push_str(piece);
            } else {
                target.extend(piece.bytes().map(|byte| if byte == b'\n' { '\n' } else { ' ' }));
            }
        }
    }

    /// The words (identifiers, keywords, numbers) of the code, with their offsets.
    pub(super) fn words(&self) -> impl Iterator<Item = (usize, &str)> {
        let code = self.code.as_str();
        let mut at = 0;
        std::iter::from_fn(move || {
            let start = at + code[at..].find(is_word)?;
            let len = code[start..].find(|c| !is_word(c)).unwrap_or(code.len() - start);
            at = start + len;
            Some((start, &code[start..at]))
        })
    }

    /// The code from `offset` on, without leading white space.
    pub(super) fn code_after(&self, offset: usize) -> &str {
        self.code[offset..].trim_start()
    }
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// What begins at the byte `at`, and its length in bytes, which is never 0.
fn piece(text: &str, at: usize) -> (Class, usize) {
    let rest = &text[at..];
    if rest.starts_with("//") {
        return (Class::Comment, rest.find('\n').unwrap_or(rest.len()));
    }
    if rest.starts_with("/*") {
        return (Class::Comment, block_comment(rest));
    }
    if rest.starts_with('"') {
        return (Class::Literal, quoted(rest, '"'));
    }
    if rest.starts_with('\'') {
        return match character(rest) {
            Some(len) => (Class::Literal, len),
            None => (Class::Code, 1),
        };
    }
    if rest.starts_with(is_word) {
        let len = rest.find(|c| !is_word(c)).unwrap_or(rest.len());
        // A word is taken whole, so that `r` here is all of it and no end of a longer one.
        return match raw_string(&rest[..len], &rest[len..]) {
            Some(more) => (Class::Literal, len + more),
            None => (Class::Code, len),
        };
    }
    (Class::Code, rest.chars().next().map_or(1, char::len_utf8))
}

/// Length of the block comment that `rest` begins with. Rust's nest; C's that would not are not found in practice.
fn block_comment(rest: &str) -> usize {
    let bytes = rest.as_bytes();
    let (mut depth, mut at) = (0, 0);
    while at < bytes.len() {
        match &bytes[at..(at + 2).min(bytes.len())] {
            b"/*" => (depth, at) = (depth + 1, at + 2),
            b"*/" => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            return at;
        }
    }
    rest.len()
}

/// Length of the literal between two `quote`s that `rest` begins with.
fn quoted(rest: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, c) in rest.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            _ if c == quote => return at + c.len_utf8(),
            _ => {}
        }
    }
    rest.len()
}

/// Length of the character literal that `rest`, which begins with `'`, begins with; `None` if that is a lifetime.
fn character(rest: &str) -> Option<usize> {
    let mut chars = rest.char_indices().skip(1);
    let (_, first) = chars.next()?;
    if first == '\\' {
        return Some(quoted(rest, '\''));
    }
    chars.next().filter(|&(_, c)| c == '\'').map(|(at, _)| at + 1)
}

/// Length of what follows `prefix` if both are a raw string.
fn raw_string(prefix: &str, rest: &str) -> Option<usize> {
    if !matches!(prefix, "r" | "br" | "cr") {
        return None;
    }
    let hashes = rest.bytes().take_while(|&byte| byte == b'#').count();
    let body = rest[hashes..].strip_prefix('"')?;
    let end = format!("\"{}", &rest[..hashes]);
    Some(body.find(&end).map_or(rest.len(), |at| hashes + 1 + at + end.len()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn code(text: &str) -> String {
        Scan::new(text).code.split_whitespace().collect::<Vec<_>>().join(" ")
    }

    fn comments(text: &str) -> String {
        Scan::new(text).comments.split_whitespace().collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn comments_are_no_code() {
        assert_eq!(code("a // unsafe\nb /* x /* y */ unsafe */ c"), "a b c");
        assert_eq!(comments("a // unsafe\nb /* x */ c /// doc"), "// unsafe /* x */ /// doc");
    }

    #[test]
    fn literals_are_neither() {
        for text in [
            r#"a "unsafe // \" /*" b"#,
            r##"a r"unsafe \" b"##,
            r###"a r#"x " unsafe"# b"###,
            r###"a br##"x "# unsafe"## b"###,
            "a '\"' b",
            r"a '\'' b",
            r"a '\u{41}' b",
            "a 'ß' b",
        ] {
            let found = code(text);
            assert!(found.starts_with('a') && found.ends_with('b'), "{text}: {found}");
            assert!(!found.contains("unsafe") && !found.contains('\''), "{text}: {found}");
            assert_eq!(comments(text), "", "{text}");
        }
    }

    #[test]
    fn lifetimes_and_raw_identifiers_are_code() {
        assert_eq!(
            code("fn f<'a>(x: &'a str, y: &'static r#type)"),
            "fn f<'a>(x: &'a str, y: &'static r#type)"
        );
        assert_eq!(code("for r in x"), "for r in x");
        assert_eq!(code("xr\"text\""), "xr");
    }

    #[test]
    fn words_are_whole() {
        let scan = Scan::new("#![forbid(unsafe_code)] unsafe{} /* unsafe */ r#unsafe2");
        let words: Vec<_> = scan.words().map(|(_, word)| word).collect();
        assert_eq!(words, ["forbid", "unsafe_code", "unsafe", "r", "unsafe2"]);
        let (at, _) = scan.words().nth(2).unwrap();
        assert_eq!(scan.code_after(at + "unsafe".len()).chars().next(), Some('{'));
    }

    proptest! {
        #[test]
        fn lengths_and_line_breaks_stay(text in r##"([a-r'"#/*\\ \n]|ß){0,60}"##) {
            let scan = Scan::new(&text);
            for part in [&scan.code, &scan.comments] {
                prop_assert_eq!(part.len(), text.len());
                let breaks = |s: &str| s.match_indices('\n').map(|(at, _)| at).collect::<Vec<_>>();
                prop_assert_eq!(breaks(part), breaks(&text));
            }
            for (at, byte) in text.bytes().enumerate() {
                for part in [&scan.code, &scan.comments] {
                    let kept = part.as_bytes()[at];
                    prop_assert!(kept == byte || kept == b' ');
                }
            }
        }
    }
}

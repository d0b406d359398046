// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a file is, by the end of its name.

/// The media type of a file of this name. Text is taken for UTF-8, as nothing else says what it is.
pub fn media_type(name: &[u8]) -> String {
    let name = core::str::from_utf8(name).unwrap_or_default();
    // A name that begins with its only point, such as `.html`, has no extension.
    let extension = name.rsplit_once('.').filter(|(stem, _)| !stem.is_empty());
    let known = extension.and_then(|(_, end)| mime_guess::from_ext(end).first_raw());
    match known {
        None => "application/octet-stream".to_owned(),
        Some(known) if is_text(known) => format!("{known}; charset=utf-8"),
        Some(known) => known.to_owned(),
    }
}

fn is_text(known: &str) -> bool {
    known.starts_with("text/") || matches!(known, "application/javascript" | "image/svg+xml")
}

#[cfg(test)]
mod tests {
    use super::media_type;

    #[test]
    fn the_end_of_a_name_says_what_it_is() {
        for (name, expected) in [
            ("index.html", "text/html; charset=utf-8"),
            ("A.HTM", "text/html; charset=utf-8"),
            ("a.css", "text/css; charset=utf-8"),
            ("a.js", "text/javascript; charset=utf-8"),
            ("a.txt", "text/plain; charset=utf-8"),
            ("a.svg", "image/svg+xml; charset=utf-8"),
            ("a.png", "image/png"),
            ("a.min.json", "application/json"),
            ("a.wasm", "application/wasm"),
            ("a.tar.gz", "application/gzip"),
            ("README", "application/octet-stream"),
            (".html", "application/octet-stream"),
            ("a.", "application/octet-stream"),
            ("a.nobody-knows", "application/octet-stream"),
        ] {
            assert_eq!(media_type(name.as_bytes()), expected, "{name}");
        }
        assert_eq!(media_type(b"\xff.html"), "application/octet-stream");
    }
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which release this node runs: the version, `+`, and what tells one build from another, as its image says in `os-release(5)`. A program
//! that runs elsewhere, as in tests, is of the version that it was compiled as.

use std::sync::OnceLock;

const PATH: &str = "/etc/os-release";

/// That of this machine.
pub fn own() -> &'static str {
    static OWN: OnceLock<String> = OnceLock::new();
    OWN.get_or_init(|| {
        let file = std::fs::read_to_string(PATH).unwrap_or_default();
        of(&file).unwrap_or_else(|| env!("CARGO_PKG_VERSION").to_owned())
    })
}

/// What an image says of itself that is not the one that runs: the section `.osrel` of its program.
pub(crate) fn of_image(osrel: &str) -> Option<String> {
    let title = osrel.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="))?;
    Some(title.trim_matches('"').strip_prefix("dvs ")?.to_owned())
}

fn of(file: &str) -> Option<String> {
    let value = |name: &str| {
        let line = file.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='))?;
        Some(line.trim_matches('"'))
    };
    (value("ID") == Some("dvs")).then_some(())?;
    Some(format!("{}+{}", value("VERSION_ID")?, value("BUILD_ID")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_says_what_it_is() {
        let file = "NAME=dvs\nID=dvs\nVERSION_ID=\"0.2.0\"\nBUILD_ID=0123456789ab\n";
        assert_eq!(of(file).as_deref(), Some("0.2.0+0123456789ab"));
        assert_eq!(of("ID=debian\nVERSION_ID=\"12\"\nBUILD_ID=1\n"), None);
        assert_eq!(of("ID=dvs\nVERSION_ID=0.2.0\n"), None);
        assert_eq!(of(""), None);
        let osrel = "ID=dvs\nNAME=dvs\nPRETTY_NAME=\"dvs 0.2.0+0123456789ab\"\n";
        assert_eq!(of_image(osrel).as_deref(), Some("0.2.0+0123456789ab"));
        assert_eq!(of_image("PRETTY_NAME=\"Debian\"\n"), None);
    }
}

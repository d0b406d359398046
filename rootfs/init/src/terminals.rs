// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which terminals people can sit in front of.

use std::fs;

/// Where the kernel lists the consoles that it speaks on; the last one is `/dev/console`.
const ACTIVE: &str = "/sys/class/tty/console/active";

/// What there is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Terminals {
    /// The kernel speaks on a screen (`console=tty0`), so the first virtual terminal is one.
    pub(crate) screen: bool,
    /// The console that PID 1 speaks on is a line, and not that screen.
    pub(crate) line: bool,
}

impl Terminals {
    /// Those of this machine.
    pub(crate) fn found() -> Self {
        Self::of(&fs::read_to_string(ACTIVE).unwrap_or_default())
    }

    fn of(active: &str) -> Self {
        // `ttyS0` is a line, `tty0` and `tty1` are the screen.
        let is_screen = |name: &str| {
            let number = name.strip_prefix("tty");
            number.is_some_and(|it| !it.is_empty() && it.bytes().all(|byte| byte.is_ascii_digit()))
        };
        let names: Vec<_> = active.split_ascii_whitespace().collect();
        Self {
            screen: names.iter().any(|name| is_screen(name)),
            line: names.last().is_some_and(|name| !is_screen(name)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Terminals;

    #[test]
    fn screens_are_told_from_lines() {
        let of = |active| {
            let Terminals { screen, line } = Terminals::of(active);
            (screen, line)
        };
        assert_eq!(of("tty0 ttyS0\n"), (true, true));
        assert_eq!(of("ttyS0\n"), (false, true));
        assert_eq!(of("ttyS0 tty0\n"), (true, false));
        assert_eq!(of("tty1\n"), (true, false));
        assert_eq!(of("hvc0\n"), (false, true));
        assert_eq!(of(""), (false, false));
    }
}

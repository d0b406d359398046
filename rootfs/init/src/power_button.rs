// SPDX-License-Identifier: MIT OR Apache-2.0
//! The power button, as an input device: QEMU's `system_powerdown` presses it.

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;

use rustix::fs::OFlags;

/// `struct input_event` on 64-bit machines: two 64-bit times, type, code, value.
const EVENT_SIZE: usize = 24;
const EV_KEY: u16 = 1;
const KEY_POWER: u16 = 116;

/// Opens every power button of the machine; on a kernel without input devices there is none.
pub(crate) fn open_all() -> Vec<File> {
    let Ok(entries) = fs::read_dir("/sys/class/input") else { return Vec::new() };
    entries
        .flatten()
        .filter(|entry| {
            fs::read_to_string(entry.path().join("device/name"))
                .is_ok_and(|name| name.trim() == "Power Button")
        })
        .filter_map(|entry| {
            let path = std::path::Path::new("/dev/input").join(entry.file_name());
            let flags = OFlags::NONBLOCK.bits().cast_signed();
            File::options().read(true).custom_flags(flags).open(path).ok()
        })
        .collect()
}

/// Takes what a button has to say: whether it was pressed.
pub(crate) fn was_pressed(button: &mut File) -> bool {
    let mut events = [0; 16 * EVENT_SIZE];
    button.read(&mut events).is_ok_and(|length| is_press(&events[..length]))
}

fn is_press(events: &[u8]) -> bool {
    events.chunks_exact(EVENT_SIZE).any(|event| {
        let kind = u16::from_ne_bytes([event[16], event[17]]);
        let code = u16::from_ne_bytes([event[18], event[19]]);
        let value = i32::from_ne_bytes([event[20], event[21], event[22], event[23]]);
        (kind, code, value) == (EV_KEY, KEY_POWER, 1)
    })
}

#[cfg(test)]
mod tests {
    use super::{is_press, EVENT_SIZE};

    fn event(kind: u16, code: u16, value: i32) -> [u8; EVENT_SIZE] {
        let mut event = [7; EVENT_SIZE];
        event[16..18].copy_from_slice(&kind.to_ne_bytes());
        event[18..20].copy_from_slice(&code.to_ne_bytes());
        event[20..].copy_from_slice(&value.to_ne_bytes());
        event
    }

    #[test]
    fn only_the_pressed_power_key_counts() {
        assert!(is_press(&[event(0, 0, 0), event(1, 116, 1)].concat()));
        assert!(!is_press(&[event(1, 116, 0), event(1, 28, 1), event(0, 116, 1)].concat()));
        assert!(!is_press(&event(1, 116, 1)[..EVENT_SIZE - 1]));
    }
}

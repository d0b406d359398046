// SPDX-License-Identifier: MIT OR Apache-2.0
//! JSON values as YAML 1.2, which has JSON within it: what is not plain is written as in JSON.

use serde_json::Value;

/// A value as a document.
pub(crate) fn text(value: &Value) -> String {
    let mut text = String::new();
    match value {
        Value::Object(fields) if !fields.is_empty() => block(value, 0, &mut text),
        Value::Array(items) if !items.is_empty() => block(value, 0, &mut text),
        flat => text += &(scalar(flat) + "\n"),
    }
    text
}

fn is_block(value: &Value) -> bool {
    match value {
        Value::Object(fields) => !fields.is_empty(),
        Value::Array(items) => !items.is_empty(),
        _ => false,
    }
}

/// Lines of a list or an object that is not empty. The first line goes where the text ends.
fn block(value: &Value, indent: usize, text: &mut String) {
    let mut first = true;
    let mut begin = |text: &mut String| {
        if !first || text.is_empty() || text.ends_with('\n') {
            *text += &" ".repeat(indent);
        }
        first = false;
    };
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                begin(text);
                *text += &string(name);
                *text += ":";
                match (is_block(value), value) {
                    (false, flat) => *text += &format!(" {}\n", scalar(flat)),
                    (true, Value::Array(_)) => {
                        text.push('\n');
                        block(value, indent, text);
                    }
                    (true, _) => {
                        text.push('\n');
                        block(value, indent + 2, text);
                    }
                }
            }
        }
        Value::Array(items) => {
            for item in items {
                begin(text);
                *text += "- ";
                match is_block(item) {
                    false => *text += &format!("{}\n", scalar(item)),
                    true => block(item, indent + 2, text),
                }
            }
        }
        flat => *text += &format!("{}\n", scalar(flat)),
    }
}

fn scalar(value: &Value) -> String {
    match value {
        Value::String(text) => string(text),
        Value::Array(_) => "[]".into(),
        Value::Object(_) => "{}".into(),
        other => other.to_string(),
    }
}

/// Without quotes where no reader, of whatever version of YAML, takes it for something else than this text.
fn string(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./".contains(c);
    let begins = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '/');
    let word = ["true", "false", "yes", "no", "on", "off", "null", "y", "n"]
        .iter()
        .any(|word| text.eq_ignore_ascii_case(word));
    match begins && text.chars().all(plain) && !word {
        true => text.to_owned(),
        false => Value::from(text).to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn values_are_written_in_blocks() {
        let value = json!([{"id": 0, "name": "node0", "addresses": ["fe80::1%eth0", "10.0.0.1"], "link": null},
            {"id": 1, "empty": [], "none": {}, "deep": {"a": {"b": true}}, "lists": [[1, 2], []]}]);
        assert_eq!(
            text(&value),
            "- addresses:\n  - \"fe80::1%eth0\"\n  - \"10.0.0.1\"\n  id: 0\n  link: null\n  name: node0\n\
             - deep:\n    a:\n      b: true\n  empty: []\n  id: 1\n  lists:\n  - - 1\n    - 2\n  - []\n  none: {}\n"
        );
        assert_eq!(text(&json!([])), "[]\n");
        assert_eq!(text(&json!("no")), "\"no\"\n");
    }

    #[test]
    fn what_could_be_taken_for_something_else_is_quoted() {
        for plain in ["node0", "sec-eth0", "/run/dvs", "v1.2"] {
            assert_eq!(string(plain), plain);
        }
        for other in [
            "", "no", "Null", "1", "0x1", ".5", "a b", "a: b", "#x", "- x", "a\nb", "é", "~",
            "1e3", "*a",
        ] {
            let quoted = string(other);
            assert_eq!(serde_json::from_str::<String>(&quoted).unwrap(), other);
        }
    }
}

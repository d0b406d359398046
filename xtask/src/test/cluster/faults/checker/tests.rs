// SPDX-License-Identifier: MIT OR Apache-2.0
//! Histories that are right, and for each rule one that violates it.

use super::*;

/// Two nodes, the second one with two lives: the first lost power. In their second phase all is healed.
const RIGHT: [(usize, u32, bool, &str); 3] = [
    (
        0,
        0,
        false,
        "serves 100 1\nbound 101\nbound 102\n\
         did 101 request 0 100 ok 0\ntook 101 request 0 100\n\
         did 102 request 0 200 ok 0\ntook 201 send 3 100\n\
         did 102 send 3 200 ETIMEDOUT 0\ndid 102 notify 5 200 ok 0\n\
         did 102 request 4 200 ok 0\ndid 102 request 6 200 EHOSTUNREACH 0\n\
         late 201 9 EAGAIN\ndid 102 store 7 200 ESTALE 0\n\
         bits 301 2\ntook 301 request 8 100\nhealed\n\
         did 101 request 8 100 ok 1\ntook 101 request 8 100\ndid 101 store 15 100 ok 1\ndid 101 fetch 15 100 ok 1\n\
         did 102 send 11 300 ok 1\ndid 102 notify 13 300 ok 1\ndid 102 request 16 300 ok 1\nstopped\nend\n",
    ),
    (
        1,
        0,
        true,
        "serves 200 1\nbound 201\ntook 102 request 0 200\ndid 201 send 3 100 ok 0\nbits 102 1\n\
         took 102 request 1 200\n",
    ),
    (
        1,
        1,
        false,
        "serves 300 1\nbound 301\ndid 301 notify 13 100 ok 0\ndid 301 request 8 100 ok 0\ntook 102 send 11 300\n\
         bits 102 2\ntook 102 request 16 300\nhealed\ndid 301 store 23 100 ok 1\ndid 301 fetch 23 100 ok 1\n\
         did 301 store 31 100 ok 1\nstopped\nend\n",
    ),
];

/// What is found when a text within one of the histories is another.
fn changed(life: usize, from: &str, to: &str) -> Vec<String> {
    let mut texts = RIGHT.map(|(.., text)| text.to_owned());
    assert!(texts[life].contains(from), "{from:?} is not in\n{}", texts[life]);
    texts[life] = texts[life].replacen(from, to, 1);
    let histories = RIGHT.iter().zip(&texts).map(|(&(node, life, cut, _), text)| {
        History::read(node, life, cut, text).expect("a history")
    });
    check(&histories.collect::<Vec<_>>())
}

/// The one rule that is violated then.
fn violated(life: usize, from: &str, to: &str) -> String {
    let found = changed(life, from, to);
    let rules = rules(&found);
    assert_eq!(rules.len(), 1, "{from:?} as {to:?}: {found:?}");
    rules.first().expect("a rule").to_string()
}

#[test]
fn right_histories_pass() {
    assert_eq!(changed(0, "", ""), [""; 0]);
}

#[test]
fn what_was_lost_with_the_power_is_not_missed() {
    // The server's last line, and more than that.
    assert_eq!(changed(1, "took 102 request 1 200\n", ""), [""; 0]);
    assert_eq!(changed(1, "bits 102 1\ntook 102 request 1 200\n", ""), [""; 0]);
    // But what is in the middle is.
    assert_eq!(violated(1, "took 102 request 0 200\n", ""), "delivered");
    // Of the client, the line that says what it did.
    assert_eq!(changed(1, "did 201 send 3 100 ok 0\n", ""), [""; 0]);
}

#[test]
fn each_rule_can_be_violated() {
    for (life, from, to, rule) in [
        (0, "stopped\nend\n", "stopped\n", "whole"),
        (0, "late 201", "garbled 201\nlate 201", "whole"),
        (2, "bound 301\n", "bound 301\nbound 201\n", "names"),
        (0, "took 101 request 8 100\n", "took 101 request 8 100\ntook 101 request 8 100\n", "once"),
        (0, "took 101 request 0 100", "took 101 send 0 100", "once"),
        (0, "took 201 send 3 100", "took 201 send 3 300", "once"),
        (0, "took 101 request 8 100\n", "", "delivered"),
        (2, "took 102 send 11 300\n", "", "delivered"),
        (1, "took 102 request 1 200\n", "took 102 send 3 200\n", "withdrawn"),
        (
            0,
            "took 101 request 0 100\n",
            "did 101 request 1 100 ok 0\ntook 101 request 1 100\ntook 101 request 0 100\n",
            "order",
        ),
        (0, "late 201", "took 301 request 8 100\ntook 201 send 7 100\nlate 201", "incarnation"),
        (2, "bits 102 2", "bits 102 3", "bits"),
        (2, "bits 102 2", "bits 102 2\nbits 102 2", "bits"),
        (2, "bits 102 2\n", "", "bits"),
        (0, "did 101 fetch 15 100 ok 1", "did 101 fetch 15 100 corrupt 0", "bytes"),
        (0, "102 request 4 200 ok 0", "102 request 4 200 strange 0", "bytes"),
        (0, "request 6 200 EHOSTUNREACH", "request 6 200 EFAULT", "errors"),
        (0, "late 201 9 EAGAIN", "late 201 9 EINVAL", "errors"),
        (0, "late 201 9 EAGAIN", "deaf ENOTCONN", "errors"),
        (0, "101 request 0 100 ok 0", "101 request 0 100 EHOSTUNREACH 0", "local"),
        (2, "store 31 100 ok 1", "store 31 100 EHOSTUNREACH 1", "healed"),
        (2, "did 301 store 31 100 ok 1\n", "", "healed"),
    ] {
        let found = changed(life, from, to);
        assert!(rules(&found).contains(rule), "{from:?} as {to:?}: {rule} is not in {found:?}");
    }
}

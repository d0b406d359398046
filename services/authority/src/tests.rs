// SPDX-License-Identifier: MIT OR Apache-2.0
use super::*;
use rustls::{ClientConnection, ServerConnection};
use std::time::{Duration, SystemTime};

fn authority(token: &str, cluster: &str) -> Authority {
    Authority::derived(&ClusterSecret::new(&token.parse().unwrap()), cluster).unwrap()
}

const TOKEN: &str = "sixteen letters or more";
const SPOKEN: &[u8] = b"test/1";

/// What each end says of a handshake between them.
fn shake(client: &Identity, server: &Identity) -> [Result<(), String>; 2] {
    connect(client.client().unwrap(), client.peer(), server.server().unwrap())
}

fn connect(
    client: ClientConfig,
    name: ServerName<'static>,
    server: ServerConfig,
) -> [Result<(), String>; 2] {
    let mut client = ClientConnection::new(Arc::new(client), name).unwrap();
    let mut server = ServerConnection::new(Arc::new(server)).unwrap();
    let mut ends = [Ok(()), Ok(())];
    for _ in 0..10 {
        let mut bytes = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut bytes).unwrap();
        }
        server.read_tls(&mut bytes.as_slice()).unwrap();
        if let Err(error) = server.process_new_packets() {
            ends[1] = Err(explain(&error));
        }
        let mut bytes = Vec::new();
        while server.wants_write() {
            server.write_tls(&mut bytes).unwrap();
        }
        client.read_tls(&mut bytes.as_slice()).unwrap();
        if let Err(error) = client.process_new_packets() {
            ends[0] = Err(explain(&error));
        }
    }
    assert!(ends.iter().any(Result::is_err) || !client.is_handshaking());
    ends
}

fn identity(token: &str, cluster: &str, own: u32, peer: u32) -> Identity {
    authority(token, cluster).identity(own, peer, SPOKEN).unwrap()
}

#[test]
fn nodes_of_a_cluster_prove_themselves_to_each_other() {
    let (one, two) = (identity(TOKEN, "lab", 1, 2), identity(TOKEN, "lab", 2, 1));
    assert_eq!(shake(&one, &two), [Ok(()), Ok(())]);
    assert_eq!(shake(&two, &one), [Ok(()), Ok(())]);
}

#[test]
fn both_ends_say_why_they_do_not_trust_each_other() {
    let one = identity(TOKEN, "lab", 1, 2);
    for (stranger, why) in [
        (identity("seventeen letters or so", "lab", 2, 1), "another cluster token"),
        (identity(TOKEN, "bal", 2, 1), "another cluster token"),
        (identity(TOKEN, "lab", 3, 1), "node"),
    ] {
        for (client, server) in [(&one, &stranger), (&stranger, &one)] {
            let ends = shake(client, server);
            for end in ends {
                let said = end.unwrap_err();
                assert!(said.contains(why), "{said}");
            }
        }
    }
}

#[test]
fn who_is_another_node_is_named() {
    let said = shake(&identity(TOKEN, "lab", 1, 2), &identity(TOKEN, "lab", 3, 1));
    let said = said[0].clone().unwrap_err();
    assert!(said.contains("not node-2.lab.dvs") && said.contains("to be node-3.lab.dvs"), "{said}");
    // And so is a node that expects another one, which is told to it.
    let said = shake(&identity(TOKEN, "lab", 1, 2), &identity(TOKEN, "lab", 2, 3));
    assert!(said[1].clone().unwrap_err().contains("node-1.lab.dvs"), "{said:?}");
    assert!(said[0].is_err() || said[1].is_err());
}

#[test]
fn any_node_is_let_in_where_any_may_come_and_no_stranger() {
    let lab = authority(TOKEN, "lab");
    let server = || lab.open_identity(2, SPOKEN).unwrap().server().unwrap();
    let shake = |who: &Authority, own, to, spoken| {
        let client = who.open_identity(own, spoken).unwrap().client().unwrap();
        connect(client, lab.server_name(to).unwrap(), server())
    };
    for own in [1, 7] {
        assert_eq!(shake(&lab, own, 2, SPOKEN), [Ok(()), Ok(())]);
    }
    let said = shake(&lab, 1, 3, SPOKEN)[0].clone().unwrap_err();
    assert!(said.contains("not node-3.lab.dvs"), "{said}");
    let stranger = authority("seventeen letters or so", "lab");
    for end in shake(&stranger, 1, 2, SPOKEN) {
        assert!(end.unwrap_err().contains("another cluster token"));
    }
    let said = shake(&lab, 1, 2, b"test/2")[1].clone().unwrap_err();
    assert!(said.contains("another version"), "{said}");
}

fn admin(who: &Authority, now: SystemTime) -> (ClientConfig, ServerName<'static>) {
    let made = who.administrator("somebody", now, Duration::from_secs(3600)).unwrap();
    client(&who.cluster, &made.authority, &made.certificate, &made.key, SPOKEN).unwrap()
}

#[test]
fn the_api_lets_in_administrators_and_nodes() {
    let lab = authority(TOKEN, "lab");
    for own in [None, Some(3)] {
        let server = || lab.api_server(own, SPOKEN).unwrap();
        let (client, name) = admin(&lab, SystemTime::now());
        assert_eq!(connect(client, name, server()), [Ok(()), Ok(())]);
        let node = lab.open_identity(1, SPOKEN).unwrap().client().unwrap();
        let said = connect(node, lab.server_name(3).unwrap(), server());
        assert_eq!(said.iter().all(Result::is_ok), own.is_some(), "{said:?}");
    }
    // A node proves itself as any other server to administrators, and not an administrator as a node.
    let server = lab.open_identity(2, SPOKEN).unwrap().server().unwrap();
    let (client, _) = admin(&lab, SystemTime::now());
    let said = connect(client, lab.server_name(2).unwrap(), server)[1].clone().unwrap_err();
    assert!(said.contains("is not for this"), "{said}");
}

#[test]
fn strangers_and_those_whose_time_is_over_are_kept_out_of_the_api() {
    let lab = authority(TOKEN, "lab");
    let server = || lab.api_server(Some(3), SPOKEN).unwrap();
    for stranger in [authority("seventeen letters or so", "lab"), authority(TOKEN, "bal")] {
        let (client, name) = admin(&stranger, SystemTime::now());
        for end in connect(client, name, server()) {
            assert!(end.unwrap_err().contains("another cluster token"));
        }
    }
    // Two days off in either direction: the one has ended, the other has not begun.
    for (days, why) in [(-2, "has ended"), (2, "does not hold yet")] {
        let days_s = Duration::from_secs(2 * 24 * 3600);
        let now = SystemTime::now();
        let then = if days < 0 { now - days_s } else { now + days_s };
        let (client, name) = admin(&lab, then);
        let said = connect(client, name, server());
        assert!(said[1].clone().unwrap_err().contains(why), "{said:?}");
        assert!(said[0].is_err());
    }
}

#[test]
fn the_key_of_an_administrator_is_of_the_form_that_all_programs_read() {
    let made =
        authority(TOKEN, "lab").administrator("me", SystemTime::now(), Duration::from_secs(60));
    let key = made.unwrap().key;
    // RFC 8410, 7: version 0, and nothing after the key.
    assert_eq!((key.len(), &key[..16]), (48, &ED25519_HEAD[..]));
    assert_eq!(usize::from(key[1]) + 2, key.len());
}

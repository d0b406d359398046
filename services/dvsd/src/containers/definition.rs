// SPDX-License-Identifier: MIT OR Apache-2.0
//! What containers are made of, as the API says it and as it is agreed on.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use dvs_api::{
    ContainerImage, ContainerIo, ContainerLimits, ContainerNetwork, ContainerUser,
    ContainerWorkload, PublishedPort, RestartPolicy,
};
use dvs_state::containers::{Image, Io, Limits, Network, Publish, Restart, Workload};
use dvs_state::State;

/// What is to be agreed on, as somebody asks for it.
///
/// # Errors
/// For people: what of it cannot be.
pub(crate) fn understood(
    state: &State,
    limits: &ContainerLimits,
    workload: &ContainerWorkload,
) -> Result<(Limits, Workload), String> {
    let ContainerLimits {
        memory_bytes,
        cpu_milli,
        pids,
        endpoints,
        swap_bytes,
        writable_bytes,
        cpu_weight,
        cpu_set,
        io,
    } = limits.clone();
    let ContainerWorkload { image, command, environment, directory, user, restart, network } =
        workload.clone();
    let image = image.map(|image| chosen(state, &image)).transpose()?;
    let network = network.map(|network| spanned(&network)).transpose()?;
    let workload = Workload {
        image,
        command,
        environment,
        directory,
        user: user.map(|ContainerUser { uid, gid }| (uid, gid)),
        restart: match restart {
            RestartPolicy::Always => Restart::Always,
            RestartPolicy::OnFailure => Restart::OnFailure,
            RestartPolicy::Never => Restart::Never,
        },
        network,
        swap_bytes,
        writable_bytes,
        cpu_weight,
        cpu_set,
        io: io
            .into_iter()
            .map(|ContainerIo { device, read_bytes, write_bytes, reads, writes }| Io {
                device,
                read_bytes,
                write_bytes,
                reads,
                writes,
            })
            .collect(),
    };
    Ok((Limits { memory_bytes, cpu_milli, pids, endpoints }, workload))
}

fn chosen(state: &State, image: &ContainerImage) -> Result<Image, String> {
    let name = image.name.clone();
    let digest = match &image.digest {
        None => {
            let found = state.images().get(&name);
            let found = found.ok_or_else(|| {
                format!("there is no image {name}; `dvsctl image import` makes one")
            })?;
            found.digest
        }
        Some(digest) => {
            let digest = digest.parse()?;
            let named = state.images().iter().any(|(_, known)| known.digest == digest);
            let used = state.containers().images().any(|used| used.digest == digest);
            if !named && !used {
                return Err(format!("no node has the archive {digest}; import it first"));
            }
            digest
        }
    };
    Ok(Image { name, digest })
}

fn spanned(network: &ContainerNetwork) -> Result<Network, String> {
    let ContainerNetwork { subnet, rate_bits, publish } = network;
    let parse = || {
        let (address, prefix) = subnet.split_once('/')?;
        Some((address.parse::<Ipv4Addr>().ok()?, prefix.parse().ok()?))
    };
    let (address, prefix) =
        parse().ok_or_else(|| format!("`{subnet}` is no network; write it as in 10.1.0.0/16"))?;
    let ports: BTreeSet<_> = publish
        .iter()
        .map(|PublishedPort { node, container }| Publish { node: *node, container: *container })
        .collect();
    Ok(Network { subnet: address, prefix, rate: *rate_bits, publish: ports })
}

/// What was agreed on, for whoever asks.
pub(crate) fn told(limits: &Limits, workload: &Workload) -> (ContainerLimits, ContainerWorkload) {
    let Limits { memory_bytes, cpu_milli, pids, endpoints } = limits.clone();
    let Workload {
        image,
        command,
        environment,
        directory,
        user,
        restart,
        network,
        swap_bytes,
        writable_bytes,
        cpu_weight,
        cpu_set,
        io,
    } = workload.clone();
    let io = io.into_iter().map(|Io { device, read_bytes, write_bytes, reads, writes }| {
        ContainerIo { device, read_bytes, write_bytes, reads, writes }
    });
    let limits = ContainerLimits {
        memory_bytes,
        cpu_milli,
        pids,
        endpoints,
        swap_bytes,
        writable_bytes,
        cpu_weight,
        cpu_set,
        io: io.collect(),
    };
    let workload = ContainerWorkload {
        image: image.map(|Image { name, digest }| ContainerImage {
            name,
            digest: Some(digest.to_string()),
        }),
        command,
        environment,
        directory,
        user: user.map(|(uid, gid)| ContainerUser { uid, gid }),
        restart: match restart {
            Restart::Always => RestartPolicy::Always,
            Restart::OnFailure => RestartPolicy::OnFailure,
            Restart::Never => RestartPolicy::Never,
        },
        network: network.map(|Network { subnet, prefix, rate, publish }| ContainerNetwork {
            subnet: format!("{subnet}/{prefix}"),
            rate_bits: rate,
            publish: publish
                .into_iter()
                .map(|Publish { node, container }| PublishedPort { node, container })
                .collect(),
        }),
    };
    (limits, workload)
}

#[cfg(test)]
mod tests {
    use dvs_state::nodes::{Join, Machine, Role};
    use dvs_state::{images, Command, Entry, Time, VERSION};

    use super::*;

    fn state() -> State {
        let mut state = State::default();
        let join = Join {
            machine: Machine([2, 0, 0, 0, 0, 0]),
            run: 1,
            name: None,
            role: Role::Voter,
            member: Some(1),
            understands: VERSION,
            place: None,
        };
        let name =
            images::Command::Name { name: "web".into(), digest: images::Digest([7; 32]), bytes: 1 };
        for command in [
            Command::Form { name: "dvs".into(), id: 7, nodes: vec![join] },
            Command::Raise { version: VERSION },
            Command::Images(name),
        ] {
            let entry = Entry::new(Time(0), &command).unwrap();
            state.apply(state.applied() + 1, &entry).unwrap();
        }
        state
    }

    #[test]
    fn what_is_understood_is_told_as_it_was_said() {
        let digest = images::Digest([7; 32]).to_string();
        let limits = ContainerLimits {
            memory_bytes: Some(64 << 20),
            swap_bytes: Some(1),
            cpu_set: Some("0-1".into()),
            io: vec![ContainerIo {
                device: "8:0".into(),
                reads: Some(5),
                ..ContainerIo::default()
            }],
            ..ContainerLimits::default()
        };
        let workload = ContainerWorkload {
            image: Some(ContainerImage { name: "web".into(), digest: None }),
            command: vec!["httpd".into(), "-f".into()],
            environment: [("A".to_owned(), "b".to_owned())].into(),
            directory: Some("/srv".into()),
            user: Some(ContainerUser { uid: 1, gid: 2 }),
            restart: RestartPolicy::OnFailure,
            network: Some(ContainerNetwork {
                subnet: "10.1.0.0/16".into(),
                rate_bits: Some(1_000_000),
                publish: vec![PublishedPort { node: 8080, container: 80 }],
            }),
        };
        let (agreed, made) = understood(&state(), &limits, &workload).unwrap();
        let (limits_told, mut workload_told) = told(&agreed, &made);
        assert_eq!(limits_told, limits);
        let image = workload_told.image.as_mut().unwrap();
        assert_eq!(image.digest.take(), Some(digest));
        assert_eq!(workload_told, workload);
    }

    #[test]
    fn images_and_networks_that_cannot_be_are_refused_with_a_reason() {
        let refused = |workload: ContainerWorkload| {
            understood(&state(), &ContainerLimits::default(), &workload).unwrap_err()
        };
        let image = |name: &str, digest: Option<String>| ContainerWorkload {
            image: Some(ContainerImage { name: name.into(), digest }),
            ..ContainerWorkload::default()
        };
        assert!(refused(image("db", None)).contains("dvsctl image import"));
        assert!(refused(image("db", Some("7".into()))).contains("SHA-256"));
        assert!(refused(image("db", Some("0".repeat(64)))).contains("no node has"));
        for subnet in ["", "10.1.0.0", "10.1.0.0/x", "fd00::/64"] {
            let network =
                ContainerNetwork { subnet: subnet.into(), rate_bits: None, publish: vec![] };
            let workload =
                ContainerWorkload { network: Some(network), ..ContainerWorkload::default() };
            assert!(refused(workload).contains("10.1.0.0/16"), "{subnet}");
        }
    }
}

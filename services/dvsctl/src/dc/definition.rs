// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a container may use and is made of, as options say it.

use std::path::Path;

use dvs_api::{
    ContainerImage, ContainerIo, ContainerLimits, ContainerNetwork, ContainerUser,
    ContainerWorkload, PublishedPort, RestartPolicy,
};

use crate::arguments::{DefinitionArguments, Restart, Unset};
use crate::cluster::Cluster;
use crate::{image, Failure};

/// The network of a container that publishes ports, or has a rate, and for which none was chosen.
const SUBNET: &str = "10.1.0.0/16";

/// Limits and workload after options were given, and what was to be unset.
pub(super) fn with(
    (mut limits, mut workload): (ContainerLimits, ContainerWorkload),
    given: &DefinitionArguments,
    unset: &[Unset],
) -> (ContainerLimits, ContainerWorkload) {
    for what in unset {
        remove(&mut limits, &mut workload, *what);
    }
    let DefinitionArguments {
        memory,
        cpus,
        pids,
        endpoints,
        swap,
        writable,
        cpu_weight,
        cpu_set,
        io,
        image,
        environment,
        directory,
        user,
        restart,
        network,
        net_rate,
        publish,
        command,
    } = given;
    let or = |given: Option<u64>, before: Option<u64>| given.or(before);
    limits.memory_bytes = or(memory.map(|it| it.0), limits.memory_bytes);
    limits.swap_bytes = or(swap.map(|it| it.0), limits.swap_bytes);
    limits.writable_bytes = or(writable.map(|it| it.0), limits.writable_bytes);
    limits.cpu_milli = cpus.map(|it| it.0).or(limits.cpu_milli);
    limits.pids = pids.or(limits.pids);
    limits.endpoints = endpoints.or(limits.endpoints);
    limits.cpu_weight = cpu_weight.or(limits.cpu_weight);
    limits.cpu_set = cpu_set.clone().or(limits.cpu_set);
    for rates in io {
        limits.io.retain(|before| before.device != rates.device);
        limits.io.push(ContainerIo {
            device: rates.device.clone(),
            read_bytes: rates.read_bytes,
            write_bytes: rates.write_bytes,
            reads: rates.reads,
            writes: rates.writes,
        });
    }
    if let Some(name) = image {
        workload.image = Some(ContainerImage { name: name.clone(), digest: None });
    }
    workload.environment.extend(environment.iter().cloned());
    workload.directory = directory.clone().or(workload.directory);
    workload.user = user.map(|ids| ContainerUser { uid: ids.uid, gid: ids.gid }).or(workload.user);
    if let Some(restart) = restart {
        workload.restart = match restart {
            Restart::Always => RestartPolicy::Always,
            Restart::OnFailure => RestartPolicy::OnFailure,
            Restart::Never => RestartPolicy::Never,
        };
    }
    if !command.is_empty() {
        workload.command.clone_from(command);
    }
    if network.is_some() || net_rate.is_some() || !publish.is_empty() {
        let chosen = workload.network.get_or_insert_with(|| ContainerNetwork {
            subnet: SUBNET.to_owned(),
            rate_bits: None,
            publish: Vec::new(),
        });
        if let Some(subnet) = network {
            chosen.subnet.clone_from(subnet);
        }
        chosen.rate_bits = or(net_rate.map(|it| it.0), chosen.rate_bits);
        for ports in publish {
            chosen.publish.retain(|before| before.node != ports.node);
            chosen.publish.push(PublishedPort { node: ports.node, container: ports.container });
        }
    }
    (limits, workload)
}

fn remove(limits: &mut ContainerLimits, workload: &mut ContainerWorkload, what: Unset) {
    match what {
        Unset::Memory => limits.memory_bytes = None,
        Unset::Cpus => limits.cpu_milli = None,
        Unset::Pids => limits.pids = None,
        Unset::Endpoints => limits.endpoints = None,
        Unset::Swap => limits.swap_bytes = None,
        Unset::Writable => limits.writable_bytes = None,
        Unset::CpuWeight => limits.cpu_weight = None,
        Unset::CpuSet => limits.cpu_set = None,
        Unset::Io => limits.io.clear(),
        Unset::Image => workload.image = None,
        Unset::Env => workload.environment.clear(),
        Unset::Directory => workload.directory = None,
        Unset::User => workload.user = None,
        Unset::Network => workload.network = None,
        Unset::NetRate => workload.network.iter_mut().for_each(|it| it.rate_bits = None),
        Unset::Publish => workload.network.iter_mut().for_each(|it| it.publish.clear()),
        Unset::Command => workload.command.clear(),
    }
}

/// Imports the image first if a file was named, and names it then.
pub(super) fn imported(cluster: &Cluster, workload: &mut ContainerWorkload) -> Result<(), Failure> {
    let Some(chosen) = workload.image.as_mut().filter(|image| image.digest.is_none()) else {
        return Ok(());
    };
    let file = Path::new(&chosen.name);
    if !file.is_file() {
        return Ok(());
    }
    let image = image::import(cluster, file, None)?;
    *chosen = ContainerImage { name: image.name, digest: Some(image.digest) };
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_change_what_they_name_and_nothing_else() {
        let given = DefinitionArguments {
            memory: Some("128M".parse().unwrap()),
            io: vec!["8:0,read=1M".parse().unwrap()],
            image: Some("web".into()),
            environment: vec![("A".into(), "1".into())],
            publish: vec!["8080:80".parse().unwrap()],
            command: vec!["httpd".into()],
            ..DefinitionArguments::default()
        };
        let (limits, mut workload) = with(Default::default(), &given, &[]);
        assert_eq!((limits.memory_bytes, limits.pids), (Some(128 << 20), None));
        assert_eq!(workload.network.as_ref().unwrap().subnet, SUBNET);
        workload.image.as_mut().unwrap().digest = Some("ab".into());
        let again = DefinitionArguments {
            pids: Some(9),
            io: vec!["8:0,writes=5".parse().unwrap()],
            environment: vec![("B".into(), "2".into())],
            publish: vec!["8080:81".parse().unwrap()],
            ..DefinitionArguments::default()
        };
        let unset = [Unset::Memory, Unset::Command];
        let (limits, workload) = with((limits, workload), &again, &unset);
        assert_eq!((limits.memory_bytes, limits.pids), (None, Some(9)));
        assert_eq!(
            (limits.io.len(), limits.io[0].read_bytes, limits.io[0].writes),
            (1, None, Some(5))
        );
        assert_eq!(workload.image.unwrap().digest.as_deref(), Some("ab"), "it stays the same one");
        assert_eq!(workload.environment.len(), 2);
        assert_eq!(
            workload.network.unwrap().publish,
            [PublishedPort { node: 8080, container: 81 }]
        );
        assert!(workload.command.is_empty());
    }
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is done to a cluster, and how it is afterwards.

use std::time::Duration;

use tokio::time::{sleep, Instant};

use super::{Cluster, Random};

/// Disturbs the cluster until then, and puts everything in order.
pub(crate) async fn disturb(cluster: &mut Cluster, random: &mut Random, until: Instant) {
    let nodes = u64::from(cluster.nodes());
    while Instant::now() < until {
        sleep(Duration::from_millis(50 + random.below(700))).await;
        let victim = random.below(nodes) as u16;
        match random.below(12) {
            0..=2 => {
                // One that forgets is let go only while the others can do without it: else what it forgets was agreed by nobody else.
                if cluster.disk(victim).is_some() || cluster.is_whole() {
                    cluster.kill(victim).await;
                }
            }
            3..=5 => cluster.restart(victim).await,
            6 => {
                let cut = 1 + random.below(nodes - 1) as u16;
                let sides = |a: u16, b: u16| (a < cut) != (b < cut);
                let all = (0..nodes as u16).flat_map(|a| (0..nodes as u16).map(move |b| (a, b)));
                cluster.network.cut(all.filter(|(a, b)| sides(*a, *b)));
            }
            7 => {
                // Whoever leads is cut off, perhaps in one direction only.
                let running = cluster.network.all_running();
                let leads = running.iter().find(|(_, consensus)| consensus.is_leader());
                let leader = leads.map_or(victim, |(id, _)| *id);
                let both = random.chance(50);
                for other in (0..nodes as u16).filter(|other| *other != leader) {
                    cluster.network.cut([(leader, other)]);
                    if both {
                        cluster.network.cut([(other, leader)]);
                    }
                }
            }
            8 | 9 => cluster.network.heal(),
            10 => cluster.network.disturb(random.below(20), 1 + random.below(60)),
            _ => {
                if let Some(disk) = cluster.disk(victim) {
                    disk.slow_down(random.below(150));
                }
            }
        }
    }
    cluster.network.heal();
    cluster.network.disturb(0, 4);
    for node in 0..cluster.nodes() {
        cluster.restart(node).await;
        if let Some(disk) = cluster.disk(node) {
            disk.slow_down(0);
        }
    }
}

/// Waits until all nodes have the same, and gives it.
pub(crate) async fn settle(cluster: &Cluster) -> Vec<u8> {
    let limit = Instant::now() + Duration::from_secs(60);
    loop {
        sleep(Duration::from_millis(100)).await;
        let running = cluster.network.all_running();
        let states: Vec<_> = running
            .iter()
            .map(|(_, consensus)| consensus.look(|state| state.to_bytes().unwrap()))
            .collect();
        let same = states.windows(2).all(|pair| pair[0] == pair[1]);
        let done = running.iter().all(|(_, consensus)| {
            let status = consensus.status();
            status.applied == status.last && status.leader.is_some()
        });
        if same && done && cluster.is_whole() {
            return states.into_iter().next().unwrap();
        }
        if Instant::now() > limit {
            let statuses: Vec<_> = running.iter().map(|(id, c)| (*id, c.status())).collect();
            panic!("the nodes do not come together: {statuses:#?}");
        }
    }
}

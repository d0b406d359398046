// SPDX-License-Identifier: MIT OR Apache-2.0
//! A file system does what the model does, and `fsck.minix` has nothing to say against its image.

use crate::pair::{Habits, Pair, BUSY};
use crate::tools::{fsck, mkfs};
use mol_fs::disk::Memory;
use mol_fs::format::make;
use mol_fs::volume::Options;
use mol_fs::Volume;

/// Unmounts, lets others look at the image, and mounts it again.
fn remount(mut pair: Pair<Memory>, options: Options) -> Pair<Memory> {
    pair.release_all();
    pair.remounted(|mut volume| {
        let before = volume.usage();
        let block_bytes = volume.layout().block_bytes;
        let report = volume.check().unwrap();
        assert!(report.damage.is_empty(), "{report:?}");
        let disk = volume.unmount().map_err(|(_, error)| error).unwrap();
        // It knows no others.
        if block_bytes == 1024 {
            assert_eq!(fsck(disk.content()), None);
        }
        let mut volume = Volume::mount(disk, options).unwrap();
        assert_eq!(volume.usage(), before);
        let report = volume.check().unwrap();
        assert!(report.is_sound(), "{report:?}");
        volume
    })
}

struct Run {
    cache_bytes: usize,
    habits: Habits,
    seed: u64,
    operations: u32,
    /// After how many operations everything is compared.
    between: u32,
}

fn run(disk: Memory, run: Run) -> Pair<Memory> {
    println!("seed {}", run.seed);
    let options = Options { cache_bytes: run.cache_bytes, ..Options::default() };
    let mut pair = Pair::new(Volume::mount(disk, options).unwrap(), run.habits, run.seed);
    for number in 1..=run.operations {
        pair.step(number);
        if number % run.between == 0 {
            pair.compare();
            pair = remount(pair, options);
            pair.compare();
        }
    }
    pair
}

const NORMAL: Run =
    Run { cache_bytes: 1 << 20, habits: BUSY, seed: 1, operations: 3000, between: 500 };

#[test]
fn a_file_system_does_what_the_model_does() {
    run(Memory::from(mkfs(&["-3", "-i", "2048"], 32 << 20)), NORMAL);
}

#[test]
fn the_same_with_hardly_any_memory() {
    let disk = Memory::from(mkfs(&["-3", "-i", "2048"], 32 << 20));
    run(disk, Run { cache_bytes: 0, seed: 2, operations: 1000, between: 250, ..NORMAL });
}

#[test]
fn the_same_with_larger_blocks() {
    let mut disk = Memory::new(64 << 20);
    make(&mut disk, 4096, 2048, 0).unwrap();
    run(disk, Run { seed: 3, operations: 1500, ..NORMAL });
}

#[test]
fn the_same_on_a_disk_that_is_full_most_of_the_time() {
    let few_blocks = Memory::from(mkfs(&["-3", "-i", "2048"], 400 << 10));
    let pair = run(few_blocks, Run { seed: 4, operations: 2000, ..NORMAL });
    assert!(pair.full > 100, "it was full {} times only", pair.full);
    let few_inodes = Memory::from(mkfs(&["-3", "-i", "64"], 8 << 20));
    let pair = run(few_inodes, Run { seed: 5, operations: 1000, ..NORMAL });
    assert!(pair.full > 10, "it was full {} times only", pair.full);
}

/// `cargo test --release -p mol-fs -- --ignored`, with `DVS_SEEDS=A-B` for other seeds than 1.
#[test]
#[ignore = "it takes minutes"]
fn a_hundred_thousand_operations() {
    for seed in crate::random::seeds(1..=1) {
        let disk = Memory::from(mkfs(&["-3", "-i", "2048"], 32 << 20));
        run(disk, Run { seed, operations: 100_000, between: 1000, ..NORMAL });
    }
}

#[test]
fn an_image_of_our_own_passes_fsck() {
    for bytes in [100 << 10, 1 << 20, 33 << 20] {
        let mut disk = Memory::new(bytes);
        make(&mut disk, 1024, 0, 0).unwrap();
        assert_eq!(fsck(disk.content()), None, "{bytes} bytes");
    }
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! Stores against an array, and what they refuse.

use mol_protocol::Errno;
use mol_vdd::store::{FileStore, Intent, MemoryStore, OpenError, Safety, Store, CHUNK_BYTES};
use proptest::prelude::*;
use std::fs::File;
use std::path::PathBuf;
use tempfile::TempDir;

const BLOCK: u64 = 512;
/// A little more than two chunks of memory.
const BLOCKS: u64 = 2 * CHUNK_BYTES as u64 / BLOCK + 3;

#[derive(Clone, Copy, Debug)]
enum Step {
    Write { fill: u8, safety: Safety },
    Zero,
    Read,
}

fn steps() -> impl Strategy<Value = Vec<(u64, u64, Step)>> {
    let step = prop_oneof![
        (1_u8.., any::<bool>()).prop_map(|(fill, at_once)| Step::Write {
            fill,
            safety: if at_once { Safety::AtOnce } else { Safety::AtFlush },
        }),
        Just(Step::Zero),
        Just(Step::Read),
    ];
    let range = (0..BLOCKS).prop_flat_map(|first| (Just(first), 1..=BLOCKS - first));
    proptest::collection::vec((range, step), 1..30).prop_map(|steps| {
        steps.into_iter().map(|((first, count), step)| (first, count, step)).collect()
    })
}

fn all_of(store: &dyn Store) -> Vec<u8> {
    let mut all = vec![1; store.shape().bytes as usize];
    store.read(0, &mut all).unwrap();
    all
}

/// Does the steps to a store and to an array, and compares what is read.
fn play(store: &mut dyn Store, steps: &[(u64, u64, Step)]) -> Vec<u8> {
    let mut model = vec![0; store.shape().bytes as usize];
    for &(first, count, step) in steps {
        let (position, bytes) = (first * BLOCK, count * BLOCK);
        let range = position as usize..(position + bytes) as usize;
        match step {
            Step::Write { fill, safety } => {
                // Not all of it the same, so that it matters where it ends up.
                let data: Vec<_> =
                    (0..bytes).map(|at| fill.wrapping_add((at / BLOCK) as u8)).collect();
                store.write(position, &data, safety).unwrap();
                model[range].copy_from_slice(&data);
            }
            Step::Zero => {
                store.zero(position, bytes).unwrap();
                model[range].fill(0);
            }
            Step::Read => {
                let mut read = vec![1; bytes as usize];
                store.read(position, &mut read).unwrap();
                assert!(read == model[range], "{count} blocks from {first} on differ");
            }
        }
    }
    store.flush().unwrap();
    assert!(all_of(store) == model, "the store differs from the array");
    model
}

fn image(folder: &TempDir, bytes: u64) -> PathBuf {
    let path = folder.path().join("image");
    File::create(&path).unwrap().set_len(bytes).unwrap();
    path
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn memory_holds_what_an_array_does(steps in steps()) {
        play(&mut MemoryStore::new(BLOCKS * BLOCK, 512).unwrap(), &steps);
    }

    #[test]
    fn a_file_holds_what_an_array_does_and_holds_it_when_opened_again(steps in steps()) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("image");
        let model = play(&mut FileStore::create(&path, BLOCKS * BLOCK).unwrap(), &steps);
        prop_assert!(std::fs::read(&path).unwrap() == model, "the file differs");
        let again = FileStore::open(&path, Intent::Read).unwrap();
        prop_assert!(all_of(&again) == model, "the file differs when opened again");
    }
}

#[test]
fn memory_is_taken_for_what_is_written_and_given_back() {
    let mut store = MemoryStore::new(1 << 50, 4096).unwrap();
    assert_eq!(store.memory_bytes(), 0);
    let far = (1 << 50) - 4096;
    store.write(far, &[7; 4096], Safety::AtFlush).unwrap();
    assert_eq!(store.memory_bytes(), CHUNK_BYTES);
    let mut block = [0; 4096];
    store.read(far, &mut block).unwrap();
    assert_eq!(block, [7; 4096]);
    store.zero(0, 1 << 50).unwrap();
    assert_eq!(store.memory_bytes(), 0);
    store.read(far, &mut block).unwrap();
    assert_eq!(block, [0; 4096]);
}

#[test]
fn what_is_zeroed_takes_no_space_in_a_file() {
    use std::os::unix::fs::MetadataExt;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("image");
    let mut store = FileStore::create(&path, 1 << 22).unwrap();
    store.write(0, &vec![7; 1 << 22], Safety::AtOnce).unwrap();
    let full = std::fs::metadata(&path).unwrap().blocks();
    store.zero(0, 1 << 22).unwrap();
    store.flush().unwrap();
    let hollow = std::fs::metadata(&path).unwrap();
    assert_eq!(hollow.len(), 1 << 22);
    assert!(hollow.blocks() < full, "{} of {full} sectors are left", hollow.blocks());
}

#[test]
fn ranges_that_a_store_does_not_have_are_refused_and_change_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let mut stores: [Box<dyn Store>; 2] = [
        Box::new(MemoryStore::new(4 * BLOCK, 512).unwrap()),
        Box::new(FileStore::open(image(&folder, 4 * BLOCK), Intent::Write).unwrap()),
    ];
    for store in &mut stores {
        let ranges = [
            (0, 0),
            (1, BLOCK),
            (0, BLOCK - 1),
            (4 * BLOCK, BLOCK),
            (3 * BLOCK, 2 * BLOCK),
            (u64::MAX - 511, BLOCK),
        ];
        for (position, bytes) in ranges {
            let mut data = vec![9; bytes as usize];
            let errors = [
                store.write(position, &data, Safety::AtFlush).unwrap_err(),
                store.read(position, &mut data).unwrap_err(),
                store.zero(position, bytes).unwrap_err(),
            ];
            assert_eq!(
                errors.map(|error| error.errno()),
                [Errno::Invalid; 3],
                "{bytes} bytes from {position}"
            );
        }
        assert_eq!(all_of(store.as_ref()), [0; 4 * BLOCK as usize]);
    }
    let error = stores[0].write(3 * BLOCK, &[0; 1024], Safety::AtFlush).unwrap_err();
    assert_eq!(
        error.to_string(),
        "cannot write 1024 bytes from byte 1536 on: they are not whole blocks of 512 bytes within the 2048 of the store"
    );
}

#[test]
fn a_store_for_reading_takes_no_writes() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = FileStore::open(image(&folder, 4 * BLOCK), Intent::Read).unwrap();
    assert!(!store.shape().writable);
    let error = store.write(0, &[1; 512], Safety::AtFlush).unwrap_err();
    assert_eq!(error.errno(), Errno::ReadOnly);
    assert!(error.to_string().ends_with("image: it was opened for reading only"), "{error}");
    assert_eq!(store.zero(0, BLOCK).unwrap_err().errno(), Errno::ReadOnly);
    store.flush().unwrap();
}

#[test]
fn a_store_that_is_written_is_nobody_elses() {
    let folder = tempfile::tempdir().unwrap();
    let path = image(&folder, BLOCK);
    let writer = FileStore::open(&path, Intent::Write).unwrap();
    for intent in [Intent::Read, Intent::Write] {
        let error = FileStore::open(&path, intent).unwrap_err();
        assert!(matches!(error, OpenError::InUse { .. }), "{error}");
    }
    drop(writer);
    let _readers = [
        FileStore::open(&path, Intent::Read).unwrap(),
        FileStore::open(&path, Intent::Read).unwrap(),
    ];
    assert!(matches!(FileStore::open(&path, Intent::Write), Err(OpenError::InUse { .. })));
}

#[test]
fn what_is_no_row_of_blocks_is_no_store() {
    let folder = tempfile::tempdir().unwrap();
    let text =
        |error: OpenError| error.to_string().replace(&folder.path().display().to_string(), "DIR");
    let open = |path: PathBuf| text(FileStore::open(path, Intent::Write).unwrap_err());
    assert_eq!(
        open(image(&folder, 1000)),
        "cannot use DIR/image for a store: its 1000 bytes are not a positive number of blocks of 512 bytes; \
         make it as long as a multiple of them"
    );
    assert!(open(image(&folder, 0)).contains("its 0 bytes"));
    assert_eq!(
        open("/dev/null".into()),
        "cannot use /dev/null for a store: it is neither a file nor a block device"
    );
    assert!(open(folder.path().join("none"))
        .starts_with("cannot open DIR/none for a store: No such file"));
    let made = FileStore::create(image(&folder, 512), 512).unwrap_err();
    assert!(text(made).starts_with("cannot make DIR/image for a store of 512 bytes: File exists"));
    for (bytes, block_bytes) in
        [(0, 512), (1024, 768), (1024, 256), (512, 1024), (1 << 20, 1 << 17)]
    {
        let error = MemoryStore::new(bytes, block_bytes).unwrap_err();
        assert!(
            matches!(error, OpenError::Shape { .. }),
            "{bytes} bytes in blocks of {block_bytes}"
        );
    }
}

/// A file that somebody cuts off is the medium that a test can have fail.
#[test]
fn an_error_of_the_medium_says_where_and_why() {
    let folder = tempfile::tempdir().unwrap();
    let path = image(&folder, 4 * BLOCK);
    let store = FileStore::open(&path, Intent::Write).unwrap();
    File::options().write(true).open(&path).unwrap().set_len(BLOCK).unwrap();
    let error = store.read(BLOCK, &mut [0; 512]).unwrap_err();
    assert_eq!(error.errno(), Errno::Io);
    let text = error.to_string();
    assert!(text.starts_with("cannot read 512 bytes from byte 512 of "), "{text}");
}

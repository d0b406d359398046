// SPDX-License-Identifier: MIT OR Apache-2.0

use super::*;
use proptest::prelude::*;

fn batch(all: &[Vec<u8>]) -> Frames {
    let mut frames = Frames::new();
    all.iter().for_each(|frame| frames.push(frame));
    frames
}

fn encoded(all: &[Vec<u8>], compression: Compression) -> Vec<u8> {
    let (mut encoder, mut stream) = (Encoder::new(compression).unwrap(), Vec::new());
    for piece in pieces(batch(all).as_bytes()) {
        encoder.encode(piece, &mut stream).unwrap();
    }
    stream
}

/// All frames of a stream that comes in such pieces.
fn decoded(mut stream: &[u8], cuts: &[usize]) -> Result<Vec<Vec<u8>>> {
    let (mut decoder, mut frames, mut got) = (Decoder::default(), Frames::new(), Vec::new());
    let mut cuts = cuts.iter().cycle();
    while !stream.is_empty() {
        let (now, later) = stream.split_at((*cuts.next().unwrap()).min(stream.len()));
        decoder.incoming().extend_from_slice(now);
        while decoder.next(&mut frames)?.is_some() {
            got.extend(frames.iter().map(<[u8]>::to_vec));
        }
        stream = later;
    }
    anyhow::ensure!(decoder.is_empty(), "something is left");
    Ok(got)
}

fn compressions() -> impl Strategy<Value = Compression> {
    prop::sample::select(vec![
        Compression::Auto,
        Compression::Always(Coding::Plain),
        Compression::Always(Coding::Lz4),
        Compression::Always(Coding::Zstd),
    ])
}

/// Frames that can be compressed, and some that cannot.
fn frames() -> impl Strategy<Value = Vec<Vec<u8>>> {
    let noise = prop::collection::vec(any::<u8>(), 0..300);
    let zeros = (0usize..20_000).prop_map(|len| vec![7; len]);
    prop::collection::vec(prop_oneof![noise, zeros], 0..20)
}

proptest! {
    #[test]
    fn frames_survive_any_compression_and_any_cutting(
        all in frames(),
        compression in compressions(),
        cuts in prop::collection::vec(1usize..4000, 1..40),
    ) {
        let stream = encoded(&all, compression);
        prop_assert_eq!(decoded(&stream, &cuts).unwrap(), all);
    }

    #[test]
    fn any_bytes_give_frames_or_an_error(
        bytes in prop::collection::vec(any::<u8>(), 0..400),
    ) {
        let _ = decoded(&bytes, &[usize::MAX]);
    }

    #[test]
    fn a_damaged_batch_gives_frames_or_an_error(
        all in frames(),
        compression in compressions(),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..5),
    ) {
        let mut stream = encoded(&all, compression);
        for (place, byte) in damage {
            if !stream.is_empty() {
                let place = place.index(stream.len());
                stream[place] = byte;
            }
        }
        if let Ok(frames) = decoded(&stream, &[usize::MAX]) {
            // However it is damaged, it does not become more than was announced.
            let bytes: usize = frames.iter().map(|frame| frame.len() + LENGTH_BYTES).sum();
            prop_assert!(bytes <= stream.len() / HEAD_BYTES * PLAIN_BYTES_MAX);
        }
    }

    #[test]
    fn pieces_are_all_of_it_and_none_is_long(all in frames()) {
        let frames = batch(&all);
        let all: Vec<_> = pieces(frames.as_bytes()).collect();
        prop_assert!(all.iter().all(|piece| piece.len() <= PLAIN_BYTES));
        prop_assert_eq!(all.concat(), frames.as_bytes());
    }
}

#[test]
fn what_can_be_compressed_is() {
    let all = vec![vec![b'x'; 1000]; 50];
    let plain = encoded(&all, Compression::Always(Coding::Plain)).len();
    for coding in [Coding::Lz4, Coding::Zstd] {
        let len = encoded(&all, Compression::Always(coding)).len();
        assert!(len * 20 < plain, "{coding:?}: {len} of {plain}");
    }
}

#[test]
fn the_longest_frame_fits_behind_a_full_batch() {
    let all = vec![vec![1; 16_448], vec![2; 40_000], vec![3; 16_448], vec![4; 60_000]];
    let stream = encoded(&all, Compression::Always(Coding::Plain));
    assert_eq!(decoded(&stream, &[1000]).unwrap(), all);
}

#[test]
fn a_batch_that_becomes_more_than_it_says_is_refused() {
    // 100 KB of zeros that are said to be 10 bytes.
    let zeros = vec![0; 100_000];
    let lz4 = lz4_flex::block::compress(&zeros);
    let zstd = zstd::bulk::compress(&zeros, 1).unwrap();
    for (coding, bytes) in [(Coding::Lz4, lz4), (Coding::Zstd, zstd)] {
        let mut stream = head(coding, bytes.len(), 10).to_vec();
        stream.extend(bytes);
        assert!(decoded(&stream, &[usize::MAX]).is_err(), "{coding:?}");
    }
    // And what is said to be too much is not even waited for.
    for (len, plain) in [(PLAIN_BYTES_MAX + 1, 0), (0, PLAIN_BYTES_MAX + 1)] {
        let head = head(Coding::Plain, len, plain);
        let error = decoded(&head, &[usize::MAX]).unwrap_err().to_string();
        assert!(error.contains("announced"), "{error}");
    }
}

#[test]
fn a_frame_that_reaches_beyond_its_batch_is_refused() {
    let mut stream = head(Coding::Plain, 6, 6).to_vec();
    stream.extend([3, 0, 0, 0, 1, 2]);
    assert!(decoded(&stream, &[usize::MAX]).is_err());
}

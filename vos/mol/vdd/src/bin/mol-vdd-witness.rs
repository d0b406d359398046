// SPDX-License-Identifier: MIT OR Apache-2.0
//! A client of a device for tests: it writes, reads back and compares all the time, and says what it has seen. Whatever becomes of
//! servers meanwhile, nothing that was answered may be missing later.

#![forbid(unsafe_code)]

use clap::Parser;
use dvk::{Port, Slot};
use mol_protocol::block::OPEN_WRITE;
use mol_vdd::client::{Disk, Finder};
use mol_vdd::run::ByGroup;
use std::error::Error;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// Writes and reads back a part of a device
#[derive(Parser)]
struct Arguments {
    /// The device of the container
    #[arg(long, default_value = "/dev/dvk")]
    dvk: PathBuf,
    /// The group of servers
    #[arg(long)]
    group: String,
    /// The device's minor
    #[arg(long, default_value_t = 0)]
    device: u32,
    /// The first byte that it has for itself
    #[arg(long, default_value_t = 0)]
    first: u64,
    /// How many pieces of 4 KiB it has
    #[arg(long, default_value_t = 64)]
    pieces: usize,
    /// It goes on until there is such a file
    #[arg(long)]
    stop: PathBuf,
    /// For what is written when and where
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

const PIECE: usize = 4096;
/// How many rounds it tells at once.
const TELLS: u64 = 10;
/// The longest that nobody may answer.
const PATIENCE: Duration = Duration::from_secs(60);

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// A row of numbers that looks random (xorshift64*).
struct Chance(u64);

impl Chance {
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 11) % end
    }
}

/// What a piece has after the round in which it was written.
fn piece(index: usize, round: u64) -> Vec<u8> {
    let mark = [(index as u64).to_le_bytes(), round.to_le_bytes()].concat();
    mark.iter().copied().cycle().take(PIECE).collect()
}

fn run(arguments: &Arguments) -> Result<(), Box<dyn Error>> {
    let port = Port::open(&arguments.dvk, Slot::Any)?;
    let finder = ByGroup::new(&arguments.dvk, &arguments.group, arguments.device)?;
    let mut disk = Disk::open(&port, finder, arguments.device, OPEN_WRITE, PATIENCE)?;
    let mut chance = Chance(arguments.seed.max(1));
    let mut rounds = vec![0; arguments.pieces];
    let mut longest = Duration::ZERO;
    for index in 0..rounds.len() {
        disk.write(place(arguments, index), &piece(index, 0), false)?;
    }
    let mut round = 0;
    while !arguments.stop.exists() {
        round += 1;
        let began = Instant::now();
        let index = chance.below(rounds.len() as u64) as usize;
        disk.write(place(arguments, index), &piece(index, round), round % 7 == 0)?;
        rounds[index] = round;
        let other = chance.below(rounds.len() as u64) as usize;
        check(&mut disk, arguments, other, rounds[other])?;
        if round % 25 == 0 {
            disk.flush()?;
        }
        longest = longest.max(began.elapsed());
        if round % TELLS == 0 {
            say(&format!("round {round}"))?;
        }
    }
    for (index, round) in rounds.iter().enumerate() {
        check(&mut disk, arguments, index, *round)?;
    }
    let epoch = disk.geometry().epoch;
    let longest = longest.as_millis();
    say(&format!(
        "nothing is missing of {round} rounds; epoch {epoch}; the longest took {longest} ms"
    ))
}

fn place(arguments: &Arguments, index: usize) -> u64 {
    arguments.first + (index * PIECE) as u64
}

fn check<F: Finder>(
    disk: &mut Disk<'_, Port, F>,
    arguments: &Arguments,
    index: usize,
    round: u64,
) -> Result<(), Box<dyn Error>> {
    let mut back = vec![0; PIECE];
    disk.read(place(arguments, index), &mut back)?;
    match back == piece(index, round) {
        true => Ok(()),
        false => {
            let found = back.first_chunk().map(|mark| u64::from_le_bytes(*mark));
            let what = back.get(8..).and_then(|rest| rest.first_chunk());
            let what = what.map(|mark| u64::from_le_bytes(*mark));
            Err(format!("piece {index} has {found:?} of round {what:?} and not of {round}").into())
        }
    }
}

fn say(line: &str) -> Result<(), Box<dyn Error>> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}")?;
    Ok(out.flush()?)
}

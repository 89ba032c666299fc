//! The fuzz targets (`fuzz/src/lib.rs`) over their corpus and what is made of it: without libFuzzer, on every machine.

use std::{fs, panic, path::Path, time::Instant};

use crate::harness::{faulty::Dice, full};

#[path = "../../fuzz/src/lib.rs"]
mod fuzz;

/// Pieces that parsers look for.
const WORDS: [&[u8]; 32] = [
    b"\r\n",
    b"\n",
    b"\r",
    b"\0",
    b" ",
    b"\t",
    b"\x0b",
    b"\x0c",
    b":",
    b",",
    b";",
    b"=",
    b"\"",
    b"[",
    b"]",
    b".",
    b"/",
    b"..",
    b"%2e",
    b"%2F",
    b"%5c",
    b"\\",
    b"@",
    b"0",
    b"ffffffff",
    b"18446744073709551616",
    b"Content-Length: 1\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Host: b\r\n",
    b"0\r\n\r\n",
    b"::ffff:",
    b"\xff",
];

/// A mutation or a few of one entry, sometimes with half of another.
fn mutate(corpus: &[Vec<u8>], dice: &mut Dice) -> Vec<u8> {
    let entry = |dice: &mut Dice| corpus[dice.below(corpus.len() as u64) as usize].clone();
    let mut data = entry(dice);
    for _ in 0..=dice.below(4) {
        let at = dice.below(data.len() as u64 + 1) as usize;
        match dice.below(8) {
            0 if at < data.len() => data[at] = dice.roll() as u8,
            1 if at < data.len() => data[at] ^= 1 << dice.below(8),
            2 if at < data.len() => drop(data.remove(at)),
            3 => data.truncate(at),
            4 => drop(data.splice(at..at, entry(dice))),
            5 => {
                let end = at + dice.below((data.len() - at) as u64 + 1) as usize;
                let piece = data[at..end].to_vec();
                drop(data.splice(end..end, piece));
            }
            _ => drop(data.splice(at..at, dice.pick(&WORDS).iter().copied())),
        }
    }
    data
}

#[test]
fn whatever_they_are_given() {
    let tries = if full() { 3_000_000 } else { 50_000 };
    for (name, target) in fuzz::TARGETS {
        let folder = Path::new("fuzz/corpus").join(name);
        let mut files: Vec<_> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        files.sort();
        let corpus: Vec<Vec<u8>> = files.iter().map(|file| fs::read(file).unwrap()).collect();
        assert!(corpus.len() >= 3, "{name} has hardly a corpus");
        let mut dice = Dice::new(7);
        // A config is a thousand times the work of a path.
        let tries = if name == "config" { tries / 100 } else { tries };
        let start = Instant::now();
        let mutants = (0..tries).map(|_| mutate(&corpus, &mut dice));
        for data in corpus.iter().cloned().chain(mutants) {
            let judged = panic::catch_unwind(|| target(&data));
            assert!(judged.is_ok(), "{name}: {}", data.escape_ascii());
        }
        println!("{name}: {tries} mutants of {} in {:?}", corpus.len(), start.elapsed());
    }
}

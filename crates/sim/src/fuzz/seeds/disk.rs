//! Faults, as [`damage`](crate::fuzz::damage) reads them.

use super::{Seed, seed, string};

pub(super) fn add(all: &mut Vec<Seed>) {
    for log in 0..6 {
        all.push(seed("wal", format!("good-{log}"), [log, 0]));
        // A sealed one, one that is not, one whose first segment serves again.
        let faults = if [0, 1, 5].contains(&log) { rot() } else { Vec::new() };
        for (name, fault) in faults {
            all.push(seed("wal", format!("{name}-{log}"), [&[log, 0][..], &fault].concat()));
        }
    }
    let forgeries: [(&str, Vec<Vec<u8>>); 6] = [
        ("capacity-beyond-the-file", vec![splice(0, 0, 68, &[0xff; 8])]),
        ("capacity-of-nothing", vec![splice(0, 0, 68, &[0; 8])]),
        ("another-format", vec![splice(0, 0, 8, &[9])]),
        ("another-incarnation", vec![splice(0, 0, 36, &[1; 16])]),
        ("record-of-unknown-type", vec![splice(0, 0, 1024 + 48 + 4, &[9])]),
        ("last-group-there-is", vec![splice(0, 0, 60, &[0xff; 8]), splice(0, 0, 512 + 8, &[0xff; 8])]),
    ];
    for (name, splices) in forgeries {
        all.push(seed("wal", format!("forged-{name}"), [vec![3, 1], splices.concat()].concat()));
    }
    all.push(seed("wal", "forged-but-not-sealed", [vec![3, 1], splice(0, 2, 70, &[1])].concat()));

    for which in 0..2 {
        all.push(seed("identity", format!("good-{which}"), [which, 0]));
        for (name, fault) in rot() {
            all.push(seed("identity", format!("{name}-{which}"), [&[which, 0][..], &fault].concat()));
        }
        for (name, splice) in [
            ("other-name", splice(0, 0, 24, b"xy")),
            ("other-node", splice(0, 0, 26, &[0xff; 8])),
            ("last-boot", splice(0, 0, 72, &[0xff; 8])),
            ("cut-short", splice(0, 1, 40, &[])),
            ("another-format", splice(0, 0, 8, &[2])),
            ("long", splice(0, 0, 60, &[1; 200])),
        ] {
            all.push(seed("identity", format!("forged-{name}-{which}"), [vec![which, 1], splice].concat()));
        }
    }

    all.push(seed("checkpoint", "good", [0]));
    for file in 0..5 {
        for (name, mut fault) in rot() {
            fault[1] = file;
            all.push(seed("checkpoint", format!("{name}-{file}"), [vec![0], fault].concat()));
        }
    }
    let run =
        |id: u64, blocks: u64, bytes: u64| [id, 1, 1, blocks, bytes, bytes].map(u64::to_le_bytes).concat();
    let manifest = |runs: &[Vec<u8>]| {
        let count = u32::try_from(runs.len()).expect("few");
        let body =
            [&12_u64.to_le_bytes()[..], &0_u32.to_le_bytes(), &count.to_le_bytes(), &runs.concat()].concat();
        // Behind the four runs.
        [vec![1], splice(4, 1, 20, &body)].concat()
    };
    for (name, runs) in [
        ("forged-no-runs", vec![]),
        ("forged-orphan", vec![run(4, 1, 50)]),
        ("forged-same-run-twice", vec![run(2, 1, 100), run(2, 1, 100)]),
        ("forged-missing-run", vec![run(99, 1, 1)]),
        ("forged-endless-run", vec![run(2, u64::MAX, u64::MAX)]),
        ("forged-other-shape", vec![run(2, 13, 4)]),
    ] {
        all.push(seed("checkpoint", name, manifest(&runs)));
    }
}

/// One fault of each kind, in the first file, and two of them together.
fn rot() -> Vec<(&'static str, Vec<u8>)> {
    let burst = vec![0, 0, 9, 0, 1, 0, 0, 0];
    let zeroes = vec![1, 0, 1];
    let misdirected = vec![2, 0, 1, 1, 2];
    let cut = vec![3, 0, 70, 0];
    vec![
        ("two-faults", [zeroes.clone(), burst.clone()].concat()),
        ("burst", burst),
        ("zeroes", zeroes),
        ("misdirected", misdirected),
        ("cut-short", cut),
        ("gone", vec![4, 0]),
        ("gone-behind", vec![4, 1]),
    ]
}

fn splice(file: u8, flags: u8, at: u16, bytes: &[u8]) -> Vec<u8> {
    [vec![file, flags], at.to_le_bytes().to_vec(), string(bytes)].concat()
}

//! A replica's life on the file system: all parts together, through several starts.

mod common;

use bytes::Bytes;
use common::*;
use std::sync::Arc;
use synod_paxos::types::Prefix;
use synod_storage::checkpoint::{CheckpointStore, Manifest};
use synod_storage::datadir::DataDir;
use synod_storage::disk::SharedDisk;
use synod_storage::identity::{self, Identity};
use synod_storage::wal::{WalOptions, WriteAheadLog};

const OPTIONS: WalOptions = WalOptions { segment_bytes: 64 << 10 };

#[test]
fn c4_everything_is_there_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let mut said = Vec::new();
    for start in 0..5u64 {
        let data = DataDir::open(dir.path().join("n2"), "n2").unwrap();
        let disk: SharedDisk = Arc::new(data.disk().clone());
        let mut log = match identity::start(&disk, Some(identity().node)).unwrap() {
            None => {
                assert_eq!(start, 0);
                let log = WriteAheadLog::create(disk.clone(), identity(), OPTIONS).unwrap();
                let me = Identity {
                    name: "n2".into(),
                    node: identity().node,
                    incarnation: identity().incarnation,
                    cluster: Some(identity().cluster),
                    genesis: None,
                    boots: 0,
                    formation: Bytes::new(),
                };
                identity::save(&disk, &me).unwrap();
                log
            }
            Some(me) => {
                assert_eq!(me.boots, start);
                let opened = WriteAheadLog::open(disk.clone(), identity(), OPTIONS).unwrap();
                assert_eq!(memory(&opened.records), memory(&said), "start {start}");
                assert!(!opened.cut);
                opened.log
            }
        };
        let (mut checkpoints, last) = CheckpointStore::open(disk.clone()).unwrap();
        let covered = last.as_ref().map_or(0, |last| last.covered.0);
        assert_eq!(covered, start * 20);

        for slot in covered + 1..=covered + 20 {
            let group = [accepted(start, slot, 9000), chosen(start, slot - 1)];
            log.append(&group).unwrap();
            said.extend(group);
            log.prepare_next(10_000).unwrap();
        }
        let mut runs = last.map_or(Vec::new(), |last| last.runs);
        runs.push(checkpoints.write_run(covered, covered + 19, [Ok(Bytes::from(vec![7; 3000]))]).unwrap().0);
        let upto = Prefix(covered + 20);
        checkpoints.commit(&Manifest { covered: upto, meta: Bytes::new(), runs }).unwrap();
        log.append(&[trimmed(upto.0)]).unwrap();
        said.push(trimmed(upto.0));
        log.trim(upto).unwrap();
        assert_eq!(log.segments(), 1, "start {start}");
        log.seal().unwrap();
    }
    let files = std::fs::read_dir(dir.path().join("n2/wal")).unwrap().count();
    assert!(files <= 4, "one segment and three spares at most, not {files} files");
}

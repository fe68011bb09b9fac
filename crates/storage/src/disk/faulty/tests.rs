use super::*;
use crate::disk::read_all;

fn written(disk: &FaultyDisk, synced: &[u8], unsynced: &[u8]) {
    let mut file = disk.create("f").unwrap();
    disk.sync_dir("").unwrap();
    file.write_at(0, synced).unwrap();
    file.sync().unwrap();
    file.write_at(synced.len() as u64, unsynced).unwrap();
}

#[test]
fn c2_a_power_cut_takes_only_unsynced_bytes() {
    let mut outcomes = BTreeSet::new();
    for seed in 0..64 {
        let disk = FaultyDisk::new(seed);
        written(&disk, &[1; 1024], &[2; 1024]);
        disk.power_cut(Survivors::Some);
        let left = disk.contents("f").unwrap();
        assert_eq!(left[..1024], [1; 1024]);
        outcomes.insert(left[1024..].to_vec());
    }
    // None, the first, the second behind a hole, both.
    assert_eq!(outcomes.len(), 4);
}

#[test]
fn c1_a_process_crash_keeps_the_page_cache_and_closes_files() {
    let disk = FaultyDisk::new(1);
    let mut old = disk.create("f").unwrap();
    old.write_at(0, b"abc").unwrap();
    disk.process_crash();
    assert!(old.sync().is_err());
    assert_eq!(read_all(&*disk.open("f").unwrap()).unwrap(), b"abc");
    disk.power_cut(Survivors::None);
    assert!(disk.open("f").is_err(), "its name was never synced");
}

#[test]
fn d4_after_a_failed_sync_the_cache_shows_what_the_disk_does_not_have() {
    let disk = FaultyDisk::new(3);
    written(&disk, &[1; 512], &[2; 4096]);
    let mut file = disk.open("f").unwrap();
    disk.fail_at(disk.operations() + 1, Fault::Error);
    assert!(file.sync().is_err());
    file.sync().expect("nothing is dirty, so nothing can fail");
    assert_eq!(read_all(&*file).unwrap()[512..], [2; 4096], "reading back proves nothing");
    file.settle().unwrap();
    assert_ne!(read_all(&*file).unwrap().get(512..), Some(&[2; 4096][..]));
}

#[test]
fn d5_a_lying_sync_survives_a_dropped_cache_but_not_a_power_cut() {
    let disk = FaultyDisk::new(4);
    written(&disk, &[1; 512], &[2; 512]);
    let mut file = disk.open("f").unwrap();
    disk.fail_at(disk.operations() + 1, Fault::LyingSync);
    file.sync().unwrap();
    file.drop_cache().unwrap();
    assert_eq!(read_all(&*file).unwrap().len(), 1024);
    disk.power_cut(Survivors::None);
    assert_eq!(disk.contents("f").unwrap(), [1; 512]);
}

#[test]
fn names_last_once_their_directory_is_synced() {
    for survivors in [Survivors::None, Survivors::All] {
        let disk = FaultyDisk::new(5);
        written(&disk, b"old", b"");
        disk.create("g").unwrap();
        disk.rename("g", "f").unwrap();
        disk.power_cut(survivors);
        assert_eq!(disk.contents("f").unwrap().is_empty(), survivors == Survivors::All);
        assert_eq!(disk.paths(), ["f"]);
    }
}

#[test]
fn d2_a_full_disk_takes_what_fits() {
    let disk = FaultyDisk::new(6);
    disk.set_capacity(Some(1000));
    let mut file = disk.create("f").unwrap();
    let error = file.write_at(0, &[1; 2000]).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    assert_eq!(file.len().unwrap(), 1000);
    file.write_at(0, &[2; 1000]).expect("overwriting needs no space");
    disk.set_read_only(true);
    assert!(file.write_at(0, &[3]).is_err());
}

#[test]
fn a_planned_crash_happens_where_it_was_planned() {
    for (point, len) in [(CrashPoint::Before, 0..1), (CrashPoint::During, 0..5), (CrashPoint::After, 4..5)] {
        let disk = FaultyDisk::new(7);
        let mut file = disk.create("f").unwrap();
        disk.crash_at(2, point);
        assert!(file.write_at(0, b"abcd").is_err());
        assert!(disk.crashed() && disk.create("g").is_err());
        disk.process_crash();
        assert!(len.contains(&disk.contents("f").unwrap().len()), "{point:?}");
    }
}

#[test]
fn one_seed_has_one_story() {
    let story = |seed| {
        let disk = FaultyDisk::new(seed);
        disk.set_rates(FaultRates { write_error: 2000, short_write: 2000, ..FaultRates::default() });
        let mut log = Vec::new();
        for n in 0..50u8 {
            log.push(disk.create(&format!("{n}")).and_then(|mut f| f.write_at(0, &[n; 900])).is_ok());
        }
        disk.power_cut(Survivors::Some);
        (log, disk.paths())
    };
    assert_eq!(story(8), story(8));
    assert_ne!(story(8), story(9));
}

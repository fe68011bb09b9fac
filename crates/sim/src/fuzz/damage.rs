//! Disks that were good, and what happens to them.
//!
//! There are two ways to hurt a disk, and they deserve different demands.
//!
//! - *Rot* is what disks do (fault catalogue, D7 to D9): a few bits change, sectors become zeroes or land in the
//!   wrong place, files are cut short or vanish. A reader must notice. At most one burst of four bytes is let in
//!   per input, for that much CRC-32C finds with certainty, while with two of them a fuzzer that sees
//!   comparisons learns to put the right checksum behind the wrong bytes.
//! - *Forgery* is any bytes in any place, with checksums made right afterwards. No checksum helps against
//!   that, and what it says may be believed; but it must not bring the reader down.

use super::input::Input;
use std::collections::BTreeMap;
use std::sync::Arc;
use synod_storage::disk::{Disk, MemoryDisk, SECTOR, SharedDisk};

/// Faults beyond this many in one input are ignored.
const MAX_FAULTS: usize = 8;

/// Files grow to this at most, in bytes.
const MAX_FILE: usize = 64 << 10;

/// All that is on a disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Image {
    pub(super) files: BTreeMap<String, Vec<u8>>,
}

impl Image {
    /// What these directories of `disk` hold.
    pub(super) fn of(disk: &dyn Disk, dirs: &[&str]) -> Image {
        let mut files = BTreeMap::new();
        for dir in dirs {
            for name in disk.list(dir).expect("a disk in memory does not fail") {
                let path = if dir.is_empty() { name } else { format!("{dir}/{name}") };
                let file = disk.open(&path).expect("it was just listed");
                let len = file.len().expect("a disk in memory does not fail");
                let mut bytes = vec![0; usize::try_from(len).expect("it is in memory")];
                file.read_at(0, &mut bytes).expect("a disk in memory does not fail");
                files.insert(path, bytes);
            }
        }
        Image { files }
    }

    /// A fresh disk with these files.
    pub(super) fn disk(&self) -> SharedDisk {
        let disk = MemoryDisk::new();
        for (path, bytes) in &self.files {
            let mut file = disk.create(path).expect("a disk in memory does not fail");
            file.write_at(0, bytes).expect("a disk in memory does not fail");
        }
        Arc::new(disk)
    }

    fn path(&self, choice: u8) -> Option<String> {
        self.files.keys().nth(usize::from(choice) % self.files.len().max(1)).cloned()
    }

    /// Lets the disk rot as `input` says, but never removes `kept`. Returns how many faults changed anything.
    pub(super) fn rot(&mut self, mut input: Input<'_>, kept: Option<&str>) -> usize {
        let mut burst = false;
        let mut changed = 0;
        for _ in 0..MAX_FAULTS {
            if input.is_empty() {
                break;
            }
            let kind = input.u8() % 5;
            let Some(path) = self.path(input.u8()) else { break };
            let before = self.files[&path].clone();
            match kind {
                0 => {
                    let (at, mask) = (input.u16(), input.bytes(4));
                    if !std::mem::replace(&mut burst, true) {
                        self.flip(&path, at.into(), mask);
                    }
                }
                1 => {
                    let sector = usize::from(input.u8());
                    self.write_sector(&path, sector, &[0; SECTOR]);
                }
                2 => {
                    let (source, from, to) = (input.u8(), usize::from(input.u8()), input.u8());
                    let source = self.path(source).expect("there is a file");
                    let bytes = self.files[&source].chunks(SECTOR).nth(from).map(<[u8]>::to_vec);
                    self.write_sector(&path, to.into(), &bytes.unwrap_or_default());
                }
                3 => {
                    let len = usize::from(input.u16());
                    let file = self.files.get_mut(&path).expect("chosen among the files");
                    file.truncate(len % (file.len() + 1));
                }
                _ if kept == Some(path.as_str()) => {}
                _ => drop(self.files.remove(&path)),
            }
            changed += usize::from(self.files.get(&path) != Some(&before));
        }
        changed
    }

    fn flip(&mut self, path: &str, at: usize, mask: &[u8]) {
        let file = self.files.get_mut(path).expect("chosen among the files");
        let at = at % file.len().max(1);
        // Within one sector, or one fault would be two: in a group and in the one that vouches for it.
        let mask = &mask[..mask.len().min(SECTOR - at % SECTOR)];
        file.iter_mut().skip(at).zip(mask).for_each(|(byte, mask)| *byte ^= mask);
    }

    /// Sectors land within the file: a disk does not make it longer.
    fn write_sector(&mut self, path: &str, sector: usize, bytes: &[u8]) {
        let file = self.files.get_mut(path).expect("chosen among the files");
        let sectors = file.len().div_ceil(SECTOR).max(1);
        let start = (sector % sectors) * SECTOR;
        file.iter_mut().skip(start).zip(bytes).for_each(|(byte, new)| *byte = *new);
    }

    /// Puts bytes of `input` where it says, then has `reseal` make the checksums of each file right. Returns
    /// whether anything changed.
    pub(super) fn forge(&mut self, mut input: Input<'_>, reseal: impl Fn(&str, &mut [u8])) -> bool {
        let before = self.clone();
        for _ in 0..MAX_FAULTS {
            if input.is_empty() {
                break;
            }
            let Some(path) = self.path(input.u8()) else { break };
            let (flags, at, bytes) = (input.u8(), usize::from(input.u16()), input.string());
            let file = self.files.get_mut(&path).expect("chosen among the files");
            let at = at % (file.len() + 1);
            let end = (at + bytes.len()).min(MAX_FILE);
            if file.len() < end {
                file.resize(end, 0);
            }
            file.iter_mut().skip(at).zip(bytes).for_each(|(byte, new)| *byte = *new);
            if flags & 1 != 0 {
                file.truncate(end);
            }
            // Without this the checksum stays wrong, which is a test too.
            if flags & 2 == 0 {
                reseal(&path, file);
            }
        }
        *self != before
    }
}

/// Makes length and checksum right in a file that is replaced as a whole: the identity, the manifest.
pub(super) fn reseal_small(bytes: &mut [u8]) {
    const HEADER: usize = 20;
    if bytes.len() < HEADER {
        return;
    }
    let len = u32::try_from(bytes.len() - HEADER).expect("files here are small");
    bytes[12..16].copy_from_slice(&len.to_le_bytes());
    let crc = crc32c::crc32c_append(crc32c::crc32c(&bytes[..16]), &bytes[HEADER..]);
    bytes[16..HEADER].copy_from_slice(&crc.to_le_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_is_counted_only_if_it_changed_something() {
        let good = Image { files: BTreeMap::from([("a".into(), vec![7; 1024]), ("b".into(), vec![0; 600])]) };
        let rot = |input: &[u8], kept| {
            let mut image = good.clone();
            (image.rot(Input::new(input), kept), image)
        };
        // The last sector of `b` is zeroes already; a burst of zeroes flips nothing; `a` may not go.
        assert_eq!(rot(&[1, 1, 1, 0, 0, 9, 0, 0, 0, 0, 0, 4, 0], Some("a")), (0, good.clone()));
        let (changed, image) = rot(&[0, 0, 9, 0, 1, 0, 0, 2, 1, 0, 3, 1, 4, 0], None);
        assert_eq!(changed, 3);
        assert_eq!(image.files[&"b".to_string()][512..], [0; 88]);
    }

    #[test]
    fn only_one_burst_is_let_in() {
        let mut image = Image { files: BTreeMap::from([("a".into(), vec![0; 64])]) };
        let burst = |at| [0, 0, at, 0, 1, 1, 1, 1];
        let changed = image.rot(Input::new(&[burst(0), burst(32)].concat()), None);
        assert_eq!((changed, image.files["a"][0], image.files["a"][32]), (1, 1, 0));
    }
}

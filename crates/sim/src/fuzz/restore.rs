//! A store's image and its parts, from the disk or from a peer, in whatever pieces they come.
//!
//! ```text
//!   input = length of the pieces, how: as it is or forged, image
//! ```
//!
//! A forger's records are an image; behind an empty record, they are the next part.

use super::Outcome::{Refused, Understood};
use super::input::Input;
use super::requests::{at_hand, image_of};
use super::{Outcome, bounded};
use bytes::Bytes;
use synod_kv::{
    CompactRequest, DeleteRangeRequest, KeyRange, PutRequest, RangeRequest, Request, Restore, RestoreError,
    Revision, Store,
};
use xxhash_rust::xxh3::xxh3_128;

/// The most pieces that an image is cut into.
const MAX_PIECES: usize = 256;

/// Restores a store. However the image is cut, the result is the same; a store that comes of it makes an
/// image of itself from which the same store comes, can be swept and read, and takes other requests; what these
/// change can be written as a part.
pub fn restore(data: &[u8]) -> Outcome {
    let mut input = Input::new(bounded(data));
    let piece = usize::from(input.u8());
    let forged = !input.u8().is_multiple_of(2);
    let rest = input.rest();
    let parts = if forged { seal(rest) } else { vec![rest.to_vec()] };
    let whole = read(&parts, rest.len());
    let cut = read(&parts, piece.max(rest.len() / MAX_PIECES));
    let mut store = match (whole, cut) {
        (Ok(whole), Ok(cut)) => {
            assert_eq!(image_of(&whole), image_of(&cut));
            whole
        }
        (Err(_), Err(_)) => return Refused,
        (whole, cut) => panic!("in one piece {:?}, in pieces {:?}", whole.err(), cut.err()),
    };
    let again = image_of(&store);
    let copy = read(std::slice::from_ref(&again), again.len()).expect("its own image");
    assert_eq!((copy.state_hash(), copy.revision()), (store.state_hash(), store.revision()));
    let (ours, theirs) = (store.stats(), copy.stats());
    assert_eq!((ours.keys, ours.bytes_in_use), (theirs.keys, theirs.bytes_in_use));
    // The dead are left out of an image, and go before long.
    for _ in 0..=bounded(data).len() {
        if !store.sweep(1) {
            break;
        }
    }
    assert_eq!(image_of(&store), again, "sweeping shows");
    let read = at_hand(store.range(&RangeRequest::new(KeyRange::all()))).expect("the present can be read");
    assert_eq!(read.count, ours.keys);
    let changes = store.changes_from(store.compacted().unwrap_or_default());
    assert!(changes.is_ok_and(|changes| changes.count() as u64 <= ours.versions));
    let applied = at_hand(store.apply(&Request::Put(PutRequest::new("new", "value")))).expect("a plain put");
    assert!(applied.revision > copy.revision());
    if applied.revision < LAST {
        goes_on(store);
    }
    Understood
}

/// Beyond this, no revision is read back.
const LAST: Revision = Revision((1 << 62) - 10);

/// All keys go, and what is left of them is swept: a part says so.
fn goes_on(mut store: Store) {
    let (head, before) = (store.head(), image_of(&store));
    let all = DeleteRangeRequest::new(KeyRange::all());
    let revision = at_hand(store.apply(&Request::DeleteRange(all))).expect("a plain removal").revision;
    at_hand(store.apply(&Request::Put(PutRequest::new("newer", "value")))).expect("a plain put");
    let compact = CompactRequest { revision: Revision(revision.0 + 1), physical: false };
    at_hand(store.apply(&Request::Compact(compact))).expect("not done before");
    store.sweep(before.len());
    let part = store.snapshot().part(head).expect("all is known").flat_map(at_hand).collect();
    let restored = read(&[before, part], 50).expect("its own image and part");
    assert_eq!((restored.head(), restored.stats().keys), (store.head(), 1));
    assert_eq!(image_of(&restored), image_of(&store));
}

/// Reads an image and its parts, each in pieces of this length.
fn read(parts: &[Vec<u8>], piece: usize) -> Result<Store, RestoreError> {
    let mut restore = Restore::new();
    for (number, part) in parts.iter().enumerate() {
        let next = if number > 0 { restore.next_part() } else { Ok(()) };
        let mut pieces = part.chunks(piece.max(1));
        let pushed =
            next.and_then(|()| pieces.try_for_each(|piece| restore.push(Bytes::copy_from_slice(piece))));
        if let Err(error) = pushed {
            let again = restore.push(Bytes::from_static(b"more"));
            assert_eq!(again.as_ref(), Err(&error), "an error that went away");
            assert_eq!(restore.finish().err().as_ref(), Some(&error));
            return Err(error);
        }
    }
    restore.finish()
}

/// The bytes as the records of an image and of the parts behind it.
fn seal(records: &[u8]) -> Vec<Vec<u8>> {
    let (first, mut rest) = seal_one(1, records);
    let mut parts = vec![first];
    while let Some(records) = rest {
        let part;
        (part, rest) = seal_one(2, records);
        parts.push(part);
    }
    parts
}

/// Records up to an empty one, with what makes them whole in front and behind: an end that counts them and has the
/// right digest. Also returns what is behind the empty one, if there is one.
fn seal_one(version: u8, records: &[u8]) -> (Vec<u8>, Option<&[u8]>) {
    let mut image = [&b"synod-kv"[..], &[version]].concat();
    let mut rest = records;
    let mut next = None;
    let mut count = 0_u64;
    while let Some((&len, behind)) = rest.split_first()
        && let Some((record, behind)) = behind.split_at_checked(len.into())
    {
        // Lengths of two bytes are for the encoder's own images; the forger's records are short.
        if len >= 0x80 {
            break;
        }
        if len == 0 {
            next = Some(behind);
            break;
        }
        image.push(len);
        image.extend_from_slice(record);
        count += 1;
        rest = behind;
    }
    let mut end = vec![4];
    // The first record is the header, which is not counted.
    let mut number = count.saturating_sub(1);
    while number >= 0x80 {
        end.push(number as u8 | 0x80);
        number >>= 7;
    }
    end.push(number as u8);
    end.extend_from_slice(&xxh3_128(&image).to_le_bytes());
    image.push(u8::try_from(end.len()).expect("a count and a digest are short"));
    image.extend_from_slice(&end);
    (image, next)
}

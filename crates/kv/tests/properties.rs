//! What holds for all requests: the store does what a naive model does, the same
//! every time, and neither sweeps nor journeys as an image can be told from outside.

mod common;

use bytes::Bytes;
use common::arbitrary::{range, request};
use common::model::Model;
use common::*;
use proptest::collection::vec;
use proptest::prelude::*;
use synod_kv::{KeyRange, RangeRequest, Request, RestoreError, Revision, Store};

/// Everything that can be read, at every revision that can be.
fn assert_like_model(store: &Store, model: &Model) -> Result<(), TestCaseError> {
    prop_assert_eq!(store.revision(), model.revision());
    prop_assert_eq!(store.compacted(), model.compacted());
    for revision in (1..=store.revision().0).map(Revision) {
        let everything = RangeRequest { revision: Some(revision), ..RangeRequest::new(KeyRange::all()) };
        prop_assert_eq!(common::range(store, &everything), model.range(&everything));
    }
    let count = common::range(store, &RangeRequest::new(KeyRange::all())).unwrap().count;
    prop_assert_eq!(store.stats().keys, count);
    Ok(())
}

/// What the numbers say, counted again from scratch.
fn assert_stats(store: &Store) -> Result<(), TestCaseError> {
    let restored = restore(&image(&store.snapshot()), 64).unwrap();
    prop_assert_eq!(store.stats(), restored.stats());
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn the_store_does_what_the_model_does(
        steps in vec((request(), 0..4_usize), 1..30),
        reads in vec(range(), 0..10),
    ) {
        let (mut store, mut model) = (Store::new(), Model::new());
        for (request, sweep) in &steps {
            let (hash, before) = (store.state_hash(), store.revision());
            let outcome = store.apply(request).unwrap();
            prop_assert_eq!(&outcome, &model.apply(request));
            let compacted = outcome.is_ok() && matches!(request, Request::Compact(_));
            let changed = store.revision() != before || compacted;
            prop_assert_eq!(store.state_hash() != hash, changed);
            store.sweep(*sweep);
        }
        assert_like_model(&store, &model)?;
        for read in &reads {
            prop_assert_eq!(common::range(&store, read), model.range(read));
        }
        sweep_all(&mut store, 3);
        assert_like_model(&store, &model)?;
        assert_stats(&store)?;
    }

    #[test]
    fn equal_requests_make_equal_stores(steps in vec((request(), 0..4_usize), 1..30)) {
        let (mut one, mut other) = (Store::new(), Store::new());
        for (request, sweep) in &steps {
            // Replicas sweep as they like, and get the request as bytes.
            one.sweep(*sweep);
            let decoded = Request::decode(request.encode()).unwrap();
            prop_assert_eq!(one.apply(request), other.apply(&decoded));
            prop_assert_eq!(one.state_hash(), other.state_hash());
        }
        prop_assert_eq!(image(&one.snapshot()), image(&other.snapshot()));
    }

    #[test]
    fn a_restored_store_is_the_same_store(
        steps in vec((request(), 0..4_usize), 1..30),
        later in vec(request(), 0..10),
        cut in 1..200_usize,
        chunk in 1..200_usize,
    ) {
        let (mut store, mut model) = (Store::new(), Model::new());
        for (request, sweep) in &steps {
            prop_assert_eq!(store.apply(request).unwrap(), model.apply(request));
            store.sweep(*sweep);
        }
        let chunks: Vec<Bytes> = store.snapshot().chunks(chunk).map(Result::unwrap).collect();
        prop_assert!(chunks.iter().all(|piece| !piece.is_empty() && piece.len() <= chunk));
        let image = chunks.concat();
        let mut restored = restore(&image, cut).unwrap();
        prop_assert_eq!(restored.state_hash(), store.state_hash());
        assert_like_model(&restored, &model)?;
        prop_assert_eq!(&common::image(&restored.snapshot()), &image);

        // They stay the same from there on.
        for request in &later {
            prop_assert_eq!(restored.apply(request).unwrap(), model.apply(request));
            store.apply(request).unwrap().ok();
        }
        sweep_all(&mut restored, 5);
        assert_like_model(&restored, &model)?;
        prop_assert_eq!(restored.state_hash(), store.state_hash());
        assert_stats(&restored)?;
    }

    #[test]
    fn an_altered_image_is_no_store(
        steps in vec(request(), 1..20),
        place in any::<prop::sample::Index>(),
        flip in 1..=255_u8,
    ) {
        let mut store = Store::new();
        for request in &steps {
            store.apply(request).unwrap().ok();
        }
        let image = image(&store.snapshot());
        let place = place.index(image.len());

        let mut altered = image.clone();
        altered[place] ^= flip;
        prop_assert!(restore(&altered, 50).is_err());

        let truncated = restore(&image[..place], 50);
        prop_assert_eq!(truncated.err(), Some(RestoreError::Truncated));

        let mut longer = image.clone();
        longer.push(flip);
        prop_assert_eq!(restore(&longer, 50).err(), Some(RestoreError::TrailingBytes));
    }

    #[test]
    fn requests_survive_their_encoding(request in request()) {
        let encoded = request.encode();
        prop_assert_eq!(encoded.len(), request.encoded_len());
        prop_assert_eq!(Request::decode(encoded), Ok(request));
    }

    #[test]
    fn bytes_are_a_request_or_an_error(mut bytes in vec(any::<u8>(), 0..80)) {
        for version in [None, Some(1)] {
            if let (Some(version), Some(first)) = (version, bytes.first_mut()) {
                *first = version;
            }
            // What can be read has one spelling: the one it was read from.
            if let Ok(request) = Request::decode(Bytes::copy_from_slice(&bytes)) {
                prop_assert_eq!(&request.encode()[..], &bytes[..]);
            }
        }
    }

    #[test]
    fn a_damaged_request_is_another_or_an_error(
        request in request(),
        place in any::<prop::sample::Index>(),
        flip in 1..=255_u8,
    ) {
        let encoded = request.encode();
        let mut damaged = encoded.to_vec();
        damaged[place.index(encoded.len())] ^= flip;
        if let Ok(other) = Request::decode(damaged.clone().into()) {
            prop_assert_ne!(&other, &request);
            prop_assert_eq!(&other.encode()[..], &damaged[..]);
            // Applying whatever came out is safe, too.
            Store::new().apply(&other).unwrap().ok();
        }
        let truncated = encoded.slice(..place.index(encoded.len()));
        prop_assert!(Request::decode(truncated).is_err());
    }
}

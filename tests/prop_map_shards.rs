//! What is left of the order of use in a map in parts: few keys pass one that was just used.
#![cfg(not(loom))]

use std::collections::{BTreeSet, HashMap};

use proptest::prelude::*;
use sluicegate::{BoundedArrayMap, Pushed};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn before_a_key_is_evicted_three_quarters_of_the_others_were_used(
        max_keys in 1_usize..40,
        pushes in prop::collection::vec((0_u32..60, 0_u32..60), 1..600),
    ) {
        let builder = BoundedArrayMap::builder().max_keys(max_keys).max_items_per_key(2);
        let map = builder.build_sharded(1).unwrap();
        // By key: which other keys were used since it was.
        let mut since: HashMap<u32, BTreeSet<u32>> = HashMap::new();
        // The lesser of two: so that some keys are used more than others.
        for (item, key) in (0..).zip(pushes.into_iter().map(|(one, other)| one.min(other))) {
            if let Pushed::Evicted { key, .. } = map.push(key, item) {
                let passed = since.remove(&key).unwrap().len();
                prop_assert!(passed + 1 + max_keys / 4 >= max_keys, "{passed} of {max_keys}");
            }
            for used in since.values_mut() {
                used.insert(key);
            }
            since.insert(key, BTreeSet::new());
            prop_assert_eq!(since.len(), map.len());
        }
    }
}

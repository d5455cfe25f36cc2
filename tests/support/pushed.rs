//! The outcome of a push to a map, taken apart.

use sluicegate::Pushed;

/// One outcome for each thing that left, and for a refusal; none if the item was just stored.
pub(crate) fn each<K, V, Id>(pushed: Pushed<K, V, Id>) -> Vec<Pushed<K, V, Id>> {
    match pushed {
        Pushed::Stored => Vec::new(),
        Pushed::Several(several) => {
            let displaced = several.displaced.into_iter();
            let displaced = displaced.map(|(value, id)| Pushed::Displaced { value, id });
            let evicted = several.evicted.into_iter();
            let evicted = evicted.map(|(key, items)| Pushed::Evicted { key, items });
            let each: Vec<_> = displaced.chain(evicted).collect();
            assert!(each.len() > 1, "more than one thing left");
            each
        }
        other => vec![other],
    }
}

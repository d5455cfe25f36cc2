//! Core in a form that can be kept, with their order.

use core::fmt;
use core::hash::Hash;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, SeqAccess, Visitor};
use serde::ser::{Serialize, SerializeSeq, Serializer};

use super::bounded::BoundedArrayMap;
use super::iter::Array;
use super::outcome::Pushed;

/// As a sequence of pairs of a key and its items, in the order in which they would be evicted.
/// Limits, ids, times of arrival and what is checked out are not written.
impl<K: Serialize, V: Serialize, Id> Serialize for BoundedArrayMap<K, V, Id> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let keys = self.iter_lru();
        let mut sequence = serializer.serialize_seq(Some(keys.len()))?;
        for (key, array) in keys {
            sequence.serialize_element(&(key, Row(array)))?;
        }
        sequence.end()
    }
}

struct Row<'a, V>(Array<'a, V>);

impl<V: Serialize> Serialize for Row<'_, V> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0)
    }
}

/// Pushes what was written into this map, under its own limits, as having arrived now.
///
/// ```
/// use serde::de::DeserializeSeed;
/// use sluicegate::BoundedArrayMap;
///
/// let mut map = BoundedArrayMap::<String, u32>::new(10, 10)?;
/// assert!(map.push("post".to_string(), 7).is_stored());
/// let written = serde_json::to_string(&map).unwrap();
/// assert_eq!(written, r#"[["post",[7]]]"#);
///
/// let mut restored = BoundedArrayMap::<String, u32>::new(10, 10)?;
/// let mut reader = serde_json::Deserializer::from_str(&written);
/// let mut too_many = 0;
/// restored.restore_with(|_pushed| too_many += 1).deserialize(&mut reader).unwrap();
/// assert_eq!((restored.take("post").len(), too_many), (1, 0));
/// # Ok::<(), sluicegate::ConfigError>(())
/// ```
#[must_use = "it reads nothing until `deserialize` is called"]
pub struct Restore<'a, K, V, Id, F> {
    map: &'a mut BoundedArrayMap<K, V, Id>,
    sink: F,
}

impl<K: Hash + Eq, V, Id> BoundedArrayMap<K, V, Id> {
    /// Reads what [`Serialize`] has written into this map, after what is in it. What does not fit,
    /// and what it pushes out, goes to `sink`, as with [`extend`](Self::extend). If the input
    /// is malformed, what was read before that stays.
    ///
    /// A key is cloned for each of its items but the last.
    pub fn restore_with<F: FnMut(Pushed<K, V, Id>)>(
        &mut self,
        sink: F,
    ) -> Restore<'_, K, V, Id, F> {
        Restore { map: self, sink }
    }
}

impl<K, V, Id, F> fmt::Debug for Restore<'_, K, V, Id, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Restore").field("items", &self.map.total_items()).finish_non_exhaustive()
    }
}

impl<'de, K, V, Id, F> DeserializeSeed<'de> for Restore<'_, K, V, Id, F>
where
    K: Hash + Eq + Clone + Deserialize<'de>,
    V: Deserialize<'de>,
    F: FnMut(Pushed<K, V, Id>),
{
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de, K, V, Id, F> Visitor<'de> for Restore<'_, K, V, Id, F>
where
    K: Hash + Eq + Clone + Deserialize<'de>,
    V: Deserialize<'de>,
    F: FnMut(Pushed<K, V, Id>),
{
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a sequence of pairs of a key and its items")
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut sequence: A) -> Result<(), A::Error> {
        while let Some((key, items)) = sequence.next_element::<(K, Vec<V>)>()? {
            let mut key = Some(key);
            let mut items = items.into_iter().peekable();
            while let Some(item) = items.next() {
                let key = if items.peek().is_some() { key.clone() } else { key.take() };
                if let Some(key) = key {
                    self.map.extend([(key, item)], &mut self.sink);
                }
            }
        }
        Ok(())
    }
}

//! How a handler answers.

use core::hash::Hash;
use std::collections::HashMap;
use std::collections::hash_map::Entry;

use super::error::CountMismatch;
use super::item::Call;
use crate::batcher::batch::Batch;

/// How a handler answers calls. The answers of a batch are sent together, when its guard is dropped.
/// An answered call is delivered, even if the attempt fails.
impl<T, R> Batch<Call<T, R>> {
    /// Answers the call at `index`, and returns the answer that it had before, if any.
    ///
    /// # Panics
    ///
    /// If `index` is out of bounds.
    pub fn reply(&mut self, index: usize, answer: R) -> Option<R> {
        self.as_mut_slice()[index].set_answer(answer)
    }

    /// Answers each call with the result of `answer` for its item.
    ///
    /// ```
    /// use std::collections::HashMap;
    /// use sluicegate::batcher::{Batch, Batcher, Call};
    ///
    /// /// Returns the users that exist, in any order.
    /// async fn load(ids: &[u32]) -> Result<HashMap<u32, String>, std::io::Error> {
    ///     Ok(ids.iter().filter(|id| **id < 10).map(|id| (*id, format!("user {id}"))).collect())
    /// }
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let users = Batcher::builder()
    ///     .eager_when_idle()
    ///     .build_caller(|mut batch: Batch<Call<u32, Option<String>>>| async move {
    ///         let ids: Vec<u32> = batch.iter().map(|call| *call.item()).collect();
    ///         let mut found = load(&ids).await?;
    ///         batch.reply_with(|id| found.remove(id));
    ///         Ok::<(), std::io::Error>(())
    ///     })?;
    ///
    /// let (seven, eleven) = tokio::join!(users.call(7), users.call(11));
    /// assert_eq!(seven?.as_deref(), Some("user 7"));
    /// assert_eq!(eleven?, None);
    /// # Ok(())
    /// # }
    /// ```
    pub fn reply_with(&mut self, mut answer: impl FnMut(&T) -> R) {
        for call in self.as_mut_slice() {
            let answer = answer(call.item());
            call.set_answer(answer);
        }
    }

    /// Answers the calls in order: the first answer goes to the first call, and so on.
    ///
    /// There must be exactly one answer per call. With more or fewer, an answer could reach the wrong
    /// caller, so every call of the batch fails with
    /// [`CallError::CountMismatch`](crate::batcher::CallError::CountMismatch), whatever the handler
    /// returns: it is not retried, counts as delivered, and loses any answer set before. If answers can
    /// be missing or out of order, use [`reply_with`](Self::reply_with).
    ///
    /// # Complexity
    ///
    /// O(calls), and one allocation. Pulls at most one surplus answer.
    pub fn reply_all(&mut self, answers: impl IntoIterator<Item = R>) {
        let calls = self.len();
        let mut rest = answers.into_iter();
        // User code runs first: if it panics, no call has an answer.
        let answers: Vec<R> = rest.by_ref().take(calls).collect();
        let surplus = match rest.next() {
            Some(_) => rest.size_hint().0.saturating_add(1),
            None => 0,
        };
        if answers.len() == calls && surplus == 0 {
            for (call, answer) in self.as_mut_slice().iter_mut().zip(answers) {
                call.set_answer(answer);
            }
            return;
        }
        let answers = answers.len().saturating_add(surplus);
        let mismatch = CountMismatch { answers, calls };
        for call in self.as_mut_slice() {
            call.set_mismatch(mismatch);
        }
    }

    /// Lets calls whose items have equal keys share an answer: each gets a clone. The first call of
    /// each key stays in the batch; the others leave it until the batch is retried.
    ///
    /// ```
    /// use sluicegate::batcher::{Batch, Batcher, Call};
    ///
    /// async fn load(ids: &[u32]) -> Result<HashMap<u32, String>, std::io::Error> {
    ///     Ok(ids.iter().map(|id| (*id, format!("user {id}"))).collect())
    /// }
    ///
    /// # use std::collections::HashMap;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let users = Batcher::builder()
    ///     .eager_when_idle()
    ///     .build_caller(|mut batch: Batch<Call<u32, String>>| async move {
    ///         batch.dedup_by_key(|id| *id);
    ///         let ids: Vec<u32> = batch.iter().map(|call| *call.item()).collect();
    ///         let users = load(&ids).await?;
    ///         batch.reply_with(|id| users[id].clone());
    ///         Ok::<(), std::io::Error>(())
    ///     })?;
    ///
    /// let (seven, again) = tokio::join!(users.call(7), users.call(7));
    /// assert_eq!(seven?, "user 7");
    /// assert_eq!(again?, "user 7");
    /// # Ok(())
    /// # }
    /// ```
    pub fn dedup_by_key<Q: Hash + Eq>(&mut self, mut key: impl FnMut(&T) -> Q)
    where
        R: Clone,
    {
        // User code runs first: if it panics, nothing has moved.
        let mut slots = HashMap::with_capacity(self.len());
        let mut origin = Vec::with_capacity(self.len());
        for call in self.iter() {
            let next = slots.len();
            origin.push(match slots.entry(key(call.item())) {
                Entry::Occupied(known) => Some(*known.get()),
                Entry::Vacant(fresh) => {
                    fresh.insert(next);
                    None
                }
            });
        }
        if slots.len() == origin.len() {
            return;
        }
        let calls = self.items_mut();
        let mut firsts: Vec<Call<T, R>> = Vec::with_capacity(slots.len());
        for (call, origin) in calls.drain(..).zip(origin) {
            match origin {
                Some(first) => firsts[first].add_duplicate(call, R::clone),
                None => firsts.push(call),
            }
        }
        *calls = firsts;
    }
}

//! What the two ways of measuring have in common, for the waiters.

/// When how many more may start. Times are in ticks.
pub(super) trait Meter {
    /// The first instant, not before `now`, at which `n` may start together if nothing else
    /// starts before.
    fn earliest(&self, n: u32, now: u64) -> u64;

    /// About when that will be after `ahead` others.
    fn earliest_behind(&self, ahead: u64, n: u32, now: u64) -> u64;

    /// Starts `n` together at the `earliest`, and returns when that is.
    fn start(&mut self, n: u32, now: u64) -> u64;
}

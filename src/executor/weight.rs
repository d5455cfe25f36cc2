//! How many permits an item takes.

/// How much an item weighs; implemented by what [`BatchExecutor`](super::BatchExecutor) puts in for its second parameter.
pub trait Weigher<I> {
    /// Whether items weigh anything but 1.
    const WEIGHS: bool;

    /// Runs the caller's code.
    fn weigh(&mut self, item: &I) -> u32;
}

/// Every item takes one permit.
#[derive(Debug, Clone, Copy, Default)]
pub struct UnitWeight;

impl<I> Weigher<I> for UnitWeight {
    const WEIGHS: bool = false;

    fn weigh(&mut self, _: &I) -> u32 {
        1
    }
}

/// An item takes as many permits as a function of it says.
#[derive(Clone)]
pub struct ByWeight<F>(pub(super) F);

impl<I, F: FnMut(&I) -> u32> Weigher<I> for ByWeight<F> {
    const WEIGHS: bool = true;

    fn weigh(&mut self, item: &I) -> u32 {
        (self.0)(item)
    }
}

impl<F> core::fmt::Debug for ByWeight<F> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("ByWeight(..)")
    }
}

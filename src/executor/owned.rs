//! Inputs that a batch owns.

use core::marker::PhantomData;

use super::attempts::DeadLetter;
use super::policies::Policy;
use crate::base::panic::quietly;
use crate::settled::SettledKind;

/// The inputs of a batch that owns them: those that it has not pulled when it ends or is dropped go
/// to the dead letters.
pub(crate) struct Owned<'a, I: Iterator, E, P: Policy<I::Item, E>> {
    inputs: I,
    policy: &'a P,
    pulled: usize,
    errors: PhantomData<fn(E)>,
}

impl<'a, I: Iterator, E, P: Policy<I::Item, E>> Owned<'a, I, E, P> {
    pub(crate) fn new(inputs: I, policy: &'a P) -> Self {
        Self { inputs, policy, pulled: 0, errors: PhantomData }
    }
}

impl<I: Iterator, E, P: Policy<I::Item, E>> Iterator for Owned<'_, I, E, P> {
    type Item = I::Item;

    fn next(&mut self) -> Option<I::Item> {
        let input = self.inputs.next()?;
        self.pulled += 1;
        Some(input)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.inputs.size_hint()
    }
}

impl<I: Iterator, E, P: Policy<I::Item, E>> Drop for Owned<'_, I, E, P> {
    fn drop(&mut self) {
        for (index, input) in (self.pulled..).zip(self.inputs.by_ref()) {
            let kind = SettledKind::Cancelled;
            quietly(|| {
                self.policy.dead_letter(DeadLetter {
                    index,
                    input,
                    kind,
                    attempts: 0,
                    error: None,
                });
            });
        }
    }
}

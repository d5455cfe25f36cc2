//! Builds batchers whose handler answers each item.

use core::future::Future;
use core::hash::Hash;
use std::sync::Arc;

use super::item::{Call, send_answers};
use super::{Caller, KeyedCaller};
use crate::ConfigError;
use crate::batcher::batch::Batch;
use crate::batcher::builder::{Builder, Keyed};
use crate::batcher::driver::Driver;
use crate::batcher::error::{BatchError, HandlerError};
use crate::batcher::keyed::KeyedBatch;

/// Tells the callers why there is no answer.
fn fail_callers<T, R>(calls: Vec<Call<T, R>>, error: BatchError) {
    let error = Arc::new(error);
    for call in calls {
        call.fail(&error);
    }
}

impl<T: Send + 'static, R: Send + 'static> Builder<Call<T, R>> {
    /// As [`build`](Self::build), for a handler that answers its items: each is sent with
    /// [`Caller::call`].
    ///
    /// What fails for good comes back to its callers with the reason, unless a
    /// [`dead_letter`](Self::dead_letter) is set. Calls that it drops give their callers
    /// [`CallError::Unanswered`](super::CallError::Unanswered).
    ///
    /// # Errors
    ///
    /// As [`build`](Self::build), except that no `dead_letter` is needed.
    #[cfg(feature = "tokio")]
    pub fn build_caller<H, F, E>(self, handler: H) -> Result<Caller<T, R>, ConfigError>
    where
        H: Fn(Batch<Call<T, R>>) -> F + Send + 'static,
        F: Future<Output = Result<(), E>> + Send + 'static,
        E: Into<HandlerError> + 'static,
    {
        let runtime = crate::batcher::runtime::runtime()?;
        let (caller, driver) = self.build_caller_with_driver(handler)?;
        runtime.spawn(driver);
        Ok(caller)
    }

    /// As [`build_with_driver`](Self::build_with_driver), for a handler that answers its items.
    ///
    /// # Errors
    ///
    /// A limit that is out of range.
    pub fn build_caller_with_driver<H, F, E>(
        mut self,
        handler: H,
    ) -> Result<(Caller<T, R>, Driver), ConfigError>
    where
        H: Fn(Batch<Call<T, R>>) -> F + Send + 'static,
        F: Future<Output = Result<(), E>> + Send + 'static,
        E: Into<HandlerError> + 'static,
    {
        if self.dead_letter.is_none() {
            self = self.dead_letter(fail_callers);
        }
        let (batcher, driver) = self.build_with_driver(move |mut batch: Batch<Call<T, R>>| {
            batch.on_return(send_answers);
            handler(batch)
        })?;
        Ok((Caller::new(batcher), driver))
    }
}

impl<K, T, R> Builder<Call<T, R>, Keyed<K>>
where
    K: Hash + Eq + Send + Sync + 'static,
    T: Send + 'static,
    R: Send + 'static,
{
    /// As [`build`](Self::build), for a handler that answers its items: each is sent with
    /// [`KeyedCaller::call`](Caller::call).
    ///
    /// What fails for good comes back to its callers with the reason, unless a
    /// [`dead_letter`](Self::dead_letter) is set. Calls that it drops give their callers
    /// [`CallError::Unanswered`](super::CallError::Unanswered).
    ///
    /// # Errors
    ///
    /// As [`build`](Self::build), except that no `dead_letter` is needed.
    #[cfg(feature = "tokio")]
    pub fn build_caller<H, F, E>(self, handler: H) -> Result<KeyedCaller<K, T, R>, ConfigError>
    where
        H: Fn(KeyedBatch<K, Call<T, R>>) -> F + Send + 'static,
        F: Future<Output = Result<(), E>> + Send + 'static,
        E: Into<HandlerError> + 'static,
    {
        let runtime = crate::batcher::runtime::runtime()?;
        let (caller, driver) = self.build_caller_with_driver(handler)?;
        runtime.spawn(driver);
        Ok(caller)
    }

    /// As [`build_with_driver`](Self::build_with_driver), for a handler that answers its items.
    ///
    /// # Errors
    ///
    /// A limit that is out of range.
    pub fn build_caller_with_driver<H, F, E>(
        mut self,
        handler: H,
    ) -> Result<(KeyedCaller<K, T, R>, Driver), ConfigError>
    where
        H: Fn(KeyedBatch<K, Call<T, R>>) -> F + Send + 'static,
        F: Future<Output = Result<(), E>> + Send + 'static,
        E: Into<HandlerError> + 'static,
    {
        if self.dead_letter.is_none() {
            self = self.dead_letter(|_: &K, calls, error| fail_callers(calls, error));
        }
        let (batcher, driver) =
            self.build_with_driver(move |mut batch: KeyedBatch<K, Call<T, R>>| {
                batch.on_return(send_answers);
                handler(batch)
            })?;
        Ok((Caller::new(batcher), driver))
    }
}

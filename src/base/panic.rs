//! A panic caught as a value, and the two ways in which the crate catches one.

use core::any::Any;
use core::fmt;
use core::ops::{Deref, DerefMut};
use std::borrow::Cow;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use super::sync::Mutex;

/// What a panic carried, caught and kept as a value.
///
/// It is `Send` and `Sync`, shows its message, and can go on its way with
/// [`resume`](Self::resume).
///
/// ```
/// use sluicegate::Panic;
///
/// let panic = Panic::new(Box::new("out of paper"));
/// assert_eq!(panic.message(), Some("out of paper"));
/// assert_eq!(panic.to_string(), "panicked: out of paper");
/// ```
#[must_use = "a panic that nobody looks at hides a bug"]
pub struct Panic(Box<Caught>);

/// In a box, so that an outcome is small.
struct Caught {
    message: Option<Cow<'static, str>>,
    // Never contended: it is there to make the payload, which is only `Send`, `Sync` as well.
    payload: Mutex<Box<dyn Any + Send>>,
}

impl Panic {
    /// Keeps what [`std::panic::catch_unwind`] or a joined thread gave back.
    pub fn new(payload: Box<dyn Any + Send>) -> Self {
        let message = if let Some(message) = payload.downcast_ref::<&'static str>() {
            Some(Cow::Borrowed(*message))
        } else {
            payload.downcast_ref::<String>().map(|message| Cow::Owned(message.clone()))
        };
        Self(Box::new(Caught { message, payload: Mutex::new(payload) }))
    }

    /// The message, if the payload is text, as that of `panic!` always is.
    pub fn message(&self) -> Option<&str> {
        self.0.message.as_deref()
    }

    /// The payload itself.
    pub fn into_payload(self) -> Box<dyn Any + Send> {
        self.0.payload.into_inner()
    }

    /// Lets the panic go on from here, as if it had not been caught.
    ///
    /// # Panics
    ///
    /// Always, with the payload; the panic hook, which has seen it once, is not called again.
    pub fn resume(self) -> ! {
        resume_unwind(self.into_payload())
    }
}

impl fmt::Display for Panic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.message() {
            Some(message) => write!(f, "panicked: {message}"),
            None => f.write_str("panicked, with a payload that is not text"),
        }
    }
}

impl fmt::Debug for Panic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Panic").field("message", &self.message()).finish_non_exhaustive()
    }
}

/// Runs user code, whose panic becomes a value. What the closure may have left half done must be
/// the user's own.
pub(crate) fn caught<R>(user_code: impl FnOnce() -> R) -> Result<R, Panic> {
    catch_unwind(AssertUnwindSafe(user_code)).map_err(Panic::new)
}

/// Drops a user's value that an answer has no use for: the answer owns others, which a panic in this
/// destructor must not take with it.
#[inline]
pub(crate) fn drop_quietly<T>(leftover: T) {
    if core::mem::needs_drop::<T>() {
        quietly(|| drop(leftover));
    }
}

/// Runs a user's destructor at a point where its panic has nowhere to go: the outcome is known
/// already, or nobody waits for it any more. The panic hook has reported it.
pub(crate) fn quietly(destructor: impl FnOnce()) {
    if let Err(payload) = catch_unwind(AssertUnwindSafe(destructor)) {
        // The payload may be of a type whose own destructor panics. There it ends.
        if let Err(payload) = catch_unwind(AssertUnwindSafe(|| drop(payload))) {
            core::mem::forget(payload);
        }
    }
}

/// Drops the user's values one by one: if two of a list panicked, the second would end the process.
pub(crate) fn drop_each<T>(values: impl IntoIterator<Item = T>) {
    let mut values = values.into_iter();
    let mut left = true;
    while left {
        // One guard for all of them, as long as none panics.
        quietly(|| {
            values.by_ref().for_each(drop);
            left = false;
        });
    }
}

/// Something of the user's whose destructor may panic without harm to anybody, also while another
/// panic is under way.
#[derive(Debug)]
pub(crate) struct Quiet<T>(Option<T>);

impl<T> Quiet<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(Some(value))
    }
}

impl<T> Deref for Quiet<T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        self.0.as_ref().expect("it is there until it is dropped")
    }
}

impl<T> DerefMut for Quiet<T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        self.0.as_mut().expect("it is there until it is dropped")
    }
}

impl<T> Drop for Quiet<T> {
    fn drop(&mut self) {
        let value = self.0.take();
        quietly(|| drop(value));
    }
}

/// Calls a waker, or drops it, where a destructor may be running: its panic goes on from here, but
/// not while the thread is unwinding, which would end the process.
#[inline]
pub(crate) fn unless_unwinding(call: impl FnOnce()) {
    if std::thread::panicking() {
        quietly(call);
    } else {
        call();
    }
}

/// Keeps the first panic of several calls into user code, until all of them were made.
///
/// The others end here, also if what they carry panics as it is dropped.
#[derive(Debug, Default)]
pub(crate) struct FirstPanic(Option<Box<dyn core::any::Any + Send>>);

impl FirstPanic {
    pub(crate) fn catch(&mut self, call: impl FnOnce()) {
        if let Err(payload) = catch_unwind(AssertUnwindSafe(call)) {
            match self.0 {
                None => self.0 = Some(payload),
                Some(_) => quietly(|| drop(payload)),
            }
        }
    }

    pub(crate) fn resume(mut self) {
        if std::thread::panicking() {
            return;
        }
        if let Some(payload) = self.0.take() {
            resume_unwind(payload);
        }
    }
}

impl Drop for FirstPanic {
    fn drop(&mut self) {
        if let Some(payload) = self.0.take() {
            quietly(|| drop(payload));
        }
    }
}

//! An answer for each item.

mod batch;
mod error;
mod future;
mod item;
mod replies;

pub use self::error::CallError;
pub use self::item::Call;

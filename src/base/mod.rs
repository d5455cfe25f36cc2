//! The ground floor: what several primitives share. Nothing here imports from above.

pub(crate) mod config;
pub(crate) mod coop;
pub(crate) mod deadlines;
#[cfg_attr(not(any(feature = "tokio", loom)), allow(dead_code, reason = "for the batcher"))]
pub(crate) mod list;
pub(crate) mod panic;
#[cfg_attr(not(any(feature = "tokio", loom)), allow(dead_code, reason = "for the batcher"))]
pub(crate) mod slab;
pub(crate) mod sync;
pub(crate) mod table;
pub(crate) mod timer;
#[cfg_attr(not(any(feature = "tokio", loom)), allow(dead_code, reason = "for the batcher"))]
pub(crate) mod wait_list;
pub(crate) mod wake;

//! The ground floor: what several primitives share. Nothing here imports from above.

pub(crate) mod config;
pub(crate) mod coop;
pub(crate) mod deadlines;
pub(crate) mod list;
pub(crate) mod panic;
pub(crate) mod slab;
pub(crate) mod sync;
pub(crate) mod table;
pub(crate) mod timer;
pub(crate) mod wait_list;
pub(crate) mod wake;

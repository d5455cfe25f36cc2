//! The ground floor: the structures that several primitives share. Nothing here imports from above.

pub(crate) mod deadlines;
pub(crate) mod list;
pub(crate) mod slab;
pub(crate) mod table;
pub(crate) mod timer;
pub(crate) mod wait_list;

//! The parts of the example programs, so that tests can reach them.

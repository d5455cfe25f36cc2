//! How many files, connections included, this process may have open.

/// Raises the limit to `wanted`, or as far as the system lets it, and returns what it is then.
#[cfg(unix)]
pub fn raise_limit(wanted: u64) -> u64 {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let now = getrlimit(Resource::Nofile);
    let current = now.current.unwrap_or(u64::MAX);
    if current >= wanted {
        return current;
    }
    let raised = now.maximum.map_or(wanted, |maximum| maximum.min(wanted));
    let limit = Rlimit { current: Some(raised), maximum: now.maximum };
    if setrlimit(Resource::Nofile, limit).is_ok() { raised } else { current }
}

/// There is no such limit.
#[cfg(not(unix))]
pub fn raise_limit(_: u64) -> u64 {
    u64::MAX
}

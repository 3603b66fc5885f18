//! How much memory results have taken, for hosts that free handles lazily.

use std::sync::atomic::{AtomicUsize, Ordering};

/// Bytes of results after which a host with a garbage collector had better run it.
const COLLECT_AFTER: usize = 256 << 20;

static PRODUCED: AtomicUsize = AtomicUsize::new(0);

pub(crate) fn produced(bytes: usize) {
    PRODUCED.fetch_add(bytes, Ordering::Relaxed);
}

/// True once for every 256 MiB of results.
pub fn collect_advised() -> bool {
    PRODUCED.load(Ordering::Relaxed) >= COLLECT_AFTER
        && PRODUCED.swap(0, Ordering::Relaxed) >= COLLECT_AFTER
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn advice_is_given_once() {
        produced(COLLECT_AFTER);
        assert!(collect_advised());
        assert!(!collect_advised());
    }
}

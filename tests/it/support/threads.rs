//! Runs many small tests in parallel.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    thread,
};

use tokio::runtime::Builder;

/// Runs `work(n)` for each `n` in `0..count`, on two threads that have a runtime each.
pub fn on_two_threads<F: Future<Output = ()>>(count: usize, work: impl Fn(usize) -> F + Sync) {
    let next = AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let runtime = Builder::new_current_thread().enable_all().build().unwrap();
                loop {
                    let n = next.fetch_add(1, Ordering::Relaxed);
                    if n >= count {
                        break;
                    }
                    runtime.block_on(work(n));
                }
            });
        }
    });
}

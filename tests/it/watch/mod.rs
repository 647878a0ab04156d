//! Promise 3: a watch misses nothing and delivers nothing twice, or reports a gap.

mod clocks;
mod crowd;
mod edges;
mod histories;
mod portable;
mod pruned;
mod select;
mod time;

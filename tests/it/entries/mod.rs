//! Promises 2, 4 and 7: the state follows from the set of entries that count, in whatever order they
//! come, and no entry does harm beyond what its author may write.

pub mod acts;
mod causes;
mod fork;
mod golden;
mod hostile;
mod intake;
mod laws;
mod membership;
mod removal;

//! Promises 2, 4 and 7: the state follows from the set of entries that count, in any order of
//! arrival, and an entry can do no harm beyond the rights of its author.

pub mod acts;
mod authority;
mod causes;
mod costs;
mod far_ahead;
mod finality;
mod fork;
mod golden;
mod hostile;
mod intake;
mod late_parents;
mod laws;
mod leaving;
mod membership;
mod removal;
mod reserved;
mod rotation;
mod signatures;
mod spent;
mod stamps;

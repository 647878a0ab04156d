//! `hook`: commands that the node runs, or URLs that it posts to, when a key changes.

mod add;
mod dead;
mod hook;
mod logs;
mod name;
pub(crate) mod object;
mod show;
mod test;

pub(crate) use hook::Hook;

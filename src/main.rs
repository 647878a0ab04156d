//! The `lattice` command: arguments in, exit code out.

fn main() {}

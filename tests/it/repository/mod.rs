//! The repository has the shape that its pages describe: floors without cycles, one home for each
//! matter, short files, plain comments.

mod comments;
mod cycles;
mod floors;
mod graph;
mod homes;
mod shape;
mod source;
mod threats;
mod tokens;

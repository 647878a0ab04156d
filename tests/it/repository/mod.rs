//! The repository has the shape that its pages describe: floors without cycles, one home for each
//! matter, short files, plain comments, a manual without dead links.

mod comments;
mod cycles;
mod features;
mod floors;
mod graph;
mod homes;
mod library;
mod manual;
mod shape;
mod source;
mod threats;
mod tokens;

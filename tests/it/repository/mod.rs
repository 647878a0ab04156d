//! The repository has the shape that it describes.

mod tidy;

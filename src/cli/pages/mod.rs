//! Pages of the manual, drawn for a terminal and written as manual pages.

#[cfg(test)]
mod examples;
mod markdown;
pub(super) mod roff_page;
pub(super) mod text_page;

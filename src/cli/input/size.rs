//! Sizes on the command line.

use bytesize::ByteSize;

/// Parses a number of bytes: `1GiB`, `500 MB`, `1048576`.
pub(crate) fn parse_size(text: &str) -> Result<u64, String> {
    let size = text.trim().parse::<ByteSize>();
    let size = size.map_err(|_unclear| "expected a size such as 1GiB, 500MB or 1048576")?;
    Ok(size.as_u64())
}

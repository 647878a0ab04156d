//! Sizes on the command line.

use bytesize::ByteSize;

/// Parses a number of bytes: `1GiB`, `500 MB`, `1048576`.
pub(crate) fn parse_size(text: &str) -> Result<u64, String> {
    let size: ByteSize = text.trim().parse()?;
    Ok(size.as_u64())
}

//! Reads the escapes that lines for people are printed with.

use std::borrow::Cow;

/// A backslash that begins no escape.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a backslash is written \\\\; the other escapes are \\n, \\t, \\r and \\xNN")]
pub(crate) struct BadEscape;

/// Returns the bytes that `escape` printed as `text`. Bytes other than backslashes stay as they
/// are, whether they need an escape or not.
pub(crate) fn unescape(text: &[u8]) -> Result<Cow<'_, [u8]>, BadEscape> {
    if !text.contains(&b'\\') {
        return Ok(text.into());
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        if *first != b'\\' {
            bytes.push(*first);
            continue;
        }
        let (letter, after) = rest.split_first().ok_or(BadEscape)?;
        rest = after;
        bytes.push(match letter {
            b'\\' => b'\\',
            b'n' => b'\n',
            b't' => b'\t',
            b'r' => b'\r',
            b'x' => {
                let (digits, after) = rest.split_at_checked(2).ok_or(BadEscape)?;
                rest = after;
                let byte = data_encoding::HEXLOWER_PERMISSIVE.decode(digits);
                *byte
                    .ok()
                    .as_deref()
                    .and_then(<[u8]>::first)
                    .ok_or(BadEscape)?
            }
            _other => return Err(BadEscape),
        });
    }
    Ok(bytes.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        cli::output::print::escape,
        support::mutator::{Corpus, fuzz},
    };

    #[test]
    fn escapes_are_read() {
        let read = |text: &[u8]| unescape(text).unwrap().into_owned();
        assert_eq!(read(br"a\\n\n\t\r\x00\xFf"), b"a\\n\n\t\r\0\xff");
        assert_eq!(read(b"raw \xff\n"), b"raw \xff\n");
        for wrong in [r"\", r"\q", r"\x", r"\x0", r"\xzz", r"\u{1b}"] {
            assert_eq!(unescape(wrong.as_bytes()), Err(BadEscape), "{wrong}");
        }
    }

    /// `list` wrote a newline as `\n`, and a backslash before an n just so.
    #[test]
    fn l9_any_bytes_are_read_as_they_were_printed() {
        let seeds = [
            "/a",
            "\\n\n\t\\\\\r",
            "\u{1b}[31m \u{9b} \u{202e} \u{e9}",
            "\\xff",
        ];
        fuzz(&Corpus::new(seeds), |input| {
            let text = escape(input);
            assert_eq!(unescape(text.as_bytes()).as_deref(), Ok(input));
            assert!(!text.contains(['\n', '\t', '\r', '\0']), "{text}");
            // The other way round, whatever was typed is printed so that it is read again.
            unescape(input).is_ok_and(|read| unescape(escape(&read).as_bytes()).is_ok())
        });
    }
}

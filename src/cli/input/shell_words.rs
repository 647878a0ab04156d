//! Splits a line into commands and words as a shell does, with `;`, quotes, double quotes and
//! backslashes, and with `$'...'`, in which the escapes of printed keys are read: `get $'/raw\xff'`.

use std::{ffi::OsString, mem, os::unix::ffi::OsStringExt as _};

use crate::cli::input::escape::{BadEscape, unescape};

/// A line that is not a list of words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BadLine {
    /// The line ends inside a quote, or after a backslash.
    #[error("the line ends inside {0}")]
    Unfinished(char),
    /// A `$'...'` has an unknown escape.
    #[error("in $'...', {0}")]
    Escape(#[from] BadEscape),
}

/// Returns the words of each command of `line`. Commands are separated by `;`; one that begins with `#` is
/// a comment up to the end of the line.
pub(crate) fn commands(line: &str) -> Result<Vec<Vec<OsString>>, BadLine> {
    let (mut commands, mut words) = (Vec::new(), Vec::new());
    let mut word: Option<Vec<u8>> = None;
    let mut chars = line.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '#' if word.is_none() && words.is_empty() => break,
            ';' => {
                words.extend(word.take());
                commands.push(mem::take(&mut words));
            }
            c if c.is_whitespace() => words.extend(word.take()),
            '\'' | '"' => quoted(c, &mut chars, word.get_or_insert_default())?,
            '$' if chars.peek() == Some(&'\'') => {
                chars.next();
                escaped(&mut chars, word.get_or_insert_default())?;
            }
            '\\' => {
                let next = chars.next().ok_or(BadLine::Unfinished('\\'))?;
                push(word.get_or_insert_default(), next);
            }
            c => push(word.get_or_insert_default(), c),
        }
    }
    words.extend(word);
    commands.push(words);
    commands.retain(|words| !words.is_empty());
    let strings = |words: Vec<Vec<u8>>| words.into_iter().map(OsString::from_vec).collect();
    Ok(commands.into_iter().map(strings).collect())
}

fn quoted(
    quote: char,
    chars: &mut impl Iterator<Item = char>,
    word: &mut Vec<u8>,
) -> Result<(), BadLine> {
    while let Some(c) = chars.next() {
        match c {
            c if c == quote => return Ok(()),
            '\\' if quote == '"' => match chars.next().ok_or(BadLine::Unfinished(quote))? {
                escaped @ ('"' | '\\') => push(word, escaped),
                other => {
                    push(word, '\\');
                    push(word, other);
                }
            },
            c => push(word, c),
        }
    }
    Err(BadLine::Unfinished(quote))
}

// Reads the rest of a `$'...'`. A backslash before a quote takes it as it is, as in bash.
fn escaped(chars: &mut impl Iterator<Item = char>, word: &mut Vec<u8>) -> Result<(), BadLine> {
    let mut text = String::new();
    while let Some(c) = chars.next() {
        match c {
            '\'' => {
                word.extend_from_slice(&unescape(text.as_bytes())?);
                return Ok(());
            }
            '\\' => match chars.next().ok_or(BadLine::Unfinished('\''))? {
                '\'' => text.push('\''),
                other => text.extend(['\\', other]),
            },
            c => text.push(c),
        }
    }
    Err(BadLine::Unfinished('\''))
}

fn push(word: &mut Vec<u8>, c: char) {
    word.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::support::mutator::{Corpus, fuzz};

    #[test]
    fn words_are_split_as_in_sh() {
        let words = |line| commands(line).unwrap().concat();
        assert_eq!(words("put /a  'b c' "), ["put", "/a", "b c"]);
        assert_eq!(
            words(r#"put /a "say \"hi\"\n" ''"#),
            ["put", "/a", r#"say "hi"\n"#, ""]
        );
        assert_eq!(words(r"a\ b c'd'e"), ["a b", "cde"]);
        assert_eq!(words(r"$5 a$ $'it\'s\\'"), ["$5", "a$", r"it's\"]);
        assert!(words("  ").is_empty());
        assert_eq!(commands("put 'a"), Err(BadLine::Unfinished('\'')));
        assert_eq!(commands("put \\"), Err(BadLine::Unfinished('\\')));
    }

    #[test]
    fn commands_are_separated_by_semicolons() {
        let read = |line| commands(line).unwrap();
        assert_eq!(
            read("put /a 1;get /a ; ;"),
            [vec!["put", "/a", "1"], vec!["get", "/a"]]
        );
        assert_eq!(read("put /a ';' # b"), [vec!["put", "/a", ";", "#", "b"]]);
        assert_eq!(read(r"get /a\;b"), [vec!["get", "/a;b"]]);
        assert_eq!(read("down; # get /a; get /b"), [vec!["down"]]);
    }

    /// A key with a NUL byte, or one that is not UTF-8, could not be typed.
    #[test]
    fn printed_keys_can_be_typed() {
        use std::os::unix::ffi::OsStrExt as _;
        let key = b"/raw\xff\0\n'\\";
        let printed = crate::cli::output::print::escape(key).replace('\'', r"\'");
        let words = commands(&format!("get $'{printed}'")).unwrap().concat();
        assert_eq!(words[1].as_bytes(), key);
        assert_eq!(commands(r"get $'\q'"), Err(BadLine::Escape(BadEscape)));
        assert_eq!(commands(r"get $'a"), Err(BadLine::Unfinished('\'')));
    }

    #[test]
    fn l9_any_line_is_words_or_a_mistake() {
        let lines = ["put /a 'b c' \"d\\n\" $'\\xff'", "get x\\ y # z", "''"];
        fuzz(&Corpus::new(lines), |input| {
            let line = String::from_utf8_lossy(input);
            let Ok(commands) = commands(&line) else {
                return false;
            };
            let words = commands.concat();
            let letters: usize = words.iter().map(|word| word.len()).sum();
            assert!(letters <= line.len() && words.len() <= line.len());
            true
        });
    }
}

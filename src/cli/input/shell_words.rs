//! Splits a line into words as a shell does, with quotes, double quotes and backslashes.

/// The line ends inside a quote, or after a backslash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the line ends inside {0}")]
pub(crate) struct Unfinished(pub(crate) char);

/// Returns the words of `line`.
pub(crate) fn split(line: &str) -> Result<Vec<String>, Unfinished> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        match c {
            c if c.is_whitespace() => words.extend(word.take()),
            '\'' | '"' => quoted(c, &mut chars, word.get_or_insert_default())?,
            '\\' => word
                .get_or_insert_default()
                .push(chars.next().ok_or(Unfinished('\\'))?),
            c => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    Ok(words)
}

fn quoted(
    quote: char,
    chars: &mut impl Iterator<Item = char>,
    word: &mut String,
) -> Result<(), Unfinished> {
    while let Some(c) = chars.next() {
        match c {
            c if c == quote => return Ok(()),
            '\\' if quote == '"' => match chars.next().ok_or(Unfinished(quote))? {
                escaped @ ('"' | '\\') => word.push(escaped),
                other => word.extend(['\\', other]),
            },
            c => word.push(c),
        }
    }
    Err(Unfinished(quote))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::support::mutator::{Corpus, fuzz};

    #[test]
    fn words_are_split_as_in_sh() {
        let words = |line| split(line).unwrap();
        assert_eq!(words("put /a  'b c' "), ["put", "/a", "b c"]);
        assert_eq!(
            words(r#"put /a "say \"hi\"\n" ''"#),
            ["put", "/a", r#"say "hi"\n"#, ""]
        );
        assert_eq!(words(r"a\ b c'd'e"), ["a b", "cde"]);
        assert!(words("  ").is_empty());
        assert_eq!(split("put 'a"), Err(Unfinished('\'')));
        assert_eq!(split("put \\"), Err(Unfinished('\\')));
    }

    #[test]
    fn l9_any_line_is_words_or_a_mistake() {
        let lines = ["put /a 'b c' \"d\\n\"", "get x\\ y # z", "''"];
        fuzz(&Corpus::new(lines), |input| {
            let line = String::from_utf8_lossy(input);
            let Ok(words) = split(&line) else {
                return false;
            };
            let letters: usize = words.iter().map(String::len).sum();
            assert!(letters <= line.len() && words.len() <= line.len());
            true
        });
    }
}

//! Fits text into columns of a terminal.

use std::borrow::Cow;

use unicode_width::{UnicodeWidthChar as _, UnicodeWidthStr as _};

/// Shortens `text` to `columns` columns; an ellipsis marks the omitted rest.
pub(crate) fn shorten(text: &str, columns: usize) -> Cow<'_, str> {
    if text.width() <= columns {
        return text.into();
    }
    let kept = beginning(text.chars(), columns.saturating_sub(1));
    kept.into_iter().chain(['…']).collect::<String>().into()
}

/// Shortens `text` to `columns` columns; an ellipsis marks the omitted middle.
pub(crate) fn shorten_middle(text: &str, columns: usize) -> Cow<'_, str> {
    if text.width() <= columns {
        return text.into();
    }
    let room = columns.saturating_sub(1);
    let first = beginning(text.chars(), room.div_ceil(2));
    let last = beginning(text.chars().rev(), room / 2);
    let kept = first.into_iter().chain(['…']);
    let kept = kept.chain(last.into_iter().rev());
    kept.collect::<String>().into()
}

/// Appends spaces to `text` until it has `columns` columns.
pub(crate) fn pad(text: &str, columns: usize) -> String {
    let missing = columns.saturating_sub(text.width());
    format!("{text}{}", " ".repeat(missing))
}

// Returns the first characters that fit into `columns`.
fn beginning(chars: impl Iterator<Item = char>, columns: usize) -> Vec<char> {
    let mut room = columns;
    let fits = |c: &char| {
        let width = c.width().unwrap_or(0);
        let is_in = width <= room;
        room = room.saturating_sub(width);
        is_in
    };
    chars.take_while(fits).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shortened_text_ends_with_an_ellipsis() {
        assert_eq!(shorten("abc", 3), "abc");
        assert_eq!(shorten("abcd", 3), "ab…");
        assert_eq!(shorten("éééé", 2), "é…");
        assert_eq!(shorten("abc", 0), "…");
        assert_eq!(shorten("日本語", 6), "日本語");
        assert_eq!(shorten("日本語", 5), "日本…");
        assert_eq!(shorten("日本語", 4), "日…");
    }

    #[test]
    fn middle_of_a_long_key_is_left_out() {
        assert_eq!(shorten_middle("/a/b", 4), "/a/b");
        assert_eq!(
            shorten_middle("/nodes/7781a405/status", 13),
            "/nodes…status"
        );
        assert_eq!(shorten_middle("/nodes/7781a405/status", 1), "…");
        assert_eq!(shorten_middle("日本語日本語", 6), "日…語");
        assert_eq!(pad("日", 4), "日  ");
        assert_eq!(pad("long", 2), "long");
    }
}

//! Reads Rust roughly: words and signs, comments, and the paths that code names.

/// A word, a number, `::`, or one other sign. Strings, characters and comments have none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    pub text: String,
    pub line: usize,
}

/// A path that the code names, as far as it is written there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named {
    pub path: Vec<String>,
    pub at: Token,
    // The inline modules around it, from the outermost.
    inside: Vec<String>,
}

impl Named {
    /// A path that is named at `at`, outside of inline modules.
    pub fn new(path: Vec<String>, at: &Token) -> Self {
        Self {
            path,
            at: at.clone(),
            inside: Vec::new(),
        }
    }
}

/// Returns the words and signs of the code.
pub fn tokens(text: &str) -> Vec<Token> {
    scan(text).0
}

/// Returns the line comments and line docs, each without its slashes and the space behind them.
pub fn comments(text: &str) -> Vec<Token> {
    scan(text).1
}

fn scan(text: &str) -> (Vec<Token>, Vec<Token>) {
    let letters: Vec<char> = text.chars().collect();
    let at = |place: usize| letters.get(place).copied().unwrap_or('\0');
    let is_word = |letter: char| letter.is_alphanumeric() || letter == '_';
    let (mut found, mut comments) = (Vec::new(), Vec::new());
    let (mut place, mut line) = (0, 1);
    while place < letters.len() {
        let start = place;
        match (at(place), at(place + 1)) {
            ('/', '/') => {
                while place < letters.len() && at(place) != '\n' {
                    place += 1
                }
                let text: String = letters[start..place].iter().collect();
                let text = text.trim_start_matches(['/', '!']).trim().to_owned();
                comments.push(Token { text, line });
            }
            ('/', '*') => place = after_block_comment(&letters, place),
            ('r', '"' | '#') | ('b', 'r') if raw_text_end(&letters, place).is_some() => {
                place = raw_text_end(&letters, place).unwrap();
            }
            ('"', _) => place = after_quoted(&letters, place, '"'),
            // A character in quotes, not a lifetime.
            ('\'', '\\') => place = after_quoted(&letters, place, '\''),
            ('\'', _) if at(place + 2) == '\'' => place += 3,
            (':', ':') => {
                found.push(Token {
                    text: "::".to_owned(),
                    line,
                });
                place += 2;
            }
            (letter, _) if is_word(letter) => {
                while is_word(at(place)) {
                    place += 1
                }
                let text = letters[start..place].iter().collect();
                found.push(Token { text, line });
            }
            (letter, _) => {
                if !letter.is_whitespace() {
                    found.push(Token {
                        text: letter.to_string(),
                        line,
                    });
                }
                place += 1;
            }
        }
        line += letters[start..place.min(letters.len())]
            .iter()
            .filter(|letter| **letter == '\n')
            .count();
    }
    (found, comments)
}

fn after_block_comment(letters: &[char], mut place: usize) -> usize {
    let mut depth = 0;
    while place < letters.len() {
        match (letters[place], letters.get(place + 1)) {
            ('/', Some('*')) => (depth, place) = (depth + 1, place + 2),
            ('*', Some('/')) => (depth, place) = (depth - 1, place + 2),
            _inside => place += 1,
        }
        if depth == 0 {
            break;
        }
    }
    place
}

fn after_quoted(letters: &[char], start: usize, quote: char) -> usize {
    let mut place = start + 1;
    while place < letters.len() && letters[place] != quote {
        place += if letters[place] == '\\' { 2 } else { 1 };
    }
    place + 1
}

/// Returns where a raw string that begins at `start` ends; `None` if none begins there.
fn raw_text_end(letters: &[char], start: usize) -> Option<usize> {
    let mut place = start + if letters[start] == 'b' { 2 } else { 1 };
    let hashes = letters[place..]
        .iter()
        .take_while(|letter| **letter == '#')
        .count();
    place += hashes;
    if letters.get(place) != Some(&'"') {
        return None;
    }
    let closing: Vec<char> = ['"'].into_iter().chain(['#'].repeat(hashes)).collect();
    let inside = &letters[place + 1..];
    let length = inside
        .windows(closing.len())
        .position(|window| window == closing)?;
    Some(place + 1 + length + closing.len())
}

/// Returns every path of the code, each branch of a `use` tree as one.
pub fn paths(tokens: &[Token]) -> Vec<Named> {
    let text = |place: usize| tokens.get(place).map_or("", |token| token.text.as_str());
    let mut found = Vec::new();
    let mut modules: Vec<Option<String>> = Vec::new();
    let mut place = 0;
    while place < tokens.len() {
        match text(place) {
            "{" => {
                let opens = place >= 2 && text(place - 2) == "mod";
                modules.push(opens.then(|| text(place - 1).to_owned()));
                place += 1;
            }
            "}" => {
                modules.pop();
                place += 1;
            }
            // `::std::time` begins at `std`, as does `std::time`.
            word if starts_word(word) => {
                let inside: Vec<String> = modules.iter().flatten().cloned().collect();
                let end = tree(tokens, place, &[], &inside, &mut found);
                place = end.max(place + 1);
            }
            _sign => place += 1,
        }
    }
    found
}

fn starts_word(text: &str) -> bool {
    text.starts_with(|letter: char| letter.is_alphabetic() || letter == '_')
}

/// Reads `a::b::{c, d::e}` at `place`; returns the place after it.
fn tree(
    tokens: &[Token],
    mut place: usize,
    before: &[String],
    inside: &[String],
    found: &mut Vec<Named>,
) -> usize {
    let text = |place: usize| tokens.get(place).map_or("", |token| token.text.as_str());
    let mut path = before.to_vec();
    let at = tokens[place].clone();
    loop {
        if starts_word(text(place)) || (text(place) == "*" && !path.is_empty()) {
            path.push(text(place).to_owned());
            place += 1;
            if text(place) == "::"
                && (starts_word(text(place + 1)) || "{*".contains(text(place + 1)))
            {
                place += 1;
                continue;
            }
        } else if text(place) == "{" && !path.is_empty() {
            place += 1;
            while !["}", ""].contains(&text(place)) {
                // A comma, or `as name` after a branch.
                let is_branch = (starts_word(text(place)) && text(place) != "as")
                    || ["*", "{"].contains(&text(place));
                match text(place) {
                    "as" => place += 2,
                    _ if is_branch => place = tree(tokens, place, &path, inside, found),
                    _sign => place += 1,
                }
            }
            return place + 1;
        }
        found.push(Named {
            path,
            at,
            inside: inside.to_vec(),
        });
        return place;
    }
}

/// Returns the tokens without the items under `#[cfg(test)]`, and the names of the modules among
/// them that are files.
pub fn without_tests(tokens: &[Token]) -> (Vec<Token>, Vec<String>) {
    const CFG_TEST: [&str; 7] = ["#", "[", "cfg", "(", "test", ")", "]"];
    let (mut kept, mut test_files) = (Vec::new(), Vec::new());
    let mut rest = tokens;
    while let Some((first, after)) = rest.split_first() {
        let begins = |token: (&Token, &str)| token.0.text == token.1;
        if rest.len() >= CFG_TEST.len() && rest.iter().zip(CFG_TEST).all(begins) {
            let item = &rest[CFG_TEST.len()..];
            let end = item_end(item);
            if let Some(name) = module_file(&item[..end]) {
                test_files.push(name.to_owned());
            }
            rest = &item[end..];
        } else {
            kept.push(first.clone());
            rest = after;
        }
    }
    (kept, test_files)
}

/// Returns the number of tokens up to the `;` or the `}` that ends the item.
fn item_end(item: &[Token]) -> usize {
    let mut depth = 0_usize;
    for (index, token) in item.iter().enumerate() {
        match token.text.as_str() {
            "{" => depth += 1,
            "}" => depth = depth.saturating_sub(1),
            _sign => {}
        }
        if depth == 0 && [";", "}"].contains(&token.text.as_str()) {
            return index + 1;
        }
    }
    item.len()
}

/// Returns the name in `mod name;`.
fn module_file(item: &[Token]) -> Option<&str> {
    match item {
        [.., word, name, end] if word.text == "mod" && end.text == ";" => Some(&name.text),
        _other => None,
    }
}

/// A `use` declaration: the path, and the name that it has from then on. `*` if it is a glob.
pub fn renamed(tokens: &[Token]) -> Vec<(Vec<String>, String)> {
    let text = |place: usize| tokens.get(place).map_or("", |token| token.text.as_str());
    let mut found = Vec::new();
    for (place, token) in tokens.iter().enumerate() {
        if token.text == "use" && starts_word(text(place + 1)) {
            use_tree(tokens, place + 1, &[], &mut found);
        }
    }
    found
}

fn use_tree(
    tokens: &[Token],
    mut place: usize,
    before: &[String],
    found: &mut Vec<(Vec<String>, String)>,
) -> usize {
    let text = |place: usize| tokens.get(place).map_or("", |token| token.text.as_str());
    let mut path = before.to_vec();
    loop {
        match text(place) {
            "{" => {
                place += 1;
                while !["}", ""].contains(&text(place)) {
                    place = if text(place) == "," {
                        place + 1
                    } else {
                        use_tree(tokens, place, &path, found)
                    };
                }
                return place + 1;
            }
            "::" => place += 1,
            word if starts_word(word) || word == "*" => {
                path.push(word.to_owned());
                place += 1;
                if text(place) != "::" {
                    break;
                }
            }
            // Nothing that is a path.
            _sign => return place + 1,
        }
    }
    let mut name = path.last().cloned().unwrap_or_default();
    if name == "self" {
        path.pop();
        name = path.last().cloned().unwrap_or_default();
    }
    if text(place) == "as" {
        name = text(place + 1).to_owned();
        place += 2;
    }
    found.push((path, name));
    place
}

/// Returns the paths that lead into this crate, without `crate`, `super` and `self`.
pub fn named_in_crate(tokens: &[Token], module: &[String], in_binary: bool) -> Vec<Named> {
    let resolve = |named: Named| {
        let here: Vec<String> = module.iter().chain(&named.inside).cloned().collect();
        let mut rest = named.path.as_slice();
        let mut base = match rest.first().map(String::as_str) {
            Some("crate") => Vec::new(),
            Some("lattice") if in_binary && rest.len() > 1 => Vec::new(),
            Some("self") if rest.len() > 1 => here,
            Some("super") => here[..here.len().saturating_sub(1)].to_vec(),
            _elsewhere => return None,
        };
        rest = &rest[1..];
        while rest.first().is_some_and(|first| first == "super") {
            base.pop();
            rest = &rest[1..];
        }
        // `crate` alone, in `pub(crate)`, names nothing; `crate::*` and `super` of a floor name all.
        let visibility = rest.is_empty() && base.is_empty();
        base.extend(
            rest.iter()
                .filter(|name| *name != "self" && *name != "*")
                .cloned(),
        );
        (!visibility).then_some(Named {
            path: base,
            ..named
        })
    };
    paths(tokens).into_iter().filter_map(resolve).collect()
}

#[test]
fn comments_are_separated_from_code() {
    let text =
        "//! One.\nlet a = \"// no\"; // Two.\n/// Three.\n//\n/* no */ r#\"// no\"# // Four.";
    let found = comments(text);
    let found: Vec<(usize, &str)> = found
        .iter()
        .map(|comment| (comment.line, comment.text.as_str()))
        .collect();
    let expected = [
        (1, "One."),
        (2, "Two."),
        (3, "Three."),
        (4, ""),
        (5, "Four."),
    ];
    assert_eq!(found, expected);
}

#[test]
fn items_under_cfg_test_are_left_out() {
    let text = "use a; #[cfg(test)] mod tests; #[cfg(test)] #[x] pub(crate) mod more { mod y { fn f() {} } use b; } \
                #[cfg(test)] use c::{d}; fn g() {}";
    let (kept, files) = without_tests(&tokens(text));
    let kept: Vec<&str> = kept.iter().map(|token| token.text.as_str()).collect();
    assert_eq!(kept.join(" "), "use a ; ; fn g ( ) { }");
    assert_eq!(files, ["tests"]);
}

#[test]
fn use_trees_give_paths_and_names() {
    let text = "use a::b; pub use c::{self, d as e, f::{g, *}}; pub(crate) use self::h;";
    let found: Vec<String> = renamed(&tokens(text))
        .into_iter()
        .map(|(path, name)| format!("{} {name}", path.join("::")))
        .collect();
    let expected = [
        "a::b b",
        "c c",
        "c::d e",
        "c::f::g g",
        "c::f::* *",
        "self::h h",
    ];
    assert_eq!(found, expected);
}

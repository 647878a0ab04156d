//! The library as programs see it: a new version of it should not break them.

use super::source::sources;

/// A new variant of an error breaks a program that matches all of them, unless the enum says that more may come.
#[test]
fn errors_may_get_variants() {
    let mut count = 0;
    let of_library = |path: &str| !path.starts_with("src/cli/");
    for (path, text) in sources().filter(|(path, _)| of_library(path)) {
        for (name, attributes) in public_enums(&text) {
            if attributes.contains("thiserror::Error") {
                count += 1;
                let may_grow = attributes.contains("#[non_exhaustive]");
                assert!(may_grow, "{path}: {name} is not #[non_exhaustive]");
            }
        }
    }
    assert!(count > 50, "errors were read");
}

/// Returns the line of each public enum, and the lines of comments and attributes before it.
fn public_enums(text: &str) -> Vec<(&str, String)> {
    let mut found = Vec::new();
    let mut before = String::new();
    for line in text.lines() {
        if line.starts_with("pub enum ") {
            found.push((line, before.clone()));
        }
        match line {
            "" | "}" => before.clear(),
            _other => before.push_str(line),
        }
    }
    found
}

#[test]
fn attributes_of_enums_are_found() {
    let text = "use a;\n\n/// B.\n#[non_exhaustive]\npub enum B {}\n\npub enum C {\n    D,\n}\n";
    let found = public_enums(text);
    assert_eq!(found[0].1, "/// B.#[non_exhaustive]");
    assert_eq!(found[1], ("pub enum C {", String::new()));
}

//! The content of `identity.key`: the secret, or where it is kept.

use std::fmt;

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::{
    id::Author,
    vault::{KeyError, Sealed, Seed, seed::FIRST_LINE},
};

/// The content of `identity.key`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyFile {
    /// The node whose key it is.
    pub node: Author,
    /// Where the secret is.
    pub place: KeyPlace,
}

/// A place of the secret.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum KeyPlace {
    /// In `identity.key` itself, as it is.
    File(Seed),
    /// In `identity.key`, sealed with a passphrase.
    Passphrase(Sealed),
    /// In a credential that systemd gives the service.
    Credential {
        /// Name of the credential.
        name: String,
    },
    /// A command prints it. It is run without a shell.
    Command {
        /// The program and its arguments.
        argv: Vec<String>,
    },
    /// The program that opens the node keeps it, in a [`KeyVault`](crate::vault::KeyVault).
    Caller,
}

impl KeyFile {
    /// Makes the content of a file that has the secret as it is.
    pub fn plain(seed: Seed) -> Self {
        Self {
            node: seed.node(),
            place: KeyPlace::File(seed),
        }
    }

    /// Reads the content of a file.
    ///
    /// # Errors
    /// `Malformed`.
    pub fn parse(text: &str) -> Result<Self, KeyError> {
        let malformed = |what: String| KeyError::Malformed { what };
        let (first, rest) = text.split_once('\n').unwrap_or((text, ""));
        if first == FIRST_LINE {
            let seed = Seed::from_text(text);
            let seed = seed.ok_or_else(|| malformed("its key is not 64 hex digits".to_owned()))?;
            return Ok(Self::plain(seed));
        }
        if first != FIRST_LINE_OF_PLACE {
            return Err(malformed(
                "its first line is not that of an identity of this version".to_owned(),
            ));
        }
        let row: Row = serde_json::from_str(rest).map_err(|error| malformed(error.to_string()))?;
        let node = row.node.parse();
        let node = node.map_err(|_text| malformed("its node is not 64 hex digits".to_owned()))?;
        let place = match row.place {
            Place::Passphrase(sealed) => {
                sealed.check()?;
                KeyPlace::Passphrase(sealed)
            }
            Place::Credential { name } => KeyPlace::Credential { name },
            Place::Command { argv } if argv.is_empty() => {
                return Err(malformed("it names no command".to_owned()));
            }
            Place::Command { argv } => KeyPlace::Command { argv },
            Place::Caller => KeyPlace::Caller,
        };
        Ok(Self { node, place })
    }

    /// Returns the content as it is written.
    #[expect(
        clippy::missing_panics_doc,
        reason = "a row of texts and numbers is always encoded"
    )]
    pub fn to_text(&self) -> Zeroizing<String> {
        let place = match &self.place {
            KeyPlace::File(seed) => return seed.to_text(),
            KeyPlace::Passphrase(sealed) => Place::Passphrase(sealed.clone()),
            KeyPlace::Credential { name } => Place::Credential { name: name.clone() },
            KeyPlace::Command { argv } => Place::Command { argv: argv.clone() },
            KeyPlace::Caller => Place::Caller,
        };
        let row = Row {
            node: self.node.to_string(),
            place,
        };
        let row = serde_json::to_string_pretty(&row).expect("a row of texts and numbers");
        Zeroizing::new(format!("{FIRST_LINE_OF_PLACE}\n{row}\n"))
    }
}

impl KeyPlace {
    /// Returns the word by which a command line names it.
    pub fn word(&self) -> &'static str {
        match self {
            Self::File(_) => "file",
            Self::Passphrase(_) => "passphrase",
            Self::Credential { .. } => "credential",
            Self::Command { .. } => "command",
            Self::Caller => "caller",
        }
    }
}

/// As a noun, for people.
impl fmt::Display for KeyPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(_) => f.write_str("identity.key, not sealed"),
            Self::Passphrase(_) => f.write_str("identity.key, sealed with a passphrase"),
            Self::Credential { name } => write!(f, "the credential {name} of systemd"),
            Self::Command { argv } => write!(f, "the output of `{}`", argv.join(" ")),
            Self::Caller => f.write_str("the program that embeds the node"),
        }
    }
}

const FIRST_LINE_OF_PLACE: &str = "lattice identity v2";

#[derive(Serialize, Deserialize)]
struct Row {
    node: String,
    #[serde(flatten)]
    place: Place,
}

#[derive(Serialize, Deserialize)]
#[serde(tag = "from", rename_all = "lowercase")]
enum Place {
    Passphrase(Sealed),
    Credential { name: String },
    Command { argv: Vec<String> },
    Caller,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(place: KeyPlace) -> KeyFile {
        let node = Seed::new([7; 32]).node();
        KeyFile { node, place }
    }

    #[test]
    fn what_is_written_is_read() {
        let seed = Seed::new([7; 32]);
        let sealed = Sealed::seal(&seed, b"correct horse").unwrap();
        let argv = vec!["secret-tool".to_owned(), "a \"b\"\n".to_owned()];
        let places = [
            KeyPlace::File(seed.clone()),
            KeyPlace::Passphrase(sealed),
            KeyPlace::Credential {
                name: "lattice.key".to_owned(),
            },
            KeyPlace::Command { argv },
            KeyPlace::Caller,
        ];
        let secret = "07".repeat(32);
        for place in places {
            let is_plain = matches!(place, KeyPlace::File(_));
            let file = kept(place);
            let text = file.to_text();
            assert_eq!(KeyFile::parse(&text).unwrap(), file);
            assert_eq!(text.contains(&secret), is_plain, "{}", &*text);
            assert!(!format!("{file:?}").contains(&secret));
        }
    }

    #[test]
    fn cut_or_changed_file_is_refused_by_name() {
        let seed = Seed::new([7; 32]);
        let sealed = kept(KeyPlace::Passphrase(
            Sealed::seal(&seed, b"correct horse").unwrap(),
        ));
        let text = sealed.to_text();
        // The last brace ends it; the line break after that is of no use.
        for end in 0..text.len() - 2 {
            let read = KeyFile::parse(&text[..end]);
            assert!(matches!(read, Err(KeyError::Malformed { .. })), "{end}");
        }
        let cases = [
            (
                "",
                "its first line is not that of an identity of this version",
            ),
            (
                "lattice identity v3\n{}",
                "its first line is not that of an identity of this version",
            ),
            ("lattice identity v1\nab", "its key is not 64 hex digits"),
            (
                "lattice identity v2\n{\"node\":\"00\",\"from\":\"caller\"}",
                "its node is not 64 hex digits",
            ),
        ];
        for (text, what) in cases {
            let error = KeyFile::parse(text).unwrap_err().to_string();
            assert!(error.ends_with(what), "{error}");
        }
        let empty = kept(KeyPlace::Command { argv: Vec::new() });
        let error = KeyFile::parse(&empty.to_text()).unwrap_err().to_string();
        assert!(error.ends_with("it names no command"), "{error}");
        let tpm = "lattice identity v2\n{\"node\":\"\",\"from\":\"tpm\"}";
        let error = KeyFile::parse(tpm).unwrap_err().to_string();
        assert!(error.contains("unknown variant `tpm`"), "{error}");
    }
}

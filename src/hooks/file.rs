//! `hooks.toml` in the data directory: the hooks of this node. Never replicated.
//!
//! ```toml
//! [deploy]
//! on = "/deploy/"
//! run = ["./deploy.sh"]
//! dir = "/srv/app"
//!
//! [mirror]
//! on = "/orders/"
//! http = "https://example.org/orders"
//! secret_file = "/etc/lattice/orders.secret"   # or secret_env = "ORDERS_SECRET"
//! mode = "latest"
//! debounce = "500ms"
//! ```
//! The fields are those of [`Hook`]. `lattice hook add` and `lattice hook remove` edit the file,
//! and the owner of the file may edit it, too; a running node follows changes without a restart.

use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    ops::Range,
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use toml_edit::DocumentMut;

use crate::{
    hooks::hook::Hook,
    limits::{HOOKS_FILE_BYTES_MAX, HOOKS_MAX},
    node::place,
    permissions::{self, Trust, Untrusted},
};

/// The hooks of a node, by name.
pub type HookTable = BTreeMap<String, Hook>;

/// A `hooks.toml` that cannot be read or changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HooksFileError {
    /// The file is not TOML, or a definition in it is not valid.
    #[error("{}:{line}:{column}: {what}", path.display())]
    Invalid {
        /// Path of the file.
        path: PathBuf,
        /// Line of the mistake, from 1.
        line: usize,
        /// Column of the mistake in characters, from 1.
        column: usize,
        /// The mistake, and what is expected instead.
        what: String,
    },
    /// The file is too long.
    #[error("{} has more than {HOOKS_FILE_BYTES_MAX} bytes", path.display())]
    TooLong {
        /// Path of the file.
        path: PathBuf,
    },
    /// It belongs to another user, other users could change it, or it cannot be read: whoever
    /// changes it runs commands as this user.
    #[error(transparent)]
    Untrusted(#[from] Untrusted),
    /// The file cannot be written.
    #[error("cannot write {}: {source}", path.display())]
    Io {
        /// Path of the file.
        path: PathBuf,
        /// Error of the system.
        source: io::Error,
    },
}

/// Metadata of the file. A different stamp means that the file may have changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Stamp {
    inode: u64,
    bytes: u64,
    // Of the content, the mode or the owner: seconds since 1970, and nanoseconds.
    changed: (i64, i64),
}

/// The `hooks.toml` of a data directory. Nothing is cached: each call reads the file.
#[derive(Debug, Clone)]
pub(super) struct HooksFile {
    path: PathBuf,
}

impl HooksFile {
    pub(super) fn of(data_dir: &Path) -> Self {
        Self {
            path: data_dir.join(FILE),
        }
    }

    /// Returns the stamp of the file. A missing or unreadable file has the default stamp.
    pub(super) fn stamp(&self) -> Stamp {
        fs::metadata(&self.path).map_or_else(
            |_none| Stamp::default(),
            |found| Stamp {
                inode: found.ino(),
                bytes: found.len(),
                changed: (found.ctime(), found.ctime_nsec()),
            },
        )
    }

    /// Reads all hooks. A missing file has no hooks.
    pub(super) fn read(&self) -> Result<HookTable, HooksFileError> {
        self.parse(&self.text()?)
    }

    /// Adds or replaces a hook, durably. The rest of the file stays as it is, comments included.
    pub(super) fn put(&self, name: &str, hook: &Hook) -> Result<(), HooksFileError> {
        assert!(hook.check(name).is_ok(), "a valid hook can be read again");
        let mut document = self.document()?;
        let table = toml_edit::ser::to_document(hook)
            .map_err(|error| self.invalid("", None, &error.to_string()))?;
        document.insert(name, table.as_item().clone());
        self.write(&document)
    }

    /// Removes a hook, durably. Returns false if the file does not have it.
    pub(super) fn remove(&self, name: &str) -> Result<bool, HooksFileError> {
        let mut document = self.document()?;
        if document.remove(name).is_none() {
            return Ok(false);
        }
        self.write(&document)?;
        Ok(true)
    }

    fn text(&self) -> Result<String, HooksFileError> {
        let bytes = match permissions::read(&self.path, Trust::Obeyed, HOOKS_FILE_BYTES_MAX) {
            Err(error) if error.is_missing() => return Ok(String::new()),
            read => read?,
        };
        if bytes.len() > HOOKS_FILE_BYTES_MAX {
            return Err(HooksFileError::TooLong {
                path: self.path.clone(),
            });
        }
        String::from_utf8(bytes).map_err(|error| {
            let valid = error.utf8_error().valid_up_to();
            let text = String::from_utf8_lossy(error.as_bytes());
            self.invalid(&text, Some(valid..valid), "it is not UTF-8")
        })
    }

    fn parse(&self, text: &str) -> Result<HookTable, HooksFileError> {
        let rows: BTreeMap<String, toml::Spanned<Hook>> = toml::from_str(text)
            .map_err(|error| self.invalid(text, error.span(), error.message()))?;
        if rows.len() > HOOKS_MAX {
            let what = format!("the file has more than {HOOKS_MAX} hooks, the limit of a node");
            return Err(self.invalid(text, None, &what));
        }
        let mut hooks = HookTable::new();
        for (name, row) in rows {
            let span = row.span();
            let hook = row.into_inner();
            hook.check(&name)
                .map_err(|error| self.invalid(text, Some(span), &format!("{name}: {error}")))?;
            hooks.insert(name, hook);
        }
        Ok(hooks)
    }

    // Returns the file for an edit. An invalid file is an error: it is never edited.
    fn document(&self) -> Result<DocumentMut, HooksFileError> {
        let text = self.text()?;
        self.parse(&text)?;
        text.parse::<DocumentMut>()
            .map_err(|error| self.invalid(&text, error.span(), error.message()))
    }

    // Writes a new file, syncs it, renames it into place and syncs the directory. On return an
    // added hook survives power loss; an earlier crash leaves the old file.
    fn write(&self, document: &DocumentMut) -> Result<(), HooksFileError> {
        let new = self.path.with_extension("toml.new");
        let write = || {
            match fs::remove_file(&new) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _removed => {}
            }
            let mut file = OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(&new)?;
            file.write_all(document.to_string().as_bytes())?;
            file.sync_all()?;
            fs::rename(&new, &self.path)?;
            let dir = self.path.parent().unwrap_or(Path::new("/"));
            File::open(dir)?.sync_all()
        };
        write().map_err(|source| self.io(source))
    }

    fn invalid(&self, text: &str, span: Option<Range<usize>>, what: &str) -> HooksFileError {
        let (line, column) = place(text, span);
        HooksFileError::Invalid {
            path: self.path.clone(),
            line,
            column,
            what: what.to_owned(),
        }
    }

    fn io(&self, source: io::Error) -> HooksFileError {
        HooksFileError::Io {
            path: self.path.clone(),
            source,
        }
    }
}

const FILE: &str = "hooks.toml";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        hooks::hook::{Mode, Span},
        support::mutator::{Corpus, fuzz},
    };

    fn parse(text: &str) -> Result<HookTable, String> {
        let file = HooksFile::of(Path::new("data"));
        file.parse(text).map_err(|error| error.to_string())
    }

    #[test]
    fn mistake_is_reported_with_its_place() {
        let cases = [
            (
                "[a]\non = \"/\"\nrun = [\"x\"]\nmod = \"each\"\n",
                "4:1: unknown field `mod`",
            ),
            (
                "[a]\nrun = [\"x\"]\ntimeout = \"soon\"\n",
                "3:11: \"soon\": expected a number",
            ),
            (
                "[a]\nrun = [\"x\"]\nmode = \"all\"\n",
                "3:8: unknown variant `all`",
            ),
            ("\n[a]\non = \"/\"\n", "2:1: a: a hook has either"),
            ("[a]\nrun = [\"x\"\n", "2:"),
            (
                "[\"a/b\"]\nrun = [\"x\"]\n",
                "1:1: a/b: \"a/b\" is not a name for a hook",
            ),
            (
                "[a]\nrun = [\"x\"]\nparallel = 0\n",
                "1:1: a: parallel must be 1 to 64, but it is 0",
            ),
            (
                "[a]\nrun = [\"x\"]\ndebounce = \"1s\"\n",
                "1:1: a: debounce is for the modes",
            ),
        ];
        for (text, expected) in cases {
            let error = parse(text).unwrap_err();
            let expected = format!("data/hooks.toml:{expected}");
            assert!(error.starts_with(&expected), "{error}\n{expected}");
        }
    }

    #[test]
    fn edit_keeps_the_rest_of_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let file = HooksFile::of(dir.path());
        let by_hand = "# mine\n[a]\non = \"/a\" # here\nrun = [\"true\"]\n";
        fs::write(dir.path().join(FILE), by_hand).unwrap();
        let hook = Hook {
            on: "/b/ \"quoted\"\n".to_owned(),
            run: vec!["./x".to_owned(), "-n".to_owned(), String::new()],
            mode: Mode::Latest,
            debounce: Some(Span(std::time::Duration::from_millis(1500))),
            ..Hook::default()
        };
        file.put("b.c", &hook).unwrap();
        assert_eq!(file.read().unwrap()["b.c"], hook);
        assert_eq!(file.read().unwrap().len(), 2);
        assert!(file.remove("b.c").unwrap());
        assert!(!file.remove("b.c").unwrap());
        assert_eq!(fs::read_to_string(dir.path().join(FILE)).unwrap(), by_hand);
        let mode = fs::metadata(dir.path().join(FILE)).unwrap().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn l14_any_text_is_hooks_or_a_mistake_with_its_place() {
        let texts = [
            "[a]\non = \"/\"\nrun = [\"x\", \"y z\"]\nmode = \"batch\"\ntimeout = \"5s\"\n",
            "# comment\n[b]\non = \"/b\"\nhttp = \"http://127.0.0.1:1/x\"\nparallel = 3\n",
        ];
        fuzz(&Corpus::new(texts), |input| {
            let text = String::from_utf8_lossy(input);
            let file = HooksFile::of(Path::new("data"));
            match file.parse(&text) {
                Ok(hooks) => {
                    assert!(hooks.len() <= HOOKS_MAX);
                    assert!(hooks.iter().all(|(name, hook)| hook.check(name).is_ok()));
                    true
                }
                Err(HooksFileError::Invalid { line, column, .. }) => {
                    assert!(line >= 1 && line <= text.matches('\n').count() + 1);
                    assert!(column >= 1);
                    false
                }
                Err(other) => panic!("{other}"),
            }
        });
    }
}

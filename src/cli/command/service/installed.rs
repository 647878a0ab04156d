//! The file of an installed unit: written as a whole, and never in place of a file of somebody else.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
};

use crate::cli::exit::Failure;

/// The content of the place where `service install` writes its unit.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// There is nothing.
    Nothing,
    /// A unit that `service install` wrote, with its text.
    Ours(String),
    /// Anything else: it is left as it is.
    Foreign,
}

impl Found {
    /// Looks at the file of a unit.
    ///
    /// # Errors
    /// `unit` if it cannot be read.
    pub(super) fn at(path: &Path) -> Result<Self, Failure> {
        let found = match fs::symlink_metadata(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::Nothing),
            found => found.map_err(|error| failed("read", path, &error))?,
        };
        // A link to /dev/null is a unit that somebody masked.
        if !found.is_file() {
            return Ok(Self::Foreign);
        }
        let text = fs::read(path).map_err(|error| failed("read", path, &error))?;
        match String::from_utf8(text) {
            Ok(text) if text.starts_with(MARK) => Ok(Self::Ours(text)),
            _other => Ok(Self::Foreign),
        }
    }
}

/// Returns the text of the file for this unit.
pub(super) fn marked(unit: &str) -> String {
    format!("{MARK}{unit}")
}

/// Writes the file of a unit in place of a file of that name. On return it survives power loss; an
/// earlier crash leaves the file that was there.
///
/// # Errors
/// `unit` if the system refuses.
pub(super) fn write(path: &Path, text: &str) -> Result<(), Failure> {
    let (dir, new) = (parent(path), path.with_extension("service.new"));
    let write = || {
        fs::create_dir_all(dir)?;
        match fs::remove_file(&new) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _removed => {}
        }
        let mut options = OpenOptions::new();
        options.write(true).create_new(true).mode(0o644);
        let mut file = options.open(&new)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&new, path)?;
        File::open(dir)?.sync_all()
    };
    write().map_err(|error| failed("write", path, &error))
}

/// Removes the file of a unit. Durable on return.
///
/// # Errors
/// `unit` if the system refuses.
pub(super) fn remove(path: &Path) -> Result<(), Failure> {
    fs::remove_file(path)
        .and_then(|()| File::open(parent(path))?.sync_all())
        .map_err(|error| failed("remove", path, &error))
}

/// Returns the failure of a command that would have to change a file of somebody else.
pub(super) fn foreign(path: &Path, hint: String) -> Failure {
    let message = format!(
        "{} was not written by lattice service install",
        path.display()
    );
    Failure::failed("foreign_unit", message).hint(hint)
}

fn parent(path: &Path) -> &Path {
    path.parent().unwrap_or(Path::new("/"))
}

fn failed(doing: &str, path: &Path, error: &io::Error) -> Failure {
    Failure::failed(
        "unit",
        format!("cannot {doing} {}: {error}", path.display()),
    )
}

// The first line shows that `service install` wrote the file.
const MARK: &str = "\
# Written by `lattice service install`; `lattice service uninstall` removes it.
# Change it with `systemctl edit lattice`: the next install writes this file again.
";

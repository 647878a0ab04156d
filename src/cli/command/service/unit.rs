//! The text of the systemd unit that runs the node.

use std::path::{Path, PathBuf};

use lattice::vault::CREDENTIAL_NAME;

use crate::cli::{exit::Failure, place::Place};

/// A unit that runs the node with one program and one data directory.
#[derive(Debug)]
pub(super) struct Unit {
    /// True for the systemd instance of a user, false for that of the system.
    pub(super) user: bool,
    /// Path of the program.
    pub(super) binary: PathBuf,
    // The data directory, if a flag or the environment named it.
    named: Option<PathBuf>,
    // The encrypted credential with the node's key.
    credential: Option<PathBuf>,
}

impl Unit {
    /// Returns the unit that runs this program on the data directory of `place`.
    ///
    /// # Errors
    /// `binary` if the path of this program is unknown, `binary_path` if systemd could not start it.
    pub(super) fn of_this_program(user: bool, place: &Place) -> Result<Self, Failure> {
        let binary = std::env::current_exe();
        let binary = binary.map_err(|error| Failure::failed("binary", error.to_string()))?;
        if binary.to_string_lossy().contains(['"', '\'', '\\']) {
            let message = format!("systemd cannot start {}", binary.display());
            return Err(Failure::failed("binary_path", message)
                .hint("the path has a quote or a backslash; move the program elsewhere"));
        }
        let named = place.is_named.then(|| place.data_dir.clone());
        Ok(Self {
            user,
            binary,
            named,
            credential: None,
        })
    }

    /// Returns the unit, giving the service the encrypted credential at `path`, which has the node's key.
    pub(super) fn with_credential(mut self, path: Option<PathBuf>) -> Self {
        self.credential = path.map(|path| std::path::absolute(&path).unwrap_or(path));
        self
    }

    /// Returns the data directory that a flag or the environment named.
    pub(super) fn named_dir(&self) -> Option<&Path> {
        self.named.as_deref()
    }

    /// Returns the data directory that the unit names; `None` for the default one of a user.
    pub(super) fn data_dir(&self) -> Option<&Path> {
        let system = (!self.user).then_some(Path::new(SYSTEM_DATA_DIR));
        self.named_dir().or(system)
    }

    /// True if the service could not see its program: a system service has a `/tmp` of its own, and
    /// sees no home directory unless its data may be in one.
    pub(super) fn hides_its_program(&self) -> bool {
        let homes: &[&str] = match self.named {
            None => &["/home", "/root", "/run/user"],
            Some(_) => &[],
        };
        let hidden = ["/tmp", "/var/tmp"].iter().chain(homes);
        !self.user && hidden.into_iter().any(|dir| self.binary.starts_with(dir))
    }

    /// Returns the unit.
    pub(super) fn text(&self) -> String {
        // systemd expands `$` in arguments only, so it is doubled only there.
        let argument = |dir: &Path| quoted(dir).replace('$', "$$");
        let place = self.data_dir();
        let place = place.map(|dir| format!(" --data-dir {}", argument(dir)));
        let place = place.unwrap_or_default();
        let binary = quoted(&self.binary);
        let (guard, target) = match (self.user, &self.named) {
            (true, _) => (String::new(), "default.target"),
            (false, None) => (format!("{GUARD}{GUARD_STATE}"), "multi-user.target"),
            // The directory may be in a home directory, so homes are not protected.
            (false, Some(dir)) => {
                let writes = format!("{GUARD}ReadWritePaths={}\n", quoted(dir));
                (writes, "multi-user.target")
            }
        };
        let credential = self.credential.as_ref().map_or_else(String::new, |path| {
            let path = path.to_string_lossy().replace('%', "%%");
            format!("LoadCredentialEncrypted={CREDENTIAL_NAME}:{path}\n")
        });
        format!(
            "\
[Unit]
Description=Lattice node
Wants=network-online.target
After=network-online.target

[Service]
Type=notify
ExecStart={binary}{place} up
ExecReload=/bin/kill -HUP $MAINPID
WatchdogSec=30
Restart=on-failure
RestartSec=2
# A usage error: a restart would not help.
RestartPreventExitStatus=2
{credential}{guard}NoNewPrivileges=yes

[Install]
WantedBy={target}
"
        )
    }
}

// Quotes a path for systemd: escapes quotes and backslashes, and doubles `%`.
fn quoted(path: &Path) -> String {
    let mut text = String::from('"');
    for c in path.to_string_lossy().chars() {
        match c {
            '"' | '\\' => text.extend(['\\', c]),
            '%' => text.extend([c, c]),
            c => text.push(c),
        }
    }
    text.push('"');
    text
}

/// Data directory of a system service, if no other one is named.
const SYSTEM_DATA_DIR: &str = "/var/lib/lattice";

const GUARD: &str = "\
User=lattice
ProtectSystem=strict
PrivateTmp=yes
";
const GUARD_STATE: &str = "\
ProtectHome=yes
StateDirectory=lattice
StateDirectoryMode=0700
";

#[cfg(test)]
mod tests {
    use super::*;

    fn unit_of(user: bool, binary: &str, named: Option<&str>) -> Unit {
        let (binary, named) = (binary.into(), named.map(PathBuf::from));
        Unit {
            user,
            binary,
            named,
            credential: None,
        }
    }

    #[test]
    fn special_characters_in_a_path_are_quoted() {
        assert_eq!(
            quoted(Path::new("/a b/\"c\"/%h/$x")),
            r#""/a b/\"c\"/%%h/$x""#
        );
        let unit = unit_of(true, "/$l", Some("/$d")).text();
        assert!(
            unit.contains("ExecStart=\"/$l\" --data-dir \"/$$d\" up\n"),
            "{unit}"
        );
    }

    #[test]
    fn system_service_writes_to_its_data_only() {
        let unit = |named: Option<&str>| unit_of(false, "/l", named).text();
        let usual = unit(None);
        assert!(
            usual.contains("--data-dir \"/var/lib/lattice\" up\n"),
            "{usual}"
        );
        assert!(usual.contains("StateDirectory=lattice\n"), "{usual}");
        let named = unit(Some("/srv/x"));
        assert!(named.contains("ReadWritePaths=\"/srv/x\"\n"), "{named}");
        assert!(
            !named.contains("StateDirectory") && !named.contains("ProtectHome"),
            "{named}"
        );
    }

    #[test]
    fn user_service_uses_the_default_directory() {
        let unit = unit_of(true, "/bin/lattice", None).text();
        assert!(unit.contains("ExecStart=\"/bin/lattice\" up\n"), "{unit}");
        assert!(!unit.contains("User="), "{unit}");
    }

    #[test]
    fn program_that_the_service_cannot_see_is_found() {
        for (user, binary, named, hides) in [
            (false, "/usr/bin/lattice", None, false),
            (false, "/run/user/7/lattice", None, true),
            (false, "/run/users/lattice", None, false),
            (false, "/run/user/7/lattice", Some("/srv/x"), false),
            (false, "/var/tmp/lattice", Some("/srv/x"), true),
            (true, "/run/user/7/lattice", None, false),
            (true, "/var/tmp/lattice", None, false),
        ] {
            let unit = unit_of(user, binary, named);
            assert_eq!(unit.hides_its_program(), hides, "{unit:?}");
        }
    }
}

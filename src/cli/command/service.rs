//! `service print`: prints a systemd unit for the node.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};

use crate::cli::{exit::Failure, session::Context};

/// Run the node as a systemd service
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  lattice service print --user > ~/.config/systemd/user/lattice.service
  lattice service print | sudo tee /etc/systemd/system/lattice.service")]
pub(crate) struct Service {
    #[command(subcommand)]
    action: ServiceAction,
}

#[derive(Debug, Subcommand)]
enum ServiceAction {
    /// Print a unit that starts the node, and restarts it if it fails or does not answer
    ///
    /// A system service runs as the user `lattice` and keeps its data in /var/lib/lattice. With
    /// --user, it is the node that `lattice up` starts for that user. --data-dir names another
    /// directory.
    #[command(after_help = "\
Examples:
  lattice service print --user > ~/.config/systemd/user/lattice.service
  systemctl --user enable --now lattice
  sudo useradd --system lattice
  lattice service print | sudo tee /etc/systemd/system/lattice.service
  sudo systemctl enable --now lattice")]
    Print {
        /// Print a unit for the user's systemd instance
        #[arg(long)]
        user: bool,
    },
}

impl Service {
    pub(crate) fn run(self, context: &mut Context) -> Result<(), Failure> {
        let ServiceAction::Print { user } = self.action;
        let binary = std::env::current_exe();
        let binary = binary.map_err(|error| Failure::failed("binary", error.to_string()))?;
        if binary.to_string_lossy().contains(['"', '\'', '\\']) {
            let message = format!("systemd cannot start {}", binary.display());
            return Err(Failure::failed("binary_path", message)
                .hint("the path has a quote or a backslash; move the program elsewhere"));
        }
        let place = &context.place;
        let named = place.is_named.then(|| place.data_dir.clone());
        context.out.bytes(unit(user, &binary, named).as_bytes())
    }
}

fn unit(user: bool, binary: &Path, named: Option<PathBuf>) -> String {
    let dir = match user {
        true => named.clone(),
        false => named.clone().or_else(|| Some("/var/lib/lattice".into())),
    };
    // systemd expands `$` in arguments only, so it is doubled only there.
    let argument = |dir: PathBuf| quoted(&dir).replace('$', "$$");
    let place = dir.map(|dir| format!(" --data-dir {}", argument(dir)));
    let place = place.unwrap_or_default();
    let binary = quoted(binary);
    let (guard, target) = match (user, named) {
        (true, _) => (String::new(), "default.target"),
        (false, None) => (format!("{GUARD}{GUARD_STATE}"), "multi-user.target"),
        // The directory may be in a home directory, so homes are not protected.
        (false, Some(dir)) => {
            let writes = format!("{GUARD}ReadWritePaths={}\n", quoted(&dir));
            (writes, "multi-user.target")
        }
    };
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
{guard}NoNewPrivileges=yes

[Install]
WantedBy={target}
"
    )
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

    #[test]
    fn special_characters_in_a_path_are_quoted() {
        assert_eq!(
            quoted(Path::new("/a b/\"c\"/%h/$x")),
            r#""/a b/\"c\"/%%h/$x""#
        );
        let unit = unit(true, Path::new("/$l"), Some("/$d".into()));
        assert!(
            unit.contains("ExecStart=\"/$l\" --data-dir \"/$$d\" up\n"),
            "{unit}"
        );
    }

    #[test]
    fn system_service_writes_to_its_data_only() {
        let unit = |named: Option<&str>| unit(false, Path::new("/l"), named.map(PathBuf::from));
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
        let unit = unit(true, Path::new("/bin/lattice"), None);
        assert!(unit.contains("ExecStart=\"/bin/lattice\" up\n"), "{unit}");
        assert!(!unit.contains("User="), "{unit}");
    }
}

//! `service print`: a unit for systemd.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};

use crate::cli::{exit::Failure, session::Context};

/// Run the node as a service of systemd
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
    /// Print a unit: started when the node serves, restarted when it fails or does not answer
    ///
    /// For the system, the node runs as the user `lattice` and keeps its data in /var/lib/lattice.
    /// For a user, it is the node of that user, as `lattice up` is. --data-dir names another place.
    #[command(after_help = "\
Examples:
  lattice service print --user > ~/.config/systemd/user/lattice.service
  systemctl --user enable --now lattice
  sudo useradd --system lattice
  lattice service print | sudo tee /etc/systemd/system/lattice.service
  sudo systemctl enable --now lattice")]
    Print {
        /// For the user's own systemd
        #[arg(long)]
        user: bool,
    },
}

impl Service {
    /// Runs the command.
    pub(crate) fn run(self, context: &mut Context) -> Result<(), Failure> {
        let ServiceAction::Print { user } = self.action;
        let binary = std::env::current_exe();
        let binary = binary.map_err(|error| Failure::failed("binary", error.to_string()))?;
        if binary.to_string_lossy().contains(['"', '\'', '\\']) {
            let message = format!("systemd starts no program in {}", binary.display());
            return Err(Failure::failed("binary_path", message)
                .hint("a quote or a backslash is in its path: put it elsewhere"));
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
    // In arguments a variable begins with `$`; nowhere else does it.
    let argument = |dir: PathBuf| quoted(&dir).replace('$', "$$");
    let place = dir.map(|dir| format!(" --data-dir {}", argument(dir)));
    let place = place.unwrap_or_default();
    let binary = quoted(binary);
    let (guard, target) = match (user, named) {
        (true, _) => (String::new(), "default.target"),
        (false, None) => (format!("{GUARD}{GUARD_STATE}"), "multi-user.target"),
        // It may be anywhere, also in a home.
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
WatchdogSec=30
Restart=on-failure
RestartSec=2
# What was typed is wrong: starting again would not help.
RestartPreventExitStatus=2
{guard}NoNewPrivileges=yes

[Install]
WantedBy={target}
"
    )
}

// As systemd reads words: quotes and backslashes escaped, and its own `%` doubled.
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
    fn a_path_is_one_word_whatever_is_in_it() {
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
    fn a_service_may_write_to_its_place_only() {
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
    fn a_user_has_no_place_but_the_usual_one() {
        let unit = unit(true, Path::new("/bin/lattice"), None);
        assert!(unit.contains("ExecStart=\"/bin/lattice\" up\n"), "{unit}");
        assert!(!unit.contains("User="), "{unit}");
    }
}

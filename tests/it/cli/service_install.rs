//! `service install` and `service uninstall`, in a system that does not run and with a `systemctl` that only
//! notes its calls. `.deb/test` does the same with a real systemd.

use std::{
    fs,
    os::unix::fs::{PermissionsExt as _, symlink},
    path::{Path, PathBuf},
    process::Command,
};

use super::harness::{Home, Ran};

/// A system in a directory, which does not run.
struct System {
    home: Home,
}

impl System {
    // `None` where its tools are missing or refuse: that is said.
    fn new() -> Option<Self> {
        let is_there = |program: &str| Command::new(program).arg("--version").output().is_ok();
        if !rustix::process::geteuid().is_root() || !is_there("systemctl") || !is_there("useradd") {
            eprintln!("skipped: it needs root, systemctl and useradd");
            return None;
        }
        let system = Self { home: Home::new() };
        fs::create_dir_all(system.path("etc")).unwrap();
        for (file, text) in [
            ("etc/passwd", "root:x:0:0:root:/root:/bin/sh\n"),
            ("etc/group", "root:x:0:\n"),
            ("etc/shadow", "root:*:19000:0:99999:7:::\n"),
            ("etc/gshadow", "root:*::\n"),
        ] {
            fs::write(system.path(file), text).unwrap();
        }
        Some(system)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.home.path("system").join(name)
    }

    fn unit(&self) -> PathBuf {
        self.path("etc/systemd/system/lattice.service")
    }

    // Runs `lattice service` for the data directory that is not named.
    fn service(&self, arguments: &[&str]) -> Ran {
        let root = self.home.path("system");
        let root = ["--root", root.to_str().unwrap()];
        let mut command = self
            .home
            .command(&[&["service"], arguments, &root].concat());
        command.env_remove("LATTICE_DATA").env("PATH", PATH);
        self.home.spawn(command).end()
    }

    fn has_user(&self) -> bool {
        let users = fs::read_to_string(self.path("etc/passwd")).unwrap();
        users.contains("\nlattice:")
    }
}

#[test]
fn unit_is_installed_and_taken_away() {
    let Some(system) = System::new() else { return };
    let data = system.path("var/lib/lattice");
    fs::create_dir_all(&data).unwrap();
    insta::assert_snapshot!(system.service(&["install"]).ok(), @r"
    wrote    [home]/system/etc/systemd/system/lattice.service
    user     lattice (created)
    data     /var/lib/lattice
    enabled  starts with the system
    status   systemctl status lattice
    undo     sudo lattice service uninstall
    ");
    let unit = fs::read_to_string(system.unit()).unwrap();
    let mut printed = system.home.command(&["service", "print"]);
    printed.env_remove("LATTICE_DATA");
    let printed = system.home.spawn(printed).end();
    assert!(unit.ends_with(&printed.raw), "{unit}");
    let mode = fs::metadata(system.unit()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o644);
    let wanted = system.path("etc/systemd/system/multi-user.target.wants/lattice.service");
    assert!(wanted.is_symlink() && system.has_user());
    // Again: nothing is left to make.
    let again = system.service(&["install"]).ok();
    assert!(!again.contains("created"), "{again}");
    insta::assert_snapshot!(system.service(&["uninstall"]).ok(), @r"
    removed  [home]/system/etc/systemd/system/lattice.service
    kept     the data of the node, and the user lattice, who owns it
    ");
    assert!(!system.unit().exists() && !wanted.is_symlink());
    assert!(system.has_user() && data.is_dir());
    insta::assert_snapshot!(system.service(&["uninstall"]), @r"
    error: there is no [home]/system/etc/systemd/system/lattice.service
    hint: with --user, the unit of this user is removed
    exit 3
    ");
}

#[test]
fn unit_of_somebody_else_is_kept() {
    let Some(system) = System::new() else { return };
    fs::create_dir_all(system.unit().parent().unwrap()).unwrap();
    let own = "[Service]\nExecStart=/bin/true\n[Install]\nWantedBy=multi-user.target\n";
    fs::write(system.unit(), own).unwrap();
    insta::assert_snapshot!(system.service(&["install"]), @r"
    error: [home]/system/etc/systemd/system/lattice.service was not written by lattice service install
    hint: look at it; with --replace it is overwritten
    exit 1
    ");
    insta::assert_snapshot!(system.service(&["uninstall"]), @r"
    error: [home]/system/etc/systemd/system/lattice.service was not written by lattice service install
    hint: `systemctl disable --now lattice` stops it; then remove the file by hand
    exit 1
    ");
    assert_eq!(fs::read_to_string(system.unit()).unwrap(), own);
    assert!(!system.has_user());
    // A link to /dev/null: somebody masked the unit.
    fs::remove_file(system.unit()).unwrap();
    symlink("/dev/null", system.unit()).unwrap();
    assert_eq!(system.service(&["install"]).code, 1);
    assert!(system.unit().is_symlink());
    system.service(&["install", "--replace"]).ok();
    assert!(!system.unit().is_symlink());
    system.service(&["uninstall"]).ok();
    // A package has a unit of its own: it is started, not overridden.
    let packaged = system.path("usr/lib/systemd/system");
    fs::create_dir_all(&packaged).unwrap();
    fs::write(packaged.join("lattice.service"), own).unwrap();
    insta::assert_snapshot!(system.service(&["install"]), @r"
    error: a package installed [home]/system/usr/lib/systemd/system/lattice.service
    hint: `systemctl enable --now lattice` starts it; with --replace another unit overrides it
    exit 1
    ");
    assert!(!system.unit().exists());
}

/// A home with a `systemctl` that notes its calls, and fails at those that `fails` names.
struct User {
    home: Home,
}

impl User {
    fn new(fails: &str) -> Self {
        let home = Home::new();
        let tools = home.path("tools");
        fs::create_dir_all(&tools).unwrap();
        let script = format!(
            "#!/bin/sh\necho \"$*\" >> \"$HOME/calls\"\ncase \" $* \" in *\" {fails} \"*) echo 'It refuses.' >&2; \
             exit 1;; esac\n"
        );
        fs::write(tools.join("systemctl"), script).unwrap();
        let mode = fs::Permissions::from_mode(0o755);
        fs::set_permissions(tools.join("systemctl"), mode).unwrap();
        Self { home }
    }

    fn unit(&self) -> PathBuf {
        self.home.path(".config/systemd/user/lattice.service")
    }

    fn service(&self, arguments: &[&str]) -> Ran {
        let path = format!("{}:/usr/bin:/bin", self.home.path("tools").display());
        self.service_with(arguments, &path)
    }

    fn service_with(&self, arguments: &[&str], path: &str) -> Ran {
        let mut command = self
            .home
            .command(&[&["service"], arguments, &["--user"]].concat());
        command.env("PATH", path);
        self.home.spawn(command).end()
    }

    // The calls since the last time.
    fn calls(&self) -> String {
        let path = self.home.path("calls");
        let calls = fs::read_to_string(&path).unwrap_or_default();
        drop(fs::remove_file(path));
        calls
    }
}

#[test]
fn service_of_a_user_is_started_and_stopped() {
    let user = User::new("nothing");
    insta::assert_snapshot!(user.service(&["install"]).ok(), @r"
    wrote    [home]/.config/systemd/user/lattice.service
    data     [home]/data
    running  and starts when you log in
    next     loginctl enable-linger, so that it runs also while you are logged out
    status   systemctl --user status lattice
    undo     lattice service uninstall --user
    ");
    insta::assert_snapshot!(user.calls(), @r"
    --user show --property=Version
    --user daemon-reload
    --user enable lattice.service
    --user start lattice.service
    ");
    // Unchanged, the node runs on; with another unit it is started again.
    user.service(&["install"]).ok();
    assert!(user.calls().ends_with("--user start lattice.service\n"));
    let moved = user.home.path("elsewhere");
    user.service(&["install", "--data-dir", moved.to_str().unwrap()])
        .ok();
    assert!(user.calls().ends_with("--user restart lattice.service\n"));
    let json = user.service(&["uninstall", "--json"]);
    let path = user.unit().display().to_string();
    assert_eq!(
        json.json(),
        [serde_json::json!({
            "type": "service_uninstalled", "unit": path, "user": true, "running": false, "added_user": false,
        })]
    );
    insta::assert_snapshot!(user.calls(), @r"
    --user show --property=Version
    --user disable --now lattice.service
    --user daemon-reload
    ");
    assert!(!user.unit().exists());
}

#[test]
fn without_systemd_nothing_is_written() {
    let user = User::new("show");
    insta::assert_snapshot!(user.service(&["install"]), @r"
    error: no systemd answers: systemctl show --property=Version: It refuses.
    hint: log in as this user, not through su or sudo; where there is no systemd, have the service manager of this machine run `lattice up`
    exit 1
    ");
    let nowhere = user.home.path("nowhere").display().to_string();
    let missing = user.service_with(&["install"], &nowhere);
    assert_eq!(missing.code, 1, "{missing}");
    assert!(
        missing
            .stderr
            .starts_with("error: no systemd answers: systemctl is not here\n"),
        "{missing}"
    );
    assert!(!user.unit().exists());
}

#[test]
fn start_that_fails_leaves_the_unit_and_says_so() {
    let user = User::new("start");
    insta::assert_snapshot!(user.service(&["install"]), @r"
    error: [home]/.config/systemd/user/lattice.service is written, and the node does not run: systemctl start lattice.service: It refuses.
    hint: see `systemctl --user status lattice`; `lattice service uninstall --user` removes the unit
    exit 7
    ");
    assert!(user.unit().exists());
    // A node that cannot be stopped keeps its unit.
    let user = User::new("disable");
    user.service(&["install"]).ok();
    assert_eq!(user.service(&["uninstall"]).code, 1);
    assert!(user.unit().exists());
}

#[test]
fn node_that_runs_by_hand_is_found_first() {
    let user = User::new("nothing");
    let node = user.home.up();
    insta::assert_snapshot!(user.service(&["install"]), @r"
    error: a node is running on [home]/data
    hint: stop it with `lattice down`, then install the service
    exit 1
    ");
    assert!(!user.unit().exists());
    drop(node);
}

const PATH: &str = "/usr/sbin:/usr/bin:/sbin:/bin";

#[test]
fn only_root_installs_for_the_system() {
    if rustix::process::geteuid().is_root() {
        return;
    }
    let home = Home::new();
    let ran = home.run(&["service", "install"]);
    assert!(ran.stderr.contains("put sudo before it"), "{ran}");
    assert!(!Path::new("/etc/systemd/system/lattice.service").exists());
}

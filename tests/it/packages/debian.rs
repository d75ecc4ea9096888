//! The Debian package, built by cargo-deb from the program under test: installed, updated and removed in a folder.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};

use tempfile::TempDir;
use tokio::process::Command;

use super::skip;

/// Building it takes longer than other things that tests wait for.
const BUILD_TIME: std::time::Duration = std::time::Duration::from_secs(100);

/// The folder of the program under test.
fn built() -> PathBuf {
    Path::new(env!("CARGO_BIN_EXE_switchboard")).parent().unwrap().to_owned()
}

async fn run(command: &mut Command) -> Output {
    let command = command.stdin(Stdio::null()).kill_on_drop(true);
    let output = tokio::time::timeout(BUILD_TIME, command.output()).await.expect("an end").unwrap();
    assert!(output.status.success(), "{command:?}: {output:?}");
    output
}

/// The search path with the folder in which `./test` installs cargo-deb; `None` if it is neither there nor anywhere else.
async fn path_to_cargo_deb() -> Option<OsString> {
    let mut path = built().parent()?.join("tools/bin").into_os_string();
    path.push(":");
    path.push(std::env::var_os("PATH")?);
    let version = Command::new("sh").args(["-c", "cargo-deb --version"]).env("PATH", &path).output().await;
    version.is_ok_and(|output| output.status.success()).then_some(path)
}

/// A folder in which dpkg installs as if it were the root of a system.
struct Root(TempDir);

impl Root {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        for name in ["info", "updates"] {
            fs::create_dir_all(folder.path().join("var/lib/dpkg").join(name)).unwrap();
        }
        fs::write(folder.path().join("var/lib/dpkg/status"), "").unwrap();
        Self(folder)
    }

    /// The C library is not in there.
    async fn dpkg(&self, action: &str, what: &str) {
        let mut dpkg = Command::new("dpkg");
        dpkg.arg("--root").arg(self.0.path());
        dpkg.args([
            "--force-not-root",
            "--force-depends",
            "--force-script-chrootless",
            "--force-confold",
            "--force-bad-path",
        ]);
        run(dpkg.args(["--log=/dev/null", action, what])).await;
    }

    fn at(&self, path: &str) -> PathBuf {
        self.0.path().join(path)
    }
}

#[tokio::test]
async fn the_package_is_installed_updated_and_removed() {
    let (Some(path), true) = (path_to_cargo_deb().await, Command::new("dpkg").arg("--version").output().await.is_ok())
    else {
        return skip("the Debian package (there is no cargo-deb, or no dpkg)");
    };
    let folder = tempfile::tempdir().unwrap();
    let packages = ["0.0.1", "0.0.2"].map(|version| folder.path().join(format!("{version}.deb")));
    let mut build = Command::new("deploy/debian/build");
    build.args(["--strip", "--fast", "--deb-version", "0.0.1", "--output"]).arg(&packages[0]);
    build.env("PROGRAM", env!("CARGO_BIN_EXE_switchboard")).env("PATH", &path);
    run(build.env("CARGO_TARGET_DIR", built().parent().unwrap())).await;
    // The next version has the same files.
    let unpacked = folder.path().join("unpacked");
    run(Command::new("dpkg-deb").arg("--raw-extract").arg(&packages[0]).arg(&unpacked)).await;
    let control = fs::read_to_string(unpacked.join("DEBIAN/control")).unwrap();
    fs::write(unpacked.join("DEBIAN/control"), control.replace("Version: 0.0.1", "Version: 0.0.2")).unwrap();
    run(Command::new("dpkg-deb").args(["-Zgzip", "-z1", "--build"]).arg(&unpacked).arg(&packages[1])).await;
    let fields = run(Command::new("dpkg-deb").arg("--field").arg(&packages[0])).await.stdout;
    let fields = String::from_utf8(fields).unwrap();
    for field in ["Package: switchboard\n", "Version: 0.0.1\n", "Section: net\n", "Maintainer: "] {
        assert!(fields.contains(field), "'{field}' is not in\n{fields}");
    }

    let root = Root::new();
    root.dpkg("--install", packages[0].to_str().unwrap()).await;
    for path in [
        "usr/bin/switchboard",
        "usr/lib/systemd/system/switchboard.service",
        "usr/lib/systemd/system/switchboard.socket",
        "usr/lib/sysusers.d/switchboard.conf",
        "usr/share/man/man1/switchboard-serve.1.gz",
        "usr/share/bash-completion/completions/switchboard",
        "usr/share/zsh/vendor-completions/_switchboard",
        "usr/share/fish/vendor_completions.d/switchboard.fish",
        "usr/share/doc/switchboard/copyright",
        "etc/switchboard/switchboard.toml",
    ] {
        assert!(root.at(path).exists(), "{path}");
    }
    let version = run(Command::new(root.at("usr/bin/switchboard")).arg("--version")).await;
    assert!(String::from_utf8(version.stdout).unwrap().starts_with("switchboard "));
    let unit = fs::read_to_string(root.at("usr/lib/systemd/system/switchboard.service")).unwrap();
    assert_eq!(unit, super::deployed("systemd/switchboard.service"));

    // An operator's configuration stays, until the package is purged.
    let config = root.at("etc/switchboard/switchboard.toml");
    fs::write(&config, "# ours\n").unwrap();
    root.dpkg("--install", packages[1].to_str().unwrap()).await;
    assert_eq!(fs::read_to_string(&config).unwrap(), "# ours\n");
    root.dpkg("--remove", "switchboard").await;
    assert!(!root.at("usr/bin/switchboard").exists() && config.exists());
    root.dpkg("--purge", "switchboard").await;
    assert!(!config.exists());
}

#[tokio::test]
async fn the_maintainer_scripts_are_shell() {
    for name in ["postinst", "prerm", "postrm"] {
        run(Command::new("sh").args(["-n", &format!("deploy/debian/{name}")])).await;
    }
}

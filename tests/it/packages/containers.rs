//! The files of `deploy/` for containers fit the program: paths, commands, features, ports and times.

use std::fs;
use std::path::Path;

use serde_json::Value;
use switchboard::config::Config;
use tokio::process::Command;

use super::deployed;
use crate::support::within;

/// The instructions of the Dockerfile, each on one line.
fn instructions() -> Vec<(String, String)> {
    let text = deployed("Dockerfile").lines().filter(|line| !line.starts_with('#')).collect::<Vec<_>>().join("\n");
    let text = text.replace("\\\n", " ");
    let lines = text.lines().filter(|line| !line.trim().is_empty());
    lines.map(|line| line.split_once(' ').unwrap()).map(|(name, rest)| (name.to_owned(), rest.to_owned())).collect()
}

/// The words of an instruction in its form of a JSON list.
fn words(name: &str) -> Vec<String> {
    let found = instructions().into_iter().rfind(|(it, _)| it == name).unwrap_or_else(|| panic!("no {name}"));
    let list = &found.1[found.1.find('[').expect("the form without a shell: the image has none")..];
    serde_json::from_str(list).unwrap()
}

#[tokio::test]
async fn the_dockerfile_names_what_there_is() {
    let manifest = fs::read_to_string("Cargo.toml").unwrap();
    let steps: Vec<String> = instructions().into_iter().filter(|(it, _)| it == "RUN").map(|(_, step)| step).collect();
    let build = steps.iter().find(|step| step.contains("cargo build")).unwrap();
    let word_after = |flag: &str| build.split_whitespace().skip_while(|word| *word != flag).nth(1).unwrap().to_owned();
    let profile = word_after("--profile");
    assert!(manifest.contains(&format!("[profile.{profile}]")) && build.contains("--locked"));
    assert!(manifest.contains(&format!("[[bin]]\nname = \"{}\"", word_after("--bin"))));
    assert!(build.contains("--no-default-features"), "a package has no simulated org");
    for step in &steps {
        for word in step.split_whitespace().filter(|word| word.starts_with("deploy/")) {
            assert!(Path::new(word).exists(), "{word}");
        }
        assert!(!step.contains("target/") || step.contains(&format!("target/{profile}/switchboard")), "{step}");
    }
    assert_eq!(words("ENTRYPOINT"), ["switchboard"]);
    for (command, whole) in [(words("CMD"), words("ENTRYPOINT")), (words("HEALTHCHECK"), Vec::new())] {
        let arguments: Vec<String> = whole.into_iter().chain(command).skip(1).collect();
        // With --help, the arguments before it have to be known.
        let mut program = Command::new(env!("CARGO_BIN_EXE_switchboard"));
        let output = within("the help", program.args(&arguments).arg("--help").output()).await.unwrap();
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        assert!(String::from_utf8(output.stdout).unwrap().contains(&format!("switchboard {}", arguments[0])));
    }
    let user = instructions().into_iter().rfind(|(it, _)| it == "USER").unwrap().1;
    assert!(user.split(':').all(|id| id.parse::<u32>().is_ok_and(|id| id > 0)), "Kubernetes wants a number: {user}");
    let bases: Vec<String> = instructions().into_iter().filter(|(it, _)| it == "FROM").map(|(_, base)| base).collect();
    assert!(bases[0].contains("bookworm") && bases[1].contains("cc-debian12"), "one glibc: {bases:?}");
}

#[tokio::test]
async fn the_configurations_have_no_mistake() {
    for name in ["docker/switchboard.toml", "kubernetes/switchboard.toml", "debian/switchboard.toml"] {
        let folder = tempfile::tempdir().unwrap();
        let at = folder.path().join("switchboard.toml");
        fs::create_dir_all(folder.path().join("switchboard-key")).unwrap();
        let config = deployed(name).replace("/var/lib", folder.path().to_str().unwrap());
        let config = config.replace(":7420\"", ":0\"").replace(":7421\"", ":0\"");
        fs::write(&at, config).unwrap();
        let mut check = Command::new(env!("CARGO_BIN_EXE_switchboard"));
        let output = within("check", check.arg("check").arg("--json").arg("--config").arg(&at).output()).await.unwrap();
        let said: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{name}: {output:?}"));
        assert_eq!(said["ok"], true, "{name}: {said}");
    }
}

#[test]
fn the_manifests_fit_the_configurations_and_the_limits() {
    let drain = Config::default().limits.drain.as_secs();
    let number_after = |text: &str, key: &str| {
        let rest = text.split_once(key).unwrap_or_else(|| panic!("no {key}")).1;
        rest.trim_start().chars().take_while(char::is_ascii_digit).collect::<String>().parse::<u64>().unwrap()
    };
    let (compose, manifest) = (deployed("compose.yaml"), deployed("kubernetes/switchboard.yaml"));
    assert!(number_after(&compose, "stop_grace_period:") > drain);
    assert!(number_after(&manifest, "terminationGracePeriodSeconds:") > drain);
    for (key, value) in [("containerPort: 7420", "0.0.0.0:7420"), ("containerPort: 7421", "0.0.0.0:7421")] {
        assert!(manifest.contains(key) && deployed("kubernetes/switchboard.toml").contains(value), "{key}");
    }
    for (probe, path) in [("startup", "/readyz"), ("readiness", "/readyz"), ("liveness", "/healthz")] {
        let block = manifest.split_once(&format!("{probe}Probe:")).unwrap().1;
        assert!(block.trim_start().starts_with(&format!("httpGet: {{ path: {path}, port: admin }}")), "{probe}");
    }
    assert!(compose.contains("\"127.0.0.1:7420:7420\""), "plain text is published on loopback only");
    let dockerfile = compose.split_once("dockerfile:").unwrap().1.split_whitespace().next().unwrap();
    assert!(Path::new(dockerfile).exists());
    let kustomization = deployed("kubernetes/kustomization.yaml");
    for file in ["switchboard.yaml", "switchboard.toml"] {
        assert!(kustomization.contains(&format!("- {file}")) && Path::new("deploy/kubernetes").join(file).exists());
    }
}

/// What python3 with `PyYAML` says, where both are there.
#[tokio::test]
async fn the_manifests_are_yaml() {
    let script = "import sys, yaml\nfor name in sys.argv[1:]:\n    assert list(yaml.safe_load_all(open(name))), name";
    let files = [
        "deploy/compose.yaml",
        "deploy/cluster/compose.yaml",
        "deploy/kubernetes/switchboard.yaml",
        "deploy/kubernetes/kustomization.yaml",
    ];
    let probe = Command::new("python3").args(["-c", "import yaml"]).output().await;
    if !probe.is_ok_and(|output| output.status.success()) {
        return super::skip("the manifests as YAML (there is no python3 with PyYAML)");
    }
    let output = within("python3", Command::new("python3").arg("-c").arg(script).args(files).output()).await.unwrap();
    assert!(output.status.success(), "{output:?}");
}

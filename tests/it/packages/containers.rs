//! The files of `deploy/` for containers fit the program: paths, commands, features, ports and times.

use std::fs;
use std::os::unix::fs::PermissionsExt;
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
    for name in [
        "docker/switchboard.toml",
        "kubernetes/switchboard.toml",
        "debian/switchboard.toml",
        "cluster/switchboard.toml",
        "kubernetes-cluster/switchboard.toml",
    ] {
        let folder = tempfile::tempdir().unwrap();
        let at = folder.path().join("switchboard.toml");
        fs::create_dir_all(folder.path().join("switchboard-key")).unwrap();
        // As Kubernetes mounts a secret: its group may read it.
        let key = folder.path().join("cluster.key");
        fs::write(&key, "01".repeat(32)).unwrap();
        fs::set_permissions(&key, fs::Permissions::from_mode(0o440)).unwrap();
        let path = |path: &Path| path.to_str().unwrap().to_owned();
        let config = deployed(name).replace("/var/lib", &path(folder.path()));
        let config = config.replace("/etc/switchboard/cluster.key", &path(&key));
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
    let compose = deployed("compose.yaml");
    assert!(number_after(&compose, "stop_grace_period:") > drain);
    // Its default in a cluster.
    let drain_of_node = 45;
    assert!(number_after(&deployed("cluster/compose.yaml"), "stop_grace_period:") > drain_of_node);
    assert!(number_after(&deployed("systemd/switchboard.service"), "TimeoutStopSec=") > drain_of_node);
    for (folder, drain) in [("kubernetes", drain), ("kubernetes-cluster", drain_of_node)] {
        let manifest = deployed(&format!("{folder}/switchboard.yaml"));
        assert!(number_after(&manifest, "terminationGracePeriodSeconds:") > drain, "{folder}");
        let config = deployed(&format!("{folder}/switchboard.toml"));
        for (key, value) in [("containerPort: 7420", "0.0.0.0:7420"), ("containerPort: 7421", "0.0.0.0:7421")] {
            assert!(manifest.contains(key) && config.contains(value), "{folder}: {key}");
        }
        for (probe, path) in [("startup", "/readyz"), ("readiness", "/readyz"), ("liveness", "/healthz")] {
            let block = manifest.split_once(&format!("{probe}Probe:")).unwrap().1;
            let expected = format!("httpGet: {{ path: {path}, port: admin }}");
            assert!(block.trim_start().starts_with(&expected), "{folder}: {probe}");
        }
    }
    assert!(compose.contains("\"127.0.0.1:7420:7420\""), "plain text is published on loopback only");
    let dockerfile = compose.split_once("dockerfile:").unwrap().1.split_whitespace().next().unwrap();
    assert!(Path::new(dockerfile).exists());
    let (one, three) = (&["switchboard.yaml", "switchboard.toml"][..], &["nats.yaml", "nats.conf"][..]);
    for (folder, files) in [("kubernetes", one), ("kubernetes-cluster", one), ("kubernetes-cluster", three)] {
        let kustomization = deployed(&format!("{folder}/kustomization.yaml"));
        for file in files {
            let is_there = Path::new("deploy").join(folder).join(file).exists();
            assert!(kustomization.contains(&format!("- {file}")) && is_there, "{folder}: {file}");
        }
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
        "deploy/kubernetes-cluster/nats.yaml",
        "deploy/kubernetes-cluster/switchboard.yaml",
        "deploy/kubernetes-cluster/kustomization.yaml",
    ];
    let probe = Command::new("python3").args(["-c", "import yaml"]).output().await;
    if !probe.is_ok_and(|output| output.status.success()) {
        return super::skip("the manifests as YAML (there is no python3 with PyYAML)");
    }
    let output = within("python3", Command::new("python3").arg("-c").arg(script).args(files).output()).await.unwrap();
    assert!(output.status.success(), "{output:?}");
}

/// What nats-server says of its configurations, where it is there.
#[tokio::test]
async fn the_configurations_of_nats_have_no_mistake() {
    let Some(python) = crate::support::programs::python().await else { return };
    let program = python.parent().unwrap().join("nats-server");
    for name in ["cluster/nats.conf", "kubernetes-cluster/nats.conf"] {
        let mut check = Command::new(&program);
        check.args(["-t", "-c", &format!("deploy/{name}")]).envs([("HOSTNAME", "nats-0"), ("POD_NAME", "nats-0")]);
        let output = within("nats-server", check.output()).await.unwrap();
        assert!(output.status.success(), "{name}: {output:?}");
    }
}

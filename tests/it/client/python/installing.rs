//! The package can be built, and installed into an empty environment, without the network.

use std::ffi::OsStr;
use std::path::Path;

use tokio::process::Command;

use crate::support::programs::{PYTHON_CLIENT, python};
use crate::support::{Broker, within};

/// Runs a program, and returns what it prints.
async fn run<S: AsRef<OsStr>>(program: &Path, arguments: impl IntoIterator<Item = S>) -> String {
    let mut command = Command::new(program);
    command.args(arguments).env("PIP_DISABLE_PIP_VERSION_CHECK", "1").env("PYTHONDONTWRITEBYTECODE", "1");
    let output = within("an installation", command.kill_on_drop(true).output()).await.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[tokio::test]
async fn the_python_client_is_built_and_installed_into_an_empty_environment() {
    let Some(python) = python().await else { return };
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).into_os_string().into_string().unwrap();
    // The files that a build looks at, so that it leaves nothing in the repository.
    let (source, wheels) = (at("source"), python.ancestors().nth(2).unwrap().join("wheels"));
    run(Path::new("cp"), ["-r", PYTHON_CLIENT, &source]).await;
    let options = ["-m", "pip", "wheel", "--quiet", "--no-index", "--no-deps", "--no-build-isolation", "--wheel-dir"];
    run(&python, options.into_iter().chain([at("built").as_str(), &source])).await;
    let built = std::fs::read_dir(at("built")).unwrap().next().unwrap().unwrap().path();

    run(&python, ["-m", "venv", "--without-pip", &at("empty")]).await;
    let there = Path::new(&at("empty")).join("bin/python");
    let options =
        ["-m", "pip", "--python", there.to_str().unwrap(), "install", "--quiet", "--no-index", "--find-links"];
    run(&python, options.into_iter().chain([wheels.to_str().unwrap(), built.to_str().unwrap()])).await;

    // It connects, and brings its types.
    let broker = Broker::start().await;
    let script = "import asyncio, importlib.resources, sys, switchboard_client as it\n\
                  assert importlib.resources.files(it).joinpath('py.typed').is_file()\n\
                  async def main(url):\n    async with it.connect('crm', url=url) as desk:\n        \
                  print((await desk.opened()).session.server)\n\
                  asyncio.run(main(sys.argv[1]))";
    let printed = run(&there, ["-I", "-c", script, &format!("ws://{}/ws", broker.address())]).await;
    assert!(printed.starts_with("switchboard/"), "{printed}");
}

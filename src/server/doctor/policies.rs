//! Policies of browsers, which let an origin connect to loopback without asking the user: reads those of this machine, and
//! writes the files for any machine.

#[cfg(any(target_os = "linux", test))]
use std::fs;
#[cfg(any(target_os = "linux", test))]
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::browsers::is_from_loopback;
use super::{Browser, Finding, Level, Question, Side, finding};

/// The policy of Chrome and Edge, 146 and later. It names the origin of the top page.
const LOOPBACK: &str = "LoopbackNetworkAllowedForUrls";

/// The policy that also covers private addresses.
#[cfg(any(target_os = "linux", test))]
const LOCAL: &str = "LocalNetworkAccessAllowedForUrls";

/// The most files of a folder that are read.
#[cfg(any(target_os = "linux", test))]
const FILES_MAX: usize = 64;

/// The longest file that is read.
#[cfg(any(target_os = "linux", test))]
const FILE_BYTES_MAX: u64 = 1 << 20;

/// A file for an administrator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyFile {
    /// For which browser, on which system.
    pub title: String,
    /// Where it belongs.
    pub path: String,
    /// Its content.
    pub text: String,
}

/// Returns the files that let pages of the question's origin connect, for each system; none for Safari, which has no such
/// policy, and none without an origin.
#[must_use]
pub fn policy_files(question: &Question) -> Vec<PolicyFile> {
    let Some(origin) = question.origin.as_deref() else { return Vec::new() };
    question.browsers().flat_map(|browser| files_of(browser, origin)).collect()
}

fn files_of(browser: Browser, origin: &str) -> Vec<PolicyFile> {
    let (linux, key, domain) = match browser {
        Browser::Chrome => {
            ("/etc/opt/chrome/policies/managed", r"SOFTWARE\Policies\Google\Chrome", "com.google.Chrome")
        }
        Browser::Edge => ("/etc/opt/edge/policies/managed", r"SOFTWARE\Policies\Microsoft\Edge", "com.microsoft.Edge"),
        Browser::Firefox => return firefox(origin),
        Browser::Safari => return Vec::new(),
    };
    let file = |system: &str, path: String, text: String| PolicyFile {
        title: format!("{} on {system}", browser.name()),
        path,
        text,
    };
    let object = json!({ LOOPBACK: [origin] });
    let registry = format!(
        "Windows Registry Editor Version 5.00\r\n\r\n[HKEY_LOCAL_MACHINE\\{key}\\{LOOPBACK}]\r\n\"1\"=\"{origin}\"\r\n"
    );
    let plist = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
         <!DOCTYPE plist PUBLIC \"-//Apple//DTD PLIST 1.0//EN\" \"http://www.apple.com/DTDs/PropertyList-1.0.dtd\">\n\
         <plist version=\"1.0\">\n<dict>\n  <key>{LOOPBACK}</key>\n  <array>\n    <string>{origin}</string>\n  </array>\n</dict>\n</plist>\n"
    );
    vec![
        file("Linux", format!("{linux}/switchboard.json"), pretty(&object)),
        file("Windows", "switchboard.reg".to_owned(), registry),
        file("macOS", format!("/Library/Managed Preferences/{domain}.plist"), plist),
    ]
}

fn firefox(origin: &str) -> Vec<PolicyFile> {
    let host = origin.split_once("://").map_or(origin, |(_, host)| host);
    let host = host.rsplit_once(':').map_or(host, |(name, port)| if port.ends_with(']') { host } else { name });
    let text = pretty(&json!({ "policies": { "LocalNetworkAccess": { "SkipDomains": [host] } } }));
    let file = |system: &str, path: &str| PolicyFile {
        title: format!("Firefox on {system}"),
        path: path.to_owned(),
        text: text.clone(),
    };
    vec![
        file("Linux", "/etc/firefox/policies/policies.json"),
        file("Windows", r"C:\Program Files\Mozilla Firefox\distribution\policies.json"),
        file("macOS", "/Applications/Firefox.app/Contents/Resources/distribution/policies.json"),
    ]
}

fn pretty(value: &Value) -> String {
    serde_json::to_string_pretty(value).map(|text| text + "\n").unwrap_or_default()
}

/// Says whether the policies of this machine let the origin connect.
pub(super) fn look(question: &Question) -> Vec<Finding> {
    // A page from loopback needs no policy.
    let Some(origin) = question.origin.as_deref().filter(|origin| !is_from_loopback(origin)) else { return Vec::new() };
    question.browsers().filter_map(|browser| look_at(browser, origin)).collect()
}

/// Returns the folders with the policies of a browser on Linux. There is no Safari.
#[cfg(any(target_os = "linux", test))]
pub(super) fn folders(browser: Browser) -> &'static [&'static str] {
    match browser {
        Browser::Chrome => &["/etc/opt/chrome/policies/managed", "/etc/chromium/policies/managed"],
        Browser::Edge => &["/etc/opt/edge/policies/managed"],
        Browser::Firefox => {
            &["/etc/firefox/policies", "/usr/lib/firefox/distribution", "/usr/lib/firefox-esr/distribution"]
        }
        Browser::Safari => &[],
    }
}

#[cfg(target_os = "linux")]
fn look_at(browser: Browser, origin: &str) -> Option<Finding> {
    if browser == Browser::Safari {
        return None;
    }
    let files = folders(browser).iter().flat_map(|folder| files(Path::new(folder), &["json"]));
    let granting = files.filter(|path| grants(path, origin)).collect::<Vec<_>>();
    let name = browser.name();
    let found = |level, what| finding(Side::Policy, "policy", level, what, WHY);
    Some(match granting.first() {
        Some(path) => found(Level::Good, format!("a policy of {name} allows {origin}: {}", path.display())),
        None => found(Level::Warning, format!("no policy of {name} on this machine allows {origin}"))
            .cure(format!("print one: switchboard doctor policy --origin {origin} --browser {}", name.to_lowercase())),
    })
}

/// On other systems, policies are where this program cannot read them: it says where to look.
#[cfg(not(target_os = "linux"))]
fn look_at(browser: Browser, origin: &str) -> Option<Finding> {
    let page = match browser {
        Browser::Chrome => "chrome://policy",
        Browser::Edge => "edge://policy",
        Browser::Firefox => "about:policies",
        Browser::Safari => return None,
    };
    let (key, domain) = match browser {
        Browser::Edge => (r"HKLM\SOFTWARE\Policies\Microsoft\Edge", "com.microsoft.Edge"),
        Browser::Firefox => (r"HKLM\SOFTWARE\Policies\Mozilla\Firefox", "org.mozilla.firefox"),
        Browser::Chrome | Browser::Safari => (r"HKLM\SOFTWARE\Policies\Google\Chrome", "com.google.Chrome"),
    };
    let command = if cfg!(windows) { format!("reg query {key} /s") } else { format!("defaults read {domain}") };
    let what = format!("the policies of {} are not read on this system", browser.name());
    let cure = format!("look with `{command}`, or at {page}, whether {origin} is allowed");
    Some(finding(Side::Policy, "policy", Level::Warning, what, WHY).cure(cure))
}

const WHY: &str = "with a policy, users are not asked, and cannot refuse by mistake";

/// Returns the files of a folder that end like this, in the order of their names.
#[cfg(any(target_os = "linux", test))]
pub(super) fn files(folder: &Path, endings: &[&str]) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let ends = |path: &PathBuf| path.extension().is_some_and(|it| endings.iter().any(|ending| it == *ending));
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.path()).filter(ends).collect();
    files.sort();
    files.truncate(FILES_MAX);
    files
}

/// Reads a file that is no longer than this.
#[cfg(any(target_os = "linux", test))]
pub(super) fn read_short(path: &Path, bytes_max: u64) -> Option<Vec<u8>> {
    let is_short = fs::metadata(path).is_ok_and(|file| file.is_file() && file.len() <= bytes_max);
    if is_short { fs::read(path).ok() } else { None }
}

/// Whether a file has a policy that names the origin.
#[cfg(any(target_os = "linux", test))]
fn grants(path: &Path, origin: &str) -> bool {
    let text = read_short(path, FILE_BYTES_MAX);
    let Some(policies) = text.and_then(|text| serde_json::from_slice::<Value>(&text).ok()) else { return false };
    let names = |list: Option<&Value>, wanted: &dyn Fn(&str) -> bool| {
        list.and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).any(wanted)
    };
    let is_origin = |it: &str| it == "*" || it.trim_end_matches('/') == origin;
    let host = origin.split_once("://").map_or(origin, |(_, host)| host);
    let is_host =
        |it: &str| host == it || host.strip_suffix(it).is_some_and(|rest| it.starts_with('.') && !rest.is_empty());
    names(policies.get(LOOPBACK), &is_origin)
        || names(policies.get(LOCAL), &is_origin)
        || names(policies.pointer("/policies/LocalNetworkAccess/SkipDomains"), &is_host)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(origin: &str, browser: Option<Browser>) -> Vec<PolicyFile> {
        policy_files(&Question::new(Some(origin), browser).unwrap())
    }

    #[test]
    fn a_policy_that_is_written_is_recognised() {
        let origin = "https://crm.example.com";
        let folder = tempfile::tempdir().unwrap();
        for file in files(origin, None).iter().filter(|file| file.text.starts_with('{')) {
            let path = folder.path().join("policy.json");
            fs::write(&path, &file.text).unwrap();
            assert!(grants(&path, origin), "{}", file.title);
            assert!(!grants(&path, "https://evil.example"), "{}", file.title);
        }
    }

    #[test]
    fn each_browser_but_safari_has_files_for_each_system() {
        let origin = "https://crm.example.com:8443";
        let titles: Vec<_> = files(origin, None).into_iter().map(|file| file.title).collect();
        assert_eq!(titles.len(), 9, "{titles:?}");
        assert!(files(origin, Some(Browser::Safari)).is_empty());
        let chrome = files(origin, Some(Browser::Chrome));
        assert_eq!(
            chrome[0].text,
            "{\n  \"LoopbackNetworkAllowedForUrls\": [\n    \"https://crm.example.com:8443\"\n  ]\n}\n"
        );
        assert!(chrome[1].text.contains(
            "[HKEY_LOCAL_MACHINE\\SOFTWARE\\Policies\\Google\\Chrome\\LoopbackNetworkAllowedForUrls]\r\n\"1\"="
        ));
        let plist = roxmltree::Document::parse_with_options(
            &chrome[2].text,
            roxmltree::ParsingOptions { allow_dtd: true, ..roxmltree::ParsingOptions::default() },
        )
        .map(|document| document.descendants().any(|node| node.text() == Some(origin)));
        assert_eq!(plist, Ok(true));
        let firefox = files(origin, Some(Browser::Firefox));
        assert!(firefox[0].text.contains("\"crm.example.com\""), "{}", firefox[0].text);
    }
}

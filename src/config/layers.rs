//! File < environment < flags: lays one over the other, each by the table of keys.

use std::ffi::OsString;
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};

use etcetera::BaseStrategy;
use toml::de::DeValue;

use super::file::{self, Contents};
use super::mistake::{Mistake, Mistakes, Place, Report, nearest_key, printable};
use super::reference::{FLAGS, VARIABLE_PREFIX, keys, variable};
use super::rules::{self, Places};
use super::value::{Item, Value};
use super::{Admin, AuthMode, Config, folder};

/// The largest file that is read: room for some hundred thousand applications, and an end for `/dev/zero`.
pub(super) const FILE_BYTES_MAX: u64 = 64 << 20;

/// What a configuration is made from.
#[derive(Clone, Debug, Default)]
pub struct LoadOptions {
    /// `--config`
    pub file: Option<PathBuf>,
    /// The environment; variables that are not keys are ignored.
    pub environment: Vec<(OsString, OsString)>,
    /// `--listen`, each as it was written; none: the layers below decide.
    pub listen: Vec<String>,
    /// `--data-dir`
    pub data_dir: Option<PathBuf>,
}

impl LoadOptions {
    /// A file, if there is one, under the environment of this process.
    #[must_use]
    pub fn from_process(file: Option<PathBuf>) -> Self {
        Self { file, environment: std::env::vars_os().collect(), ..Self::default() }
    }
}

impl Config {
    /// Reads and checks all layers.
    ///
    /// # Errors
    /// Every mistake of every layer, also of a value that a layer above replaces.
    pub fn load(options: LoadOptions) -> Result<Self, Mistakes> {
        let mut config = Self::default();
        let mut places = Places::default();
        let mut report = Report::default();
        if let Some(path) = &options.file {
            config.auth = AuthMode::Tokens;
            let outcome = read_text(path, FILE_BYTES_MAX).and_then(|text| {
                let text = (text.as_str(), Contents::Everything);
                on_a_deep_stack(|| file::read(text, path, &mut config, &mut places, &mut report))
            });
            if let Err(message) = outcome {
                let place = Place::File { path: path.clone(), at: None };
                report.push(Mistake { place, key: None, message, nearest: None });
            }
        }
        read_environment(options.environment, &mut config, &mut places, &mut report);
        read_flags(options.listen, options.data_dir, &mut config, &mut places, &mut report);
        folder::read(&mut config, &mut places, &mut report);
        if places.written("data_dir").is_none() {
            config.data_dir = platform_data_dir();
        }
        config.listen_is_default = places.written("listen").is_none();
        if options.file.is_none() && places.written("admin.listen").is_none() {
            config.admin.listen = vec![Admin::DEFAULT_LISTEN];
            config.admin.listen_is_default = true;
        }
        rules::check(&mut config, &places, &mut report);
        report.finish().map(|()| config)
    }
}

/// Reads a file of at most `bytes_max` bytes.
///
/// # Errors
/// Why not, as the predicate of a sentence about the file.
pub(super) fn read_text(path: &Path, bytes_max: u64) -> Result<String, String> {
    let cannot = |error: std::io::Error| match error.kind() {
        ErrorKind::InvalidData => "is not UTF-8 text".to_owned(),
        _ => format!("cannot be read: {error}"),
    };
    let mut text = String::new();
    let file = File::open(path).map_err(cannot)?;
    file.take(bytes_max + 1).read_to_string(&mut text).map_err(cannot)?;
    if text.len() as u64 > bytes_max {
        return Err(
            "is larger than any configuration: 64 MiB at most, which all files of applications_dir share".to_owned()
        );
    }
    Ok(text)
}

/// Runs the parser where there is room for it: it recurses once for each part of a dotted key, and a text may nest some
/// six thousand of them, which takes 5 MiB without optimisation. A thread of a runtime or a test has 2 MiB.
pub(super) fn on_a_deep_stack(read: impl FnOnce() + Send) -> Result<(), String> {
    const STACK_BYTES: usize = 32 << 20;
    std::thread::scope(|scope| {
        let reader = std::thread::Builder::new().stack_size(STACK_BYTES).spawn_scoped(scope, read);
        let joined = reader.map_err(|error| format!("cannot be read: {error}"))?.join();
        joined.map_err(|_| "cannot be read: the parser failed on it".to_owned())
    })
}

/// Where a broker that was told nothing keeps its data; in the working folder where the platform has no place.
fn platform_data_dir() -> PathBuf {
    match etcetera::choose_base_strategy() {
        Ok(strategy) => strategy.data_dir().join("switchboard"),
        Err(_) => Config::default().data_dir,
    }
}

fn read_environment(
    environment: Vec<(OsString, OsString)>,
    config: &mut Config,
    places: &mut Places,
    report: &mut Report,
) {
    for (name, value) in environment {
        let name = name.to_string_lossy().into_owned();
        if !name.starts_with(VARIABLE_PREFIX) {
            continue;
        }
        let place = Place::Variable(name.clone());
        let Some(key) = keys().find(|key| variable(key.name) == name) else {
            report.push(unknown_variable(place, &name));
            continue;
        };
        match value.into_string() {
            Ok(text) => {
                let item = Item { value: untyped(text, &place), place };
                if key.slot.put(config, key.name, &item, report) {
                    places.note(key.name, item.place);
                }
            }
            Err(_) => report.add(&place, key.name, "is not UTF-8 text"),
        }
    }
}

/// A variable's value. Strings in brackets are a TOML array; an IPv6 address in brackets has no quote.
fn untyped(text: String, place: &Place) -> Value {
    let inside = text.trim().strip_prefix('[').map(str::trim_start);
    if inside.is_some_and(|rest| rest.starts_with(['"', '\'', ']']))
        && let Ok(value) = DeValue::parse(text.trim())
    {
        return Item::from_toml(&value, &|_| place.clone()).value;
    }
    Value::Untyped(text)
}

fn unknown_variable(place: Place, name: &str) -> Mistake {
    let rest = name.strip_prefix(VARIABLE_PREFIX).unwrap_or(name).to_ascii_uppercase();
    let table = rest.split("__").next().unwrap_or_default();
    let message = match table {
        "APPLICATIONS" | "CHANNELS" => "applications and channels can be set in the file only",
        "ROLES" => "roles can be set in the file only",
        _ if rest.starts_with("SALESFORCE__OBJECTS") => "salesforce.objects can be set in the file only",
        _ if rest.starts_with("SALESFORCE__EVENTS__TOPICS") => "salesforce.events.topics can be set in the file only",
        _ if rest.starts_with("ADMIN__TOKENS") => "admin.tokens can be set in the file only",
        _ if rest.starts_with("AUTH__JWT") => "auth.jwt can be set in the file only",
        _ => "unknown variable",
    };
    let nearest = match message {
        "unknown variable" => {
            let key = rest.to_ascii_lowercase().replace("__", ".");
            nearest_key(&key, keys().map(|key| key.name)).map(|key| variable(&key))
        }
        _ => None,
    };
    Mistake { place, key: Some(printable(name)), message: message.to_owned(), nearest }
}

fn read_flags(
    listen: Vec<String>,
    data_dir: Option<PathBuf>,
    config: &mut Config,
    places: &mut Places,
    report: &mut Report,
) {
    let place_of =
        |key: &str| Place::Flag(FLAGS.iter().find(|(flagged, _)| *flagged == key).map_or("", |(_, flag)| flag));
    if !listen.is_empty() {
        let place = place_of("listen");
        let items = listen.into_iter().map(|text| Item { value: Value::Text(text), place: place.clone() });
        let item = Item { value: Value::List(items.collect()), place: place.clone() };
        for key in keys().filter(|key| key.name == "listen") {
            if key.slot.put(config, key.name, &item, report) {
                places.note(key.name, place.clone());
            }
        }
    }
    if let Some(path) = data_dir {
        let place = place_of("data_dir");
        if path.as_os_str().is_empty() {
            report.add(&place, "data_dir", "must not be empty");
        }
        // Not by the table: a path on a command line need not be UTF-8.
        config.data_dir = path;
        places.note("data_dir", place);
    }
}

//! DATA on the command line: JSON as an argument, `@FILE`, or `-` for standard input.

use std::io::{self, Read};

use super::Usage;
use switchboard_client::Payload;

/// Reads the payload that an argument gives. Without the argument there is none.
pub(crate) fn read(argument: Option<&str>) -> Result<Payload, Usage> {
    let Some(argument) = argument else { return Ok(Payload::default()) };
    let (text, origin) = if argument == "-" {
        let mut text = String::new();
        io::stdin()
            .read_to_string(&mut text)
            .map_err(|error| Usage::new(format!("cannot read standard input: {error}")))?;
        (text, "standard input".to_owned())
    } else if let Some(path) = argument.strip_prefix('@') {
        let text = std::fs::read_to_string(path).map_err(|error| Usage::new(format!("cannot read {path}: {error}")))?;
        (text, path.to_owned())
    } else {
        (argument.to_owned(), "DATA".to_owned())
    };
    // Editors leave a byte order mark in files; JSON does not allow it.
    let text = text.trim_start_matches('\u{feff}').trim();
    Payload::json(text.to_owned())
        .map_err(|error| Usage::new(format!("{origin} is {error}")).hint(r#"a string needs its quotes: '"text"'"#))
}

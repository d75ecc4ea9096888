//! Which format a client wants: the headers `Accept` and `Accept-Encoding` (RFC 9110, section 12.5).

/// A format of metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// `OpenMetrics` 1.0.0.
    OpenMetrics,
    /// The text format of Prometheus, 0.0.4.
    Text,
}

impl Format {
    /// Returns the format that a client prefers, by the values of its `Accept` headers. The text format if it prefers
    /// neither, or accepts neither.
    pub fn accepted<'a>(headers: impl IntoIterator<Item = &'a str>) -> Self {
        let (mut text, mut open) = (Accepted::default(), Accepted::default());
        for range in headers.into_iter().flat_map(|header| header.split(',')).filter_map(Range::read) {
            text.look_at(&range, ("text", "plain", "0.0.4"));
            open.look_at(&range, ("application", "openmetrics-text", "1.0.0"));
        }
        if open.quality > text.quality { Self::OpenMetrics } else { Self::Text }
    }

    /// Returns the `Content-Type`.
    #[must_use]
    pub fn content_type(self) -> &'static str {
        match self {
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
        }
    }
}

/// Returns whether a client accepts gzip, by the values of its `Accept-Encoding` headers.
pub fn accepts_gzip<'a>(headers: impl IntoIterator<Item = &'a str>) -> bool {
    let (mut gzip, mut any) = (None, None);
    for coding in headers.into_iter().flat_map(|header| header.split(',')) {
        let mut parts = coding.split(';').map(str::trim);
        let place = match parts.next().unwrap_or_default() {
            name if name.eq_ignore_ascii_case("gzip") || name.eq_ignore_ascii_case("x-gzip") => &mut gzip,
            "*" => &mut any,
            _ => continue,
        };
        *place = Some(quality(parts));
    }
    gzip.or(any).unwrap_or_default() > 0
}

/// One element of `Accept`.
struct Range<'a> {
    kind: &'a str,
    subtype: &'a str,
    version: Option<&'a str>,
    /// In thousandths.
    quality: u16,
}

impl<'a> Range<'a> {
    fn read(text: &'a str) -> Option<Self> {
        let mut parts = text.split(';').map(str::trim);
        let (kind, subtype) = parts.next()?.split_once('/')?;
        let version = parts.clone().find_map(|part| parameter(part, "version"));
        Some(Self { kind, subtype, version, quality: quality(parts) })
    }

    /// How exactly it names a format; `None` if it does not.
    fn fits(&self, (kind, subtype, version): (&str, &str, &str)) -> Option<u8> {
        if self.kind == "*" && self.subtype == "*" {
            return Some(1);
        }
        if !self.kind.eq_ignore_ascii_case(kind) {
            return None;
        }
        if self.subtype == "*" {
            return Some(2);
        }
        if !self.subtype.eq_ignore_ascii_case(subtype) {
            return None;
        }
        match self.version {
            None => Some(3),
            Some(own) => (own == version).then_some(4),
        }
    }
}

/// How much a format is wanted: as the element says that names it most exactly.
#[derive(Default)]
struct Accepted {
    exactness: u8,
    quality: u16,
}

impl Accepted {
    fn look_at(&mut self, range: &Range<'_>, format: (&str, &str, &str)) {
        if let Some(exactness) = range.fits(format).filter(|it| *it > self.exactness) {
            (self.exactness, self.quality) = (exactness, range.quality);
        }
    }
}

/// The value of a parameter, without quotes.
fn parameter<'a>(part: &'a str, name: &str) -> Option<&'a str> {
    let (own, value) = part.split_once('=')?;
    own.trim().eq_ignore_ascii_case(name).then(|| value.trim().trim_matches('"'))
}

/// The value of `q` in thousandths; 1000 if there is none, 0 if it cannot be read.
fn quality<'a>(parts: impl IntoIterator<Item = &'a str>) -> u16 {
    let Some(text) = parts.into_iter().find_map(|part| parameter(part, "q")) else { return 1000 };
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    if fraction.len() > 3 || !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return 0;
    }
    let thousandths: u16 = format!("{fraction:0<3}").parse().unwrap_or_default();
    match whole {
        "0" => thousandths,
        "1" if thousandths == 0 => 1000,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_gets_the_format_that_it_prefers() {
        let open = [
            "application/openmetrics-text",
            "application/openmetrics-text; version=1.0.0",
            "application/openmetrics-text;version=\"1.0.0\";charset=utf-8",
            "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,\
             application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,\
             text/plain;version=0.0.4;q=0.3,*/*;q=0.2",
            "Application/OpenMetrics-Text, */*;q=0.1",
            "text/plain;q=0.4, application/openmetrics-text;q=0.5",
            "application/*, text/*;q=0.9",
            "text/plain;q=0, */*",
            "*/*;q=0.1, application/openmetrics-text;Q=0.123, text/plain;q=0.122",
        ];
        for accept in open {
            assert_eq!(Format::accepted([accept]), Format::OpenMetrics, "{accept}");
        }
        let text = [
            "",
            "*/*",
            "text/plain",
            "text/html, application/xhtml+xml, */*;q=0.8",
            "application/json",
            "application/openmetrics-text;version=2.0.0",
            "application/openmetrics-text;version=0.0.1",
            "application/openmetrics-text;q=0",
            "application/openmetrics-text;q=0.3, text/plain;version=0.0.4;q=0.5",
            "application/openmetrics-text;q=1.001, text/plain;q=0.1",
            "application/openmetrics-text;q=high, text/plain;q=0.1",
            "application/openmetrics-text;version=1.0.0;q=0.2, application/openmetrics-text, text/plain;q=0.3",
            "not a media type",
        ];
        for accept in text {
            assert_eq!(Format::accepted([accept]), Format::Text, "{accept}");
        }
        let headers = ["text/plain;q=0.1", "application/openmetrics-text"];
        assert_eq!(Format::accepted(headers), Format::OpenMetrics, "in several headers");
        assert_eq!(Format::accepted([]), Format::Text, "without the header");
    }

    #[test]
    fn gzip_is_for_clients_that_accept_it() {
        for accept in ["gzip", "deflate, gzip;q=0.5", "*", "GZIP", "identity;q=0, x-gzip", "gzip;q=0.001"] {
            assert!(accepts_gzip([accept]), "{accept}");
        }
        for accept in ["", "identity", "gzip;q=0", "gzip;q=0.000, *", "br", "*;q=0", "gzipped"] {
            assert!(!accepts_gzip([accept]), "{accept}");
        }
        assert!(!accepts_gzip([]));
    }
}

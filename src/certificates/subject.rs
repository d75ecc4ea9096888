//! [`subject`]: the subject of a certificate as text.

use x509_parser::prelude::{AttributeTypeAndValue, FromDer, X509Certificate};

/// The attributes that a subject can be named by, with their object identifiers (RFC 4514, section 3).
const ATTRIBUTES: [(&str, &str); 7] = [
    ("CN", "2.5.4.3"),
    ("O", "2.5.4.10"),
    ("OU", "2.5.4.11"),
    ("C", "2.5.4.6"),
    ("ST", "2.5.4.8"),
    ("L", "2.5.4.7"),
    ("DC", "0.9.2342.19200300.100.1.25"),
];

/// The tag of a text in UTF-16 (X.680, section 8.6): old Windows authorities write it.
const BMP_STRING: u32 = 30;

/// Returns the subject of a certificate in DER as text of RFC 4514, but in the certificate's own order. `None` if it is
/// empty, or has another attribute than CN, O, OU, C, ST, L and DC, or a value that is not text.
pub fn subject(der: &[u8]) -> Option<String> {
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    let mut text = String::new();
    for relative in certificate.subject().iter_rdn() {
        let mut separator = if text.is_empty() { "" } else { "," };
        for attribute in relative.iter() {
            let identifier = attribute.attr_type().to_id_string();
            let (name, _) = ATTRIBUTES.iter().find(|(_, known)| *known == identifier)?;
            text.push_str(separator);
            text.push_str(name);
            text.push('=');
            escape(&value(attribute)?, &mut text);
            separator = "+";
        }
    }
    (!text.is_empty()).then_some(text)
}

fn value(attribute: &AttributeTypeAndValue<'_>) -> Option<String> {
    if attribute.attr_value().tag().0 != BMP_STRING {
        return attribute.as_str().ok().map(str::to_owned);
    }
    let (pairs, rest) = attribute.as_slice().as_chunks::<2>();
    let units: Vec<u16> = pairs.iter().map(|pair| u16::from_be_bytes(*pair)).collect();
    String::from_utf16(&units).ok().filter(|_| rest.is_empty())
}

/// Appends a value with the escapes of RFC 4514, section 2.4.
fn escape(value: &str, text: &mut String) {
    let last = value.chars().count().saturating_sub(1);
    for (at, character) in value.chars().enumerate() {
        match character {
            '"' | '+' | ',' | ';' | '<' | '>' | '\\' => text.push('\\'),
            '#' if at == 0 => text.push('\\'),
            ' ' if at == 0 || at == last => text.push('\\'),
            '\0' => {
                text.push_str("\\00");
                continue;
            }
            _ => {}
        }
        text.push(character);
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DistinguishedName, DnType, DnValue, KeyPair};

    use super::*;

    fn of(attributes: Vec<(DnType, DnValue)>) -> Option<String> {
        let mut name = DistinguishedName::new();
        for (kind, value) in attributes {
            name.push(kind, value);
        }
        let mut params = CertificateParams::default();
        params.distinguished_name = name;
        let certificate = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        subject(certificate.der())
    }

    fn text(value: &str) -> DnValue {
        DnValue::Utf8String(value.to_owned())
    }

    #[test]
    fn a_subject_is_text_in_the_certificates_own_order() {
        let country = DnValue::PrintableString("DE".try_into().unwrap());
        let attributes = vec![
            (DnType::CountryName, country),
            (DnType::OrganizationName, text("Example GmbH")),
            (DnType::OrganizationalUnitName, text("Telephony")),
            (DnType::CommonName, text("cti")),
        ];
        assert_eq!(of(attributes).as_deref(), Some("C=DE,O=Example GmbH,OU=Telephony,CN=cti"));
        let wide = DnValue::BmpString("Jürgen".try_into().unwrap());
        assert_eq!(of(vec![(DnType::CommonName, wide)]).as_deref(), Some("CN=Jürgen"));
    }

    #[test]
    fn characters_that_separate_are_escaped() {
        for (value, expected) in [
            ("Example, Inc.", "O=Example\\, Inc."),
            ("a+b=c", "O=a\\+b=c"),
            ("#1 \"best\"", "O=\\#1 \\\"best\\\""),
            (" x ", "O=\\ x\\ "),
            ("a\\b<c>;d", "O=a\\\\b\\<c\\>\\;d"),
            ("a\0b", "O=a\\00b"),
        ] {
            assert_eq!(of(vec![(DnType::OrganizationName, text(value))]).as_deref(), Some(expected));
        }
        // One attribute cannot be mistaken for two.
        let forged = of(vec![(DnType::CommonName, text("mallory,O=Example"))]);
        assert_eq!(forged.as_deref(), Some("CN=mallory\\,O=Example"));
    }

    #[test]
    fn a_subject_with_another_attribute_or_none_has_no_text() {
        let serial = DnType::CustomDnType(vec![2, 5, 4, 5]);
        assert_eq!(of(vec![(DnType::CommonName, text("cti")), (serial, text("7"))]), None);
        assert_eq!(of(Vec::new()), None);
        assert_eq!(subject(b"no certificate"), None);
    }
}

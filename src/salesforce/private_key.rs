//! [`read`]: the RSA key of the login by JWT bearer, from a file as editors, shells and YAML leave it; or what the file
//! contains instead.
//!
//! The key is only copied into memory that is erased.

use std::fmt;

use base64::Engine;
use base64::alphabet;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};
use ring::signature::RsaKeyPair;
use zeroize::Zeroizing;

/// What a file contains in place of a usable key, and what to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Instead {
    what: &'static str,
    advice: &'static str,
}

impl fmt::Display for Instead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { what, advice } = self;
        write!(
            f,
            "contains {what}; it must hold an RSA private key of 2048 bits or more in PEM, without a passphrase: {advice}"
        )
    }
}

const MAKE: &str = "make one with openssl genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:2048 -out FILE, and upload its \
                    certificate to the app";
const NAME: &str = "name the file with the private key that belongs to it";
const DECRYPT: &str = "remove the passphrase with openssl pkey -in FILE -out NEWFILE";
const AGAIN: &str = "copy the file again, or make a new key and certificate";

const EMPTY: Instead = Instead { what: "nothing", advice: MAKE };
const EC: Instead = Instead { what: "an EC key", advice: MAKE };
const EDWARDS: Instead = Instead { what: "an Ed25519 or X25519 key", advice: MAKE };
const PSS: Instead = Instead { what: "an RSA-PSS key, which cannot sign RS256", advice: MAKE };
const SMALL: Instead = Instead { what: "an RSA key of fewer than 2048 bits", advice: MAKE };
const LARGE: Instead = Instead { what: "an RSA key of more than 4096 bits", advice: MAKE };
const ODD: Instead = Instead { what: "an RSA key whose bits are not a multiple of 512", advice: MAKE };
const ENCRYPTED: Instead = Instead { what: "a private key with a passphrase (encrypted)", advice: DECRYPT };
const PUBLIC: Instead = Instead { what: "a public key", advice: NAME };
const CERTIFICATE: Instead = Instead { what: "a certificate, which belongs to the app in Salesforce", advice: NAME };
const REQUEST: Instead = Instead { what: "a certificate signing request (CSR)", advice: NAME };
const DAMAGED: Instead = Instead { what: "a private key that is damaged", advice: AGAIN };
const CUT: Instead = Instead { what: "PEM without its first or last line", advice: AGAIN };
const SSH_PUBLIC: Instead = Instead { what: "a public key in the format of OpenSSH", advice: NAME };
const MARKUP: Instead = Instead { what: "an HTML or XML page, such as the one for logging in", advice: AGAIN };
const JSON: Instead = Instead { what: "JSON", advice: "store the key itself, in PEM" };
const OTHER_TEXT: Instead = Instead { what: "text that is not PEM", advice: NAME };
const OTHER_PEM: Instead = Instead { what: "PEM of another kind", advice: NAME };
const OTHER_BINARY: Instead = Instead { what: "binary data that is not a key", advice: NAME };
const PKCS7: Instead = Instead { what: "a PKCS#7 container, which has certificates but no key", advice: NAME };
const PGP: Instead = Instead { what: "a PGP key", advice: MAKE };
const DSA: Instead = Instead { what: "a DSA key", advice: MAKE };
const DER: Instead = Instead {
    what: "an RSA key in DER (binary)",
    advice: "convert it with openssl pkey -inform DER -in FILE -out NEWFILE",
};
const PKCS12: Instead = Instead {
    what: "a PKCS#12 container (.p12, .pfx)",
    advice: "take the key out with openssl pkcs12 -in FILE -nocerts -noenc -out NEWFILE",
};
const KEYSTORE: Instead = Instead {
    what: "a Java key store",
    advice: "convert it with keytool -importkeystore -deststoretype PKCS12, then take the key out with openssl pkcs12 \
             -nocerts -noenc",
};
const OPENSSH: Instead = Instead {
    what: "a private key in the format of OpenSSH",
    advice: "convert an RSA key with ssh-keygen -p -m PEM -f FILE",
};
const PUTTY: Instead = Instead {
    what: "a PuTTY key (.ppk)",
    advice: "export an RSA key with puttygen FILE -O private-openssh -o NEWFILE",
};

/// Reads a key.
pub(super) fn read(bytes: &[u8]) -> Result<RsaKeyPair, Instead> {
    if bytes.trim_ascii().is_empty() {
        return Err(EMPTY);
    }
    match text(bytes) {
        Some(text) => from_text(&plain(&text)),
        None => Err(binary(bytes)),
    }
}

/// The file as text, without a byte order mark: UTF-8, or the UTF-16 that PowerShell writes.
fn text(bytes: &[u8]) -> Option<Zeroizing<String>> {
    let unit: fn([u8; 2]) -> u16 = match bytes {
        [0xff, 0xfe, ..] => u16::from_le_bytes,
        [0xfe, 0xff, ..] => u16::from_be_bytes,
        _ => {
            let text = std::str::from_utf8(bytes).ok()?;
            return Some(Zeroizing::new(text.strip_prefix('\u{feff}').unwrap_or(text).to_owned()));
        }
    };
    let (units, _) = bytes.as_chunks::<2>();
    // Three bytes at most for each unit, so the buffer never moves.
    let mut text = Zeroizing::new(String::with_capacity(units.len() * 3));
    for character in char::decode_utf16(units.iter().skip(1).map(|it| unit(*it))) {
        text.push(character.ok()?);
    }
    Some(text)
}

/// The text with a line break for each `\n` that is written as two characters, as in JSON and environment files.
fn plain(text: &str) -> Zeroizing<String> {
    let mut plain = Zeroizing::new(String::with_capacity(text.len()));
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        match (character, characters.peek()) {
            ('\\', Some('n' | 'r' | 't')) => {
                characters.next();
                plain.push('\n');
            }
            ('\\', Some('\\')) => {}
            _ => plain.push(character),
        }
    }
    plain
}

/// One block of PEM.
struct Block<'t> {
    label: &'t str,
    body: &'t str,
}

/// Splits PEM into its blocks, wherever lines begin and end. `Err`: a block has no end.
fn blocks(text: &str) -> Result<Vec<Block<'_>>, Instead> {
    const DASHES: &str = "-----";
    let mut blocks = Vec::new();
    let mut rest = text;
    while let Some((_, begun)) = rest.split_once("-----BEGIN ") {
        let (label, after) = begun.split_once(DASHES).ok_or(CUT)?;
        let (body, end) = after.split_once("-----END ").ok_or(CUT)?;
        let (_, after) = end.split_once(DASHES).ok_or(CUT)?;
        blocks.push(Block { label: label.trim(), body });
        rest = after;
    }
    Ok(blocks)
}

fn from_text(text: &str) -> Result<RsaKeyPair, Instead> {
    let blocks = blocks(text)?;
    let is_key = |block: &&Block<'_>| matches!(block.label, "PRIVATE KEY" | "RSA PRIVATE KEY");
    match (blocks.iter().find(is_key), blocks.first()) {
        (Some(key), _) if key.body.contains("ENCRYPTED") => Err(ENCRYPTED),
        (Some(key), _) => from_der(&decode(key.body).ok_or(DAMAGED)?),
        (None, Some(first)) => Err(labelled(first.label)),
        (None, None) => without_pem(text.trim()),
    }
}

fn labelled(label: &str) -> Instead {
    match label {
        "ENCRYPTED PRIVATE KEY" => ENCRYPTED,
        "EC PRIVATE KEY" | "EC PARAMETERS" => EC,
        "DSA PRIVATE KEY" | "DSA PARAMETERS" => DSA,
        "OPENSSH PRIVATE KEY" => OPENSSH,
        "PUBLIC KEY" | "RSA PUBLIC KEY" => PUBLIC,
        "CERTIFICATE" | "X509 CERTIFICATE" | "TRUSTED CERTIFICATE" => CERTIFICATE,
        "CERTIFICATE REQUEST" | "NEW CERTIFICATE REQUEST" => REQUEST,
        "PKCS7" | "CMS" => PKCS7,
        pgp if pgp.starts_with("PGP ") => PGP,
        _ => OTHER_PEM,
    }
}

fn without_pem(text: &str) -> Result<RsaKeyPair, Instead> {
    let begins = |with: &[&str]| with.iter().any(|it| text.starts_with(it));
    Err(match () {
        () if begins(&["<"]) => MARKUP,
        () if begins(&["{", "["]) => JSON,
        () if begins(&["ssh-", "ecdsa-", "---- BEGIN SSH2"]) => SSH_PUBLIC,
        () if begins(&["PuTTY-User-Key-File"]) => PUTTY,
        () if text.contains("-----END ") || text.contains("PRIVATE KEY--") => CUT,
        () => match decode(text) {
            // The first and the last line are missing, and nothing else.
            Some(der) if der.first() == Some(&SEQUENCE) => match from_der(&der) {
                Ok(key) => return Ok(key),
                Err(DAMAGED) => binary(&der),
                Err(instead) => instead,
            },
            Some(_) | None => OTHER_TEXT,
        },
    })
}

/// Decodes Base64 with white space anywhere and with or without padding.
fn decode(body: &str) -> Option<Zeroizing<Vec<u8>>> {
    const ENGINE: GeneralPurpose = GeneralPurpose::new(
        &alphabet::STANDARD,
        GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
    );
    let mut packed = Zeroizing::new(String::with_capacity(body.len()));
    let is_blank = |it: char| it.is_whitespace() || matches!(it, '\u{200b}' | '\u{feff}');
    body.chars().filter(|it| !is_blank(*it)).for_each(|it| packed.push(it));
    let mut bytes = Zeroizing::new(vec![0; packed.len()]);
    let length = ENGINE.decode_slice(packed.as_bytes(), &mut bytes).ok()?;
    bytes.truncate(length);
    Some(bytes)
}

/// The first byte of everything in DER that matters here.
const SEQUENCE: u8 = 0x30;

/// Identifiers of algorithms in DER.
const OF_EC: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01];
const OF_DSA: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x38, 0x04, 0x01];
const OF_EDWARDS: &[u8] = &[0x06, 0x03, 0x2b, 0x65];
const OF_PSS: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0a];

/// Reads PKCS#8 or PKCS#1, whatever the label says.
fn from_der(der: &[u8]) -> Result<RsaKeyPair, Instead> {
    RsaKeyPair::from_pkcs8(der).or_else(|first| {
        RsaKeyPair::from_der(der).map_err(|second| {
            let says = |words: &str| [&first, &second].iter().any(|it| it.to_string() == words);
            let is_of = |algorithm: &[u8]| {
                let head = der.get(..der.len().min(40)).unwrap_or_default();
                head.windows(algorithm.len()).any(|it| it == algorithm)
            };
            match () {
                () if is_of(OF_EC) => EC,
                () if is_of(OF_EDWARDS) => EDWARDS,
                () if is_of(OF_PSS) => PSS,
                () if is_of(OF_DSA) => DSA,
                () if says("TooSmall") => SMALL,
                () if says("TooLarge") => LARGE,
                () if says("PrivateModulusLenNotMultipleOf512Bits") => ODD,
                () => DAMAGED,
            }
        })
    })
}

/// Returns what binary data is, by how it begins.
fn binary(bytes: &[u8]) -> Instead {
    match content(bytes) {
        _ if bytes.starts_with(&[0xfe, 0xed, 0xfe, 0xed]) || bytes.starts_with(&[0xce; 4]) => KEYSTORE,
        None => OTHER_BINARY,
        // PFX, version 3.
        Some([0x02, 0x01, 0x03, ..]) => PKCS12,
        // A key, version 0.
        Some([0x02, 0x01, 0x00, ..]) => from_der(bytes).err().unwrap_or(DER),
        // ECPrivateKey, version 1.
        Some([0x02, 0x01, 0x01, 0x04, ..]) => EC,
        Some(inside) => match content(inside) {
            // A certificate has its version in front; a request is version 0.
            Some([0xa0, 0x03, ..]) => CERTIFICATE,
            Some([0x02, 0x01, 0x00, ..]) => REQUEST,
            // An algorithm: of a password (PKCS#5, PKCS#12), or of a public key.
            Some([0x06, _, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x05 | 0x0c, ..]) => ENCRYPTED,
            Some([0x06, ..]) => PUBLIC,
            Some(_) | None => OTHER_BINARY,
        },
    }
}

/// The content of a sequence in DER.
fn content(der: &[u8]) -> Option<&[u8]> {
    match der {
        [SEQUENCE, 0..=0x7f, content @ ..]
        | [SEQUENCE, 0x81, _, content @ ..]
        | [SEQUENCE, 0x82, _, _, content @ ..] => Some(content),
        _ => None,
    }
}

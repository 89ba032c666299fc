//! What a config points to: certificates, keys, authorities, secrets. Read once per load, and checked.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;
use http::HeaderName;
use jiff::Timestamp;
use rustls::{crypto::ring, sign::CertifiedKey};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use sha2::{Digest, Sha256};

use super::{
    digest::{self, Digest32},
    jwks::KeySet,
    load::Mode,
    model::{CertificateFiles, LARGEST_CONTENT, Name},
    parse::Pointers,
    report::{Problem, Report},
    secret::{Secret, SecretRef},
    source::{At, Span, hex},
};

/// The files that a config points to, read and checked.
#[derive(Debug, Clone, Default)]
pub struct Material {
    keys: BTreeMap<(PathBuf, PathBuf), Arc<CertifiedKey>>,
    authorities: BTreeMap<PathBuf, Vec<CertificateDer<'static>>>,
    digests: HashMap<SecretRef, Vec<Digest32>>,
    key_sets: BTreeMap<PathBuf, Arc<KeySet>>,
    contents: BTreeMap<PathBuf, Bytes>,
    paths: BTreeSet<PathBuf>,
    /// By their references, as written.
    secrets: BTreeMap<String, Secret>,
    hash: String,
}

impl Material {
    /// A listener's certificate with its key.
    pub fn key(&self, files: &CertificateFiles) -> Option<&Arc<CertifiedKey>> {
        self.keys.get(&(files.cert.clone(), files.key.clone()))
    }

    /// The certificates of a `ca` or `client_ca` file.
    pub fn authority(&self, ca: &Path) -> Option<&[CertificateDer<'static>]> {
        self.authorities.get(ca).map(Vec::as_slice)
    }

    /// A secret as it was when the config was loaded.
    pub fn value(&self, at: &SecretRef) -> Option<&Secret> {
        self.secrets.get(&at.to_string())
    }

    /// The hashes that a secret holds; none where it could not be read.
    pub fn digests(&self, secret: &SecretRef) -> &[Digest32] {
        self.digests.get(secret).map_or(&[], Vec::as_slice)
    }

    /// The keys in a `jwks` file.
    pub fn key_set(&self, jwks: &Path) -> Option<&Arc<KeySet>> {
        self.key_sets.get(jwks)
    }

    /// The bytes of an answer's file.
    pub(super) fn content(&self, path: &Path) -> Option<&Bytes> {
        self.contents.get(path)
    }

    /// SHA-256 (hex) over the files' paths and contents.
    pub fn hash(&self) -> &str {
        &self.hash
    }

    /// The files to watch, those of secrets included.
    pub fn paths(&self) -> impl Iterator<Item = &Path> {
        self.paths.iter().map(PathBuf::as_path)
    }

    pub(super) fn read(pointers: &Pointers, mode: Mode, report: &mut Report) -> Self {
        let mut files = Files { mode, bytes: BTreeMap::new() };
        let mut material = Self::default();
        for (cert, key) in &pointers.certificates {
            let pair = (cert.value.clone(), key.value.clone());
            if !material.keys.contains_key(&pair)
                && let Some(certified) = certified(cert, key, &mut files, report)
            {
                material.keys.insert(pair, Arc::new(certified));
            }
        }
        for ca in &pointers.authorities {
            if let Some(chain) = certificates(ca, &mut files, report) {
                material.authorities.insert(ca.value.clone(), chain);
            }
        }
        for at in &pointers.jwks {
            if let Some(keys) = key_set(at, &mut files, report) {
                material.key_sets.insert(at.value.clone(), Arc::new(keys));
            }
        }
        for at in &pointers.contents {
            if let Some(bytes) = content(at, &mut files, report) {
                material.contents.insert(at.value.clone(), bytes);
            }
        }
        for ca in &pointers.anchors {
            let Some(chain) = certificates(ca, &mut files, report) else { continue };
            match chain.iter().position(|one| webpki::anchor_from_trusted_cert(one).is_err()) {
                None => drop(material.authorities.insert(ca.value.clone(), chain)),
                Some(nth) => report.push(
                    Problem::at(
                        format!("certificate {} of {} cannot vouch for others", nth + 1, ca.value.display()),
                        ca.span,
                    )
                    .label("expected certificates of authorities"),
                ),
            }
        }
        material.paths = files.bytes.keys().cloned().collect();
        let mut hasher = Sha256::new();
        for (path, bytes) in &files.bytes {
            files_hash(&mut hasher, path, bytes.as_deref().unwrap_or_default());
        }
        let mut seen: HashMap<(&HeaderName, Digest32), (&Name, Span)> = HashMap::new();
        for at in &pointers.secrets {
            if let Some(secret) = material.secret(at, mode, &mut hasher, report) {
                material.secrets.insert(at.value.to_string(), secret);
            }
        }
        for pointer in &pointers.digests {
            let at = &pointer.at;
            let Some(secret) = material.secret(at, mode, &mut hasher, report) else { continue };
            let digests = match digest::all(secret.expose()) {
                Ok(digests) => digests,
                Err(why) => {
                    report.push(
                        Problem::at(format!("the secret `{}` holds no SHA-256", at.value), at.span).label(why).help(
                            "write the hash, not the secret itself, one per line: \
                             `printf %s \"$SECRET\" | sha256sum | cut -c -64`",
                        ),
                    );
                    continue;
                }
            };
            for digest in pointer.header.iter().flat_map(|header| digests.iter().map(move |d| (header, *d))) {
                let (owner, first) = *seen.entry(digest).or_insert((&pointer.client, at.span));
                if *owner != pointer.client {
                    report.push(
                        Problem::at(
                            format!("clients `{owner}` and `{}` have the same API key", pointer.client),
                            at.span,
                        )
                        .label("a caller with it would be both")
                        .also(first, format!("`{owner}` has it here")),
                    );
                }
            }
            material.digests.insert(at.value.clone(), digests);
        }
        material.hash = hex(&hasher.finalize());
        material
    }

    /// Reads a secret, and follows its file.
    fn secret(&mut self, at: &At<SecretRef>, mode: Mode, hasher: &mut Sha256, report: &mut Report) -> Option<Secret> {
        let read = at.value.read();
        if let Ok(secret) = &read {
            let name = PathBuf::from(at.value.to_string());
            files_hash(hasher, &name, secret.expose().as_bytes());
        }
        self.paths.extend(at.value.path());
        let error = match read {
            Ok(secret) => return Some(secret),
            Err(error) => error,
        };
        let problem = Problem::at(format!("cannot read the secret `{}`", at.value), at.span).label(error.to_string());
        report.push(match mode {
            Mode::Run => problem,
            Mode::Check | Mode::Ask => problem
                .warning()
                .help("inside of the service it must be there: `run` and reload refuse the config without it"),
        });
        None
    }
}

fn files_hash(hasher: &mut Sha256, path: &Path, bytes: &[u8]) {
    let name = path.as_os_str().as_encoded_bytes();
    for part in [name, bytes] {
        hasher.update((part.len() as u64).to_le_bytes());
        hasher.update(part);
    }
}

/// Each file once, however often it is named. `None`: it could not be read.
struct Files {
    mode: Mode,
    bytes: BTreeMap<PathBuf, Option<Vec<u8>>>,
}

impl Files {
    fn read(&mut self, at: &At<PathBuf>, report: &mut Report) -> Option<&[u8]> {
        let path = &at.value;
        self.bytes
            .entry(path.clone())
            .or_insert_with(|| match fs::read(path) {
                Ok(bytes) => Some(bytes),
                Err(error) => {
                    let problem =
                        Problem::at(format!("cannot read {}", path.display()), at.span).label(error.to_string());
                    let is_hidden = self.mode == Mode::Ask && error.kind() == io::ErrorKind::PermissionDenied;
                    report.push(match is_hidden {
                        true => problem
                            .warning()
                            .help("the service's user must be able to read it; what is asked here goes without"),
                        false => problem,
                    });
                    None
                }
            })
            .as_deref()
    }
}

fn key_set(at: &At<PathBuf>, files: &mut Files, report: &mut Report) -> Option<KeySet> {
    let bytes = files.read(at, report)?;
    match KeySet::parse(bytes) {
        Ok(keys) => Some(keys),
        Err(error) => {
            report.push(
                Problem::at(format!("{} cannot be used: {error}", at.value.display()), at.span)
                    .label("expected a JSON Web Key Set (RFC 7517)"),
            );
            None
        }
    }
}

/// A body: it stays in memory, so it is bounded, and looked at before it is read.
fn content(at: &At<PathBuf>, files: &mut Files, report: &mut Report) -> Option<Bytes> {
    let about = fs::metadata(&at.value).ok();
    let problem = match &about {
        Some(about) if !about.is_file() => "is not a file",
        Some(about) if about.len() > LARGEST_CONTENT => "is larger than 1 MiB",
        _ => return files.read(at, report).map(Bytes::copy_from_slice),
    };
    // Watched all the same: it may become right.
    files.bytes.insert(at.value.clone(), None);
    report.push(
        Problem::at(format!("{} {problem}", at.value.display()), at.span)
            .label("expected a file of at most 1 MiB")
            .help("large files are better served by a function or an object store"),
    );
    None
}

fn certificates(at: &At<PathBuf>, files: &mut Files, report: &mut Report) -> Option<Vec<CertificateDer<'static>>> {
    let bytes = files.read(at, report)?;
    let shown = at.value.display();
    let chain = match CertificateDer::pem_slice_iter(bytes).collect::<Result<Vec<_>, _>>() {
        Ok(chain) => chain,
        Err(error) => {
            report.push(
                Problem::at(format!("{shown} is not PEM: {error}"), at.span).label("expected certificates in PEM"),
            );
            return None;
        }
    };
    if chain.is_empty() {
        report.push(
            Problem::at(format!("{shown} holds no certificate"), at.span)
                .label("expected at least one `BEGIN CERTIFICATE`"),
        );
        return None;
    }
    for (nth, certificate) in chain.iter().enumerate() {
        let Some((from, until)) = validity(certificate) else {
            report.push(
                Problem::at(format!("certificate {} of {shown} is broken", nth + 1), at.span)
                    .label("expected an X.509 certificate"),
            );
            return None;
        };
        let now = Timestamp::now();
        let problem = if now > until {
            format!("certificate {} of {shown} expired on {until}", nth + 1)
        } else if now < from {
            format!("certificate {} of {shown} is not valid before {from}", nth + 1)
        } else {
            continue;
        };
        report.push(Problem::at(problem, at.span).label("callers will refuse it").warning());
    }
    Some(chain)
}

fn certified(cert: &At<PathBuf>, key: &At<PathBuf>, files: &mut Files, report: &mut Report) -> Option<CertifiedKey> {
    let chain = certificates(cert, files, report);
    let bytes = files.read(key, report)?;
    let shown = key.value.display();
    let Ok(private) = PrivateKeyDer::from_pem_slice(bytes) else {
        let problem = Problem::at(format!("{shown} holds no private key"), key.span)
            .label("expected a key in PEM: PKCS#8, PKCS#1 or SEC1");
        let encrypted = bytes.windows(9).any(|part| part == b"ENCRYPTED");
        report.push(if encrypted {
            problem.help("the key is encrypted: take its passphrase off with `openssl pkey`")
        } else {
            problem
        });
        return None;
    };
    let signing = match ring::sign::any_supported_type(&private) {
        Ok(signing) => signing,
        Err(error) => {
            report.push(
                Problem::at(format!("{shown} holds a key that cannot be used"), key.span)
                    .label(error.to_string())
                    .help("RSA from 2048 bits, ECDSA P-256 or P-384, and Ed25519 can be used"),
            );
            return None;
        }
    };
    let certified = CertifiedKey::new(chain?, signing);
    match certified.keys_match() {
        Ok(()) | Err(rustls::Error::InconsistentKeys(rustls::InconsistentKeys::Unknown)) => Some(certified),
        Err(rustls::Error::InconsistentKeys(_)) => {
            report.push(
                Problem::at(format!("the key {shown} does not belong to {}", cert.value.display()), key.span)
                    .label("it is another certificate's key")
                    .also(cert.span, "the certificate")
                    .help("the file's first certificate must be the server's own, the chain after it"),
            );
            None
        }
        Err(error) => {
            report.push(
                Problem::at(format!("{} cannot be used", cert.value.display()), cert.span).label(error.to_string()),
            );
            None
        }
    }
}

/// From when and until when a certificate is valid (RFC 5280 §4.1); `None`: it is not a certificate.
fn validity(certificate: &[u8]) -> Option<(Timestamp, Timestamp)> {
    let (_, certificate, _) = der(certificate)?;
    let (_, mut rest, _) = der(certificate)?;
    // [0] version is there except in the first of all; then serial number, signature and issuer.
    if rest.first() == Some(&0xa0) {
        rest = der(rest)?.2;
    }
    for _ in 0..3 {
        rest = der(rest)?.2;
    }
    let (_, validity, _) = der(rest)?;
    let (kind, from, rest) = der(validity)?;
    let (until_kind, until, _) = der(rest)?;
    Some((time(kind, from)?, time(until_kind, until)?))
}

/// Tag, contents and what follows of a DER element (X.690 §8.1).
fn der(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, rest) = bytes.split_first()?;
    let (&length, rest) = rest.split_first()?;
    let (length, rest) = if length < 0x80 {
        (usize::from(length), rest)
    } else {
        let (digits, rest) = rest.split_at_checked(usize::from(length & 0x7f))?;
        if digits.len() > 4 {
            return None;
        }
        let length = digits.iter().fold(0usize, |length, digit| length << 8 | usize::from(*digit));
        (length, rest)
    };
    let (contents, rest) = rest.split_at_checked(length)?;
    Some((tag, contents, rest))
}

/// UTCTime `YYMMDDHHMMSSZ` or GeneralizedTime `YYYYMMDDHHMMSSZ` (RFC 5280 §4.1.2.5).
fn time(tag: u8, text: &[u8]) -> Option<Timestamp> {
    const UTC: u8 = 0x17;
    let text = std::str::from_utf8(text).ok()?.strip_suffix('Z')?;
    if !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let (year, rest) = text.split_at_checked(if tag == UTC { 2 } else { 4 })?;
    let year: i16 = year.parse().ok()?;
    let year = match tag {
        UTC if year >= 50 => 1900 + year,
        UTC => 2000 + year,
        _ => year,
    };
    let part = |at: usize| rest.get(at..at + 2)?.parse::<i8>().ok();
    let time = jiff::civil::DateTime::new(year, part(0)?, part(2)?, part(4)?, part(6)?, part(8)?, 0);
    time.ok()?.to_zoned(jiff::tz::TimeZone::UTC).ok().map(|zoned| zoned.timestamp())
}

#[cfg(test)]
mod tests;

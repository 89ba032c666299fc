//! What is kept of ACME, readable by the service alone:
//!
//! ```text
//! state_dir/acme/HOST-HASH/account.json      the account's key at the directory of that host
//! state_dir/acme/HOST-HASH/NAME-HASH.pem     a certificate with its chain, and its key
//! state_dir/acme/HOST-HASH/NAME-HASH.json    when the authority may be asked again
//! ```

use std::{
    fs::{self, File},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::Arc,
};

use instant_acme::AccountCredentials;
use rustls::{crypto::ring, sign::CertifiedKey};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use sha2::{Digest, Sha256};

use super::Order;
use crate::serve::certificate::Held;

/// What has been tried for a certificate.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Attempts {
    /// In a row.
    pub(super) failures: u32,
    /// Not before this, in seconds since 1970: also after a restart, so that a service that ends again and again doesn't hammer.
    pub(super) next: i64,
}

#[derive(Serialize, Deserialize)]
pub(super) struct StoredAccount {
    pub(super) email: Option<String>,
    pub(super) credentials: AccountCredentials,
}

/// The files of one order.
#[derive(Debug, Clone)]
pub(super) struct Store {
    dir: PathBuf,
    stem: String,
}

impl Store {
    pub(super) fn new(state_dir: &Path, order: &Order) -> Self {
        let uri: Option<http::Uri> = order.directory.parse().ok();
        let host = uri.as_ref().and_then(http::Uri::host).unwrap_or_default();
        let first = order.domains.first().map_or("", String::as_str);
        Self {
            dir: state_dir.join("acme").join(stem(host, &order.directory)),
            stem: stem(first, &order.domains.join(" ")),
        }
    }

    fn path(&self, ending: &str) -> PathBuf {
        self.dir.join(format!("{}.{ending}", self.stem))
    }

    /// The stored certificate; `None`: there is none that can be used.
    pub(super) fn certificate(&self) -> Option<Held> {
        let path = self.path("pem");
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "cannot read a certificate of acme");
                return None;
            }
        };
        match held(&bytes) {
            Ok(held) => Some(held),
            Err(error) => {
                tracing::warn!(path = %path.display(), error, "a certificate of acme cannot be used; it will be got anew");
                None
            }
        }
    }

    pub(super) fn keep_certificate(&self, chain: &str, key: &str) -> io::Result<()> {
        self.write(&self.path("pem"), format!("{}\n{}\n", chain.trim_end(), key.trim_end()).as_bytes())
    }

    pub(super) fn attempts(&self) -> Attempts {
        self.json(&self.path("json")).unwrap_or_default()
    }

    pub(super) fn keep_attempts(&self, attempts: Attempts) -> io::Result<()> {
        self.write(&self.path("json"), &serde_json::to_vec(&attempts)?)
    }

    pub(super) fn account(&self) -> Option<StoredAccount> {
        self.json(&self.dir.join("account.json"))
    }

    pub(super) fn keep_account(&self, account: &StoredAccount) -> io::Result<()> {
        self.write(&self.dir.join("account.json"), &serde_json::to_vec(account)?)
    }

    fn json<T: DeserializeOwned>(&self, path: &Path) -> Option<T> {
        let bytes = fs::read(path).ok()?;
        let read = serde_json::from_slice(&bytes);
        if read.is_err() {
            // Not the error itself: it may tell of a key.
            tracing::warn!(path = %path.display(), "a file of acme is damaged; it is made anew");
        }
        read.ok()
    }

    /// Whole or not at all, and for the service alone.
    fn write(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.dir)?;
        let new = path.with_extension("new");
        let _ = fs::remove_file(&new);
        let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&new, path)?;
        File::open(&self.dir)?.sync_all()
    }
}

/// A readable name, and what makes it unique.
fn stem(name: &str, whole: &str) -> String {
    let hash = Sha256::digest(whole);
    let hash: String = hash[..6].iter().map(|byte| format!("{byte:02x}")).collect();
    let name: String = name
        .chars()
        .take(64)
        .map(|c| if c.is_ascii_alphanumeric() || c == '-' || c == '.' { c } else { '_' })
        .collect();
    format!("{name}-{hash}")
}

/// A certificate out of PEM with its chain and its key.
pub(super) fn held(pem: &[u8]) -> Result<Held, &'static str> {
    let chain: Vec<_> =
        CertificateDer::pem_slice_iter(pem).collect::<Result<_, _>>().map_err(|_| "it holds no certificate")?;
    let key = PrivateKeyDer::from_pem_slice(pem).map_err(|_| "it holds no key")?;
    if chain.is_empty() {
        return Err("it holds no certificate");
    }
    let signing = ring::sign::any_supported_type(&key).map_err(|_| "the key cannot be used")?;
    let key = CertifiedKey::new(chain, signing);
    key.keys_match().map_err(|_| "the key is another certificate's")?;
    Held::read(Arc::new(key)).ok_or("the certificate cannot be read")
}

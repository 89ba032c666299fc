//! Key sets (RFC 7517): bytes → the public keys in them that can check a signature.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use ring::signature::{self, RsaParameters, RsaPublicKeyComponents, UnparsedPublicKey, VerificationAlgorithm};
use serde_json::Value;

use super::model::Algorithm;

/// A key set is at most so large: hundreds of keys.
pub const MOST_BYTES: usize = 256 * 1024;
const MOST_KEYS: usize = 100;
/// A token that names no key is held against so many.
const MOST_TRIES: usize = 4;

/// The keys of one issuer; never empty.
#[derive(Debug, Clone)]
pub struct KeySet {
    keys: Vec<Key>,
}

#[derive(Debug, Clone)]
struct Key {
    id: Option<String>,
    /// What it is for alone, where it says so.
    algorithm: Option<Algorithm>,
    material: Material,
}

#[derive(Debug, Clone)]
enum Material {
    Rsa {
        n: Vec<u8>,
        e: Vec<u8>,
    },
    /// Uncompressed points (SEC 1 §2.3.3).
    P256(Vec<u8>),
    P384(Vec<u8>),
    Ed25519(Vec<u8>),
}

/// Why a key set is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadKeySet {
    #[error("it is larger than {} KiB", MOST_BYTES / 1024)]
    TooLarge,
    #[error("it is not JSON with a list of `keys`")]
    NotASet,
    #[error("it has more than {MOST_KEYS} keys")]
    TooMany,
    #[error("none of its keys can check a signature: RSA from 2048 bits, P-256, P-384 and Ed25519 can")]
    NoneUsable,
}

/// Why a signature was not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BadSignature {
    /// The set has no key of that name for that algorithm.
    NoKey,
    Wrong,
}

impl KeySet {
    /// # Errors
    ///
    /// Where the bytes are no key set, or one that is of no use. Keys of other kinds and for other uses are passed over
    /// (RFC 7517 §5).
    pub fn parse(bytes: &[u8]) -> Result<Self, BadKeySet> {
        if bytes.len() > MOST_BYTES {
            return Err(BadKeySet::TooLarge);
        }
        let set: Value = serde_json::from_slice(bytes).map_err(|_| BadKeySet::NotASet)?;
        let keys = set.get("keys").and_then(Value::as_array).ok_or(BadKeySet::NotASet)?;
        if keys.len() > MOST_KEYS {
            return Err(BadKeySet::TooMany);
        }
        let keys: Vec<Key> = keys.iter().filter_map(Key::read).collect();
        if keys.is_empty() { Err(BadKeySet::NoneUsable) } else { Ok(Self { keys }) }
    }

    pub fn len(&self) -> usize {
        self.keys.len()
    }

    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Checks a signature with the keys of that id; without one, with every key that fits, but not with many.
    ///
    /// A key checks only what its own type and `alg` are for: an RSA key is never the secret of an HMAC, nor one curve's key
    /// another's (RFC 8725 §3.1). `kid` is compared, and nothing else is done with it (RFC 8725 §3.10).
    ///
    /// # Errors
    ///
    /// [`BadSignature`].
    pub fn verify(
        &self,
        algorithm: Algorithm,
        id: Option<&str>,
        message: &[u8],
        signature: &[u8],
    ) -> Result<(), BadSignature> {
        let fits = |key: &&Key| key.is_for(algorithm) && id.is_none_or(|id| key.id.as_deref() == Some(id));
        let mut result = Err(BadSignature::NoKey);
        for key in self.keys.iter().filter(fits).take(MOST_TRIES) {
            result = key.verify(algorithm, message, signature);
            if result.is_ok() {
                break;
            }
        }
        result
    }
}

impl Key {
    fn read(jwk: &Value) -> Option<Self> {
        let text = |name: &str| jwk.get(name).and_then(Value::as_str);
        let bytes = |name: &str| URL_SAFE_NO_PAD.decode(text(name)?).ok();
        // RFC 7517 §4.2 and §4.3: absent is any use.
        if text("use").is_some_and(|used| used != "sig") {
            return None;
        }
        if let Some(operations) = jwk.get("key_ops")
            && !operations.as_array()?.iter().any(|one| one == "verify")
        {
            return None;
        }
        let point = |size: usize| -> Option<Vec<u8>> {
            let (x, y) = (bytes("x")?, bytes("y")?);
            // RFC 7518 §6.2.1.2: whole, with leading zeros.
            (x.len() == size && y.len() == size).then(|| [&[4][..], &x, &y].concat())
        };
        let material = match (text("kty")?, text("crv")) {
            ("RSA", _) => {
                let strip = |number: Vec<u8>| number.into_iter().skip_while(|byte| *byte == 0).collect::<Vec<u8>>();
                let (n, e) = (strip(bytes("n")?), strip(bytes("e")?));
                // RFC 7518 §3.3: 2048 bits at least.
                if !(256..=1024).contains(&n.len()) || e.is_empty() || e.len() > 5 {
                    return None;
                }
                Material::Rsa { n, e }
            }
            ("EC", Some("P-256")) => Material::P256(point(32)?),
            ("EC", Some("P-384")) => Material::P384(point(48)?),
            ("OKP", Some("Ed25519")) => Material::Ed25519(bytes("x").filter(|x| x.len() == 32)?),
            _ => return None,
        };
        let algorithm = match jwk.get("alg") {
            None => None,
            // An `alg` that we don't know is not ours to widen.
            Some(alg) => Some(Algorithm::named(alg.as_str()?)?),
        };
        let key = Self { id: text("kid").map(str::to_owned), algorithm: None, material };
        match algorithm {
            Some(algorithm) if !key.is_for(algorithm) => None,
            algorithm => Some(Self { algorithm, ..key }),
        }
    }

    fn is_for(&self, algorithm: Algorithm) -> bool {
        use Algorithm::{EdDsa, Es256, Es384, Ps256, Ps384, Ps512, Rs256, Rs384, Rs512};
        let by_type = match self.material {
            Material::Rsa { .. } => matches!(algorithm, Rs256 | Rs384 | Rs512 | Ps256 | Ps384 | Ps512),
            Material::P256(_) => algorithm == Es256,
            Material::P384(_) => algorithm == Es384,
            Material::Ed25519(_) => algorithm == EdDsa,
        };
        by_type && self.algorithm.is_none_or(|own| own == algorithm)
    }

    fn verify(&self, algorithm: Algorithm, message: &[u8], signed: &[u8]) -> Result<(), BadSignature> {
        let curve = |algorithm: &'static dyn VerificationAlgorithm, point: &[u8]| {
            UnparsedPublicKey::new(algorithm, point).verify(message, signed)
        };
        let checked = match &self.material {
            Material::Rsa { n, e } => {
                let parameters: &RsaParameters = match algorithm {
                    Algorithm::Rs256 => &signature::RSA_PKCS1_2048_8192_SHA256,
                    Algorithm::Rs384 => &signature::RSA_PKCS1_2048_8192_SHA384,
                    Algorithm::Rs512 => &signature::RSA_PKCS1_2048_8192_SHA512,
                    Algorithm::Ps256 => &signature::RSA_PSS_2048_8192_SHA256,
                    Algorithm::Ps384 => &signature::RSA_PSS_2048_8192_SHA384,
                    Algorithm::Ps512 => &signature::RSA_PSS_2048_8192_SHA512,
                    Algorithm::Es256 | Algorithm::Es384 | Algorithm::EdDsa => return Err(BadSignature::NoKey),
                };
                RsaPublicKeyComponents { n, e }.verify(parameters, message, signed)
            }
            Material::P256(point) => curve(&signature::ECDSA_P256_SHA256_FIXED, point),
            Material::P384(point) => curve(&signature::ECDSA_P384_SHA384_FIXED, point),
            Material::Ed25519(point) => curve(&signature::ED25519, point),
        };
        checked.map_err(|_| BadSignature::Wrong)
    }
}

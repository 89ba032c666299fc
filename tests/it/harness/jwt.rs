//! Issuers of tokens. They sign with the `openssl` of the machine, so that not the same library signs and checks.

use std::{
    fs,
    path::PathBuf,
    process::Command,
    time::{SystemTime, UNIX_EPOCH},
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Value, json};
use tempfile::TempDir;

/// A key pair that signs by one algorithm, such as `RS256`.
pub(crate) struct Signer {
    pub(crate) id: String,
    algorithm: &'static str,
    dir: TempDir,
}

pub(crate) fn b64(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

pub(crate) fn unix_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

fn openssl(args: &[&str]) -> Vec<u8> {
    let output = Command::new("openssl").args(args).output().unwrap();
    assert!(output.status.success(), "openssl {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

pub(crate) fn signer(id: &str, algorithm: &'static str) -> Signer {
    let signer = Signer { id: id.to_owned(), algorithm, dir: TempDir::with_prefix("issuer-").unwrap() };
    let key = signer.key();
    let key = key.to_str().unwrap();
    match &algorithm[..2] {
        "RS" | "PS" => openssl(&["genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048", "-out", key]),
        "ES" => {
            let curve = format!("ec_paramgen_curve:P-{}", &algorithm[2..]);
            openssl(&["genpkey", "-algorithm", "EC", "-pkeyopt", &curve, "-out", key])
        }
        _ => openssl(&["genpkey", "-algorithm", "ed25519", "-out", key]),
    };
    signer
}

/// A key set of these.
pub(crate) fn jwks(signers: &[&Signer]) -> String {
    json!({ "keys": signers.iter().map(|signer| signer.jwk()).collect::<Vec<_>>() }).to_string()
}

impl Signer {
    fn key(&self) -> PathBuf {
        self.dir.path().join("key.pem")
    }

    pub(crate) fn jwk(&self) -> Value {
        let public = openssl(&["pkey", "-in", self.key().to_str().unwrap(), "-pubout", "-outform", "DER"]);
        let mut jwk = match &self.algorithm[..2] {
            "RS" | "PS" => {
                let modulus = openssl(&["rsa", "-in", self.key().to_str().unwrap(), "-noout", "-modulus"]);
                let hex = String::from_utf8(modulus).unwrap();
                let hex = hex.trim().strip_prefix("Modulus=").unwrap().as_bytes();
                let digit = |b: u8| (b as char).to_digit(16).unwrap() as u8;
                let n: Vec<u8> = hex.chunks(2).map(|pair| digit(pair[0]) << 4 | digit(pair[1])).collect();
                json!({ "kty": "RSA", "n": b64(n), "e": "AQAB" })
            }
            "ES" => {
                let size = self.size();
                let point = &public[public.len() - 2 * size..];
                let curve = format!("P-{}", &self.algorithm[2..]);
                json!({ "kty": "EC", "crv": curve, "x": b64(&point[..size]), "y": b64(&point[size..]) })
            }
            _ => json!({ "kty": "OKP", "crv": "Ed25519", "x": b64(&public[public.len() - 32..]) }),
        };
        jwk["kid"] = self.id.clone().into();
        jwk
    }

    /// Bytes of a number of its curve.
    fn size(&self) -> usize {
        if self.algorithm == "ES384" { 48 } else { 32 }
    }

    /// The private key, in PEM (PKCS #8).
    pub(crate) fn pem(&self) -> String {
        fs::read_to_string(self.key()).unwrap()
    }

    /// The claims of an `RS256` token that this key has signed.
    pub(crate) fn claims(&self, token: &str) -> Result<Value, String> {
        let (signed, signature) = token.rsplit_once('.').ok_or("no token")?;
        let decoded = |text: &str| URL_SAFE_NO_PAD.decode(text).map_err(|error| error.to_string());
        let dir = TempDir::with_prefix("check-").unwrap();
        let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
        let [public, text, sig] = ["public", "text", "sig"].map(path);
        openssl(&["pkey", "-in", self.key().to_str().unwrap(), "-pubout", "-out", &public]);
        fs::write(&text, signed).unwrap();
        fs::write(&sig, decoded(signature)?).unwrap();
        let check = ["dgst", "-sha256", "-verify", &public, "-signature", &sig, &text];
        if !Command::new("openssl").args(check).output().unwrap().status.success() {
            return Err("another signature".to_owned());
        }
        let (header, claims) = signed.split_once('.').ok_or("no token")?;
        let header: Value = serde_json::from_slice(&decoded(header)?).map_err(|error| error.to_string())?;
        if header["alg"] != "RS256" || header["kid"] != self.id {
            return Err(format!("a header that is not so: {header}"));
        }
        serde_json::from_slice(&decoded(claims)?).map_err(|error| error.to_string())
    }

    /// A token with these claims, and a header that says the truth.
    pub(crate) fn token(&self, claims: &Value) -> String {
        self.sign(&json!({ "alg": self.algorithm, "kid": self.id, "typ": "JWT" }), claims)
    }

    pub(crate) fn sign(&self, header: &Value, claims: &Value) -> String {
        let signed = format!("{}.{}", b64(header.to_string()), b64(claims.to_string()));
        // Several may sign at a time.
        let dir = TempDir::with_prefix("sign-").unwrap();
        let (text, signature) = (dir.path().join("text"), dir.path().join("signature"));
        fs::write(&text, &signed).unwrap();
        let (key, text, out) = (self.key(), text.to_str().unwrap().to_owned(), signature.to_str().unwrap().to_owned());
        let key = key.to_str().unwrap();
        let pss = ["-sigopt", "rsa_padding_mode:pss", "-sigopt", "rsa_pss_saltlen:-1"];
        let hash = format!("-sha{}", &self.algorithm[2..]);
        match &self.algorithm[..2] {
            "PS" => openssl(&[&["dgst", &hash][..], &pss, &["-sign", key, "-out", &out, &text]].concat()),
            "RS" | "ES" => openssl(&["dgst", &hash, "-sign", key, "-out", &out, &text]),
            _ => openssl(&["pkeyutl", "-sign", "-rawin", "-inkey", key, "-in", &text, "-out", &out]),
        };
        let mut bytes = fs::read(&signature).unwrap();
        if self.algorithm.starts_with("ES") {
            bytes = fixed(&bytes, self.size());
        }
        format!("{signed}.{}", b64(bytes))
    }
}

/// ECDSA's two numbers out of their DER, side by side (RFC 7518 §3.4).
fn fixed(der: &[u8], size: usize) -> Vec<u8> {
    let mut rest = if der[1] & 0x80 == 0 { &der[2..] } else { &der[3..] };
    let mut out = Vec::new();
    for _ in 0..2 {
        let length = rest[1] as usize;
        let number: Vec<u8> = rest[2..2 + length].iter().copied().skip_while(|byte| *byte == 0).collect();
        out.extend(vec![0; size - number.len()]);
        out.extend(number);
        rest = &rest[2 + length..];
    }
    out
}

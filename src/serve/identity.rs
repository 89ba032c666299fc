//! A verified client certificate → who the caller is, in words that a rule can compare.

use std::{fmt::Write as _, time::SystemTime};

use sha2::{Digest, Sha256};
use x509_parser::{
    certificate::X509Certificate,
    der_parser::asn1_rs::{Any, Tag},
    extensions::GeneralName,
    prelude::FromDer,
    x509::{AttributeTypeAndValue, RelativeDistinguishedName, X509Name},
};

use crate::{
    decide::{ClientCertificate, San},
    ingress::conn::Certificate,
};

/// What is refused of a certificate that rustls has verified.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    #[error("the client certificate cannot be read")]
    Unreadable,
    #[error("the client certificate has expired since the session was begun")]
    Expired,
}

/// Reads who a certificate is of. A resumed session's certificate was verified when the session began, and rustls doesn't
/// look at its dates again: that is done here.
///
/// # Errors
///
/// See [`Unfit`]: who can't be named is nobody, and let in as nobody's equal.
pub fn read(der: &[u8], now: SystemTime) -> Result<Certificate, Unfit> {
    let (_, certificate) = X509Certificate::from_der(der).map_err(|_| Unfit::Unreadable)?;
    let now = now.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |d| i64::try_from(d.as_secs()).unwrap_or(i64::MAX));
    if certificate.validity().not_after.timestamp() < now {
        return Err(Unfit::Expired);
    }
    let extension = certificate.subject_alternative_name().map_err(|_| Unfit::Unreadable)?;
    let sans = extension.iter().flat_map(|e| &e.value.general_names).filter_map(|name| match name {
        GeneralName::DNSName(name) => Some(San::Dns(name.to_ascii_lowercase())),
        GeneralName::URI(uri) => Some(San::Uri((*uri).to_owned())),
        GeneralName::RFC822Name(email) => Some(San::Email((*email).to_owned())),
        _ => None,
    });
    let identity = ClientCertificate {
        subject: name(certificate.subject()),
        sans: sans.collect(),
        sha256: Sha256::digest(der).into(),
    };
    Ok(Certificate::new(identity, der))
}

/// RFC 4514 §2: the other way round than it is encoded, and escaped, so that no name reads like two.
fn name(name: &X509Name<'_>) -> String {
    let mut parts: Vec<String> = name.iter().map(relative).collect();
    parts.reverse();
    parts.join(",")
}

fn relative(part: &RelativeDistinguishedName<'_>) -> String {
    part.iter().map(attribute).collect::<Vec<_>>().join("+")
}

fn attribute(one: &AttributeTypeAndValue<'_>) -> String {
    let oid = one.attr_type().to_id_string();
    // RFC 4514 §3, and two that every tool knows.
    let short = match oid.as_str() {
        "2.5.4.3" => Some("CN"),
        "2.5.4.7" => Some("L"),
        "2.5.4.8" => Some("ST"),
        "2.5.4.10" => Some("O"),
        "2.5.4.11" => Some("OU"),
        "2.5.4.6" => Some("C"),
        "2.5.4.9" => Some("STREET"),
        "0.9.2342.19200300.100.1.25" => Some("DC"),
        "0.9.2342.19200300.100.1.1" => Some("UID"),
        "2.5.4.5" => Some("serialNumber"),
        "1.2.840.113549.1.9.1" => Some("emailAddress"),
        _ => None,
    };
    match (short, text(one.attr_value())) {
        (Some(short), Some(text)) => format!("{short}={}", escaped(text)),
        // RFC 4514 §2.4: what has no text, or no name, is told in hex.
        (short, _) => format!("{}={}", short.unwrap_or(&oid), hex_of(one.attr_value())),
    }
}

fn text<'v>(value: &'v Any<'_>) -> Option<&'v str> {
    let is_text = [Tag::Utf8String, Tag::PrintableString, Tag::Ia5String, Tag::NumericString].contains(&value.tag());
    is_text.then(|| std::str::from_utf8(value.data).ok()).flatten()
}

fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let last = text.chars().count().saturating_sub(1);
    for (at, c) in text.chars().enumerate() {
        match c {
            '"' | '+' | ',' | ';' | '<' | '>' | '\\' => out.extend(['\\', c]),
            '#' if at == 0 => out.push_str("\\#"),
            ' ' if at == 0 || at == last => out.push_str("\\ "),
            c if c.is_control() => {
                let mut bytes = [0; 4];
                for byte in c.encode_utf8(&mut bytes).bytes() {
                    let _ = write!(out, "\\{byte:02x}");
                }
            }
            c => out.push(c),
        }
    }
    out
}

/// `#` and the value's DER.
fn hex_of(value: &Any<'_>) -> String {
    let mut out = format!("#{:02x}", value.tag().0);
    let length = value.data.len();
    let digits = length.to_be_bytes();
    let digits = digits.iter().skip_while(|d| **d == 0).copied().collect::<Vec<_>>();
    if length < 0x80 {
        let _ = write!(out, "{length:02x}");
    } else {
        let _ = write!(out, "{:02x}", 0x80 | digits.len());
        for digit in digits {
            let _ = write!(out, "{digit:02x}");
        }
    }
    for byte in value.data {
        let _ = write!(out, "{byte:02x}");
    }
    out
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rcgen::{CertificateParams, DistinguishedName, DnType, DnValue, KeyPair, SanType};

    use super::*;

    fn certificate(names: &[(DnType, &str)], sans: Vec<SanType>) -> Vec<u8> {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.subject_alt_names = sans;
        params.distinguished_name = DistinguishedName::new();
        for (kind, value) in names {
            params.distinguished_name.push(kind.clone(), DnValue::Utf8String((*value).to_owned()));
        }
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().to_vec()
    }

    fn subject(names: &[(DnType, &str)]) -> String {
        read(&certificate(names, vec![]), SystemTime::now()).unwrap().identity.subject
    }

    #[test]
    fn the_subject_is_told_as_rfc_4514_says() {
        let bank =
            [(DnType::CountryName, "CH"), (DnType::OrganizationName, "Example Bank"), (DnType::CommonName, "payments")];
        assert_eq!(subject(&bank), "CN=payments,O=Example Bank,C=CH");
        assert_eq!(subject(&[]), "");
        assert_eq!(subject(&[(DnType::CustomDnType(vec![1, 2, 3]), "x")]), "1.2.3=#0c0178");
        let long = "y".repeat(200);
        assert!(subject(&[(DnType::CustomDnType(vec![1, 2, 3]), &long)]).starts_with("1.2.3=#0c81c87979"));
    }

    /// An authority that signs what it is asked to must not let one customer look like another.
    #[test]
    fn no_name_reads_like_two() {
        assert_eq!(subject(&[(DnType::OrganizationName, "x,CN=admin")]), "O=x\\,CN=admin");
        assert_eq!(subject(&[(DnType::CommonName, " a+b=c;\"d\"\\<e> ")]), "CN=\\ a\\+b=c\\;\\\"d\\\"\\\\\\<e\\>\\ ");
        assert_eq!(subject(&[(DnType::CommonName, "#1\n\0")]), "CN=\\#1\\0a\\00");
        assert_eq!(subject(&[(DnType::CommonName, " ")]), "CN=\\ ");
    }

    #[test]
    fn the_names_that_it_is_for_are_told_by_their_kind() {
        let sans = vec![
            SanType::DnsName("API.bank.example".try_into().unwrap()),
            SanType::URI("spiffe://bank.example/payments".try_into().unwrap()),
            SanType::Rfc822Name("ops@bank.example".try_into().unwrap()),
            SanType::IpAddress([192, 0, 2, 1].into()),
        ];
        let der = certificate(&[], sans);
        let read = read(&der, SystemTime::now()).unwrap();
        let wanted = [
            San::Dns("api.bank.example".into()),
            San::Uri("spiffe://bank.example/payments".into()),
            San::Email("ops@bank.example".into()),
        ];
        assert_eq!(read.identity.sans, wanted);
        assert_eq!(read.identity.sha256[..], Sha256::digest(&der)[..]);
        // RFC 9440 §2.1.
        let header = read.header().to_str().unwrap().to_owned();
        assert!(header.starts_with(":MII") && header.ends_with(':'), "{header}");
    }

    #[test]
    fn who_cannot_be_named_or_has_expired_is_refused() {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.not_after = rcgen::date_time_ymd(2030, 1, 1);
        let der = params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().to_vec();
        let at = |secs| SystemTime::UNIX_EPOCH + Duration::from_secs(secs);
        assert!(read(&der, at(1_893_455_999)).is_ok());
        assert_eq!(read(&der, at(1_893_456_001)).unwrap_err(), Unfit::Expired);
        assert_eq!(read(&der[..der.len() - 1], at(0)).unwrap_err(), Unfit::Unreadable);
        assert_eq!(read(b"", at(0)).unwrap_err(), Unfit::Unreadable);
    }
}

//! Credentials as requests carry them: header fields → what is to be judged. Nothing is judged here.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::{HeaderMap, HeaderName};

/// An API key is at most so long.
const LONGEST_KEY: usize = 1024;
/// A user and its password, encoded.
const LONGEST_BASIC: usize = 1024;
/// A token: with what is around it, it fits into a request's head.
pub(super) const LONGEST_TOKEN: usize = 8 * 1024;

/// A field that holds a credential.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Field<'r> {
    Absent,
    /// It is there twice (RFC 9110 §5.3: it is no list), empty or too long: of two readers each might take another.
    Bad,
    Is(&'r [u8]),
}

fn field<'r>(headers: &'r HeaderMap, name: &HeaderName, longest: usize) -> Field<'r> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (None, _) => Field::Absent,
        (Some(value), None) if !value.is_empty() && value.len() <= longest => Field::Is(value.as_bytes()),
        _ => Field::Bad,
    }
}

/// An API key, blanks and all: it is an opaque string.
pub(super) fn api_key<'r>(headers: &'r HeaderMap, name: &HeaderName) -> Field<'r> {
    field(headers, name, LONGEST_KEY)
}

/// What is in Authorization (RFC 9110 §11.6.2), or in Proxy-Authorization.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Authorization<'r> {
    Absent,
    Basic(UserPassword),
    Bearer(&'r [u8]),
    /// Neither, or malformed.
    Bad(Scheme),
}

/// What a malformed field was meant for, as far as it says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scheme {
    Basic,
    Bearer,
    Other,
}

impl<'r> Authorization<'r> {
    pub(super) fn read(headers: &'r HeaderMap, name: &HeaderName, token_passwords: bool) -> Self {
        let value = match field(headers, name, LONGEST_TOKEN + 16) {
            Field::Absent => return Self::Absent,
            Field::Bad => return Self::Bad(Scheme::Other),
            Field::Is(value) => value,
        };
        // RFC 9110 §11.4: a scheme in letters of any case, blanks, the credentials.
        let end = value.iter().position(|b| *b == b' ').unwrap_or(value.len());
        let (scheme, rest) = value.split_at(end);
        let blanks = rest.iter().take_while(|b| **b == b' ').count();
        let credentials = &rest[blanks..];
        if scheme.eq_ignore_ascii_case(b"basic") {
            let longest = if token_passwords { LONGEST_TOKEN } else { LONGEST_BASIC };
            match UserPassword::read(credentials, longest) {
                Some(pair) => Self::Basic(pair),
                None => Self::Bad(Scheme::Basic),
            }
        } else if scheme.eq_ignore_ascii_case(b"bearer") {
            // RFC 6750 §2.1: no character of it is a blank, so a second word is none.
            let fits = !credentials.is_empty() && credentials.len() <= LONGEST_TOKEN;
            if fits && credentials.iter().all(u8::is_ascii_graphic) {
                Self::Bearer(credentials)
            } else {
                Self::Bad(Scheme::Bearer)
            }
        } else {
            Self::Bad(Scheme::Other)
        }
    }
}

/// User and password (RFC 7617).
#[derive(PartialEq, Eq)]
pub(super) struct UserPassword {
    bytes: Vec<u8>,
    colon: usize,
}

impl UserPassword {
    fn read(encoded: &[u8], longest: usize) -> Option<Self> {
        if encoded.len() > longest {
            return None;
        }
        let bytes = STANDARD.decode(encoded).ok()?;
        // RFC 7617 §2: the first colon; the password may have more of them.
        let colon = bytes.iter().position(|b| *b == b':')?;
        Some(Self { bytes, colon })
    }

    pub(super) fn user(&self) -> &[u8] {
        &self.bytes[..self.colon]
    }

    /// The two, with the colon between them.
    pub(super) fn both(&self) -> &[u8] {
        &self.bytes
    }

    /// The password, if it has the form of a token (RFC 7519 §3: three parts, of which the first is a JSON object).
    pub(super) fn token(&self) -> Option<&[u8]> {
        let password = self.password();
        let dots = password.iter().filter(|b| **b == b'.').count();
        (dots == 2 && password.starts_with(b"ey") && password.iter().all(u8::is_ascii_graphic)).then_some(password)
    }

    pub(super) fn password(&self) -> &[u8] {
        &self.bytes[self.colon + 1..]
    }
}

impl std::fmt::Debug for UserPassword {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("UserPassword(***)")
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderValue, header::AUTHORIZATION};
    use proptest::prelude::*;

    use super::*;

    fn with(values: &[&[u8]]) -> HeaderMap {
        let value = |v: &&[u8]| (AUTHORIZATION, HeaderValue::from_bytes(v).unwrap());
        values.iter().map(value).collect()
    }

    /// `user|password`, the token, or what is wrong.
    fn read(values: &[&[u8]]) -> String {
        let headers = with(values);
        match Authorization::read(&headers, &AUTHORIZATION, false) {
            Authorization::Basic(pair) => {
                format!("{}|{}", String::from_utf8_lossy(pair.user()), String::from_utf8_lossy(pair.password()))
            }
            Authorization::Bearer(token) => String::from_utf8_lossy(token).into_owned(),
            other => format!("{other:?}"),
        }
    }

    #[test]
    fn basic_is_a_user_and_a_password() {
        for (value, means) in [
            ("Basic dXNlcjpwYXNz", "user|pass"),
            ("bAsIc   dXNlcjpwYXNz", "user|pass"),
            // `a:b:c`, `:x`, `x:`
            ("Basic YTpiOmM=", "a|b:c"),
            ("Basic Ong=", "|x"),
            ("Basic eDo=", "x|"),
            // RFC 7617 §2.1: UTF-8.
            ("Basic dGVzdDoxMjPCow==", "test|123£"),
        ] {
            assert_eq!(read(&[value.as_bytes()]), means, "{value}");
        }
    }

    #[test]
    fn what_can_be_read_in_two_ways_or_not_at_all_is_bad() {
        for value in [
            &b"Basic"[..],
            b"Basic ",
            b"Basic dXNlcg==",
            // Without its padding; with bits left over; with a blank; in the other alphabet; with a tail.
            b"Basic YTpiOmM",
            b"Basic YTpiOmN=",
            b"Basic dXNl cjpwYXNz",
            b"Basic dXNlcjpwYXN_",
            b"Basic dXNlcjpwYXNz,",
            b"Basic\tdXNlcjpwYXNz",
            b"Bearer",
            b"Bearer ",
            b"Bearer a b",
            b"Bearer a\tb",
            b"Bearer \xe9",
            b"Digest username=\"x\"",
            b"dXNlcjpwYXNz",
            b"",
            b" ",
        ] {
            assert!(read(&[value]).starts_with("Bad("), "{:?} is {}", String::from_utf8_lossy(value), read(&[value]));
        }
        assert_eq!(read(&[]), "Absent");
        assert_eq!(read(&[b"Basic dXNlcjpwYXNz", b"Basic dXNlcjpwYXNz"]), "Bad(Other)");
        let long = |scheme: &str, n| format!("{scheme} {}", "A".repeat(n));
        assert_eq!(read(&[long("Bearer", LONGEST_TOKEN).as_bytes()]).len(), LONGEST_TOKEN);
        assert_eq!(read(&[long("Bearer", LONGEST_TOKEN + 1).as_bytes()]), "Bad(Bearer)");
        assert_eq!(read(&[long("Bearer", 100_000).as_bytes()]), "Bad(Other)");
        assert_eq!(read(&[long("Basic", LONGEST_BASIC + 4).as_bytes()]), "Bad(Basic)");
    }

    #[test]
    fn a_key_is_one_field_and_not_empty() {
        let name = HeaderName::from_static("x-api-key");
        let keys = |values: &[&str]| -> HeaderMap {
            values.iter().map(|v| (name.clone(), HeaderValue::from_str(v).unwrap())).collect()
        };
        assert_eq!(api_key(&keys(&[]), &name), Field::Absent);
        assert_eq!(api_key(&keys(&["k, e y"]), &name), Field::Is(b"k, e y"));
        assert_eq!(api_key(&keys(&[""]), &name), Field::Bad);
        assert_eq!(api_key(&keys(&["k", "k"]), &name), Field::Bad);
        assert_eq!(api_key(&keys(&[&"k".repeat(LONGEST_KEY + 1)]), &name), Field::Bad);
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(user in "[^:\\p{Cc}]{0,40}", password in "\\PC{0,40}", blanks in 1usize..4) {
            let encoded = STANDARD.encode(format!("{user}:{password}"));
            let value = format!("Basic{}{encoded}", " ".repeat(blanks));
            let headers = with(&[value.as_bytes()]);
            let Authorization::Basic(pair) = Authorization::read(&headers, &AUTHORIZATION, false) else {
                return Err(TestCaseError::fail("not Basic"));
            };
            prop_assert_eq!(pair.user(), user.as_bytes());
            prop_assert_eq!(pair.password(), password.as_bytes());
        }

        #[test]
        fn garbage_never_panics(values in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..60), 0..3), scheme in 0..3) {
            let scheme: &[u8] = [&b"Basic "[..], b"Bearer ", b""][scheme as usize];
            let headers: HeaderMap = values
                .iter()
                .filter_map(|v| HeaderValue::from_bytes(&[scheme, v].concat()).ok())
                .map(|v| (AUTHORIZATION, v))
                .collect();
            Authorization::read(&headers, &AUTHORIZATION, false);
        }
    }
}

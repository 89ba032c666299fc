//! What a platform would refuse, refused before a call is made.

use std::fmt;

use http::{HeaderMap, HeaderName, HeaderValue};

use super::sign::Signer;
use crate::config::model::Platform;

/// What is larger than the platform takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    Headers,
    Uri,
    Body,
}

/// More than the platform takes, and how much that is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooLarge {
    pub part: Part,
    pub platform: &'static str,
    pub most: u64,
    /// `None`: more than that, with no end in sight.
    pub has: Option<u64>,
}

impl fmt::Display for TooLarge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let part = match self.part {
            Part::Headers => "header fields",
            Part::Uri => "path and query",
            Part::Body => "body",
        };
        // A bound that a function sets itself is nobody else's.
        let whose = if self.platform == "generic" { "this function" } else { self.platform };
        write!(f, "{whose} takes at most {} bytes of {part}", self.most)?;
        self.has.map_or(Ok(()), |has| write!(f, ", this request has {has}"))
    }
}

/// Checks a request's target, as the function would get it.
///
/// # Errors
///
/// Where path and query are longer than the platform takes.
pub fn uri(platform: &Platform, path_and_query: &str) -> Result<(), TooLarge> {
    check(platform, Part::Uri, platform.sizes.uri, || path_and_query.len() as u64)
}

/// Checks a request's headers, as the function would get them, be it with what signs them in place of what only that may say.
///
/// # Errors
///
/// Where they are larger than the platform takes, all of them together.
pub fn headers(platform: &Platform, headers: &HeaderMap, signer: Option<&Signer>) -> Result<(), TooLarge> {
    check(platform, Part::Headers, platform.sizes.headers, || match signer {
        None => written(headers),
        Some(signer) => written(headers.iter().filter(|(name, _)| !signer.owns(name.as_str()))) + signer.room(),
    })
}

/// Checks a body's length, or so much of it as has come.
///
/// # Errors
///
/// Where it is longer than the platform takes.
pub fn body(platform: &Platform, length: u64) -> Result<(), TooLarge> {
    check(platform, Part::Body, platform.sizes.body, || length)
}

/// For a body that is longer than was told.
pub fn body_without_end(platform: &Platform) -> TooLarge {
    let most = platform.sizes.body.unwrap_or(u64::MAX);
    TooLarge { part: Part::Body, platform: platform.name.as_str(), most, has: None }
}

fn check(platform: &Platform, part: Part, most: Option<u64>, has: impl FnOnce() -> u64) -> Result<(), TooLarge> {
    let Some(most) = most else { return Ok(()) };
    let has = has();
    if has <= most {
        return Ok(());
    }
    Err(TooLarge { part, platform: platform.name.as_str(), most, has: Some(has) })
}

/// As HTTP/1.1 writes them (RFC 9112 §5): name, colon, blank, value, end of line.
pub(super) fn written<'h>(fields: impl IntoIterator<Item = (&'h HeaderName, &'h HeaderValue)>) -> u64 {
    fields.into_iter().map(|(name, value)| (name.as_str().len() + value.len() + 4) as u64).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::model::{PlatformName, Sizes};

    fn platform() -> Platform {
        let sizes = Sizes { headers: Some(20), uri: Some(5), body: Some(3) };
        Platform { name: PlatformName::AliyunFc3, sizes, ..Platform::default() }
    }

    #[test]
    fn a_limit_holds_to_the_byte_and_says_whose_it_is() {
        let p = platform();
        assert_eq!(uri(&p, "/1234"), Ok(()));
        let said = uri(&p, "/12345").unwrap_err().to_string();
        assert_eq!(said, "aliyun-fc3 takes at most 5 bytes of path and query, this request has 6");
        assert_eq!(body(&p, 3), Ok(()));
        assert_eq!(body(&p, 4).unwrap_err().has, Some(4));
        assert_eq!(body_without_end(&p).to_string(), "aliyun-fc3 takes at most 3 bytes of body");
        let own = Platform { name: PlatformName::Generic, ..p };
        assert!(body(&own, 4).unwrap_err().to_string().starts_with("this function takes"));
    }

    #[test]
    fn headers_are_counted_as_they_are_written() {
        let mut map = HeaderMap::new();
        map.insert("a", "12345".parse().unwrap());
        assert_eq!(written(&map), "a: 12345\r\n".len() as u64);
        map.append("a", "12345".parse().unwrap());
        assert_eq!(headers(&platform(), &map, None), Ok(()));
        map.append("b", "".parse().unwrap());
        assert_eq!(headers(&platform(), &map, None).unwrap_err().has, Some(25));
    }

    #[test]
    fn without_a_limit_nothing_is_counted() {
        assert_eq!(body(&Platform::default(), u64::MAX), Ok(()));
        assert_eq!(uri(&Platform::default(), &"x".repeat(100_000)), Ok(()));
    }
}

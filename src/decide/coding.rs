//! Which content coding a caller gets, and which answers suit (RFC 9110 §8.4, §12.5.3).

use http::{HeaderMap, HeaderValue, StatusCode, header};

use super::content_length;
use crate::config::model::{Coding, Compression, MediaPattern};

/// The coding that the caller likes best of `ours`, of equals the first; `None`: as it is.
pub fn choose(headers: &HeaderMap, ours: &[Coding]) -> Option<Coding> {
    let mut weights = Weights::default();
    for line in headers.get_all(header::ACCEPT_ENCODING) {
        let Ok(line) = line.to_str() else { continue };
        line.split(',').for_each(|element| weights.read(element));
    }
    let mut best: Option<(u16, Coding)> = None;
    for coding in ours {
        let weight = weights.of(*coding);
        if weight > best.map_or(0, |(best, _)| best) {
            best = Some((weight, *coding));
        }
    }
    // Who likes it plain better says so; otherwise a coding that is listed is meant.
    best.filter(|(weight, _)| weights.identity.is_none_or(|identity| identity <= *weight)).map(|(_, coding)| coding)
}

/// What Accept-Encoding says, in thousandths.
#[derive(Default)]
struct Weights {
    gzip: Option<u16>,
    br: Option<u16>,
    zstd: Option<u16>,
    identity: Option<u16>,
    any: Option<u16>,
}

impl Weights {
    /// One element of the list. What is malformed is not asked for.
    fn read(&mut self, element: &str) {
        let mut parts = element.split(';').map(str::trim);
        let name = parts.next().unwrap_or_default();
        let weight = match parts.next() {
            None => 1000,
            Some(weight) => match weight.split_once('=') {
                Some((q, value)) if q.trim_end().eq_ignore_ascii_case("q") => {
                    thousandths(value.trim_start()).unwrap_or(0)
                }
                _ => 0,
            },
        };
        let place = match name.to_ascii_lowercase().as_str() {
            // RFC 9110 §8.4.1.3.
            "gzip" | "x-gzip" => &mut self.gzip,
            "br" => &mut self.br,
            "zstd" => &mut self.zstd,
            "identity" => &mut self.identity,
            "*" => &mut self.any,
            _ => return,
        };
        *place = Some(weight);
    }

    fn of(&self, coding: Coding) -> u16 {
        let own = match coding {
            Coding::Gzip => self.gzip,
            Coding::Br => self.br,
            Coding::Zstd => self.zstd,
        };
        own.or(self.any).unwrap_or(0)
    }
}

/// A weight (RFC 9110 §12.4.2) in thousandths: `0.5` is 500.
pub(super) fn thousandths(text: &str) -> Option<u16> {
    let (whole, part) = text.split_once('.').unwrap_or((text, ""));
    if part.len() > 3 || !part.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let part: u16 = format!("{part:0<3}").parse().ok()?;
    match whole {
        "0" => Some(part),
        "1" if part == 0 => Some(1000),
        _ => None,
    }
}

/// Whether an answer with this head may be compressed, and is worth it: whoever asks.
pub fn suits(status: StatusCode, headers: &HeaderMap, compression: &Compression) -> bool {
    if status.is_informational() || matches!(status.as_u16(), 204 | 205 | 206 | 304) {
        return false;
    }
    const PRECLUDING: [&str; 6] =
        ["content-range", "trailer", "content-md5", "digest", "content-digest", "repr-digest"];
    let is_coded = headers.get_all(header::CONTENT_ENCODING).iter().any(|coding| coding != "identity");
    if is_coded || forbids(headers) || PRECLUDING.iter().any(|name| headers.contains_key(*name)) {
        return false;
    }
    if content_length(headers).is_some_and(|length| length < compression.min_size.max(1)) {
        return false;
    }
    headers.get(header::CONTENT_TYPE).is_some_and(|kind| is_listed(kind, &compression.types))
}

/// RFC 9111 §5.2.1.6, §5.2.2.6: `no-transform`, of a request or an answer.
pub fn forbids(headers: &HeaderMap) -> bool {
    let mut directives = headers.get_all(header::CACHE_CONTROL).iter().flat_map(|v| v.as_bytes().split(|b| *b == b','));
    directives.any(|directive| directive.trim_ascii().eq_ignore_ascii_case(b"no-transform"))
}

fn is_listed(kind: &HeaderValue, types: &[MediaPattern]) -> bool {
    let Ok(kind) = kind.to_str() else { return false };
    let kind = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    // Frames that must not wait, and are compressed by themselves.
    if kind.starts_with("application/grpc") {
        return false;
    }
    types.iter().any(|pattern| match pattern {
        MediaPattern::Exact(exact) => *exact == kind,
        // An event stream is text, but only its own name means it.
        MediaPattern::Type(prefix) => kind.starts_with(prefix.as_str()) && kind != "text/event-stream",
        MediaPattern::Suffix(suffix) => kind.ends_with(suffix.as_str()),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const OURS: [Coding; 3] = [Coding::Zstd, Coding::Br, Coding::Gzip];

    fn chosen(accept: &str) -> Option<Coding> {
        let mut headers = HeaderMap::new();
        for line in accept.split('|').filter(|line| !line.is_empty()) {
            headers.append(header::ACCEPT_ENCODING, HeaderValue::from_str(line).unwrap());
        }
        choose(&headers, &OURS)
    }

    #[test]
    fn the_caller_gets_what_it_likes_best() {
        for (accept, coding) in [
            ("", None),
            ("gzip", Some(Coding::Gzip)),
            ("gzip, deflate, br, zstd", Some(Coding::Zstd)),
            ("gzip|br", Some(Coding::Br)),
            ("GZIP;Q=1", Some(Coding::Gzip)),
            ("x-gzip", Some(Coding::Gzip)),
            ("br;q=0.5, gzip;q=0.8", Some(Coding::Gzip)),
            ("br;q=0, gzip;q=0.001", Some(Coding::Gzip)),
            ("gzip;q=0", None),
            ("*", Some(Coding::Zstd)),
            ("*;q=0.1, zstd;q=0", Some(Coding::Br)),
            ("*;q=0", None),
            ("identity, gzip;q=0.5", None),
            ("identity;q=0.5, gzip", Some(Coding::Gzip)),
            ("identity;q=0", None),
            ("gzip;q=2", None),
            ("gzip;q=0.12345", None),
            ("gzip;level=9", None),
            ("gzip ; q = 1.000", Some(Coding::Gzip)),
            ("deflate", None),
        ] {
            assert_eq!(chosen(accept), coding, "{accept}");
        }
    }

    proptest! {
        #[test]
        fn nobody_gets_what_it_forbids(list in prop::collection::vec(("gzip|br|zstd|\\*|identity", 0..=10u16), 0..5)) {
            let accept: Vec<String> = list.iter().map(|(name, tenths)| match tenths {
                10 => name.clone(),
                tenths => format!("{name};q=0.{tenths}"),
            }).collect();
            let Some(coding) = chosen(&accept.join(", ")) else { return Ok(()) };
            let last = |name: &str| list.iter().rev().find(|(n, _)| n == name).map(|(_, tenths)| *tenths);
            let weight = last(coding.as_str()).or_else(|| last("*"));
            prop_assert!(weight.is_some_and(|weight| weight > 0), "{accept:?} → {coding:?}");
            prop_assert!(last("identity").is_none_or(|plain| Some(plain) <= weight), "{accept:?} → {coding:?}");
        }
    }
}

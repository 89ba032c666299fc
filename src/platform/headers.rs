//! What of a platform's headers is not for callers.

use http::{HeaderValue, header};

use crate::config::model::{EndpointHost, HostPattern, Platform};

/// Whether this header of an answer is taken off.
pub fn is_hidden(platform: &Platform, name: &http::HeaderName, value: &HeaderValue, at: &EndpointHost) -> bool {
    platform.hide.contains(name.as_str())
        || (*name == header::CONTENT_DISPOSITION && is_forced_download(platform, value, at))
}

/// `Content-Disposition: attachment` without a name is the platform's: a function that wants a download names its file.
/// Platforms put it on answers from the addresses that they give away, so that nobody serves pages from there.
fn is_forced_download(platform: &Platform, value: &HeaderValue, at: &EndpointHost) -> bool {
    let written = value.as_bytes().trim_ascii();
    let bare = written.strip_suffix(b";").unwrap_or(written).trim_ascii();
    bare.eq_ignore_ascii_case(b"attachment") && platform.drop_attachment.iter().any(|host| is_at(host, at))
}

fn is_at(pattern: &HostPattern, at: &EndpointHost) -> bool {
    match (pattern, at) {
        (HostPattern::Exact(host), EndpointHost::Name(name)) => host == name,
        (HostPattern::Wildcard(end), EndpointHost::Name(name)) => name.len() > end.len() && name.ends_with(end),
        (HostPattern::Exact(host), EndpointHost::Address(ip)) => {
            host.trim_start_matches('[').trim_end_matches(']').parse() == Ok(*ip)
        }
        (HostPattern::Wildcard(_), EndpointHost::Address(_)) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_bare_attachment_from_such_a_host_is_a_forced_download() {
        let platform = Platform {
            drop_attachment: [HostPattern::Wildcard(".fcapp.run".into()), HostPattern::Exact("[::1]".into())].into(),
            ..Platform::default()
        };
        let dropped = |host: &str, value: &'static str| {
            let at = host.parse().map_or_else(|_| EndpointHost::Name(host.to_owned()), EndpointHost::Address);
            is_hidden(&platform, &header::CONTENT_DISPOSITION, &HeaderValue::from_static(value), &at)
        };
        assert!(dropped("a.cn-hangzhou.fcapp.run", "attachment"));
        assert!(dropped("a.cn-hangzhou.fcapp.run", "Attachment ; "));
        assert!(dropped("::1", "attachment"));
        assert!(!dropped("a.cn-hangzhou.fcapp.run", "attachment; filename=\"a.pdf\""));
        assert!(!dropped("a.cn-hangzhou.fcapp.run", "inline"));
        for host in ["fcapp.run", "api.example.com", "notfcapp.run", "127.0.0.1"] {
            assert!(!dropped(host, "attachment"), "{host}");
        }
    }
}

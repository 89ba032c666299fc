//! Templates, by way of the config that writes them.

use proptest::prelude::*;

use super::*;
use crate::{
    config::{
        Sources,
        model::{Config, Serves},
        parse,
    },
    decide::path::normalise,
};

fn config(route: &str) -> Config {
    let text = format!(
        "[listener.in]\naddress = \"127.0.0.1:0\"\n[function.f]\nversions = {{ v1 = \"http://127.0.0.1:1\" }}\n\
         [route.r]\n{route}\n"
    );
    parse(&Sources::new([("gatepost.toml", text)])).unwrap_or_else(|report| panic!("{report}"))
}

fn leads(route: &str, path: &str, query: Option<&str>) -> String {
    let config = config(route);
    let Serves::Redirect(redirect) = &config.routes[0].serves else { panic!("no redirect") };
    location(redirect, &config.routes[0], "a.test", path, query)
}

fn becomes(route: &str, path: &str) -> String {
    function_path(&config(&format!("function = \"f\"\n{route}")).routes[0], path).into_owned()
}

#[test]
fn redirects_lead_where_they_say() {
    for (route, path, query, to) in [
        ("host = \"a.test\"\nredirect = \"https\"", "/x/y", Some("q=1"), "https://a.test/x/y?q=1"),
        ("host = \"a.test\"\nredirect = \"https://{host}:8443{path}\"", "/x", None, "https://a.test:8443/x"),
        ("redirect = \"https://b.test\"", "/x", None, "https://b.test"),
        ("path = \"/old/*\"\nredirect = \"/new/{rest}\"", "/old/a/b", Some("q"), "/new/a/b?q"),
        ("path = \"/old/*\"\nredirect = \"/new/{rest}\"", "/old", None, "/new/"),
        (
            "path = \"/u/{id}/x\"\nredirect = \"/users/{id}?from=u#top\"",
            "/u/7/x",
            Some("a=1"),
            "/users/7?from=u&a=1#top",
        ),
        ("redirect = { to = \"/new\", keep_query = false }", "/x", Some("q=1"), "/new"),
        ("path_regex = \"/(?<year>[0-9]+)/.*\"\nredirect = \"/y/{year}\"", "/2026/x", None, "/y/2026"),
        ("redirect = \"/x\"", "/", Some("a=\"<>"), "/x?a=%22%3C%3E"),
    ] {
        assert_eq!(leads(route, path, query), to, "{route}");
    }
}

/// The group that a caller fills begins with a slash itself: the host must not be its second segment.
#[test]
fn a_group_cannot_make_another_host_of_a_path() {
    let route = "path_regex = \"/go(?<to>/.*)\"\nredirect = \"/{to}\"";
    assert_eq!(leads(route, "/go/evil.test", None), "/evil.test");
}

#[test]
fn paths_are_edited() {
    for (route, path, seen) in [
        ("", "/a", "/a"),
        ("path = \"/a/*\"\nstrip_prefix = \"/a\"", "/a", "/"),
        ("path = \"/a/*\"\nstrip_prefix = \"/a\"", "/a/b", "/b"),
        ("add_prefix = \"/v2\"", "/a", "/v2/a"),
        ("add_prefix = \"/v2\"", "/", "/v2/"),
        ("path = \"/a/*\"\nstrip_prefix = \"/a\"\nadd_prefix = \"/v2\"", "/a/b", "/v2/b"),
        ("path = \"/a/*\"\nstrip_prefix = \"/a\"\nadd_prefix = \"/v2\"", "/a", "/v2"),
        ("path = \"/u/{id}\"\nrewrite = \"/users/{id}/show\"", "/u/7", "/users/7/show"),
        ("path = \"/u/*\"\nrewrite = \"/users/{rest}\"", "/u/7/8", "/users/7/8"),
        ("rewrite = \"/x{path}\"", "/u", "/x/u"),
        ("path_regex = \"/a(?<dot>.)b\"\nrewrite = \"/x/.{dot}/y\"", "/a.b", "/y"),
    ] {
        assert_eq!(becomes(route, path), seen, "{route}");
    }
}

proptest! {
    /// Whatever the path, a redirect within the site stays there, and a rewritten path is in normal form.
    #[test]
    fn nothing_leads_elsewhere(raw in "/[a-z./%2F5C@:?-]{0,16}") {
        let raw = raw.replace('?', "");
        prop_assume!(normalise(&raw).is_ok());
        let path = normalise(&raw).unwrap().path.into_owned();
        for route in ["redirect = \"/{rest}\"", "redirect = \"{path}\"", "path_regex = \"(?<all>.*)\"\nredirect = \"/{all}\""] {
            let to = leads(route, &path, None);
            prop_assert!(to.starts_with('/') && !to.starts_with("//"), "{} → {}", path, to);
        }
        let to = leads("redirect = \"https://b.test{path}\"", &path, None);
        prop_assert!(to.starts_with("https://b.test/"), "{}", to);
        let seen = becomes("path_regex = \"(?<all>.*)\"\nrewrite = \"/x/{all}\"", &path);
        prop_assert_eq!(normalise(&seen).map(|n| n.path.into_owned()), Ok(seen));
    }
}

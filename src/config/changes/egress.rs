//! What changed of the way out.

use super::{
    Changes, Named,
    words::{egress_leaves, egress_listener_leaves, egress_rule_leaves, egress_source_leaves},
};
use crate::config::{
    Config,
    model::{Egress, EgressRule, Source},
};

impl Changes {
    pub(super) fn egress(&mut self, (old_config, old): (&Config, &Egress), (new_config, new): (&Config, &Egress)) {
        self.leaves("egress.", egress_leaves(old), egress_leaves(new));
        self.tables("egress listener", &old.listeners, &new.listeners, |out, subject, o, n| {
            out.leaves(subject, egress_listener_leaves(o), egress_listener_leaves(n));
        });
        self.tables("egress source", &old.sources, &new.sources, |out, subject, o, n| {
            out.leaves(subject, egress_source_leaves(o), egress_source_leaves(n));
        });
        self.tables("egress rule", &old.rules, &new.rules, |out, subject, o, n| {
            out.leaves(subject, egress_rule_leaves(old_config, o), egress_rule_leaves(new_config, n));
        });
    }
}

impl Named for Source {
    fn name(&self) -> &str {
        &self.name
    }
}

impl Named for EgressRule {
    fn name(&self) -> &str {
        &self.name
    }
}

#[cfg(test)]
mod tests {
    use crate::config::{Config, Sources, changes::changes, parse};

    const OLD: &str = r#"
[client.f]
networks = ["10.1.0.0/16"]
[client.g]
networks = ["10.2.0.0/16"]
[networks]
inside = ["10.0.0.0/8"]
[egress.listener.inside]
address = "10.0.0.4:3128"
[egress.source.bank]
bind = "10.0.0.5"
[egress.source.rest]
bind = "10.0.0.6"
[egress.rule.r]
clients = ["f"]
to = ["a.example"]
"#;

    fn config(text: &str) -> Config {
        parse(&Sources::new([("t.toml", text)])).unwrap_or_else(|report| panic!("{report}"))
    }

    fn told(new: &str) -> Vec<String> {
        changes(&config(OLD), &config(new)).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn every_key_of_the_way_out_has_words() {
        let rule = |key: &str| format!("{OLD}\n{key}\n");
        let top = |key: &str| OLD.replace("[egress.listener", &format!("[egress]\n{key}\n[egress.listener"));
        let listener = |key: &str| OLD.replace("[egress.source.bank", &format!("{key}\n[egress.source.bank"));
        for (new, line) in [
            (top(r#"mode = "report""#), "egress.mode enforce → report"),
            (top(r#"deny_message = "ask""#), "egress.deny_message none → \"ask\""),
            (top(r#"on_revoke = "close""#), "egress.on_revoke keep → close"),
            (top(r#"timeouts = { tls_name = "9s" }"#), "egress.timeouts.tls_name 5s → 9s"),
            (top(r#"timeouts = { first_byte = "9s" }"#), "egress.timeouts.first_byte 60s → 9s"),
            (top("fair_share = 50"), "egress.fair_share 80 → 50"),
            (top(r#"resolver = { servers = ["10.0.0.2"] }"#), "egress.resolver.servers the system's → 10.0.0.2:53"),
            (top(r#"resolver = { timeout = "9s" }"#), "egress.resolver.timeout 5s → 9s"),
            (OLD.replace(":3128", ":3129"), "egress listener inside: address 10.0.0.4:3128 → 10.0.0.4:3129"),
            (
                listener(r#"proxy_protocol = { from = ["10.0.0.9"] }"#),
                "egress listener inside: proxy_protocol off → 10.0.0.9/32",
            ),
            (listener("max_connections = 9"), "egress listener inside: max_connections no own → 9"),
            (listener("max_connections_per_ip = 9"), "egress listener inside: max_connections_per_ip any → 9"),
            (listener(r#"timeouts = { handshake = "9s" }"#), "egress listener inside: timeouts.handshake 10s → 9s"),
            (listener(r#"timeouts = { header = "9s" }"#), "egress listener inside: timeouts.header 10s → 9s"),
            (listener(r#"timeouts = { idle = "9s" }"#), "egress listener inside: timeouts.idle 75s → 9s"),
            (OLD.replace("10.0.0.5", "10.0.0.7"), "egress source bank: bind 10.0.0.5 → 10.0.0.7"),
            (
                OLD.replace("bind = \"10.0.0.5\"", "bind = \"10.0.0.5\"\npublic = \"8.8.8.8\""),
                "egress source bank: public as bind → 8.8.8.8",
            ),
            (
                OLD.replace("bind = \"10.0.0.5\"", "bind = \"10.0.0.5\"\ncheck = { url = \"https://e.example/ip/\" }"),
                "egress source bank: check none → https://e.example/ip",
            ),
            (OLD.replace("[\"f\"]", "[\"f\", \"g\"]"), "egress rule r: clients f → f, g"),
            (OLD.replace("a.example", "*.a.example:80"), "egress rule r: to a.example:443 → *.a.example:80"),
            (rule(r#"source = "rest""#), "egress rule r: source the system's → rest"),
            (rule(r#"parent = "http://P.example:3128/""#), "egress rule r: parent none → http://p.example:3128"),
            (rule(r#"private = ["@inside"]"#), "egress rule r: private none → 10.0.0.0/8"),
            (rule("limits = { tunnels = 9 }"), "egress rule r: limits.tunnels any → 9"),
            (rule(r#"limits = { bandwidth = "9MiB/s" }"#), "egress rule r: limits.bandwidth any → 9MiB/s"),
            (rule(r#"mode = "report""#), "egress rule r: mode enforce → report"),
            (rule(r#"mixed_answers = "drop""#), "egress rule r: mixed_answers deny → drop"),
            (rule(r#"tls_name = "any""#), "egress rule r: tls_name match → any"),
            (rule(r#"timeouts = { connect = "9s" }"#), "egress rule r: timeouts.connect 5s → 9s"),
            (rule(r#"timeouts = { idle = "9s" }"#), "egress rule r: timeouts.idle 5m → 9s"),
            (rule(r#"timeouts = { total = "9s" }"#), "egress rule r: timeouts.total none → 9s"),
            (OLD.replace("[egress.source.rest]\nbind = \"10.0.0.6\"", ""), "egress source rest: removed"),
            (format!("{OLD}\n[egress.rule.s]\nclients = [\"f\"]\nto = [\"b.example\"]"), "egress rule s: added"),
        ] {
            assert_eq!(told(&new), [line], "{new}");
        }
        assert_eq!(told(OLD), Vec::<String>::new());
        // What is a rule's by default changes with it.
        let lines = told(&top(r#"timeouts = { idle = "9s" }"#));
        assert_eq!(lines, ["egress.timeouts.idle 5m → 9s", "egress rule r: timeouts.idle 5m → 9s"]);
        let check = |keys: &str| {
            let keys = format!("bind = \"10.0.0.5\"\ncheck = {{ url = \"https://e.example/ip\"{keys} }}");
            config(&OLD.replace("bind = \"10.0.0.5\"", &keys))
        };
        for (keys, line) in [
            (r#", every = "1h""#, "egress source bank: check.every 10m → 1h"),
            (r#", ca = "/etc/ca.pem""#, "egress source bank: check.ca the system's → /etc/ca.pem"),
        ] {
            let told: Vec<_> = changes(&check(""), &check(keys)).iter().map(ToString::to_string).collect();
            assert_eq!(told, [line], "{keys}");
        }
        let parent = |keys: &str| config(&rule(&format!("parent = {{ url = \"https://p.example:3128\", {keys} }}")));
        let plain = parent("resolve = \"here\"");
        for (keys, lines) in [
            (r#"resolve = "parent""#, &["egress rule r: parent.resolve here → parent"][..]),
            (r#"ca = "/etc/ca.pem""#, &["egress rule r: parent.ca the system's → /etc/ca.pem"]),
            (
                r#"user = "u", password = "env:P""#,
                &["egress rule r: parent.user none → u", "egress rule r: parent.password none → env:P"],
            ),
        ] {
            let told: Vec<_> = changes(&plain, &parent(keys)).iter().map(ToString::to_string).collect();
            assert_eq!(told, lines, "{keys}");
        }
        let lines = told(&rule(r#"limits = { rate = "9/s" }"#));
        assert_eq!(lines, ["egress rule r: limits.rate any → 9/s", "egress rule r: limits.burst any → 9"]);
    }
}

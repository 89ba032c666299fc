//! The tables of the way out as they are written.

use serde_json::{Value as Json, json};
use toml::de::DeValue;

use super::{
    model::{EgressMode, MixedAnswers, OnRevoke, Rate, ResolvedBy, TlsName},
    raw::{Certificate, Connections, Names, Networks, ProxyProtocol},
    read::{Map, OneOrMany, Read, Reader, Value, Whole, read_at, read_table, table},
    secret::SecretRef,
    source::At,
    words::{
        Bandwidth, BasicUser, EchoUrl, FilePath, Mode, NameServer, ParentUrl, Patience, SourceAddress, Text, ToWord,
    },
};
use crate::config::model::{ClientAuthNeed, ListenAddress, TlsProfile};

table! {
    struct Egress {
        /// What becomes of destinations that no rule takes: `enforce` (the default) refuses them, `report` lets them through and logs them.
        mode: EgressMode,
        /// A sentence for everyone who is refused: whom to ask.
        deny_message: Text,
        /// What becomes of tunnels that a reload no longer allows: `keep` (the default) lets them end, `close` ends them.
        on_revoke: OnRevoke,
        /// How long things may take, where a rule says nothing else.
        timeouts: EgressTimeouts,
        /// The percentage of the connections there may be above which no client may have more than its share. Default 80; 100: never.
        fair_share: Whole<1, 100>,
        /// Who is asked for names.
        resolver: Resolver,
        /// Where functions reach the proxy.
        listener: Map<EgressListener>,
        /// Addresses to leave from.
        source: Map<Source>,
        /// Who may go where.
        rule: Map<EgressRule>,
    }
}

table! {
    struct EgressTimeouts {
        /// TCP to one address. Default `5s`.
        connect: Patience,
        /// From 200 to the whole of the TLS client's hello, where its name is compared. Default `5s`.
        tls_name: Patience,
        /// From a forwarded request's end to the answer's head. Default `60s`.
        first_byte: Patience,
        /// A tunnel, or a body, on which nothing moves. Default `5m`.
        idle: Patience,
        /// A tunnel or forwarded request as a whole. Default: no bound.
        total: Patience,
    }
}

table! {
    struct Resolver {
        /// Name servers. Default: `server.dns`, or those of /etc/resolv.conf.
        servers: Vec<At<NameServer>>,
        /// All questions about one name together. Default `5s`.
        timeout: Patience,
    }
}

table! {
    struct EgressListener {
        /// `ip:port` or `unix:/path`.
        address: ListenAddress [required],
        /// Whether it listens although this machine has not the address yet: a floating one. Default `false`.
        freebind: bool,
        /// Certificates, chosen by SNI, for `HTTPS_PROXY=https://…`. Default: plain.
        tls: Vec<At<Certificate>>,
        /// TLS versions and ciphers as Mozilla recommends: `intermediate` (the default) or `modern`.
        tls_profile: TlsProfile,
        /// PEM file with the authorities of clients' certificates. Default: they are asked for none.
        client_ca: FilePath,
        /// Whether clients must show a certificate: `required` (the default with `client_ca`) or `optional`.
        client_auth: ClientAuthNeed,
        /// Who must send the PROXY header.
        proxy_protocol: ProxyProtocol,
        /// Connections on this listener. Default: only the total counts.
        max_connections: Connections,
        /// Connections from one address (IPv6: from one /64). Default: any number.
        max_connections_per_ip: Connections,
        /// How long clients may take.
        timeouts: EgressListenerTimeouts,
        /// Permission bits of a unix socket. Default `0660`.
        mode: Mode,
    }
}

table! {
    struct EgressListenerTimeouts {
        /// PROXY header and TLS handshake. Default `10s`.
        handshake: Patience,
        /// A request's head, from its first byte to its last. Default `10s`.
        header: Patience,
        /// A kept connection without a request. Default `75s`.
        idle: Patience,
    }
}

table! {
    struct Source {
        /// The local address to leave from; of several, each client keeps to one.
        bind: OneOrMany<SourceAddress> [required],
        /// What the world sees instead, behind a NAT: one, or one for each of `bind`. Partners whitelist these.
        public: OneOrMany<SourceAddress>,
        /// Who is asked what the world sees, to compare it with `public`. Default: nobody.
        check: SourceCheck,
    }
}

table! {
    struct SourceCheck {
        /// An echo: it answers with the address that it is called from, as text or in JSON.
        url: EchoUrl [required],
        /// How often. Default `10m`.
        every: Patience,
        /// PEM bundle that alone is trusted for an https `url`. Default: the system's roots.
        ca: FilePath,
    }
}

table! {
    struct EgressRule {
        /// The `[client]`s that it is for.
        clients: Names [required],
        /// Where they may go: names (exact, `*.suffix` or `*`), addresses and networks, each with a port (443 unless written).
        to: To [required],
        /// The `[egress.source]` to leave from. Default: as the system chooses.
        source: Text,
        /// The proxy that connects in gatepost's place: its URL, or a table with `url`. Default: none.
        parent: Parent,
        /// Networks that are not public, and that these destinations may be in all the same.
        private: Networks,
        /// Bounds for each client.
        limits: EgressLimits,
        /// `enforce` (the default), or `report`: lets through what this rule takes, and logs that it would be refused.
        mode: EgressMode,
        /// A name with allowed and refused addresses: `deny` (the default) refuses it, `drop` leaves out the refused ones.
        mixed_answers: MixedAnswers,
        /// On port 443 of a name: the TLS client must ask for that name (`match`, the default), or for `any`.
        tls_name: TlsName,
        /// How long things may take. Default: as `[egress]` has it.
        timeouts: EgressRuleTimeouts,
    }
}

table! {
    struct ParentTable {
        /// `http://host:port` or `https://host:port`.
        url: ParentUrl [required],
        /// The user whom it knows gatepost by (Basic).
        user: BasicUser,
        /// The password of `user`.
        password: SecretRef,
        /// Of an https parent: PEM bundle that alone is trusted for it. Default: the system's roots.
        ca: FilePath,
        /// Who looks up the names of destinations: `here` (the default) judges their addresses, and asks the parent for one that is allowed;
        /// `parent` asks it for the name.
        resolve: ResolvedBy,
    }
}

/// A rule's `to`. Beside a wrong entry the others are kept, so that what they name is judged in the same run.
#[derive(Debug, Clone)]
pub(super) struct To {
    pub(super) words: Vec<At<ToWord>>,
    /// No entry is missing.
    pub(super) is_whole: bool,
}

impl Read for To {
    fn read(value: &Value<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        let Some(array) = value.get_ref().as_array() else {
            reader.expected("an array", value);
            return None;
        };
        let words: Vec<_> = array.iter().filter_map(|entry| read_at(entry, reader)).collect();
        let is_whole = words.len() == array.len();
        Some(Self { words, is_whole })
    }

    fn schema() -> Json {
        <Vec<At<ToWord>> as Read>::schema()
    }
}

/// A parent proxy: a URL, or a table.
#[derive(Debug, Clone)]
pub(super) struct Parent(pub(super) ParentTable);

impl Read for Parent {
    fn read(value: &Value<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        match value.get_ref() {
            DeValue::String(_) => {
                read_at(value, reader).map(|url| Self(ParentTable { url: Some(url), ..ParentTable::default() }))
            }
            DeValue::Table(_) => read_table(value, reader).map(Self),
            _ => {
                reader.expected("a URL, or a table with `url`", value);
                None
            }
        }
    }

    fn schema() -> Json {
        json!({ "anyOf": [<ParentUrl as Read>::schema(), <ParentTable as Read>::schema()] })
    }
}

table! {
    struct EgressLimits {
        /// Tunnels and forwarded requests at once. Default: any number.
        tunnels: Connections,
        /// How many may begin, per `s`, `min`, `h` or `d`. Default: any number.
        rate: Rate,
        /// How many at once. Default: one second's worth, at least 1.
        burst: Connections,
        /// Bytes a second over all tunnels, in each direction. Default: any number.
        bandwidth: Bandwidth,
    }
}

table! {
    struct EgressRuleTimeouts {
        /// TCP to one address.
        connect: Patience,
        /// A tunnel, or a body, on which nothing moves.
        idle: Patience,
        /// A tunnel or forwarded request as a whole.
        total: Patience,
    }
}

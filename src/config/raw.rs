//! The tables of the file as they are written: each key, its type, its words for editors. No logic.

use std::collections::BTreeMap;

use http::Method;
use serde_json::{Value as Json, json};
use toml::de::DeValue;

use super::{
    model::{
        Algorithm, BodyBound, ClientAuthNeed, Criticality, EncodedSlash, Endpoint, HostPattern, LimitKey, LimitScope,
        ListenAddress, LogFormat, PlatformName, Rate, SanIs, TlsProfile, UpstreamHttp,
    },
    raw_budget::Budget,
    raw_cache::{Cache, Fallback},
    raw_cluster::Cluster,
    raw_concurrency::{Concurrency, VersionConcurrency},
    raw_egress::Egress,
    raw_guard::Guard,
    raw_handling::{Compression, Cors, ErrorPage, HeaderEdits, Maintenance, Redirect, Respond, Security},
    raw_health::Health,
    raw_mirror::Mirror,
    raw_platform::{PlatformRequestId, Removed, Rule},
    raw_ramp::{Freeze, Ramp},
    raw_retries::Retries,
    read::{Map, OneOrMany, Read, Reader, Value, Whole, read_at, read_table, table},
    secret::SecretRef,
    source::{At, Span},
    words::{
        Access, AddPrefix, BasicUser, ByteRate, Condition, CookieIs, CredentialWord, DirectoryUrl, Email, FilePath,
        Fingerprint, Fraction, HeaderCondition, HeaderIs, JwksWord, KeyHeader, Mode, NameServer, NetworkRef, PathWord,
        Patience, PatienceOrNone, RegexText, SecretField, Size, SizeOrNone, StickyBy, Strip, Text, Weight,
    },
};

/// The whole file and its includes, table by table.
#[derive(Debug, Default)]
pub(super) struct File {
    pub(super) server: Server,
    pub(super) admin: Admin,
    pub(super) log: Log,
    pub(super) networks: Map<Vec<At<NetworkRef>>>,
    /// Whether there is a `listener` at all, be it a wrong one.
    pub(super) any_listener: bool,
    pub(super) listeners: Tables<Listener>,
    pub(super) clients: Tables<Client>,
    pub(super) functions: Tables<Function>,
    pub(super) routes: Tables<Route>,
    pub(super) limits: Tables<Limit>,
    pub(super) credentials: Tables<Credential>,
    pub(super) freeze: Freeze,
    pub(super) cluster: Option<Cluster>,
    pub(super) egress: Egress,
}

/// Tables of one kind by name, each with the place of its name.
pub(super) type Tables<T> = BTreeMap<String, (Span, T)>;

pub(super) type Networks = Vec<At<NetworkRef>>;
pub(super) type Names = Vec<At<Text>>;
pub(super) type Connections = Whole<1, 4_294_967_295>;

table! {
    struct Server {
        /// Worker threads; `0`, the default: one per core.
        workers: Whole<0, 1024>,
        /// Folder for generations and other state. Default `/var/lib/gatepost`.
        state_dir: FilePath,
        /// Whose X-Forwarded-For and X-Request-Id are believed. Default: nobody's.
        trusted_proxies: Networks,
        /// Connections in all. Default: (file limit − 1,024) / 2.
        max_connections: Connections,
        /// Requests under way in all, shared evenly among the workers. Default: as many as `max_connections`.
        max_requests: Connections,
        /// Resident memory; above 90 % of it new work is answered with 503. Default: the control group's limit.
        max_memory: Size,
        /// Name servers for the functions' names. Default: those of /etc/resolv.conf.
        dns: Vec<At<NameServer>>,
        /// How long in-flight requests may take once a stop was asked for. Default `30s`.
        drain: Patience,
        /// Pages for errors, by status or class (`404`, `5xx`). Default: problem documents.
        error_pages: Map<ErrorPage>,
        /// How many failed authentications an address may have.
        auth_failures: AuthFailures,
        /// The largest body of a request, or `none`. Default `1GiB`.
        max_body: BodyBound,
        /// How many gateposts a request may pass, this one included; one more is answered with 508. Default `10`.
        max_hops: Whole<1, 1000>,
        /// Whether callers of every route are told to come back later.
        maintenance: Box<Maintenance>,
    }
}

table! {
    struct AuthFailures {
        /// How much, per `s`, `min`, `h` or `d`. Default `10/min`.
        rate: Rate,
        /// How many at once. Default `20`.
        burst: Connections,
    }
}

table! {
    struct Admin {
        /// Where health, metrics and the API listen. Default `127.0.0.1:9901`.
        address: ListenAddress,
        /// The bearer token for calls that change something; without one they are refused.
        token: SecretRef,
    }
}

table! {
    struct Log {
        /// The access log: a path, `stdout` (the default) or `off`.
        access: Access,
        /// The lines of the way out, each of them: a path, `stdout` or `off`. Default: where `access` goes.
        egress: Access,
        /// Its format: `json` (the default) or `text`.
        format: LogFormat,
        /// Share of successes that are logged; everything else always is. Default `1.0`.
        sample_ok: Fraction,
        /// Whether paths are logged with their query. Default `false`.
        query: bool,
    }
}

table! {
    struct Listener {
        /// `ip:port` or `unix:/path`.
        address: ListenAddress [required],
        /// Whether it listens although this machine has not the address yet: a floating one. Default `false`.
        freebind: bool,
        /// Certificates, chosen by SNI; the first is for callers without a known name. Default: plain HTTP.
        tls: Vec<At<TlsCertificate>>,
        /// TLS versions and ciphers as Mozilla recommends: `intermediate` (the default; TLS 1.2 and 1.3) or `modern` (1.3 alone).
        tls_profile: TlsProfile,
        /// PEM file with the authorities of callers' certificates. Default: callers are asked for none.
        client_ca: FilePath,
        /// Whether callers must show a certificate: `required` (the default with `client_ca`) or `optional`.
        client_auth: ClientAuthNeed,
        /// Who must send the PROXY header.
        proxy_protocol: ProxyProtocol,
        /// Whether a plain listener takes HTTP/2 with prior knowledge. Default `false`.
        h2c: bool,
        /// Connections on this listener. Default: only the total counts.
        max_connections: Connections,
        /// Connections from one address (IPv6: from one /64). Default: any number.
        max_connections_per_ip: Connections,
        /// What a body must come at, or an answer be taken at, while the caller is waited for; `off`: at whatever it likes. Default `500B/s`.
        min_body_rate: ByteRate,
        /// How long callers may take.
        timeouts: ListenerTimeouts,
        /// Permission bits of a unix socket. Default `0660`.
        mode: Mode,
    }
}

table! {
    struct Certificate {
        /// PEM file with the certificate and its chain.
        cert: FilePath [required],
        /// PEM file with its private key.
        key: FilePath [required],
    }
}

table! {
    struct AcmeCertificate {
        /// A certificate that gatepost gets, and renews, by itself.
        acme: Acme [required],
    }
}

table! {
    struct Acme {
        /// The authority's directory. Default: Let's Encrypt's.
        directory: DirectoryUrl,
        /// Where the authority may write to.
        email: Email,
        /// The names that the certificate is for.
        domains: Vec<At<HostPattern>> [required],
        /// PEM bundle that alone vouches for the directory. Default: the system's roots.
        ca: FilePath,
    }
}

table! {
    struct ProxyProtocol {
        /// Peers that must send the header; nobody else may.
        from: Networks [required],
    }
}

table! {
    struct ListenerTimeouts {
        /// PROXY header and TLS handshake. Default `10s`.
        handshake: Patience,
        /// A request's head, from its first byte to its last. Default `10s`.
        header: Patience,
        /// Between two reads of a request's body, or two writes of an answer. Default `30s`.
        body: Patience,
        /// A kept connection without a request. Default `75s`.
        idle: Patience,
    }
}

table! {
    struct Client {
        /// Who answers for it.
        owner: Text,
        /// Where it calls from. Default: anywhere, with credentials.
        networks: Networks,
        /// A key in a header of its own.
        api_key: ApiKey,
        /// User and password (RFC 7617).
        basic: Basic,
        /// A signed token (RFC 7519) in `Authorization: Bearer`.
        jwt: Jwt,
        /// A certificate shown to a listener with `client_ca`.
        mtls: Mtls,
    }
}

table! {
    struct ApiKey {
        /// Where the SHA-256 of the key is, in hex; one per line.
        sha256: SecretRef [required],
        /// The header that holds the key. Default `x-api-key`.
        header: KeyHeader,
    }
}

table! {
    struct Basic {
        /// The user's name.
        user: BasicUser [required],
        /// Where the SHA-256 of the password is, in hex; one per line.
        sha256: SecretRef [required],
    }
}

table! {
    struct Jwt {
        /// What `iss` must be.
        issuer: Text [required],
        /// What `aud` must be or hold; one of these.
        audience: OneOrMany<Text> [required],
        /// The issuer's public keys (RFC 7517): a file, or an https URL.
        jwks: JwksWord [required],
        /// PEM bundle that alone is trusted for the URL. Default: the system's roots.
        ca: FilePath,
        /// How tokens may be signed, whatever they say themselves.
        algorithms: Vec<At<Algorithm>> [required],
        /// What `sub` must be; one of these. Default: any.
        subject: OneOrMany<Text>,
        /// Claim to the value that it must be or hold; `*`: any.
        claims: Map<Condition>,
        /// How far clocks may be apart. Default `30s`.
        leeway: PatienceOrNone,
    }
}

table! {
    struct Mtls {
        /// The certificate's subject as RFC 4514 writes it, such as `CN=payments,O=Example Bank,C=CH`; one of these.
        subject: OneOrMany<Text>,
        /// `dns:`, `uri:` or `email:` and a name that the certificate is for; one of these.
        san: OneOrMany<SanIs>,
        /// SHA-256 of the certificate in hex, as `openssl x509 -fingerprint -sha256` prints it; one of these.
        sha256: OneOrMany<Fingerprint>,
    }
}

table! {
    struct Function {
        /// Name to URL, or to a table with `url`, `ca`, `host`.
        versions: Map<Version> [required],
        /// Version to percent, or to `rest`; they total 100. A single version needs none.
        weights: Map<Weight>,
        /// The version that others are compared with. Default: the `rest` version, or the only one.
        baseline: Text,
        /// Its weight rises by itself, step by step. Default: weights are what they are.
        ramp: Box<Ramp>,
        /// Keep a caller on its version. Default: requests are dealt evenly.
        sticky: Sticky,
        /// Who reaches a named version whatever the weights; the first that matches wins.
        r#override: Vec<At<Override>>,
        /// Send the caller's Host instead of the function's own. Default `false`.
        preserve_host: bool,
        /// PEM bundle that alone is trusted. Default: the system's roots.
        ca: FilePath,
        /// How long the function may take.
        timeouts: UpstreamTimeouts,
        /// What to speak to the function: `auto` (the default), `1.1` or `2`.
        http: UpstreamHttp,
        /// Connections that wait for the next request.
        pool: Pool,
        /// Whose function it is: what is left out below is as that platform has it. Default `generic`.
        platform: PlatformName,
        /// How an answer's outcome is told; these go before the platform's own. The first that matches wins.
        classify: Vec<At<Rule>>,
        /// Whether callers get an honest status where a failure came with another. Default `false`.
        map_status: bool,
        /// The platform's own name for a call.
        platform_request_id: PlatformRequestId,
        /// The most that all header fields together may have, as HTTP/1.1 writes them; `none`: no bound.
        max_headers: SizeOrNone,
        /// The most that path and query may have; `none`: no bound.
        max_uri: SizeOrNone,
        /// The most that a request's body may have; `none`: no bound.
        max_body: SizeOrNone,
        /// Headers that callers may not send.
        request_headers: Removed,
        /// Headers that callers are not to see.
        response_headers: Removed,
        /// Versions at these hosts lose a bare `Content-Disposition: attachment`.
        drop_attachment: Vec<At<HostPattern>>,
        /// The `[credential]` that its calls are signed with. Default: they are not.
        credential: Text,
        /// What its calls may cost in a day.
        budget: Budget,
        /// Compare canaries with the baseline, and send back one that is worse.
        guard: Guard,
        /// Copies of requests go to another version, whose answers are compared and dropped. Default: none.
        mirror: Box<Mirror>,
        /// How many calls there may be at a time, and who waits. Default: any number.
        concurrency: Concurrency,
        /// Send requests again that came to nothing. Default: only what is always safe.
        retries: Retries,
        /// Take versions that fail out of traffic for a while. Default: none.
        health: Health,
    }
}

table! {
    struct VersionTable {
        /// The function's URL.
        url: Endpoint [required],
        /// PEM bundle that alone is trusted for this version. Default: the function's `ca`.
        ca: FilePath,
        /// The Host to send. Default: the URL's own.
        host: Text,
        /// The `[credential]` for calls of this version. Default: the function's.
        credential: Text,
        /// How many calls of this version there may be at a time. Default: as many as the function may have.
        concurrency: VersionConcurrency,
    }
}

table! {
    struct Sticky {
        /// The first of these that the request has decides.
        by: Vec<At<StickyBy>> [required],
        /// Functions of one group send a caller to the same bucket. Default: the function's name.
        group: Text,
        /// Hand a cookie to callers that have none of the keys. Default `false`.
        issue_cookie: bool,
    }
}

table! {
    struct Override {
        /// `name: value`, or `name` for any value.
        header: HeaderIs,
        /// `name=value`, or `name` for any value.
        cookie: CookieIs,
        /// Callers from these networks.
        networks: Networks,
        /// A `[client]`.
        client: Text,
        /// Only for callers from these networks. Default: anyone.
        from: Networks,
        /// The version that they reach.
        version: Text [required],
    }
}

table! {
    struct UpstreamTimeouts {
        /// TCP and TLS to one address. Default `3s`.
        connect: Patience,
        /// From the request's end to the answer's head. Default `60s`.
        first_byte: Patience,
        /// Between two reads of an answer's body. Default `60s`.
        idle: Patience,
        /// Between two writes that the function takes. Default `30s`.
        write: Patience,
        /// The whole request. Default: no bound.
        total: Patience,
    }
}

table! {
    struct Pool {
        /// How long a connection may wait; `0s`: none is kept. Default `25s`.
        idle: PatienceOrNone,
        /// How old a connection may be that gets another request. Default: any age.
        age: Patience,
    }
}

table! {
    struct Route {
        /// Where it is served. Default: on all listeners.
        listeners: Names,
        /// Host or hosts: exact, or `*.` and a domain. Default: any.
        host: OneOrMany<HostPattern>,
        /// Exact, with `{param}`s, or a prefix that ends in `/*`. Default `/*`.
        path: PathWord,
        /// A regular expression for the whole path, in place of `path`.
        path_regex: RegexText,
        /// Default: any.
        methods: Vec<At<Method>>,
        /// Header to the value that it must have; `*`: any.
        headers: Map<HeaderCondition>,
        /// Query key to the value that it must have; `*`: any.
        query: Map<Condition>,
        /// Only where two routes would match alike; higher wins. Default `0`.
        priority: Whole<-1_000_000, 1_000_000>,
        /// Where requests go.
        function: Text,
        /// Where callers are sent instead.
        redirect: Box<Redirect>,
        /// What gatepost answers instead.
        respond: Box<Respond>,
        /// Pins a version, whatever the weights.
        version: Text,
        /// Only these `[client]`s. Default: anyone.
        clients: Names,
        /// Only these networks. Default: anyone.
        allow: Networks,
        /// Not these networks; beats `allow`.
        deny: Networks,
        /// Limits that all must have room.
        limits: Vec<At<RouteLimit>>,
        /// Leading segments of the path that the function doesn't see.
        strip_prefix: Strip,
        /// Segments that the function sees before the path.
        add_prefix: AddPrefix,
        /// The path that the function sees; `{path}`, `{rest}` and the path's own `{param}`s are filled in.
        rewrite: Text,
        /// What the function sees of the request's headers.
        request_headers: Box<HeaderEdits>,
        /// What the caller sees of the answer's headers, gatepost's own answers included.
        response_headers: Box<HeaderEdits>,
        /// Whether answers are compressed for callers who ask. Default `false`.
        compression: Box<Compression>,
        /// Which pages of other origins may call it.
        cors: Box<Cors>,
        /// Headers that tell browsers to be careful: `basic` or `strict`.
        security_headers: Security,
        /// The largest body of a request, or `none`. Default: the server's.
        max_body: BodyBound,
        /// Pages for errors, by status or class (`404`, `5xx`). Default: the server's.
        error_pages: Map<ErrorPage>,
        /// Whether those who ask the same share an answer.
        cache: Box<Cache>,
        /// What callers get where the call came to nothing.
        fallback: Box<Fallback>,
        /// Whether callers are told to come back later.
        maintenance: Box<Maintenance>,
        /// What to do with `%2F` in a path: `refuse` (the default) or `keep`.
        encoded_slash: EncodedSlash,
        /// Whether the function is told the caller's verified certificate, as `Client-Cert`. Default `false`.
        forward_client_cert: bool,
        /// Who goes first where requests wait for the function: `critical`, `normal` (the default) or `bulk`.
        criticality: Criticality,
    }
}

table! {
    struct Limit {
        /// How much, per `s`, `min`, `h` or `d`.
        rate: Rate [required],
        /// The bucket's size. Default: one second's worth, at least 1.
        burst: Connections,
        /// What gets a bucket of its own. Default `route`.
        per: LimitKey,
        /// How many keys are remembered. Default `1000000`.
        max_keys: Connections,
        /// Only count, never refuse. Default `false`.
        dry_run: bool,
        /// Whose requests count: this `instance`'s (the default), exactly, or those of all members of the `cluster`.
        scope: LimitScope,
    }
}

table! {
    struct SharedUse {
        /// The name of a `[limit]`.
        r#use: Text [required],
    }
}

table! {
    struct Credential {
        /// `sigv4` (AWS), `acs3` (Alibaba Cloud), `tc3` (Tencent Cloud), `gcp_id_token` (Google Cloud) or `header` (a shared secret).
        kind: CredentialWord [required],
        /// The access key's id.
        access_key_id: SecretRef,
        /// The access key's secret.
        access_key_secret: SecretRef,
        /// The token that belongs to a temporary key.
        session_token: SecretRef,
        /// Of `sigv4`: the endpoint's region.
        region: Text,
        /// The service that is called. Default `lambda` for `sigv4`, `scf` for `tc3`.
        service: Text,
        /// Of `tc3`: the account's number, sent as `X-Scf-Cam-Uin`.
        uin: Text,
        /// Whether the signature covers the body, which is then kept until its end. Default `true`; for `acs3` `false`.
        sign_body: bool,
        /// The largest body that is kept for its signature. Default `6MiB`.
        sign_body_max: Size,
        /// Of `header`: the field that carries the secret. Of `gcp_id_token`: `authorization` (the default) or `x-serverless-authorization`.
        header: SecretField,
        /// Of `header`: the secret.
        secret: SecretRef,
        /// Of `header`: the secret before that, sent in the field `HEADER-previous` while both are in use.
        previous: SecretRef,
        /// Of `gcp_id_token`: the service account's key, as JSON. Default: the machine's metadata server vouches.
        service_account: SecretRef,
        /// Of `gcp_id_token`: for whom the token is. Default: the version's URL, without a path.
        audience: Text,
        /// Of `gcp_id_token`: who is asked for it. Default: Google.
        token_url: Endpoint,
        /// Of `gcp_id_token`: PEM bundle that alone is trusted for `token_url`. Default: the system's roots.
        ca: FilePath,
    }
}

/// A version: a URL, or a table.
#[derive(Debug, Clone)]
pub(super) struct Version(pub(super) VersionTable);

impl Read for Version {
    fn read(value: &Value<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        match value.get_ref() {
            DeValue::String(_) => {
                read_at(value, reader).map(|url| Self(VersionTable { url: Some(url), ..VersionTable::default() }))
            }
            DeValue::Table(_) => read_table(value, reader).map(Self),
            _ => {
                reader.expected("a URL, or a table with `url`", value);
                None
            }
        }
    }

    fn schema() -> Json {
        json!({ "anyOf": [<Endpoint as Read>::schema(), <VersionTable as Read>::schema()] })
    }
}

/// One of a listener's certificates: files, or `{ acme = { … } }`.
#[derive(Debug, Clone)]
pub(super) enum TlsCertificate {
    Files(Certificate),
    Acme(AcmeCertificate),
}

impl Read for TlsCertificate {
    fn read(value: &Value<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        match value.get_ref() {
            DeValue::Table(table) if table.contains_key("acme") => read_table(value, reader).map(Self::Acme),
            DeValue::Table(_) => read_table(value, reader).map(Self::Files),
            _ => {
                reader.expected("`{ cert = \"…\", key = \"…\" }` or `{ acme = { domains = […] } }`", value);
                None
            }
        }
    }

    fn schema() -> Json {
        json!({ "anyOf": [<Certificate as Read>::schema(), <AcmeCertificate as Read>::schema()] })
    }
}

/// One of a route's limits: its own, or `{ use = "NAME" }`.
#[derive(Debug, Clone)]
pub(super) enum RouteLimit {
    Own(Limit),
    Shared(SharedUse),
}

impl Read for RouteLimit {
    fn read(value: &Value<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        match value.get_ref() {
            DeValue::Table(table) if table.contains_key("use") => read_table(value, reader).map(Self::Shared),
            DeValue::Table(_) => read_table(value, reader).map(Self::Own),
            _ => {
                reader.expected("`{ rate = \"100/s\" }` or `{ use = \"NAME\" }`", value);
                None
            }
        }
    }

    fn schema() -> Json {
        json!({ "anyOf": [<Limit as Read>::schema(), <SharedUse as Read>::schema()] })
    }
}

impl<T> Default for Map<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

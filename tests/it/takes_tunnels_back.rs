//! What a reload no longer allows, where `on_revoke` says `close`: every tunnel that the config which holds now would not open as it is.

use crate::harness::{
    Gateway,
    dns::Dns,
    eventually, gateway,
    proxy::{Client, Destination, echo},
    when,
};

/// `fn` by its network, `basic` by a password; each to `far`, by a rule and a source of its own.
async fn standing(dns: &Dns, far: &Destination, egress: &str) -> Gateway {
    let to = format!("\"127.0.0.9:{0}\", \"slow.test:{0}\"", far.port());
    let text = format!(
        r#"
        [server]
        dns = ["{}"]
        [client.fn]
        networks = ["127.0.0.1/32"]
        [client.basic]
        networks = ["127.0.0.0/24"]
        basic = {{ user = "orders", sha256 = "file:@DIR@/hash" }}
        [egress]
        {egress}
        [egress.listener.out]
        address = "127.0.0.1:0"
        [egress.source.bank]
        bind = ["127.0.0.5", "127.0.0.6"]
        [egress.source.rest]
        bind = "127.0.0.7"
        [egress.rule.f]
        clients = ["fn"]
        to = [{to}]
        private = ["127.0.0.0/8"]
        [egress.rule.b]
        clients = ["basic"]
        to = [{to}]
        private = ["127.0.0.0/8"]
        source = "bank"
        "#,
        dns.address()
    );
    // `printf secret | sha256sum`
    gateway(text).file("hash", SECRET).start().await
}

const SECRET: &str = "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b";
/// `printf other | sha256sum`
const OTHER: &str = "d9298a10d1b0735837dc4bd85dac641b0f3cef27a47e5d53a54f2f3f5b2fcffa";

async fn basic(gate: &Gateway, far: &Destination) -> Client {
    let to = format!("127.0.0.9:{}", far.port());
    let mut client = gate.client("127.0.0.3").await;
    // `orders:secret`
    let said = client
        .ask(&format!("CONNECT {to} HTTP/1.1\r\nHost: {to}\r\nProxy-Authorization: Basic b3JkZXJzOnNlY3JldA==\r\n\r\n"))
        .await;
    assert_eq!(said.status, 200, "{said:?}");
    client
}

#[tokio::test]
async fn a_tunnel_ends_with_its_clients_network_its_password_its_source_or_its_address() {
    let (dns, far) = (Dns::start().await, echo("127.0.0.9:0").await);
    let gate = standing(&dns, &far, "on_revoke = \"close\"").await;
    let to = format!("127.0.0.9:{}", far.port());

    let (mut by_network, mut by_password) = (gate.opened(&to).await, basic(&gate, &far).await);
    gate.swap("127.0.0.1/32", "127.0.0.2/32").await;
    assert_eq!(by_network.rest().await, "", "its network is another client's, or nobody's");
    assert_eq!(by_password.echoes("still").await, "still", "what concerns others");
    gate.swap("127.0.0.0/24", "127.0.0.0/8").await;
    assert_eq!(by_password.echoes("still").await, "still", "its networks hold it still");

    // A second password beside the first, as one is changed in steps; then the first goes.
    std::fs::write(gate.dir().join("hash"), format!("{SECRET}\n{OTHER}\n")).unwrap();
    gate.hup().await;
    assert_eq!(by_password.echoes("still").await, "still", "its password is good still");
    std::fs::write(gate.dir().join("hash"), OTHER).unwrap();
    gate.hup().await;
    assert_eq!(by_password.rest().await, "");

    // By itself, with no other config and so no other generation.
    std::fs::write(gate.dir().join("hash"), SECRET).unwrap();
    gate.hup().await;
    let mut hasty = basic(&gate, &far).await;
    std::fs::write(gate.dir().join("hash"), OTHER).unwrap();
    assert_eq!(hasty.rest().await, "");
    std::fs::write(gate.dir().join("hash"), SECRET).unwrap();
    gate.hup().await;
    let mut one = basic(&gate, &far).await;
    gate.swap("bind = [\"127.0.0.5\", \"127.0.0.6\"]", "bind = [\"127.0.0.6\", \"127.0.0.5\", \"127.0.0.8\"]").await;
    assert_eq!(one.echoes("still").await, "still", "its address is one of its source's still");
    gate.swap("source = \"bank\"", "source = \"rest\"").await;
    assert_eq!(one.rest().await, "", "partners were told of other addresses");
    let mut two = basic(&gate, &far).await;
    gate.swap("bind = \"127.0.0.7\"", "bind = \"127.0.0.11\"").await;
    assert_eq!(two.rest().await, "");

    eventually("a line of each that tells so", async || {
        when(gate.log_lines().iter().filter(|line| line["ended"] == "revoked").count() == 5)
    })
    .await;
}

#[tokio::test]
async fn a_tunnel_that_was_opened_under_keep_ends_once_close_is_said() {
    let (dns, far) = (Dns::start().await, echo("127.0.0.9:0").await);
    let gate = standing(&dns, &far, "on_revoke = \"keep\"").await;
    let mut client = gate.opened(&format!("127.0.0.9:{}", far.port())).await;
    gate.swap("127.0.0.1/32", "127.0.0.2/32").await;
    assert_eq!(client.echoes("kept").await, "kept");
    gate.swap("on_revoke = \"keep\"", "on_revoke = \"close\"").await;
    assert_eq!(client.rest().await, "");
}

#[tokio::test]
async fn what_was_being_dialled_when_a_reload_took_it_away_is_refused() {
    let (dns, far) = (Dns::start().await, echo("127.0.0.9:0").await);
    let gate = standing(&dns, &far, "on_revoke = \"close\"\nresolver = { timeout = \"15s\" }").await;
    let to = format!("slow.test:{}", far.port());
    dns.fall_silent("slow.test");
    let mut client = gate.client("127.0.0.1").await;
    client.say(format!("CONNECT {to} HTTP/1.1\r\nHost: {to}\r\n\r\n")).await;
    eventually("a question for the name", async || when(dns.asked("slow.test") > 0)).await;
    gate.edit(|text| text.replace(", \"slow.test", ", \"other.test")).await;
    // The sweepers have asked every tunnel that there was.
    gate.counts("gatepost_config_generation", &[], 2.0).await;
    dns.answer("slow.test", &["127.0.0.9"], 60);
    client.ask("").await.is(403, "destination_not_allowed");
    let line = &gate.log(1).await[0];
    assert_eq!(line["detail"], "a reload took it away while it was dialled", "{line}");
}

#[tokio::test]
async fn a_tunnel_ends_with_what_its_listener_believed_of_its_client() {
    let far = echo("127.0.0.9:0").await;
    let to = format!("127.0.0.9:{}", far.port());
    let text = format!(
        r#"
        [client.fn]
        networks = ["192.0.2.9/32"]
        [egress]
        on_revoke = "close"
        [egress.listener.out]
        address = "127.0.0.1:0"
        proxy_protocol = {{ from = ["127.0.0.5/32"] }}
        [egress.rule.r]
        clients = ["fn"]
        to = ["{to}"]
        private = ["127.0.0.0/8"]
        "#
    );
    let gate = gateway(text).start().await;
    let mut client = gate.client("127.0.0.5").await;
    client.say("PROXY TCP4 192.0.2.9 192.0.2.1 5 6\r\n").await;
    let said = client.ask(&format!("CONNECT {to} HTTP/1.1\r\nHost: {to}\r\n\r\n")).await;
    assert_eq!(said.status, 200, "{said:?}");
    gate.swap("proxy_protocol = {", "max_connections = 1000\nproxy_protocol = {").await;
    assert_eq!(client.echoes("still").await, "still");
    gate.swap("127.0.0.5/32", "127.0.0.6/32").await;
    assert_eq!(client.rest().await, "", "nobody vouches for its address any more");
    assert_eq!(gate.log(1).await[0]["ended"], "revoked");
}

//! No client of the way out keeps the others out.

use crate::harness::{gateway, proxy::echo};

#[tokio::test]
async fn when_connections_run_short_a_client_with_its_share_gets_429_and_the_others_get_through() {
    let far = echo("127.0.0.9:0").await;
    let to = format!("127.0.0.9:{}", far.port());
    let text = format!(
        r#"
        [client.greedy]
        networks = ["127.0.0.1/32"]
        [client.modest]
        networks = ["127.0.0.2/32"]
        [client.late]
        networks = ["127.0.0.3/32"]
        [egress.listener.out]
        address = "127.0.0.1:0"
        max_connections = 20
        [egress.rule.r]
        clients = ["greedy", "modest", "late"]
        to = ["{to}"]
        private = ["127.0.0.0/8"]
        # In report mode as well: what is short is gatepost's own.
        mode = "report"
        "#
    );
    let gate = gateway(text).start().await;
    let ask = format!("CONNECT {to} HTTP/1.1\r\nHost: {to}\r\n\r\n");
    let mut held = Vec::new();
    // Up to 80 % whoever comes is served.
    for _ in 0..16 {
        held.push(gate.opened(&to).await);
    }
    let (_, said) = gate.tunnel(&to).await;
    said.is(429, "tunnels_exhausted");
    let told = "17 of 20 connections are open, and while they are short a client may hold 10: this one holds 16";
    assert!(said.body.contains(told) && said.head.contains("Retry-After: 1\r\n"), "{said:?}");
    let forward = format!("GET http://{to}/ HTTP/1.1\r\nHost: x\r\n\r\n");
    gate.client("127.0.0.1").await.ask(&forward).await.is(429, "tunnels_exhausted");
    for ip in ["127.0.0.2", "127.0.0.3"] {
        let mut client = gate.client(ip).await;
        assert_eq!(client.ask(&ask).await.status, 200);
        assert_eq!(client.echoes("through").await, "through");
        held.push(client);
    }
    // The counts outlive a reload, and what is over counts no more.
    gate.edit(|text| format!("{text}\n# nothing\n")).await;
    let (_, said) = gate.tunnel(&to).await;
    said.is(429, "tunnels_exhausted");
    held.drain(..10);
    gate.counts("gatepost_egress_open", &[("client", "greedy")], 6.0).await;
    held.push(gate.opened(&to).await);
    gate.counts("gatepost_egress_connections_total", &[("result", "tunnels_exhausted")], 3.0).await;
}

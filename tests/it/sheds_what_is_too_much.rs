//! What callers can make grow is bounded, and past a bound others are served and the admin answers.

use std::time::Duration;

use crate::harness::{Connection, Gateway, Origin, PATIENCE, Reply, eventually, gate, gateway, origin, when};

async fn behind(listener: &str, server: &str) -> (Gateway, Origin) {
    let function = origin().start().await;
    let gateway = gateway(format!(
        "[server]\n{server}\n[listener.in]\naddress = \"127.0.0.1:0\"\n{listener}\n\
         [function.f]\nversions = {{ v1 = \"{}\" }}\n[route.f]\nfunction = \"f\"\n",
        function.url()
    ))
    .workers(1)
    .start()
    .await;
    (gateway, function)
}

#[tokio::test]
async fn an_address_has_so_many_connections_and_gets_its_places_back() {
    let (gateway, _function) = behind("max_connections_per_ip = 2", "").await;
    let mut first = gateway.connect().await;
    let mut second = gateway.connect().await;
    assert_eq!(first.send("/").await.status, 200);
    assert_eq!(second.send("/").await.status, 200);
    let said = gateway.raw("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert!(said.starts_with("HTTP/1.1 503 ") && said.contains("overloaded"), "{said}");
    gateway.counts("gatepost_connections_total", &[("result", "over_ip_cap")], 1.0).await;
    // Another address has places of its own.
    assert_eq!(gateway.connect_from("127.0.0.2").await.send("/").await.status, 200);
    drop(first);
    eventually("a place is free", async || {
        when(gateway.connect().await.try_send("/").await.is_ok_and(|a| a.status == 200))
    })
    .await;
}

#[tokio::test]
async fn behind_a_balancer_the_callers_are_counted_and_not_the_balancer() {
    let (gateway, _function) =
        behind("max_connections_per_ip = 1\nproxy_protocol = { from = [\"127.0.0.1\"] }", "").await;
    let come = async |ip: &str| {
        let mut connection = gateway.connect().await;
        connection.write(format!("PROXY TCP4 {ip} 192.0.2.9 5000 80\r\n")).await;
        connection
    };
    let mut one = come("198.51.100.1").await;
    assert_eq!(one.send("/").await.status, 200);
    assert_eq!(come("198.51.100.2").await.send("/").await.status, 200);
    let mut again = come("198.51.100.1").await;
    assert!(again.until_closed().await.starts_with("HTTP/1.1 503 "));
    gateway.counts("gatepost_connections_total", &[("result", "over_ip_cap")], 1.0).await;
    drop(one);
    eventually("its place is free", async || {
        when(come("198.51.100.1").await.try_send("/").await.is_ok_and(|a| a.status == 200))
    })
    .await;
}

#[tokio::test]
async fn one_request_too_many_is_refused_and_told() {
    let door = gate();
    let (gateway, function) = behind("h2c = true", "max_requests = 1").await;
    function.now_answers({
        let door = door.clone();
        move |seen| if seen.target == "/waits" { Reply::text("late").after(&door) } else { Reply::text("ok") }
    });
    let mut waits = gateway.connect().await;
    waits.write("GET /waits HTTP/1.1\r\nHost: a\r\n\r\n").await;
    eventually("it is under way", async || when(function.requests() == 1)).await;
    let h2 = crate::harness::h2::H2::plain(gateway.address("in")).await;
    for _ in 0..3 {
        let refused = gateway.get("/").await;
        refused.is_problem(503, "overloaded");
        assert!(refused.fields.has("retry-after"));
        assert_eq!(h2.send("/").await.status, 503);
    }
    door.open();
    assert_eq!(waits.answer().await.text(), "late");
    assert_eq!(gateway.get("/").await.status, 200);
    assert_eq!(h2.send("/").await.status, 200);
    let lines = gateway.log(9).await;
    let refused = lines.iter().filter(|l| l["reason"] == "overloaded" && l["class"] == "refused").count();
    assert_eq!(refused, 6, "{lines:#?}");
}

#[tokio::test]
async fn short_of_memory_new_work_is_refused_and_the_admin_answers() {
    let (gateway, function) = behind("", "max_memory = \"1TiB\"").await;
    let mut kept = gateway.connect().await;
    assert_eq!(kept.send("/").await.status, 200);
    gateway.swap("max_memory = \"1TiB\"", "max_memory = \"1MiB\"").await;
    gateway.says(&["short of memory"]).await;
    // On a connection that is there, and on a new one.
    let answer = kept.send("/").await;
    answer.is_problem(503, "overloaded");
    let said = gateway.raw("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert!(said.starts_with("HTTP/1.1 503 "), "{said}");
    assert_eq!(gateway.ask_admin("/readyz").await.status, 200);
    let metrics = gateway.metrics().await;
    assert_eq!(metrics.sum("gatepost_shedding", &[]), 1.0);
    assert_eq!(metrics.sum("gatepost_memory_limit_bytes", &[]), f64::from(1 << 20));
    assert_eq!(function.requests(), 1);
    gateway.swap("max_memory = \"1MiB\"", "max_memory = \"1TiB\"").await;
    gateway.says(&["memory is free again"]).await;
    assert_eq!(kept.send("/").await.status, 200);
    // Told once each.
    assert_eq!(gateway.stderr().matches("short of memory").count(), 1);
}

/// A gatepost with few file descriptors, each of which callers try to take.
#[tokio::test]
async fn out_of_file_descriptors_the_admin_answers_and_callers_are_told() {
    let (gateway, _function) = behind("", "max_connections = 10000").await;
    let limit = 256;
    rustix::process::prlimit(
        rustix::process::Pid::from_raw(i32::try_from(gateway.process().0).unwrap()),
        rustix::process::Resource::Nofile,
        rustix::process::Rlimit { current: Some(limit), maximum: Some(limit) },
    )
    .unwrap();
    let mut held = Vec::new();
    for _ in 0..limit {
        held.push(gateway.connect().await);
    }
    let turned_away = async |connection: &mut Connection| {
        let (said, closed) = connection.wire.rest(Duration::from_millis(1)).await;
        closed && String::from_utf8_lossy(&said).contains("503")
    };
    assert_eq!(gateway.ask_admin("/healthz").await.status, 200);
    let last = held.last_mut().unwrap();
    eventually("the last one is told", async || when(turned_away(last).await)).await;
    assert_eq!(gateway.ask_admin("/metrics").await.status, 200);
    assert!(gateway.process().fds() < 256);
    drop(held);
    eventually("callers are served again", async || {
        when(gateway.connect().await.try_send("/").await.is_ok_and(|a| a.status == 200))
    })
    .await;
}

/// How a request ends that a caller sends or reads too slowly, though never with a long pause.
#[tokio::test]
async fn who_trickles_is_cut_and_who_waits_for_the_function_is_not() {
    let door = gate();
    let (gateway, function) = behind("min_body_rate = \"10KiB/s\"\ntimeouts = { body = \"1s\" }", "").await;
    let waits = door.clone();
    function.now_answers(move |seen| match seen.target.as_str() {
        "/waits" => Reply::text("late").after(&waits),
        _ => Reply::made(1 << 26),
    });
    // Sends all of its body, and waits: the function is slow, not the caller.
    let mut patient = gateway.connect().await;
    patient.write("POST /waits HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello").await;
    let mut sends = gateway.connect().await;
    sends.write("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n").await;
    let mut reads = gateway.connect().await;
    reads.write("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let trickle = async {
        loop {
            sends.write("x").await;
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    let lines = tokio::select! {
        () = trickle => unreachable!(),
        // The one that trickles, and the one that reads nothing.
        lines = gateway.log(2) => lines,
    };
    assert!(
        lines.iter().any(|l| l["method"] == "POST" && l["reason"] == "request_timeout" && l["status"] == 408),
        "{lines:?}"
    );
    assert!(lines.iter().any(|l| l["method"] == "GET" && l["class"] == "aborted"), "{lines:?}");
    door.open();
    assert_eq!(tokio::time::timeout(PATIENCE, patient.answer()).await.unwrap().text(), "late");
    drop(reads);
}

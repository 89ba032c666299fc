//! A request that goes in a circle ends, and what it may cost until then is bounded.

use crate::harness::{Gateway, Reply, gateway, get, origin};

fn url(gateway: &Gateway) -> String {
    format!("http://{}", gateway.address("in"))
}

fn to(url: &str) -> String {
    format!("[function.f]\nversions = {{ v1 = \"{url}\" }}\n[route.f]\nfunction = \"f\"\n")
}

#[tokio::test]
async fn two_gateposts_with_each_other_for_a_function_answer_508_after_ten_hops() {
    let function = origin().reply(Reply::text("not yet a circle")).start().await;
    let one = gateway(to(&function.url())).start().await;
    let other = gateway(to(&url(&one))).start().await;
    assert_eq!(other.get("/").await.text(), "not yet a circle");
    assert_eq!(function.last().header("x-gatepost-hop"), Some("2"));
    one.swap(&function.url(), &url(&other)).await;

    let answer = other.get("/").await;
    // Not the caller's own gatepost has refused: to that one it is a function's answer.
    assert_eq!((answer.status, answer.reason(), &answer.json()["reason"]), (508, "", &"loop_detected".into()));
    assert!(answer.text().contains("has passed 10 gateposts, and may pass 10 (server.max_hops)"), "{}", answer.text());
    // One line each time that it came by; before, each had one of the first call.
    let lines = [one.log(6).await, other.log(7).await].concat();
    let last: Vec<_> = lines.iter().filter(|line| line["reason"] == "loop_detected").collect();
    assert_eq!(last.len(), 1, "one has refused, the others handed the answer on: {lines:?}");
    assert_eq!((&last[0]["status"], &last[0]["class"]), (&508.into(), &"refused".into()));
    assert_eq!(lines.iter().filter(|line| line["status"] == 508).count(), 11, "{lines:?}");
}

#[tokio::test]
async fn a_caller_can_end_its_own_request_and_nobody_elses_and_cannot_count_down() {
    let function = origin().start().await;
    let gateway = gateway(to(&function.url())).start().await;
    let told = async |values: &[&str]| {
        let asked = values.iter().fold(get("/"), |asked, value| asked.header("X-Gatepost-Hop", value));
        gateway.send(asked).await.status
    };
    assert_eq!(told(&[]).await, 200);
    assert_eq!(function.last().header("x-gatepost-hop"), Some("1"));
    assert_eq!(told(&["9", "0"]).await, 200);
    assert_eq!(function.last().header("x-gatepost-hop"), Some("10"), "the highest counts");
    assert_eq!(told(&["10"]).await, 508);
    assert_eq!(told(&["99999999999999999999"]).await, 508);
    assert_eq!(told(&["-1"]).await, 400);
    assert_eq!(told(&["0", "x"]).await, 400);
    // Neither by the connection's list of fields, nor by a name that some read as the same.
    let asked =
        get("/").header("X-Gatepost-Hop", "4").header("Connection", "X-Gatepost-Hop").header("X_Gatepost_Hop", "0");
    assert_eq!(gateway.send(asked).await.status, 200);
    let seen = function.last();
    assert_eq!((seen.header("x-gatepost-hop"), seen.header("x_gatepost_hop")), (Some("5"), None));
    assert_eq!(function.requests(), 3);
}

//! An h2 caller that floods, stalls or dribbles is sent away with the code that says why (RFC 9113 §7, §10.5); what it asked
//! has its line in the log, and other callers notice nothing.

use std::time::{Duration, Instant};

use crate::harness::{
    Gateway, Origin, PATIENCE, Reply, eventually,
    frames::{
        ACK, CONTINUATION, DATA, END_HEADERS, END_STREAM, ENHANCE_YOUR_CALM, GOAWAY, HEADERS, NO_ERROR, PING, PREFACE,
        PRIORITY, PROTOCOL_ERROR, RST_STREAM, Raw, SETTINGS, SETTINGS_TIMEOUT, asks, field, frame, get, length, post,
        reset, setting, window,
    },
    gate, gateway,
    h2::H2,
    origin,
    reply::Gate,
    when,
};

struct Stand {
    gateway: Gateway,
    function: Origin,
    honest: H2,
}

impl Stand {
    async fn of(function: Origin, timeouts: &str) -> Self {
        let gateway = gateway(format!(
            r#"
            [listener.in]
            address = "127.0.0.1:0"
            h2c = true
            timeouts = {{ {timeouts} }}
            [function.f]
            versions = {{ v1 = "{}" }}
            [route.f]
            path = "/*"
            function = "f"
            "#,
            function.url()
        ))
        .workers(1)
        .start()
        .await;
        let honest = H2::plain(gateway.address("in")).await;
        assert_eq!(honest.send("/honest").await.status, 200);
        Self { gateway, function, honest }
    }

    async fn new() -> Self {
        Self::of(origin().start().await, "").await
    }

    async fn caller(&self) -> Raw {
        Raw::open(self.gateway.address("in")).await
    }

    /// An honest caller, on a connection that was there all the time, is served still; nothing is under way, and the log has a
    /// line for each of `asked` requests and the honest ones.
    async fn ends_well(self, asked: usize) -> Vec<serde_json::Value> {
        assert_eq!(self.honest.send("/honest").await.status, 200);
        self.gateway.counts("gatepost_in_flight", &[], 0.0).await;
        self.gateway.log(asked + 2).await;
        tokio::time::sleep(Duration::from_millis(100)).await;
        let mut lines = self.gateway.log(asked + 2).await;
        let all = lines.len();
        lines.retain(|line| line["path"] != "/honest");
        assert_eq!((lines.len(), all), (asked, asked + 2), "{lines:#?}");
        lines
    }
}

/// Answers honest callers at once, and others when the door is open.
fn late(door: &Gate) -> origin::Build {
    let door = door.clone();
    origin().answers(
        move |seen| if seen.target == "/honest" { Reply::text("fine") } else { Reply::text("late").after(&door) },
    )
}

// Floods of frames that ask for nothing.

#[tokio::test]
async fn frames_that_ask_for_nothing_are_soon_too_many() {
    for (what, one) in [
        ("PING", frame(PING, 0, 0, &[7; 8])),
        ("answers to no PING", frame(PING, ACK, 0, &[7; 8])),
        ("SETTINGS", frame(SETTINGS, 0, 0, &setting(4, 65_535))),
        ("PRIORITY", frame(PRIORITY, 0, 3, &[0, 0, 0, 0, 9])),
        ("WINDOW_UPDATE", window(0, 1)),
        ("an unknown kind", frame(99, 0, 0, b"what")),
    ] {
        let stand = Stand::new().await;
        let before = stand.gateway.process().rss();
        let mut caller = stand.caller().await;
        let said = caller.flood(&one.repeat(10), 10_000).await;
        assert!(said < 1000, "{what}: ten times {said}");
        assert_eq!(caller.goaway().await, ENHANCE_YOUR_CALM, "{what}");
        let grown = stand.gateway.process().rss().saturating_sub(before);
        assert!(grown < 8 << 20, "{what}: {grown} bytes");
        stand.ends_well(0).await;
    }
}

#[tokio::test]
async fn empty_pieces_of_a_body_are_soon_too_many() {
    for (what, one) in [("empty", frame(DATA, 0, 1, b"")), ("nothing but padding", frame(DATA, 8, 1, &[9; 10]))] {
        let stand = Stand::new().await;
        let mut caller = stand.caller().await;
        caller.say(post(1, &[])).await;
        let said = caller.flood(&one.repeat(10), 10_000).await;
        assert!(said < 1000, "{what}: ten times {said}");
        assert_eq!(caller.goaway().await, ENHANCE_YOUR_CALM, "{what}");
        let lines = stand.ends_well(1).await;
        // On a busy machine the flood is over before the request was looked at.
        assert!(["aborted", "refused"].contains(&lines[0]["class"].as_str().unwrap()), "{what}: {}", lines[0]);
    }
}

#[tokio::test]
async fn a_body_in_single_bytes_that_nobody_takes_is_too_much() {
    // It never answers the TLS handshake: for a while nobody reads the body.
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let gateway = gateway(format!(
        "[listener.in]\naddress = \"127.0.0.1:0\"\nh2c = true\n[function.f]\nversions = {{ v1 = \"https://{}\" }}\n\
         timeouts = {{ connect = \"3s\" }}\n[route.f]\nfunction = \"f\"\n",
        silent.local_addr().unwrap()
    ))
    .workers(1)
    .start()
    .await;
    let before = gateway.process().rss();
    let mut caller = Raw::open(gateway.address("in")).await;
    caller.say(post(1, &[])).await;
    caller.flood(&frame(DATA, 0, 1, b"x").repeat(100), 1000).await;
    assert_eq!(caller.goaway().await, ENHANCE_YOUR_CALM);
    let grown = gateway.process().rss().saturating_sub(before);
    assert!(grown < 16 << 20, "{grown} bytes");
    gateway.all_told(1).await;
}

#[tokio::test]
async fn an_honest_caller_may_ask_and_open_windows_as_bytes_move() {
    let stand = Stand::of(origin().reply(Reply::made(4 << 20)).start().await, "").await;
    let mut caller = stand.caller().await;
    caller.say(get(1)).await;
    let (mut got, mut said) = (0, 0);
    while got < 4 << 20 {
        let frame = caller.next().await.expect("it is sent away");
        assert!(frame.kind != GOAWAY, "sent away after {said} frames, with code {}", frame.code());
        if frame.kind != DATA {
            continue;
        }
        got += frame.payload.len();
        // Both windows for each piece, and a PING to see how far away gatepost is.
        let more = frame.payload.len() as u32;
        caller.say([window(0, more), window(1, more), self::frame(PING, 0, 0, &[1; 8])].concat()).await;
        said += 3;
    }
    assert!(said > 700, "{said}");
    stand.ends_well(1).await;
}

// Requests that are taken back.

#[tokio::test]
async fn requests_that_are_taken_back_at_once_are_soon_too_many() {
    let door = gate();
    // All in one go, and each when the one before may have reached the function.
    for at_once in [true, false] {
        let stand = Stand::of(late(&door).start().await, "").await;
        let mut caller = stand.caller().await;
        let mut stream = 1;
        if at_once {
            let all: Vec<_> = (0..200).flat_map(|n| [get(2 * n + 1), reset(2 * n + 1)].concat()).collect();
            caller.say(&all).await;
        } else {
            while caller.flood(&[get(stream), reset(stream)].concat(), 1).await == 1 {
                assert!(stream < 2000, "{stream} and no end");
                stream += 2;
                // In a read of its own.
                tokio::task::yield_now().await;
            }
        }
        assert_eq!(caller.goaway().await, ENHANCE_YOUR_CALM, "at once: {at_once}");
        assert!(stand.function.requests() < 300, "{}", stand.function.requests());
        door.open();
        assert_eq!(stand.honest.send("/honest").await.status, 200);
        stand.gateway.counts("gatepost_in_flight", &[], 0.0).await;
    }
}

/// MadeYouReset: frames that oblige the server to reset the stream itself.
#[tokio::test]
async fn requests_that_gatepost_is_made_to_reset_are_soon_too_many() {
    let door = gate();
    let stand = Stand::of(late(&door).start().await, "").await;
    let mut caller = stand.caller().await;
    let mut stream = 1;
    // RFC 9113 §6.9.1: a window past its largest size is an error of the stream.
    while caller.flood(&[get(stream), window(stream, 0x7fff_ffff)].concat(), 1).await == 1 {
        assert!(stream < 2000, "{stream} and no end");
        stream += 2;
    }
    assert_eq!(caller.goaway().await, ENHANCE_YOUR_CALM);
    door.open();
    assert_eq!(stand.honest.send("/honest").await.status, 200);
    stand.gateway.counts("gatepost_in_flight", &[], 0.0).await;
}

#[tokio::test]
async fn more_requests_at_a_time_than_allowed_are_refused() {
    let door = gate();
    let stand = Stand::of(late(&door).start().await, "").await;
    let mut caller = stand.caller().await;
    let settings = caller.hear(SETTINGS).await.payload;
    assert!(settings.chunks(6).any(|s| s == setting(3, 100)), "100 streams: {settings:?}");
    let all: Vec<_> = (0..120).flat_map(|n| get(2 * n + 1)).collect();
    caller.say(&all).await;
    let mut refused = 0;
    while refused < 20 {
        let reset = caller.hear(RST_STREAM).await;
        assert_eq!(reset.code(), crate::harness::frames::REFUSED_STREAM);
        refused += 1;
    }
    eventually("the others reached the function", async || when(stand.function.requests() == 101)).await;
    door.open();
    let lines = stand.ends_well(120).await;
    let ok = lines.iter().filter(|line| line["class"] == "ok").count();
    assert_eq!(ok, 100, "{lines:#?}");
}

// Heads.

#[tokio::test]
async fn a_head_that_never_ends_is_too_much() {
    // Full frames of fields, empty ones, and fields that are begun and never ended.
    let mut long = vec![0];
    length(&mut long, 0, 7, 1 << 20);
    for (what, first, more) in [
        ("fields", asks("GET", "/", &[]), field("x-filler", &"y".repeat(8000))),
        ("nothing", asks("GET", "/", &[]), Vec::new()),
        ("a name", [asks("GET", "/", &[]), long].concat(), vec![b'n'; 16_000]),
    ] {
        let stand = Stand::new().await;
        let before = stand.gateway.process().rss();
        let mut caller = stand.caller().await;
        caller.say(frame(HEADERS, END_STREAM, 1, &first)).await;
        let said = caller.flood(&frame(CONTINUATION, 0, 1, &more), 10_000).await;
        assert!(said < 2000, "{what}: {said}");
        let code = caller.goaway().await;
        assert!([ENHANCE_YOUR_CALM, PROTOCOL_ERROR, 9].contains(&code), "{what}: {code}");
        let grown = stand.gateway.process().rss().saturating_sub(before);
        assert!(grown < 8 << 20, "{what}: {grown} bytes");
        assert_eq!(stand.function.requests(), 1);
        assert_eq!(stand.honest.send("/honest").await.status, 200);
    }
}

/// A field in the dynamic table, named again and again by one byte each.
#[tokio::test]
async fn a_head_that_unpacks_to_more_than_allowed_is_refused() {
    let stand = Stand::new().await;
    let before = stand.gateway.process().rss();
    // RFC 7541 §6.2.1: literal, and indexed from here on.
    let mut bomb = asks("GET", "/", &[]);
    bomb.extend([0x40, 6]);
    bomb.extend(b"x-bomb");
    length(&mut bomb, 0, 7, 3000);
    bomb.extend([b'b'; 3000]);
    bomb.extend([0xbe; 12_000]);
    let mut callers = Vec::new();
    for _ in 0..50 {
        let mut caller = stand.caller().await;
        caller.say(frame(HEADERS, END_HEADERS | END_STREAM, 1, &bomb)).await;
        callers.push(caller);
    }
    for caller in &mut callers {
        assert_eq!(caller.goaway().await, ENHANCE_YOUR_CALM);
    }
    let grown = stand.gateway.process().rss().saturating_sub(before);
    assert!(grown < 16 << 20, "{grown} bytes");
    let lines = stand.ends_well(50).await;
    assert!(lines.iter().all(|line| line["class"] == "refused"), "{}", lines[0]);
}

#[tokio::test]
async fn a_head_that_is_somewhat_too_large_is_a_431() {
    let stand = Stand::new().await;
    let mut caller = stand.caller().await;
    let settings = caller.hear(SETTINGS).await.payload;
    assert!(settings.chunks(6).any(|s| s == setting(6, 32 * 1024)), "{settings:?}");
    // 34 KiB in two frames; and 200 fields, which are few bytes.
    let block = asks("GET", "/", &[("x-large", &"y".repeat(34 * 1024))]);
    let (first, second) = block.split_at(16_000);
    caller.say(frame(HEADERS, END_STREAM, 1, first)).await;
    let (second, third) = second.split_at(16_000);
    caller.say(frame(CONTINUATION, 0, 1, second)).await;
    caller.say(frame(CONTINUATION, END_HEADERS, 1, third)).await;
    assert_eq!(caller.status().await, 431);
    let many: Vec<_> = (0..200).flat_map(|n| field(&format!("x-{n}"), "y")).collect();
    let many = [asks("GET", "/", &[]), many].concat();
    let mut caller = stand.caller().await;
    caller.say(frame(HEADERS, END_HEADERS | END_STREAM, 1, &many)).await;
    assert_eq!(caller.status().await, 431);
    let mut caller = stand.caller().await;
    let path = format!("/{}", "p".repeat(9000));
    caller.say(frame(HEADERS, END_HEADERS | END_STREAM, 1, &asks("GET", &path, &[]))).await;
    assert_eq!(caller.status().await, 414);
    let function = stand.function.requests();
    assert_eq!(function, 1);
    let lines = stand.ends_well(3).await;
    assert!(lines.iter().all(|line| line["class"] == "refused"), "{lines:#?}");
}

// Callers that wait.

/// Between the time that was set, and that with the sweeper's two rounds, and a busy machine.
fn at_its_time(start: Instant) {
    let spent = start.elapsed();
    assert!(spent > Duration::from_millis(900) && spent < Duration::from_secs(10), "{spent:?}");
}

#[tokio::test]
async fn an_opening_that_never_comes_ends_the_connection() {
    let stand = Stand::of(origin().start().await, "handshake = \"1s\"").await;
    for (what, opening) in [
        ("half a preface", PREFACE[..20].to_vec()),
        ("no settings", PREFACE.to_vec()),
        ("half of them", [PREFACE, &frame(SETTINGS, 0, 0, &setting(4, 65_535))[..12]].concat()),
    ] {
        let start = Instant::now();
        let mut caller = Raw::silent(stand.gateway.address("in")).await;
        caller.say(opening).await;
        if what == "half a preface" {
            assert!(caller.closes_within(PATIENCE).await, "{what}");
        } else {
            assert_eq!(caller.goaway().await, SETTINGS_TIMEOUT, "{what}");
        }
        at_its_time(start);
    }
    stand.ends_well(0).await;
}

#[tokio::test]
async fn an_idle_caller_is_told_goodbye_however_often_it_pings() {
    let stand = Stand::of(origin().start().await, "idle = \"1s\"").await;
    for pings in [false, true] {
        let mut caller = stand.caller().await;
        caller.say(get(1)).await;
        assert_eq!(caller.status().await, 200);
        let start = Instant::now();
        while pings && start.elapsed() < PATIENCE && caller.flood(&frame(PING, 0, 0, &[1; 8]), 1).await == 1 {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        assert_eq!(caller.goaway().await, NO_ERROR);
        at_its_time(start);
    }
    assert_eq!(stand.gateway.log(3).await.len(), 3);
}

#[tokio::test]
async fn a_frame_that_is_begun_and_not_ended_ends_the_connection() {
    let stand = Stand::of(origin().start().await, "header = \"1s\"").await;
    for (what, begun) in [
        ("a head of a frame", vec![0, 0]),
        ("half of a frame", get(1)[..20].to_vec()),
        ("headers without an end", frame(HEADERS, END_STREAM, 1, &asks("GET", "/", &[]))),
    ] {
        let mut caller = stand.caller().await;
        let start = Instant::now();
        caller.say(begun).await;
        // A byte now and then changes nothing.
        if what == "half of a frame" {
            for byte in &get(1)[20..25] {
                tokio::time::sleep(Duration::from_millis(100)).await;
                caller.say([*byte]).await;
            }
        }
        assert_eq!(caller.goaway().await, ENHANCE_YOUR_CALM, "{what}");
        at_its_time(start);
    }
    stand.ends_well(0).await;
}

#[tokio::test]
async fn a_body_that_does_not_come_is_a_408() {
    let stand = Stand::of(origin().start().await, "body = \"1s\"").await;
    for said in [post(1, &[]), [post(1, &[("content-length", "100")]), frame(DATA, 0, 1, b"half")].concat()] {
        let mut caller = stand.caller().await;
        let start = Instant::now();
        caller.say(said).await;
        assert_eq!(caller.status().await, 408);
        at_its_time(start);
        // The connection serves on.
        caller.say(get(3)).await;
        assert_eq!(caller.status().await, 200);
    }
    let lines = stand.ends_well(4).await;
    assert_eq!(lines.iter().filter(|line| line["reason"] == "request_timeout").count(), 2, "{lines:#?}");
}

#[tokio::test]
async fn many_half_open_requests_end_in_time() {
    let stand = Stand::of(origin().start().await, "body = \"1s\"").await;
    let mut caller = stand.caller().await;
    let all: Vec<_> = (0..100).flat_map(|n| post(2 * n + 1, &[])).collect();
    caller.say(all).await;
    let lines = stand.ends_well(100).await;
    assert!(lines.iter().all(|line| line["reason"] == "request_timeout"), "{}", lines[0]);
}

#[tokio::test]
async fn windows_that_stay_shut_end_the_request() {
    for (what, settings, opens) in
        [("no window", setting(4, 0), 0), ("a tiny one, opened by a byte at a time", setting(4, 1), 1)]
    {
        let function = origin().answers(|seen| match seen.target.as_str() {
            "/honest" => Reply::text("fine"),
            _ => Reply::made(1 << 20),
        });
        let stand = Stand::of(function.start().await, "body = \"1s\"").await;
        let mut caller = Raw::with(stand.gateway.address("in"), &settings).await;
        let start = Instant::now();
        let all: Vec<_> = (0..20).flat_map(|n| get(2 * n + 1)).collect();
        caller.say(all).await;
        let mut resets = 0;
        while resets < 20 {
            let frame = caller.next().await.unwrap_or_else(|| panic!("{what}: closed after {resets}"));
            resets += usize::from(frame.kind == RST_STREAM && frame.code() == crate::harness::frames::CANCEL);
            if frame.kind == DATA && opens > 0 {
                // Not so often that it were a flood.
                tokio::time::sleep(Duration::from_millis(10)).await;
                caller.say(window(frame.stream, opens)).await;
            }
        }
        at_its_time(start);
        let lines = stand.ends_well(20).await;
        assert!(lines.iter().all(|line| line["class"] == "aborted"), "{what}: {}", lines[0]);
    }
}

#[tokio::test]
async fn a_caller_that_reads_nothing_at_all_is_let_go() {
    let function = origin().answers(|seen| match seen.target.as_str() {
        "/honest" => Reply::text("fine"),
        _ => Reply::made(64 << 20),
    });
    let stand = Stand::of(function.start().await, "body = \"1s\"").await;
    let before = stand.gateway.process().rss();
    // Its windows are as large as can be.
    let mut caller = Raw::with(stand.gateway.address("in"), &setting(4, 0x7fff_ffff)).await;
    caller.say(window(0, 0x7fff_0000)).await;
    let all: Vec<_> = (0..100).flat_map(|n| get(2 * n + 1)).collect();
    caller.say(all).await;
    eventually("all reached the function", async || when(stand.function.requests() == 101)).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    let grown = stand.gateway.process().rss().saturating_sub(before);
    // For each of 100: a piece or two of its answer, and the buffers of its connection to the function.
    println!("{grown} bytes for 100 answers that nobody takes");
    assert!(grown < 32 << 20, "{grown} bytes");
    let lines = stand.ends_well(100).await;
    assert!(lines.iter().all(|line| line["class"] == "aborted"), "{}", lines[0]);
}

// Goodbye.

#[tokio::test]
async fn goodbye_is_said_in_two_steps() {
    let mut stand = Stand::new().await;
    let mut caller = stand.caller().await;
    caller.say(get(1)).await;
    assert_eq!(caller.status().await, 200);
    stand.gateway.terminate();
    // RFC 9113 §6.8: first that no more is to be sent, with the highest stream there can be.
    let first = caller.hear(GOAWAY).await;
    assert_eq!((first.code(), &first.payload[..4]), (NO_ERROR, &[0x7f, 0xff, 0xff, 0xff][..]));
    let ping = caller.hear(PING).await;
    // What was on its way when that was said is served.
    caller.say(get(3)).await;
    caller.say(frame(PING, ACK, 0, &ping.payload)).await;
    // Then which was the last.
    let (mut is_answered, mut last) = (false, None);
    while let Some(frame) = caller.next().await {
        is_answered |= (frame.kind, frame.stream) == (DATA, 3);
        if frame.kind == GOAWAY {
            last = Some((frame.code(), frame.payload[..4].to_vec()));
        }
    }
    assert!(is_answered);
    assert_eq!(last, Some((NO_ERROR, vec![0, 0, 0, 3])));
    assert!(stand.gateway.exit().await.success());
}

#[tokio::test]
async fn a_caller_that_does_not_answer_goodbye_holds_nobody_up() {
    let mut stand = Stand::new().await;
    let mut caller = stand.caller().await;
    caller.say(get(1)).await;
    assert_eq!(caller.status().await, 200);
    let start = Instant::now();
    stand.gateway.terminate();
    assert_eq!(caller.hear(GOAWAY).await.code(), NO_ERROR);
    assert!(caller.closes_within(PATIENCE).await);
    assert!(stand.gateway.exit().await.success());
    assert!(start.elapsed() < Duration::from_secs(12), "{:?}", start.elapsed());
}

//! Callers and functions that break at every stage, scripted by a seed: each request still ends in exactly one line, nothing is left
//! behind, and callers beside them notice nothing.
//!
//! `GATEPOST_FULL=1` asks for a million requests, `GATEPOST_REQUESTS=N` for so many; `GATEPOST_SEED=N` for another storm than the usual one.

use std::{
    fmt,
    io::{BufRead, BufReader},
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU8, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use tokio::net::TcpStream;

use crate::harness::{
    Connection, Gateway, Origin, Reply, Request, authority, eventually,
    faulty::{Dice, Faulty, Plan},
    full, gateway, get,
    h2::H2,
    origin,
    origin::dead_address,
    post,
    reply::Cut,
    request,
    tls::TlsCaller,
    when,
    wire::Duplex,
};

/// The functions by their first path segment; `calm` never fails, nobody listens for `dead`.
const BROKEN: [&str; 4] = ["plain", "h2c", "tls", "tlsh2"];

/// Most requests of one script.
const MOST: u64 = 4;

/// How long a caller that didn't stall itself waits for anything: longer than every time of the config together.
const HANGS: Duration = Duration::from_secs(30);

/// What is known of each request, by its number.
struct Ledger {
    seed: u64,
    requests: Vec<AtomicU8>,
    sent: AtomicU64,
    scripts: AtomicU64,
    /// Connections on which a head may have been cut short or garbled: a line of theirs may show another path.
    garbling: AtomicU64,
    calm: AtomicU64,
    wrong: Mutex<Vec<String>>,
}

/// It was begun.
const SENT: u8 = 1;
/// Its function or its caller saw that gatepost took it.
const TAKEN: u8 = 2;
/// It has a line.
const TOLD: u8 = 4;
/// It has two.
const TWICE: u8 = 8;

impl Ledger {
    fn mark(&self, number: u64, mark: u8) -> u8 {
        self.requests.get(number as usize).map_or(0, |r| r.fetch_or(mark, Relaxed))
    }

    fn count(&self, is: impl Fn(u8) -> bool) -> usize {
        self.requests.iter().filter(|r| is(r.load(Relaxed))).count()
    }

    fn wrong(&self, script: u64, what: impl fmt::Display) {
        let mut wrong = self.wrong.lock().unwrap();
        // The first few say enough.
        if wrong.len() < 20 {
            wrong.push(format!("seed {} script {script}: {what}", self.seed));
        }
    }

    fn check(&self, number: u64) -> u32 {
        Dice::new(self.seed ^ number).roll() as u32
    }

    /// `/SEGMENT/NUMBER-CHECK`, which garbage won't forge.
    fn path(&self, segment: &str, number: u64) -> String {
        format!("/{segment}/{number}-{:08x}", self.check(number))
    }

    fn number(&self, path: &str) -> Option<u64> {
        let (number, check) = path.rsplit('/').next()?.split_once('-')?;
        let number = number.parse().ok()?;
        (check.len() == 8 && u32::from_str_radix(check, 16) == Ok(self.check(number))).then_some(number)
    }
}

// What functions answer.

fn answer(ledger: &Ledger, target: &str) -> Reply {
    let Some(number) = ledger.number(target) else {
        return Reply::text("whatever this is");
    };
    ledger.mark(number, TAKEN);
    let mut dice = Dice::new(ledger.seed.rotate_left(32) ^ number);
    match dice.below(16) {
        0 => Reply::chunks(&["one", "two", "three"]).trailer("x-sum", "11"),
        1 => Reply::made(200_000),
        2 => Reply::text("").status(204),
        3 => Reply::text("").status(304),
        4 => Reply::text("early").status(417),
        5 => Reply::raw("HTTP/1.1 103 Early Hints\r\nLink: <x>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"),
        6 => Reply::raw("HTTP/1.1 200 OK\r\n\r\nuntil the end").then_close(),
        7 => Reply::text("lies").claims(400).then_close(),
        8 => Reply::vanish(),
        9 => Reply::raw(dice.bytes(400)),
        10 => Reply::made(100_000).cut(dice.below(100_000), dice.pick(&[Cut::Close, Cut::Reset])),
        11 => Reply::text("busy").status(503).then_close(),
        _ => Reply::text("fine"),
    }
}

struct Functions {
    broken: Vec<Origin>,
    calm: Origin,
}

async fn functions(ledger: &Arc<Ledger>, authority: &crate::harness::tls::Authority) -> Functions {
    let leaf = authority.leaf(&["127.0.0.1"]);
    let mut broken = Vec::new();
    for (n, name) in BROKEN.into_iter().enumerate() {
        let build = match name {
            "h2c" => origin().h2c(),
            "tls" => origin().tls(&leaf),
            "tlsh2" => origin().tls_h2(&leaf),
            _ => origin(),
        };
        let (answers, seed) = (ledger.clone(), ledger.seed);
        let build = build.answers(move |seen| answer(&answers, &seen.target)).faults(move |nth| {
            let mut dice = Dice::new(seed ^ ((n as u64) << 56) ^ nth as u64);
            if dice.once_in(3) { Plan::of(&mut dice) } else { Plan::default() }
        });
        broken.push(build.start().await);
    }
    let calm = ledger.clone();
    let calm = origin().answers(move |seen| {
        calm.number(&seen.target).map(|number| calm.mark(number, TAKEN));
        Reply::text("calm")
    });
    Functions { broken, calm: calm.start().await }
}

async fn in_front(functions: &Functions, authority: &crate::harness::tls::Authority) -> Gateway {
    let leaf = authority.leaf(&["gate.test"]);
    let times = "{ handshake = \"1s\", header = \"1s\", body = \"1s\", idle = \"2s\" }";
    let mut text = format!(
        "[server]\ndrain = \"60s\"\n\
         [listener.in]\naddress = \"127.0.0.1:0\"\nh2c = true\ntimeouts = {times}\n\
         [listener.tls]\naddress = \"127.0.0.1:0\"\ntls = [{}]\ntimeouts = {times}\n",
        leaf.toml()
    );
    let urls = functions.broken.iter().map(|function| function.url());
    let urls = urls.chain([functions.calm.url(), format!("http://{}", dead_address())]);
    for (name, url) in BROKEN.into_iter().chain(["calm", "dead"]).zip(urls) {
        let more = match name {
            "h2c" => "http = \"2\"\n".to_owned(),
            "tls" | "tlsh2" => format!("ca = \"{}\"\n", authority.ca().display()),
            _ => String::new(),
        };
        // Which time runs out first differs: pingora knows some of them, gatepost's sweeper the others.
        let times = match name {
            "h2c" => "first_byte = \"1s\", idle = \"4s\", total = \"6s\"",
            "tls" => "first_byte = \"4s\", idle = \"1s\", total = \"6s\"",
            "tlsh2" => "first_byte = \"4s\", idle = \"4s\", total = \"1s\"",
            _ => "first_byte = \"1s\", idle = \"1s\", total = \"6s\"",
        };
        text += &format!(
            "[function.{name}]\nversions = {{ v1 = \"{url}\" }}\npool = {{ idle = \"1s\" }}\n{more}\
             timeouts = {{ connect = \"1s\", write = \"1s\", {times} }}\n\
             [route.{name}]\npath = \"/{name}/*\"\nfunction = \"{name}\"\n"
        );
    }
    gateway(text).start().await
}

// What callers do.

#[derive(Clone)]
struct Doors {
    plain: SocketAddr,
    tls: SocketAddr,
    http1: TlsCaller,
    h2: TlsCaller,
}

/// One caller's connection, from its seed alone.
async fn script(number: u64, ledger: &Ledger, doors: &Doors) {
    let mut dice = Dice::new(ledger.seed.wrapping_mul(31) ^ number);
    let is_calm = dice.once_in(8);
    let plan = if is_calm || dice.once_in(4) { Plan::default() } else { Plan::of(&mut dice) };
    let (is_tls, is_h2) = (dice.once_in(4), dice.once_in(3));
    let count = 1 + dice.below(MOST);
    let requests: Vec<(u64, Request)> = (number * MOST..number * MOST + count)
        .map(|id| {
            let segment = if is_calm { "calm" } else { dice.pick(&["plain", "plain", "h2c", "tls", "tlsh2", "dead"]) };
            (id, asks(&mut dice, &ledger.path(segment, id), is_calm))
        })
        .collect();
    // A head that is cut short or garbled has another path in the log.
    let is_whole = plan.write.is_none();
    ledger.garbling.fetch_add(u64::from(!is_whole), Relaxed);
    for (id, _) in &requests {
        ledger.mark(*id, SENT);
    }
    let doing = async {
        let Ok(tcp) = TcpStream::connect(if is_tls { doors.tls } else { doors.plain }).await else {
            return Err("no connection".to_owned());
        };
        let _ = tcp.set_nodelay(true);
        let io = Faulty::new(tcp, plan);
        let io: Box<dyn Duplex> = if is_tls {
            let caller = if is_h2 { &doors.h2 } else { &doors.http1 };
            let (io, _) = caller.handshake(io, "gate.test").await.map_err(|e| format!("TLS: {e}"))?;
            Box::new(io)
        } else {
            Box::new(io)
        };
        if is_h2 {
            h2(io, is_tls, &requests, &mut dice, ledger, is_calm).await
        } else {
            let pipelines = !is_calm && dice.once_in(6);
            http1(io, requests, pipelines, ledger, is_whole, is_calm).await
        }
    };
    match tokio::time::timeout(HANGS, doing).await {
        Err(_) if !plan.has_stall() => ledger.wrong(number, format_args!("hangs: {plan:?} tls {is_tls} h2 {is_h2}")),
        Ok(Err(failure)) if is_calm => ledger.wrong(number, failure),
        Ok(Ok(())) if is_calm => drop(ledger.calm.fetch_add(1, Relaxed)),
        _ => {}
    }
}

fn asks(dice: &mut Dice, path: &str, is_calm: bool) -> Request {
    let body = |dice: &mut Dice| {
        let most = dice.pick(&[1, 100, 5_000, 60_000]);
        vec![b'x'; dice.below(most) as usize]
    };
    match dice.below(8) {
        0 => request("HEAD", path),
        1 | 2 => post(path).body(body(dice)),
        3 if !is_calm => post(path).header("Expect", "100-continue").body(body(dice)),
        4 if !is_calm => post(path)
            .header("Transfer-Encoding", "chunked")
            .body("5\r\nhello\r\n6;a=b\r\n world\r\n0\r\nX-Sum: 11\r\n\r\n"),
        5 => request("DELETE", path).body(body(dice)),
        6 if !is_calm => get(path).header("Connection", "Upgrade").header("Upgrade", "websocket"),
        _ => get(path),
    }
}

async fn http1(
    io: Box<dyn Duplex>,
    requests: Vec<(u64, Request)>,
    pipelines: bool,
    ledger: &Ledger,
    is_whole: bool,
    is_calm: bool,
) -> Result<(), String> {
    let mut connection = Connection::over(io);
    if pipelines {
        let all: Vec<u8> = requests.iter().flat_map(|(_, request)| request.bytes()).collect();
        // What it has to say is still there to read.
        let _ = connection.wire.write(&all).await;
    }
    for (id, request) in requests {
        ledger.sent.fetch_add(1, Relaxed);
        if !pipelines {
            let _ = connection.wire.write(&request.bytes()).await;
        }
        let head = connection.answer_head(&request.method).await.map_err(|e| e.to_string())?;
        if is_whole {
            ledger.mark(id, TAKEN);
        }
        let body = connection.wire.body().await.map_err(|e| e.to_string())?;
        if is_calm && (head.status() != 200 || (request.method != "HEAD" && body != b"calm")) {
            return Err(format!("{} {}: {head:?} {}", request.method, request.target, String::from_utf8_lossy(&body)));
        }
        if head.status() == 101 || head.fields.first("connection") == Some("close") {
            return Ok(());
        }
    }
    Ok(())
}

async fn h2(
    io: Box<dyn Duplex>,
    is_tls: bool,
    requests: &[(u64, Request)],
    dice: &mut Dice,
    ledger: &Ledger,
    is_calm: bool,
) -> Result<(), String> {
    let h2 = H2::try_over(io, if is_tls { "https" } else { "http" }).await.map_err(|e| e.to_string())?;
    let at_once = requests.iter().map(|(id, request)| {
        let gives_up = !is_calm && dice.once_in(5);
        let patience = Duration::from_micros(dice.below(3_000));
        let h2 = &h2;
        async move {
            let mut request = request.clone();
            // RFC 9113 §8.2.2: these are HTTP/1.1's.
            request.fields.retain(|(name, _)| !matches!(&**name, "Connection" | "Upgrade" | "Transfer-Encoding"));
            let told = format!("{} {}", request.method, request.target);
            let is_head = request.method == "HEAD";
            let body = request.body.clone();
            ledger.sent.fetch_add(1, Relaxed);
            let (feed, coming) = h2.start(request);
            let whole = async {
                if !body.is_empty() {
                    feed.data(body).await;
                }
                drop(feed);
                let coming = coming.await.map_err(|e| format!("{told}: {e}"))?;
                ledger.mark(*id, TAKEN);
                let answer = coming.whole().await.map_err(|e| format!("{told}: {e}"))?;
                if is_calm && (answer.status != 200 || (!is_head && answer.body != b"calm")) {
                    return Err(format!("{told}: {answer:?}"));
                }
                Ok(())
            };
            if gives_up { tokio::time::timeout(patience, whole).await.unwrap_or(Ok(())) } else { whole.await }
        }
    });
    let done = futures(at_once).await;
    done.into_iter().collect()
}

/// All at once, on this task.
async fn futures<F: Future<Output = Result<(), String>>>(all: impl Iterator<Item = F>) -> Vec<F::Output> {
    let mut all: Vec<_> = all.map(|one| (Box::pin(one), None)).collect();
    std::future::poll_fn(|cx| {
        for (one, done) in &mut all {
            if done.is_none()
                && let std::task::Poll::Ready(output) = one.as_mut().poll(cx)
            {
                *done = Some(output);
            }
        }
        if all.iter().all(|(_, done)| done.is_some()) { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
    all.into_iter().filter_map(|(_, done)| done).collect()
}

// The storm.

/// Runs scripts until so many requests were begun.
async fn storm(most: u64, ledger: &Arc<Ledger>, doors: &Doors, at_a_time: usize) {
    let callers: Vec<_> = (0..at_a_time)
        .map(|_| {
            let (ledger, doors) = (ledger.clone(), doors.clone());
            tokio::spawn(async move {
                while ledger.sent.load(Relaxed) < most {
                    let number = ledger.scripts.fetch_add(1, Relaxed);
                    script(number, &ledger, &doors).await;
                }
            })
        })
        .collect();
    for caller in callers {
        caller.await.unwrap();
    }
}

/// Reads the log, and marks who has a line. Gives back all lines, and those of no known request.
fn read_log(gateway: &Gateway, ledger: &Ledger) -> (u64, u64) {
    let file = std::fs::File::open(gateway.dir().join("access.log")).unwrap();
    let (mut lines, mut foreign) = (0, 0);
    for line in BufReader::new(file).lines() {
        let line = line.unwrap();
        lines += 1;
        let path = line.split_once("\"path\":\"").and_then(|(_, rest)| rest.split('"').next());
        match path.and_then(|path| ledger.number(path)) {
            None => foreign += 1,
            Some(number) => {
                let before = ledger.mark(number, TOLD);
                if before & TOLD != 0 {
                    ledger.mark(number, TWICE);
                    ledger.wrong(number / MOST, format_args!("told twice: {line}"));
                } else if before & SENT == 0 {
                    ledger.wrong(number / MOST, format_args!("told, never sent: {line}"));
                }
            }
        }
    }
    (lines, foreign)
}

/// Waits until no connection and no request is left, callers' and functions' alike.
async fn calms_down(gateway: &Gateway, functions: &Functions) {
    gateway.counts("gatepost_in_flight", &[], 0.0).await;
    gateway.counts("gatepost_connections", &[], 0.0).await;
    eventually("kept connections to functions are gone", async || {
        when(functions.broken.iter().all(|function| function.open() == 0) && functions.calm.open() == 0)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn each_request_ends_in_one_line_and_nothing_is_left_behind() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok());
    let seed = number("GATEPOST_SEED").unwrap_or(1);
    let most = number("GATEPOST_REQUESTS").unwrap_or_else(|| if full() { 1_000_000 } else { 4_000 });
    let at_a_time = if most > 100_000 { 192 } else { 96 };
    let ledger = Arc::new(Ledger {
        seed,
        requests: (0..most * MOST + 10_000).map(|_| AtomicU8::new(0)).collect(),
        sent: AtomicU64::new(0),
        scripts: AtomicU64::new(0),
        garbling: AtomicU64::new(0),
        calm: AtomicU64::new(0),
        wrong: Mutex::default(),
    });
    let authority = authority();
    let functions = functions(&ledger, &authority).await;
    let mut gateway = in_front(&functions, &authority).await;
    let doors = Doors {
        plain: gateway.address("in"),
        tls: gateway.address("tls"),
        http1: authority.caller(&["http/1.1"]),
        h2: authority.caller(&["h2"]),
    };
    let process = gateway.process();
    let start = Instant::now();
    // Pools, rings and the allocator find their size first.
    storm(most / 4, &ledger, &doors, at_a_time).await;
    calms_down(&gateway, &functions).await;
    let before = (process.rss(), process.fds());
    storm(most, &ledger, &doors, at_a_time).await;
    calms_down(&gateway, &functions).await;
    let after = (process.rss(), process.fds());
    let (took, sent) = (start.elapsed(), ledger.sent.load(Relaxed));

    let metrics = gateway.metrics().await;
    let counted = metrics.sum("gatepost_requests_total", &[]) as u64;
    let timed = metrics.sum("gatepost_request_seconds_count", &[]) as u64;
    let dropped = metrics.sum("gatepost_access_log_dropped_lines_total", &[]) as u64;
    // With an hour's patience for the drain, it ends at once only where nothing is left to wait for; and the log is whole.
    gateway.stop().await;
    let (lines, foreign) = read_log(&gateway, &ledger);

    let lost = ledger.count(|r| r & TAKEN != 0 && r & TOLD == 0) as u64;
    let (taken, told) = (ledger.count(|r| r & TAKEN != 0), ledger.count(|r| r & TOLD != 0));
    let garbling = ledger.garbling.load(Relaxed);
    println!(
        "seed {seed}: {sent} requests by {} callers in {took:?}: {taken} seen to be taken, {told} told, {foreign} lines of garbled \
         heads ({garbling} callers cut or garbled), {dropped} dropped; {} calm callers; RSS {} → {} KiB, {} → {} descriptors",
        ledger.scripts.load(Relaxed),
        ledger.calm.load(Relaxed),
        before.0 / 1024,
        after.0 / 1024,
        before.1,
        after.1,
    );
    let wrong = ledger.wrong.lock().unwrap();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(lost <= dropped, "{lost} requests have no line: {:?}", first_lost(&ledger));
    assert_eq!((counted, timed), (lines + dropped, lines + dropped), "counted and timed, against lines");
    assert!(foreign <= 2 * garbling, "{foreign} lines of nobody's, {garbling} garbling callers");
    assert!(!gateway.stderr().contains("panicked"), "{}", gateway.stderr());
    assert!(after.1 <= before.1 + 8, "descriptors: {} → {}", before.1, after.1);
    assert!(after.0 <= before.0 + (32 << 20), "RSS: {} → {}", before.0, after.0);
    assert!(ledger.calm.load(Relaxed) > most / 100, "the calm ones were too few to tell");
}

/// Numbers of scripts, for the message.
fn first_lost(ledger: &Ledger) -> Vec<usize> {
    let is_lost = |r: &AtomicU8| r.load(Relaxed) & (TAKEN | TOLD) == TAKEN;
    ledger.requests.iter().enumerate().filter(|(_, r)| is_lost(r)).map(|(n, _)| n / MOST as usize).take(5).collect()
}

/// rustls insists that a stream which had its fatal alert is not read again: a debug build panics.
#[tokio::test]
async fn a_tls_caller_that_turns_to_garbage_is_not_read_again() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    let function = origin().echo().start().await;
    let authority = authority();
    let leaf = authority.leaf(&["gate.test"]);
    let gateway = gateway(format!(
        "[listener.in]\naddress = \"127.0.0.1:0\"\ntls = [{}]\n[function.f]\nversions = {{ v1 = \"{}\" }}\n[route.r]\npath = \"/only\"\nfunction = \"f\"\n",
        leaf.toml(),
        function.url()
    ))
    .start()
    .await;
    for alpn in ["http/1.1", "h2"] {
        for request in ["", "POST /nowhere HTTP/1.1\r\nHost: gate.test\r\nContent-Length: 100\r\n\r\nabc"] {
            let socket = TcpStream::connect(gateway.address("in")).await.unwrap();
            let (mut stream, _) = authority.caller(&[alpn]).handshake(socket, "gate.test").await.unwrap();
            stream.write_all(request.as_bytes()).await.unwrap();
            stream.flush().await.unwrap();
            // An application record that decrypts to nothing.
            let socket = &mut stream.get_mut().0;
            socket.write_all(&[23, 3, 3, 0, 40, 1, 2, 3]).await.unwrap();
            // gatepost may have hung up by now.
            let _ = socket.write_all(&[9; 64]).await;
            let mut rest = Vec::new();
            let _ = stream.read_to_end(&mut rest).await;
        }
    }
    gateway.counts("gatepost_connections", &[], 0.0).await;
    assert!(!gateway.stderr().contains("panicked"), "{}", gateway.stderr());
}

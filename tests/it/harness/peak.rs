//! A function platform that takes only so many calls at a time, and callers who come as they like: whether they are served or not.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval, sleep},
};

/// What the platform is like.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plan {
    /// How long a call takes.
    pub(crate) call: Duration,
    /// How soon one too many is told so.
    pub(crate) throttle: Duration,
    /// Calls at a time, to begin with.
    pub(crate) limit: usize,
    /// By how many calls at a time it grows in a minute, from when it was first full.
    pub(crate) growth: usize,
}

/// See the module. It ends with its last handle.
pub(crate) struct Platform {
    pub(crate) address: SocketAddr,
    state: Arc<State>,
    accepts: tokio::task::JoinHandle<()>,
}

struct State {
    plan: Plan,
    inside: AtomicUsize,
    most: AtomicUsize,
    served: AtomicUsize,
    throttled: AtomicUsize,
    full_since: Mutex<Option<Instant>>,
}

impl Platform {
    pub(crate) async fn start(plan: Plan) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(State {
            plan,
            inside: AtomicUsize::new(0),
            most: AtomicUsize::new(0),
            served: AtomicUsize::new(0),
            throttled: AtomicUsize::new(0),
            full_since: Mutex::default(),
        });
        let all = state.clone();
        let accepts = tokio::spawn(async move {
            let mut serving = JoinSet::new();
            while let Ok((socket, _)) = listener.accept().await {
                serving.spawn(serve(socket, all.clone()));
                while serving.try_join_next().is_some() {}
            }
        });
        Self { address, state, accepts }
    }

    /// Calls that ended well, so far.
    pub(crate) fn served(&self) -> usize {
        self.state.served.load(SeqCst)
    }

    pub(crate) fn throttled(&self) -> usize {
        self.state.throttled.load(SeqCst)
    }

    /// The most at a time.
    pub(crate) fn most(&self) -> usize {
        self.state.most.load(SeqCst)
    }

    /// How many calls it can take at a time now.
    pub(crate) fn limit(&self) -> usize {
        self.state.limit()
    }

    /// How many calls it could have served in the time from then to now, had it been full all along.
    pub(crate) fn capacity(&self, since: Instant) -> f64 {
        let Plan { call, limit, growth, .. } = self.state.plan;
        let spent = since.elapsed().as_secs_f64();
        let full_since = *self.state.full_since.lock().unwrap();
        let grows = full_since.map_or(0.0, |full| full.max(since).elapsed().as_secs_f64());
        let before = full_since.map_or(0.0, |full| since.saturating_duration_since(full).as_secs_f64());
        let per_second = growth as f64 / 60.0;
        let calls_at_a_time = limit as f64 * spent + per_second * (before * grows + grows * grows / 2.0);
        calls_at_a_time / call.as_secs_f64()
    }
}

impl Drop for Platform {
    fn drop(&mut self) {
        self.accepts.abort();
    }
}

impl State {
    fn limit(&self) -> usize {
        let full_since = *self.full_since.lock().unwrap();
        let grown = full_since.map_or(0.0, |full| full.elapsed().as_secs_f64() * self.plan.growth as f64 / 60.0);
        self.plan.limit + grown as usize
    }

    /// Whether there is room for one more call.
    fn enter(&self) -> bool {
        let inside = self.inside.fetch_add(1, SeqCst) + 1;
        if inside >= self.plan.limit {
            self.full_since.lock().unwrap().get_or_insert_with(Instant::now);
        }
        if inside > self.limit() {
            self.inside.fetch_sub(1, SeqCst);
            return false;
        }
        self.most.fetch_max(inside, SeqCst);
        true
    }
}

async fn serve(mut socket: TcpStream, state: Arc<State>) {
    let _ = socket.set_nodelay(true);
    let mut bytes = Vec::with_capacity(4096);
    while head(&mut socket, &mut bytes).await {
        bytes.clear();
        let answer: &[u8] = if state.enter() {
            sleep(state.plan.call).await;
            state.inside.fetch_sub(1, SeqCst);
            state.served.fetch_add(1, SeqCst);
            b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
        } else {
            sleep(state.plan.throttle).await;
            state.throttled.fetch_add(1, SeqCst);
            b"HTTP/1.1 429 Too Many Requests\r\nContent-Length: 9\r\n\r\nthrottled"
        };
        if socket.write_all(answer).await.is_err() {
            return;
        }
    }
}

/// Reads on to the end of a head; `false`: there is none.
async fn head(socket: &mut TcpStream, bytes: &mut Vec<u8>) -> bool {
    while !bytes.windows(4).any(|end| end == b"\r\n\r\n") {
        match socket.read_buf(bytes).await {
            Ok(n) if n > 0 => {}
            _ => return false,
        }
    }
    true
}

/// What became of the callers.
#[derive(Debug, Default, Clone)]
pub(crate) struct Callers {
    pub(crate) sent: usize,
    pub(crate) ok: usize,
    /// The platform's own 429.
    pub(crate) throttled: usize,
    /// gatepost's 503 `overloaded`.
    pub(crate) overloaded: usize,
    /// Everything else.
    pub(crate) others: std::collections::BTreeMap<String, usize>,
    /// Of those that were served, in milliseconds, sorted.
    pub(crate) took: Vec<f64>,
}

impl Callers {
    pub(crate) fn share(&self, of: usize) -> f64 {
        100.0 * of as f64 / self.sent.max(1) as f64
    }

    pub(crate) fn quantile(&self, share: f64) -> f64 {
        let at = (self.took.len() as f64 * share) as usize;
        self.took.get(at.min(self.took.len().saturating_sub(1))).copied().unwrap_or(f64::NAN)
    }

    fn count(&mut self, answer: Result<(u16, bool), String>, took: Duration) {
        match answer {
            Ok((200, _)) => {
                self.ok += 1;
                self.took.push(took.as_secs_f64() * 1000.0);
            }
            Ok((429, false)) => self.throttled += 1,
            Ok((503, true)) => self.overloaded += 1,
            Ok((status, _)) => *self.others.entry(status.to_string()).or_default() += 1,
            Err(why) => *self.others.entry(why).or_default() += 1,
        }
    }
}

/// Sends GETs to `address` for `time`, as many a second as `rate` says of each moment, whatever comes back. Ends with the last answer.
pub(crate) async fn come(address: SocketAddr, time: Duration, rate: impl Fn(Duration) -> f64) -> Callers {
    let tally = Arc::new(Mutex::new(Callers::default()));
    let kept = Arc::new(Mutex::new(Vec::<TcpStream>::new()));
    let start = Instant::now();
    let (mut due, mut last) = (0.0, Duration::ZERO);
    let mut tick = interval(Duration::from_millis(1));
    tick.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut running = JoinSet::new();
    loop {
        tick.tick().await;
        let now = start.elapsed().min(time);
        due += rate(now) * (now - last).as_secs_f64();
        last = now;
        while due >= 1.0 {
            due -= 1.0;
            let (tally, kept) = (tally.clone(), kept.clone());
            tally.lock().unwrap().sent += 1;
            running.spawn(async move {
                let began = Instant::now();
                let answer = one(address, &kept).await;
                tally.lock().unwrap().count(answer, began.elapsed());
            });
        }
        while running.try_join_next().is_some() {}
        if now >= time {
            break;
        }
    }
    while running.join_next().await.is_some() {}
    let mut tally = std::mem::take(&mut *tally.lock().unwrap());
    tally.took.sort_by(f64::total_cmp);
    tally
}

/// The status, and whether gatepost itself says so.
async fn one(address: SocketAddr, kept: &Mutex<Vec<TcpStream>>) -> Result<(u16, bool), String> {
    let old = kept.lock().unwrap().pop();
    let mut socket = match old {
        Some(socket) => socket,
        None => TcpStream::connect(address).await.map_err(|e| format!("connect: {}", e.kind()))?,
    };
    let _ = socket.set_nodelay(true);
    socket.write_all(b"GET / HTTP/1.1\r\nHost: peak.test\r\n\r\n").await.map_err(|e| e.kind().to_string())?;
    let mut bytes = Vec::with_capacity(1024);
    if !head(&mut socket, &mut bytes).await {
        return Err("no answer".to_owned());
    }
    let end = bytes.windows(4).position(|end| end == b"\r\n\r\n").unwrap_or_default() + 4;
    let text = String::from_utf8_lossy(&bytes[..end]).to_lowercase();
    let value = |name: &str| text.split("\r\n").find_map(|line| line.strip_prefix(name));
    let status = text.get(9..12).and_then(|status| status.parse().ok()).ok_or("no status")?;
    let length = value("content-length: ").and_then(|length| length.trim().parse::<usize>().ok()).ok_or("no length")?;
    while bytes.len() < end + length {
        if socket.read_buf(&mut bytes).await.map_err(|e| e.kind().to_string())? == 0 {
            return Err("cut short".to_owned());
        }
    }
    if value("connection: close").is_none() {
        kept.lock().unwrap().push(socket);
    }
    Ok((status, value("x-gatepost-reason: ").is_some_and(|reason| reason.trim() == "overloaded")))
}

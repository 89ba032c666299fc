//! A name server on loopback (UDP) whose answers the test writes, and may change at any time.
#![allow(
    dead_code,
    unreachable_pub,
    reason = "the library's tests and `it` share this file, and each uses a part of it"
)]

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex},
};

use tokio::{net::UdpSocket, task::JoinHandle};

/// Runs until it is dropped. Names without an answer do not exist.
pub struct Dns {
    address: SocketAddr,
    script: Arc<Mutex<Script>>,
    task: JoinHandle<()>,
}

#[derive(Default)]
struct Script {
    answers: HashMap<String, Answer>,
    asked: HashMap<String, usize>,
}

#[derive(Clone)]
enum Answer {
    Addresses {
        ips: Vec<IpAddr>,
        ttl: u32,
    },
    /// SERVFAIL for this record type, or for all.
    Fails {
        only: Option<u16>,
    },
    Silence,
}

pub const A: u16 = 1;
pub const AAAA: u16 = 28;
const SERVFAIL: u16 = 2;
const NXDOMAIN: u16 = 3;

impl Dns {
    pub async fn start() -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        let script = Arc::<Mutex<Script>>::default();
        let task = tokio::spawn(serve(socket, Arc::clone(&script)));
        Self { address, script, task }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// From now on `name` has exactly these addresses.
    pub fn answer(&self, name: &str, ips: &[&str], ttl: u32) {
        let ips = ips.iter().map(|ip| ip.parse().unwrap()).collect();
        self.set(name, Some(Answer::Addresses { ips, ttl }));
    }

    /// From now on `name` does not exist (NXDOMAIN).
    pub fn forget(&self, name: &str) {
        self.set(name, None);
    }

    /// From now on lookups of `name` fail (SERVFAIL).
    pub fn fail(&self, name: &str) {
        self.set(name, Some(Answer::Fails { only: None }));
    }

    /// From now on lookups of one record type fail, and there are no records of the others.
    pub fn fail_only(&self, name: &str, record_type: u16) {
        let only = Some(record_type);
        self.set(name, Some(Answer::Fails { only }));
    }

    /// From now on nobody answers for `name`.
    pub fn fall_silent(&self, name: &str) {
        self.set(name, Some(Answer::Silence));
    }

    /// How many queries there were for `name`, of all types.
    pub fn asked(&self, name: &str) -> usize {
        let script = self.script.lock().unwrap();
        script.asked.get(name).copied().unwrap_or(0)
    }

    fn set(&self, name: &str, answer: Option<Answer>) {
        let answers = &mut self.script.lock().unwrap().answers;
        match answer {
            Some(answer) => answers.insert(name.to_owned(), answer),
            None => answers.remove(name),
        };
    }
}

impl Drop for Dns {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(socket: UdpSocket, script: Arc<Mutex<Script>>) {
    let mut buffer = [0; 1500];
    while let Ok((length, from)) = socket.recv_from(&mut buffer).await {
        let Some(reply) = reply(&buffer[..length], &script) else {
            continue;
        };
        let _ = socket.send_to(&reply, from).await;
    }
}

/// RFC 1035 §4.1: header, the question again, the records. `None`: silence.
fn reply(query: &[u8], script: &Mutex<Script>) -> Option<Vec<u8>> {
    let (name, end) = name(query)?;
    let record_type = u16::from_be_bytes([*query.get(end)?, *query.get(end + 1)?]);
    let question = query.get(12..end + 4)?;

    let mut script = script.lock().unwrap();
    *script.asked.entry(name.clone()).or_default() += 1;
    let (code, ips, ttl) = match script.answers.get(&name).cloned() {
        None => (NXDOMAIN, Vec::new(), 0),
        Some(Answer::Silence) => return None,
        Some(Answer::Fails { only }) if only.is_none_or(|only| only == record_type) => (SERVFAIL, Vec::new(), 0),
        Some(Answer::Fails { .. }) => (0, Vec::new(), 0),
        Some(Answer::Addresses { ips, ttl }) => {
            let wanted = |ip: &IpAddr| record_type == if ip.is_ipv4() { A } else { AAAA };
            (0, ips.into_iter().filter(wanted).collect(), ttl)
        }
    };

    let mut out = query[..2].to_vec();
    // An answer; recursion was desired and is available.
    out.extend((0x8180 | code).to_be_bytes());
    for count in [1, ips.len() as u16, 0, 0] {
        out.extend(count.to_be_bytes());
    }
    out.extend(question);
    for ip in ips {
        // The name of the question, by pointer; class IN.
        out.extend([0xC0, 12]);
        out.extend(record_type.to_be_bytes());
        out.extend(1u16.to_be_bytes());
        out.extend(ttl.to_be_bytes());
        let octets = match ip {
            IpAddr::V4(ip) => ip.octets().to_vec(),
            IpAddr::V6(ip) => ip.octets().to_vec(),
        };
        out.extend((octets.len() as u16).to_be_bytes());
        out.extend(octets);
    }
    Some(out)
}

/// The question's name in lower case without the last dot, and where it ends.
fn name(query: &[u8]) -> Option<(String, usize)> {
    let mut at = 12;
    let mut labels = Vec::new();
    loop {
        let length = usize::from(*query.get(at)?);
        at += 1;
        if length == 0 {
            return Some((labels.join("."), at));
        }
        let label = query.get(at..at + length)?;
        labels.push(String::from_utf8_lossy(label).to_ascii_lowercase());
        at += length;
    }
}

//! The connection to the store: TCP, TLS, log-in, and scripts, each within a deadline. Bounded: one question at a time, one connection.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use redis::{
    AsyncConnectionConfig, FromRedisValue, RedisConnectionInfo, Script, ScriptInvocation, aio::MultiplexedConnection,
};
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    task::JoinHandle,
    time::timeout,
};

use crate::{
    config::{
        Secret,
        model::{Cluster, EndpointHost},
    },
    serve::jwks::Trust,
    upstream::Resolver,
};

/// TCP, TLS and log-in.
const CONNECT: Duration = Duration::from_secs(2);
/// An answer that takes longer is none.
const ANSWER: Duration = Duration::from_secs(1);

/// Where the store is, and how one gets in.
#[derive(Clone, PartialEq, Eq)]
pub struct Store {
    pub config: Cluster,
    pub password: Option<Secret>,
    pub ca: Option<Vec<CertificateDer<'static>>>,
}

trait Duplex: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Duplex for T {}

pub(super) struct Link {
    connection: MultiplexedConnection,
    /// Reads and writes; ended with the link.
    driven: JoinHandle<()>,
}

impl Drop for Link {
    fn drop(&mut self) {
        self.driven.abort();
    }
}

impl Link {
    /// # Errors
    ///
    /// What went wrong, for the log.
    pub(super) async fn open(store: &Store, trust: &mut Trust, resolver: &Resolver) -> Result<Self, String> {
        let opened = timeout(CONNECT, async {
            let stream = connect(&store.config, trust, resolver).await?;
            log_in(store, stream).await
        });
        opened.await.unwrap_or_else(|_| Err(format!("no connection within {CONNECT:?}")))
    }

    /// Runs a script, which is sent once and then named by its hash.
    ///
    /// # Errors
    ///
    /// What went wrong, for the log. The link is of no more use.
    pub(super) async fn run<T: FromRedisValue>(&mut self, script: &ScriptInvocation<'_>) -> Result<T, String> {
        match timeout(ANSWER, script.invoke_async(&mut self.connection)).await {
            Ok(answer) => answer.map_err(|error| told(&error)),
            Err(_) => Err(format!("no answer within {ANSWER:?}")),
        }
    }
}

async fn connect(config: &Cluster, trust: &mut Trust, resolver: &Resolver) -> Result<Box<dyn Duplex>, String> {
    let url = &config.redis;
    let (name, addresses) = match &url.host {
        EndpointHost::Address(ip) => (ServerName::from(*ip), vec![*ip]),
        EndpointHost::Name(name) => {
            let watched = resolver.watch(name);
            watched.wait_first(CONNECT).await.map_err(|error| format!("{name}: {error}"))?;
            let addresses: Vec<IpAddr> = watched.current().iter().copied().collect();
            (ServerName::try_from(name.clone()).map_err(|error| error.to_string())?, addresses)
        }
    };
    let mut last = String::from("its name has no address");
    for ip in addresses {
        let address = SocketAddr::new(ip, url.port);
        let stream = match TcpStream::connect(address).await {
            Ok(stream) => stream,
            Err(error) => {
                last = format!("{address}: {error}");
                continue;
            }
        };
        // Small questions that somebody waits for.
        let _ = stream.set_nodelay(true);
        if !url.tls {
            return Ok(Box::new(stream));
        }
        match trust.connector().await?.connect(name.clone(), stream).await {
            Ok(stream) => return Ok(Box::new(stream)),
            Err(error) => last = format!("{address}: {error}"),
        }
    }
    Err(last)
}

async fn log_in(store: &Store, stream: Box<dyn Duplex>) -> Result<Link, String> {
    let mut info = RedisConnectionInfo::default().set_db(store.config.redis.database.into()).set_skip_set_lib_name();
    if let Some(user) = &store.config.username {
        info = info.set_username(user);
    }
    if let Some(password) = &store.password {
        info = info.set_password(password.expose());
    }
    // Deadlines are ours.
    let config = AsyncConnectionConfig::new().set_response_timeout(None);
    let opened = MultiplexedConnection::new_with_config(&info, stream, config).await;
    let (connection, driver) = opened.map_err(|error| told(&error))?;
    Ok(Link { connection, driven: tokio::spawn(driver) })
}

/// On one line. The server's words do not have the password in them, nor has the library's error.
fn told(error: &redis::RedisError) -> String {
    error.to_string().split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Moves keys' times on, and tells how many nanoseconds each is ahead. Of each key two arguments: by how many microseconds, and how far ahead
/// it may be at most. A key goes by itself once its bucket is full.
pub(super) fn settling() -> Script {
    Script::new(
        r"
        local t = redis.call('TIME')
        local now = t[1] * 1000000 + t[2]
        local tats = redis.call('MGET', unpack(KEYS))
        local out = {}
        for i = 1, #KEYS do
            local tat = tonumber(tats[i] or 0) or 0
            if tat < now then tat = now end
            local charge = tonumber(ARGV[2 * i - 1])
            tat = math.min(tat + charge, now + tonumber(ARGV[2 * i]))
            if charge > 0 then
                redis.call('SET', KEYS[i], string.format('%.3f', tat), 'PX', math.ceil((tat - now) / 1000) + 1000)
            end
            out[i] = math.floor((tat - now) * 1000)
        end
        return out",
    )
}

/// A sign of life.
///
/// Keys: the members, the salt, the releases, how often these changed, who leads ramps. Arguments: who, what he says of himself (nothing: he is a
/// guest, who only hears), a salt to begin with, for how many milliseconds he leads if he does, and which state of the releases he knows; then of each function that changed there its
/// name, how often it had changed, and what it came to.
///
/// Out: the salt, what stood in his place before, who leads, the state of the releases; how many members there are, and of each who he is,
/// how many milliseconds ago he was seen, and what he said; and, where the state is another than he knows, each function and what it came to.
pub(super) fn beating() -> Script {
    Script::new(
        r"
        local t = redis.call('TIME')
        local now = t[1] * 1000 + math.floor(t[2] / 1000)
        redis.call('SET', KEYS[2], ARGV[3], 'NX')
        local salt = redis.call('GET', KEYS[2])
        local before = redis.call('HGET', KEYS[1], ARGV[1]) or ''
        local counts = ARGV[2] ~= ''
        if counts then
            redis.call('HSET', KEYS[1], ARGV[1], string.format('%.0f ', now) .. ARGV[2])
        end
        local leader = redis.call('GET', KEYS[5])
        if counts and (not leader or leader == ARGV[1]) then
            leader = ARGV[1]
            redis.call('SET', KEYS[5], leader, 'PX', ARGV[4])
        end
        for i = 6, #ARGV, 3 do
            local said = redis.call('HGET', KEYS[3], ARGV[i])
            local changes = said and tonumber(string.match(said, '^(%d+) ')) or 0
            if changes == tonumber(ARGV[i + 1]) then
                redis.call('HSET', KEYS[3], ARGV[i], string.format('%.0f ', changes + 1) .. ARGV[i + 2])
                redis.call('INCR', KEYS[4])
            end
        end
        local state = salt .. '/' .. (redis.call('GET', KEYS[4]) or '0')
        local out = { salt, before, leader or '', state, '' }
        local members = 0
        local all = redis.call('HGETALL', KEYS[1])
        for i = 1, #all, 2 do
            local at, said = string.match(all[i + 1], '^(%d+) (.*)$')
            local age = now - (tonumber(at) or 0)
            if age > 600000 then
                redis.call('HDEL', KEYS[1], all[i])
            else
                members = members + 1
                out[#out + 1] = all[i]
                out[#out + 1] = string.format('%.0f', math.max(age, 0))
                out[#out + 1] = said
            end
        end
        out[5] = tostring(members)
        if state ~= ARGV[5] then
            for _, each in ipairs(redis.call('HGETALL', KEYS[3])) do
                out[#out + 1] = each
            end
        end
        return out",
    )
}

/// Goodbye: who stops is no member any more.
pub(super) fn leaving() -> Script {
    Script::new("return redis.call('HDEL', KEYS[1], ARGV[1])")
}

//! A connection for the way out, up to where HTTP begins: PROXY header, TLS, who the client is by its certificate.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::SystemTime,
};

use bytes::BytesMut;
use tokio_rustls::TlsAcceptor;

use super::{
    connection::proxy_header,
    identity,
    listener::{BUSY, Counted, Refused, Settings, Shared},
};
use crate::{
    egress::{self, Caller, Conn, Stream},
    ingress::wire::{Socket, Wire},
    observe::clock::now,
};

/// What a connection's task is given.
pub struct Accepted {
    pub socket: Socket,
    pub peer: Option<SocketAddr>,
    pub listener: Arc<Shared>,
    pub settings: Arc<Settings>,
    pub ending: bool,
    pub counted: Counted,
}

/// Serves a connection to its end.
pub async fn serve(accepted: Accepted) {
    let Accepted { socket, peer, listener, settings, ending, mut counted } = accepted;
    let conn = Conn::new(listener.key.0, now());
    if ending {
        conn.end(egress::conn::End::Drain);
    }
    let ip = peer.map(|p| p.ip().to_canonical());
    let must_tell = settings.proxy_protocol.as_ref().is_some_and(|from| from.contains(ip.unwrap_or(LOOPBACK)));
    let begun = Begun { conn, ip, listener, settings: settings.clone() };
    let caller = match socket {
        // The way of nearly all: nothing to wait for. That small answers leave at once, it has of its listener.
        Socket::Tcp(socket) if !must_tell && settings.tls.is_none() => {
            Ok(begun.caller(Stream::Tcp(socket), BytesMut::new(), None))
        }
        socket => Box::pin(set_up(socket, begun, must_tell, &mut counted)).await,
    };
    match caller {
        Ok(caller) => egress::serve(caller).await,
        Err(refused) => counted.refused(refused),
    }
}

const LOOPBACK: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

struct Begun {
    conn: Arc<Conn>,
    ip: Option<IpAddr>,
    listener: Arc<Shared>,
    settings: Arc<Settings>,
}

impl Begun {
    fn caller(
        self,
        stream: Stream,
        ahead: BytesMut,
        certificate: Option<Box<crate::decide::ClientCertificate>>,
    ) -> Caller {
        let (listener, timeouts) = (self.listener.name.clone(), self.settings.timeouts);
        let rooms = self.listener;
        Caller { stream, ahead, conn: self.conn, ip: self.ip, certificate, listener, rooms, timeouts }
    }
}

async fn set_up(socket: Socket, mut begun: Begun, must_tell: bool, counted: &mut Counted) -> Result<Caller, Refused> {
    let settings = begun.settings.clone();
    let conn = begun.conn.clone();
    conn.step(now(), settings.timeouts.handshake);
    let mut wire = Wire::new(socket);
    wire.hurry();
    if must_tell {
        let told = conn.within(proxy_header(&mut wire)).await.map_err(|_| Refused::ProxyHeader)??;
        if let Some(told) = told {
            begun.ip = Some(told.ip().to_canonical());
            if let Err(refused) = counted.is_from(told.ip(), settings.max_connections_per_ip) {
                if settings.tls.is_none() {
                    use tokio::io::AsyncWriteExt;
                    let _ = conn.within(wire.write_all(BUSY)).await;
                }
                return Err(refused);
            }
        }
    }
    let Some(tls) = &settings.tls else {
        let (socket, ahead) = wire.into_parts();
        let stream = match socket {
            Socket::Tcp(socket) => Stream::Tcp(socket),
            Socket::Unix(socket) => Stream::Other(Box::new(socket)),
        };
        return Ok(begun.caller(stream, ahead, None));
    };
    let accept = TlsAcceptor::from(tls.config.clone()).accept(wire);
    let Ok(Ok(stream)) = conn.within(accept).await else { return Err(Refused::Handshake) };
    let certificate = match stream.get_ref().1.peer_certificates().and_then(|chain| chain.first()) {
        None => None,
        Some(der) => match identity::read(der, SystemTime::now()) {
            Ok(certificate) => Some(Box::new(certificate.identity)),
            Err(error) => {
                tracing::debug!(%error, "connection refused");
                return Err(Refused::Handshake);
            }
        },
    };
    Ok(begun.caller(Stream::Other(Box::new(stream)), BytesMut::new(), certificate))
}

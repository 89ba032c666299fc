//! One line for each tunnel and each forwarded request, refused ones too: who went where, from which address, and why not.
//!
//! Keys always there: `ts`, `kind` (`connect`, `forward`; `none` where the head was no request), `request_id`, `generation`, `listener`,
//! `bytes_in`, `bytes_out`, `total_ms`. The others are left out where they mean nothing: `client` and `owner` where nobody is known, `client_ip` on a
//! unix socket, `method` of a forwarded request, `target` where none could be read, `address` where nothing was dialled, `parent` and `asked` where no
//! parent proxy was, `source` and
//! `source_address` where the rule names none, `rule` where none took it, `mode` and `would_refuse` under `report`, `reason` where gatepost
//! refused, `detail` where there is more to say of that, `status` where the caller got one, `ended` where neither side ended the tunnel, `dns_ms` and `connect_ms` where that did not happen.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use super::{Stamp, address, escape, integer, milliseconds, pair, value};
use crate::{config::model::LogFormat, decide::Reason};

/// What one line tells.
#[derive(Debug, Clone, Copy)]
pub struct EgressEntry<'r> {
    /// When it was over.
    pub ts: u64,
    pub kind: &'static str,
    pub request_id: &'r str,
    pub generation: u64,
    pub listener: &'r str,
    pub client: Option<&'r str>,
    pub owner: Option<&'r str>,
    pub client_ip: Option<IpAddr>,
    pub method: Option<&'r [u8]>,
    /// `host:port`; as sent where it is none.
    pub target: Option<&'r [u8]>,
    /// What was dialled.
    pub address: Option<SocketAddr>,
    /// The URL of the parent proxy that was dialled.
    pub parent: Option<&'r str>,
    /// What it was asked to connect to: a name or an address, and a port.
    pub asked: Option<&'r str>,
    pub source: Option<&'r str>,
    pub source_address: Option<IpAddr>,
    pub rule: Option<&'r str>,
    /// It was let through only because nothing is enforced, and would have been refused for this.
    pub would_refuse: Option<Reason>,
    pub reason: Option<Reason>,
    /// What exactly, in words.
    pub detail: Option<&'r str>,
    pub status: Option<u16>,
    pub ended: Option<&'static str>,
    /// From the client.
    pub bytes_in: u64,
    /// To the client.
    pub bytes_out: u64,
    pub total: Duration,
    pub dns: Option<Duration>,
    pub connect: Option<Duration>,
}

/// A value of such a line.
pub(super) enum Field<'r> {
    Word(&'r [u8]),
    Number(u64),
    Time(Duration),
    Ip(IpAddr),
    Socket(SocketAddr),
}

/// Appends the line of `entry`, its newline included.
pub fn line(out: &mut Vec<u8>, format: LogFormat, stamp: &mut Stamp, e: &EgressEntry<'_>) {
    let word = |word: &'static str| Field::Word(word.as_bytes());
    let fields = [
        ("kind", Some(word(e.kind))),
        ("request_id", Some(Field::Word(e.request_id.as_bytes()))),
        ("generation", Some(Field::Number(e.generation))),
        ("listener", Some(Field::Word(e.listener.as_bytes()))),
        ("client", e.client.map(|c| Field::Word(c.as_bytes()))),
        ("owner", e.owner.map(|o| Field::Word(o.as_bytes()))),
        ("client_ip", e.client_ip.map(Field::Ip)),
        ("method", e.method.map(Field::Word)),
        ("target", e.target.map(Field::Word)),
        ("address", e.address.map(Field::Socket)),
        ("parent", e.parent.map(|p| Field::Word(p.as_bytes()))),
        ("asked", e.asked.map(|a| Field::Word(a.as_bytes()))),
        ("source", e.source.map(|s| Field::Word(s.as_bytes()))),
        ("source_address", e.source_address.map(Field::Ip)),
        ("rule", e.rule.map(|r| Field::Word(r.as_bytes()))),
        ("mode", e.would_refuse.map(|_| word("report"))),
        ("would_refuse", e.would_refuse.map(|r| word(r.as_str()))),
        ("reason", e.reason.map(|r| word(r.as_str()))),
        ("detail", e.detail.map(|d| Field::Word(d.as_bytes()))),
        ("status", e.status.map(|s| Field::Number(s.into()))),
        ("ended", e.ended.map(word)),
        ("bytes_in", Some(Field::Number(e.bytes_in))),
        ("bytes_out", Some(Field::Number(e.bytes_out))),
        ("total_ms", Some(Field::Time(e.total))),
        ("dns_ms", e.dns.map(Field::Time)),
        ("connect_ms", e.connect.map(Field::Time)),
    ];
    fields_line(out, format, stamp.format(e.ts), &fields);
}

/// A line of a time and such fields as are there.
pub(super) fn fields_line(
    out: &mut Vec<u8>,
    format: LogFormat,
    stamp: &[u8],
    fields: &[(&'static str, Option<Field<'_>>)],
) {
    let fields = fields.iter().filter_map(|(key, field)| Some((key, field.as_ref()?)));
    match format {
        LogFormat::Json => {
            out.extend_from_slice(b"{\"ts\":\"");
            out.extend_from_slice(stamp);
            out.push(b'"');
            for (key, field) in fields {
                out.extend_from_slice(b",\"");
                out.extend_from_slice(key.as_bytes());
                out.extend_from_slice(b"\":");
                let quoted = !matches!(field, Field::Number(_) | Field::Time(_));
                if quoted {
                    out.push(b'"');
                }
                put(out, field, escape);
                if quoted {
                    out.push(b'"');
                }
            }
            out.extend_from_slice(b"}\n");
        }
        LogFormat::Text => {
            out.push(b'[');
            out.extend_from_slice(stamp);
            out.push(b']');
            for (key, field) in fields {
                pair(out, key);
                put(out, field, value);
            }
            out.push(b'\n');
        }
    }
}

fn put(out: &mut Vec<u8>, field: &Field<'_>, word: fn(&mut Vec<u8>, &[u8])) {
    match *field {
        Field::Word(bytes) => word(out, bytes),
        Field::Number(n) => integer(out, n),
        Field::Time(time) => milliseconds(out, time),
        Field::Ip(ip) => address(out, ip),
        Field::Socket(at) => {
            let v6 = at.ip().to_canonical().is_ipv6();
            if v6 {
                out.push(b'[');
            }
            address(out, at.ip());
            if v6 {
                out.push(b']');
            }
            out.push(b':');
            integer(out, at.port().into());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry<'r>() -> EgressEntry<'r> {
        EgressEntry {
            ts: 1_709_210_096_789,
            kind: "connect",
            request_id: "ab",
            generation: 3,
            listener: "inside",
            client: Some("orders-fn"),
            owner: Some("payments"),
            client_ip: Some([10, 1, 0, 7].into()),
            method: None,
            target: Some(b"api.bank.example:8443"),
            address: Some(([203, 0, 113, 9], 8443).into()),
            parent: None,
            asked: None,
            source: Some("bank"),
            source_address: Some([10, 0, 0, 5].into()),
            rule: Some("payments"),
            would_refuse: None,
            reason: None,
            detail: None,
            status: Some(200),
            ended: None,
            bytes_in: 517,
            bytes_out: 4096,
            total: Duration::from_millis(1250),
            dns: Some(Duration::from_micros(1500)),
            connect: Some(Duration::from_millis(7)),
        }
    }

    fn written(format: LogFormat, entry: &EgressEntry<'_>) -> String {
        let mut out = Vec::new();
        line(&mut out, format, &mut Stamp::new(), entry);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_tunnel_is_one_line() {
        assert_eq!(
            written(LogFormat::Json, &entry()),
            "{\"ts\":\"2024-02-29T12:34:56.789Z\",\"kind\":\"connect\",\"request_id\":\"ab\",\"generation\":3,\"listener\":\"inside\",\
             \"client\":\"orders-fn\",\"owner\":\"payments\",\"client_ip\":\"10.1.0.7\",\"target\":\"api.bank.example:8443\",\
             \"address\":\"203.0.113.9:8443\",\"source\":\"bank\",\"source_address\":\"10.0.0.5\",\"rule\":\"payments\",\"status\":200,\
             \"bytes_in\":517,\"bytes_out\":4096,\"total_ms\":1250,\"dns_ms\":1.5,\"connect_ms\":7}\n"
        );
        assert_eq!(
            written(LogFormat::Text, &entry()),
            "[2024-02-29T12:34:56.789Z] kind=connect request_id=ab generation=3 listener=inside client=orders-fn owner=payments \
             client_ip=10.1.0.7 target=api.bank.example:8443 address=203.0.113.9:8443 source=bank source_address=10.0.0.5 \
             rule=payments status=200 bytes_in=517 bytes_out=4096 total_ms=1250 dns_ms=1.5 connect_ms=7\n"
        );
    }

    #[test]
    fn whatever_is_sent_is_one_line_of_json() {
        let v6: SocketAddr = "[2001:db8::1]:443".parse().unwrap();
        let hostile = EgressEntry {
            target: Some(b"a\"\n\xff b=c"),
            client: None,
            address: Some(v6),
            method: Some(b"GET"),
            detail: Some("it asks for \u{1b}[31m"),
            ..entry()
        };
        let json = written(LogFormat::Json, &hostile);
        let read: serde_json::Value = serde_json::from_str(json.trim_end()).unwrap();
        assert_eq!(read["target"], "a\"\n\u{fffd} b=c");
        assert_eq!(read["address"], "[2001:db8::1]:443");
        assert!(!json.contains('\u{1b}') && read["detail"] == "it asks for \u{1b}[31m", "{json}");
        assert!(read.get("client").is_none());
        assert_eq!(written(LogFormat::Text, &hostile).lines().count(), 1);
    }
}

//! A kept answer, and what becomes of it for each caller.

use std::{sync::OnceLock, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, Method, StatusCode, header};
use pingora_error::Result;
use pingora_http::{RequestHeader, ResponseHeader};

use crate::{
    config::model::{Cache, Coding},
    decide::{
        Now,
        cache::{answer::Keep, question::write_variant, unchanged},
    },
    ingress::{
        body_coding::{self, Wish},
        reply::Answer,
    },
};

/// What an entry takes beside its body and its fields.
const OVERHEAD: usize = 512;

/// An answer as its function said it, before anything was done to it for a caller.
#[derive(Debug)]
pub(super) struct Entry {
    head: ResponseHeader,
    body: Bytes,
    /// When it was asked for, and when its head came.
    asked: Now,
    at: Now,
    keep: Keep,
    /// What the request said of [`Keep::vary`].
    variant: Box<[u8]>,
    /// Its compressed forms, made when first asked for: together they take no more than the body does.
    coded: [OnceLock<Option<Bytes>>; 3],
}

impl Entry {
    pub(super) fn new(
        mut head: ResponseHeader,
        body: Bytes,
        (asked, at): (Now, Now),
        keep: Keep,
        variant: Box<[u8]>,
    ) -> Result<Self> {
        head.remove_header(&header::TRANSFER_ENCODING);
        head.remove_header(&header::AGE);
        // Of the connection that it came by.
        head.remove_header(&header::CONNECTION);
        if head.status != StatusCode::NO_CONTENT {
            head.insert_header(header::CONTENT_LENGTH, body.len())?;
        }
        Ok(Self { head, body, asked, at, keep, variant, coded: Default::default() })
    }

    /// What it takes, its compressed forms included.
    pub(super) fn weight(&self) -> u64 {
        let fields =
            self.head.headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 64).sum::<usize>();
        (2 * self.body.len() + fields + self.variant.len() + OVERHEAD) as u64
    }

    pub(super) fn asked(&self) -> Now {
        self.asked
    }

    pub(super) fn vary(&self) -> &[HeaderName] {
        &self.keep.vary
    }

    pub(super) fn variant(&self) -> &[u8] {
        &self.variant
    }

    /// Whether it answers a request with these headers, that has the same key.
    pub(super) fn fits(&self, headers: &HeaderMap) -> bool {
        if self.keep.vary.is_empty() {
            return true;
        }
        let mut variant = Vec::with_capacity(self.variant.len());
        write_variant(&mut variant, &self.keep.vary, headers);
        *variant == *self.variant
    }

    /// RFC 9111 §4.2: not older than the route has it, nor than the function has it.
    pub(super) fn is_fresh(&self, cache: &Cache, now: Now) -> bool {
        self.fresh_for(cache) > self.here(now)
    }

    /// RFC 5861 §4.
    pub(super) fn may_stand_in(&self, cache: &Cache, now: Now) -> bool {
        let stale = self.keep.stale.map_or(cache.stale_if_error, |said| said.min(cache.stale_if_error));
        self.fresh_for(cache).saturating_add(stale) > self.here(now)
    }

    /// Whether anyone may ever get it again.
    pub(super) fn is_over(&self, cache: &Cache, now: Now) -> bool {
        !self.is_fresh(cache, now) && !self.may_stand_in(cache, now)
    }

    fn fresh_for(&self, cache: &Cache) -> Duration {
        self.keep.lifetime.map_or(cache.ttl, |lifetime| lifetime.saturating_sub(self.keep.age).min(cache.ttl))
    }

    fn here(&self, now: Now) -> Duration {
        Duration::from_nanos(now.0.saturating_sub(self.at.0))
    }

    /// The answer for one caller, before its route's edits.
    pub(super) fn answer(&self, request: &RequestHeader, now: Now) -> Result<Answer> {
        let mut header = self.head.clone();
        // RFC 9111 §5.1.
        let age = self.keep.age.saturating_add(self.here(now));
        header.insert_header(header::AGE, age.as_secs())?;
        if header.status == StatusCode::OK && unchanged::is_unchanged(&request.headers, &header.headers) {
            make_unchanged(&mut header)?;
            return Ok(Answer { header, body: Bytes::new() });
        }
        Ok(Answer { header, body: self.body.clone() })
    }

    /// Compresses the answer of this entry, once for all callers who want the same coding.
    pub(super) fn compress(
        &self,
        answer: &mut Answer,
        request: &RequestHeader,
        compression: &crate::config::model::Compression,
        wish: Wish,
    ) -> Result<()> {
        let coding = body_coding::fitting(&mut answer.header, request, compression, wish)?;
        if let Some(coding) = coding
            && let Some(coded) = self.coded(coding, compression.codings.len())
        {
            body_coding::mark(&mut answer.header, coding)?;
            answer.header.insert_header(header::CONTENT_LENGTH, coded.len())?;
            answer.body = coded;
        }
        if request.method == Method::HEAD {
            answer.body = Bytes::new();
        }
        Ok(())
    }

    /// `None`: it gains too little by it.
    fn coded(&self, coding: Coding, codings: usize) -> Option<Bytes> {
        let place = &self.coded[coding as usize];
        if let Some(made) = place.get() {
            return made.clone();
        }
        // Two workers may do the same at once: neither waits for the other.
        let coded = body_coding::whole(coding, &self.body)?;
        let coded = Some(coded).filter(|coded| coded.len() <= self.body.len() / codings.max(1));
        let _ = place.set(coded.clone());
        coded
    }
}

/// RFC 9110 §15.4.5: what it says of the answer stays, and what is about its body goes.
fn make_unchanged(head: &mut ResponseHeader) -> Result<()> {
    head.set_status(StatusCode::NOT_MODIFIED)?;
    const GOING: [HeaderName; 5] = [
        header::CONTENT_LENGTH,
        header::CONTENT_TYPE,
        header::CONTENT_ENCODING,
        header::CONTENT_LANGUAGE,
        header::TRANSFER_ENCODING,
    ];
    for name in &GOING {
        head.remove_header(name);
    }
    Ok(())
}

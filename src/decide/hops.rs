//! `X-Gatepost-Hop`: how many gateposts a request has passed, so that one which goes in a circle ends.
//!
//! It is believed from anyone, and need not be signed: who writes a high number has its own request refused, and who leaves it
//! out, or writes a low one, begins a request anew, as every caller may. Behind a gatepost nobody can lower it but the function.

use http::{HeaderMap, HeaderName};

use super::{Reason, snapshot::Refusal};

pub const X_GATEPOST_HOP: HeaderName = HeaderName::from_static("x-gatepost-hop");

/// The count of a request that has one, with this gatepost: for the function.
///
/// # Errors
///
/// There are more than `most`, or the count is no number.
pub fn here(headers: &HeaderMap, most: u32) -> Result<u32, Refusal> {
    let bad = || Refusal { detail: "X-Gatepost-Hop is no number".into(), ..Reason::BadRequest.into() };
    let mut passed = 0;
    // What Connection says of it does not matter: it is written anew.
    for value in headers.get_all(X_GATEPOST_HOP) {
        // Several fields are one list (RFC 9110 §5.3); whoever is right, none may make it less.
        for number in value.as_bytes().split(|&byte| byte == b',') {
            passed = count(number.trim_ascii()).ok_or_else(bad)?.max(passed);
        }
    }
    if passed >= most {
        let detail = format!("the request has passed {passed} gateposts, and may pass {most} (server.max_hops)");
        return Err(Refusal { detail: detail.into(), ..Reason::LoopDetected.into() });
    }
    Ok(passed + 1)
}

/// Digits alone; more than fit are as many as fit.
fn count(digits: &[u8]) -> Option<u32> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0_u32, |sum, digit| {
        let digit = digit.is_ascii_digit().then(|| u32::from(digit - b'0'))?;
        Some(sum.saturating_mul(10).saturating_add(digit))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(values: &[&str]) -> Result<u32, Reason> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(X_GATEPOST_HOP, value.parse().unwrap());
        }
        here(&headers, 3).map_err(|refusal| refusal.reason)
    }

    #[test]
    fn each_gatepost_adds_itself_and_no_field_makes_it_less() {
        assert_eq!(told(&["0"]), Ok(1));
        assert_eq!(told(&["2"]), Ok(3));
        assert_eq!(told(&["002"]), Ok(3));
        assert_eq!(told(&["2", "0"]), Ok(3));
        assert_eq!(told(&["0, 2 ,1"]), Ok(3));
    }

    #[test]
    fn one_too_many_is_a_loop_and_what_is_no_count_is_refused() {
        for many in ["3", "4", "4294967295", "4294967296", "99999999999999999999999999"] {
            assert_eq!(told(&[many]), Err(Reason::LoopDetected), "{many}");
            assert_eq!(told(&["0", many]), Err(Reason::LoopDetected), "{many}");
        }
        for bad in ["", "-1", "+1", "1.0", "one", "1,", "0x1", "1 2"] {
            assert_eq!(told(&[bad]), Err(Reason::BadRequest), "{bad:?}");
        }
    }
}

//! The way out: who may go where, and from which address. Pure: names and addresses are resolved, bound and dialled elsewhere.
//!
//! A tunnel's way through here, each step refusing with a [`Reason`]:
//!
//! 1. [`connect`] or [`absolute`]: the target's bytes → [`Authority`] (400, or 403 where it can be no destination).
//! 2. [`Callers::pass`](crate::decide::auth::Callers::pass) at [`Callers::egress`](crate::decide::auth::Callers::egress): who asks (407 by [`status`]).
//! 3. [`Policy::choose`]: client and destination → rule. Nothing is asked of any name server before.
//! 4. [`Policy::enter`]: its share of the connections, where these run short; rate and tunnels of that client under that rule → [`Ticket`], held for as long as it lasts.
//! 5. A literal address is judged by [`Judge::one`]; of a name all the answers by [`Judge::all`], once: what it gives back is what is dialled.
//! 6. [`source_address`]: which address to leave from.
//! 7. [`wanted_name`] and [`HelloReader`]: the server name that the client must ask for, before its first byte goes out: [`hello_agrees`].
//!
//! In report mode a refusal of step 3, of a rule's own bounds (4) and of the server name (7) is only told. Addresses (5) are refused in every mode.

mod address;
mod authority;
mod hello;
mod policy;
mod rules;
mod share;
#[cfg(test)]
mod tests;
pub mod via;

pub use address::{Judge, MOST_DIALLED, NotAllowed, Own, Refused};
pub use authority::{Absolute, Authority, AuthorityProblem, Host, absolute, connect, is_host, without_secrets};
pub use hello::{Hello, HelloReader};
pub use policy::{Choice, Direction, Over, Policy, Ticket, clients, source, source_address, wanted_name};
pub use rules::{Lost, Rules, takes, why_lost};
pub use share::{OverShare, Place, Room};

use super::Reason;

/// The status of a refusal on the way out: RFC 9110 §15.5.8 asks for 407 where §15.5.2 asks for 401.
pub fn status(reason: Reason) -> u16 {
    match reason {
        Reason::CredentialsMissing | Reason::CredentialsInvalid => 407,
        reason => reason.status(),
    }
}

/// The sentence for people: `title` of the problem document. What a route says of functions is said of destinations here.
pub fn title(reason: Reason) -> &'static str {
    match reason {
        Reason::CredentialsMissing => "The way out is for known clients: say who you are",
        Reason::ForbiddenClient => "No rule names this client",
        Reason::UpstreamUnreachable => "The destination cannot be reached",
        Reason::UpstreamReset => "The destination's answer broke off or was invalid",
        Reason::UpstreamTimeout => "The destination did not answer in time",
        Reason::NameNotResolved => "The destination's name cannot be resolved",
        reason => reason.title(),
    }
}

/// Whether a hello agrees with the name that must be asked for ([`wanted_name`]). What is not all there agrees with nothing.
pub fn hello_agrees(hello: &Hello, wanted: &str) -> bool {
    matches!(hello, Hello::Name(name) if name == wanted)
}

//! A function's `ramp` and the `[freeze]` as they are written.

use super::{
    model::Endpoint,
    read::table,
    secret::SecretRef,
    source::At,
    words::{DaysWord, FilePath, HoursWord, Moment, Patience, Percent, Text, Zone},
};

table! {
    struct Ramp {
        /// The version whose weight rises by itself.
        version: Text [required],
        /// Its weights, one after the other, in percent. Default `[1, 5, 25, 50, 100]`.
        steps: Vec<At<Percent>>,
        /// How long each is held. Default `10m`.
        hold: Patience,
        /// When it may move, such as `09:00-18:00`. Default: at any hour.
        hours: HoursWord,
        /// On which days it may move: `mon`, or `mon-fri`. Default: on all.
        days: Vec<At<DaysWord>>,
        /// Whose clock `hours` and `days` go by, such as `Asia/Shanghai`.
        timezone: Zone,
        /// Who is asked before each step. Default: nobody.
        before_step: Box<Hook>,
    }
}

table! {
    struct Hook {
        /// What is posted to.
        url: Endpoint [required],
        /// PEM bundle that alone is trusted for an https `url`. Default: the system's roots.
        ca: FilePath,
        /// A secret that is sent as a bearer token.
        bearer: SecretRef,
        /// A secret that signs what is posted.
        hmac: SecretRef,
        /// How long an answer may take. Default `10s`.
        timeout: Patience,
        /// When it is asked again, after it held a step or gave no answer. Default `1m`.
        again: Patience,
    }
}

table! {
    struct Freeze {
        /// Whose clock the windows go by, such as `Asia/Shanghai`.
        timezone: Zone [required],
        /// In these no ramp moves.
        windows: Vec<At<FreezeWindow>> [required],
    }
}

table! {
    struct FreezeWindow {
        /// The first moment: `2026-12-24`, or `2026-12-24 18:00`.
        from: Moment [required],
        /// The last day, or the first moment after: `2027-01-02`, or `2027-01-02 06:00`.
        to: Moment [required],
        /// Why, for people.
        reason: Text,
    }
}

//! The tables about function platforms as they are written: a function's, and those of the presets.

use super::{
    model::{Class, NamePattern, RetryOf},
    preset::Mark,
    raw::Function,
    read::{OneOrMany, Whole, table},
    source::At,
    words::{AnswerHeader, HeaderIs, Statuses, Text},
};

table! {
    struct Rule {
        /// The answer's status: `430`, `"5xx"`, or a list. Default: any.
        status: Statuses,
        /// A header that the answer has: `name: value`, or `name` for any value.
        header: HeaderIs,
        /// How such an answer ended.
        class: Class [required],
        /// What callers are told under `map_status`. Default: as fits the class.
        answer: Whole<400, 599>,
        /// Which requests `retries` may send again after such an answer: `any`, `idempotent` ones or `never`. Default: as the class says.
        retry: RetryOf,
        /// Whether the platform bills such a call: what a `budget` counts. Default: as the class says.
        billed: bool,
    }
}

table! {
    struct PlatformRequestId {
        /// The first of these that an answer has is logged.
        header: OneOrMany<AnswerHeader>,
        /// Whether callers get it too, as X-Platform-Request-Id. Default `false`.
        expose: bool,
    }
}

table! {
    struct Removed {
        /// Names, or their beginnings and a `*`; in place of the platform's own list.
        remove: Vec<At<NamePattern>> [required],
    }
}

table! {
    /// A preset: the keys of a function that it has a word on, and where each is from.
    struct Preset {
        /// What it is.
        about: Text [required],
        /// Its keys; `versions` has an example.
        function: Function [required],
        /// Where the keys are from.
        fact: Vec<At<Fact>>,
        /// How its answers are told apart.
        rule: Vec<At<PresetRule>>,
        /// What is known of it that no key says.
        note: Vec<At<Note>>,
    }
}

table! {
    struct Fact {
        /// Which keys.
        keys: Vec<At<Text>> [required],
        /// How sure that is.
        mark: Mark [required],
        /// Where it is from.
        source: Text [required],
    }
}

table! {
    struct PresetRule {
        /// The answer's status.
        status: Statuses,
        /// A header that the answer has.
        header: HeaderIs,
        /// How such an answer ended.
        class: Class [required],
        /// What callers are told under `map_status`.
        answer: Whole<400, 599>,
        /// Which requests may be sent again after it.
        retry: RetryOf,
        /// Whether the platform bills it.
        billed: bool,
        /// How sure that is.
        mark: Mark [required],
        /// Where it is from.
        source: Text [required],
    }
}

table! {
    struct Note {
        /// What about.
        about: Text [required],
        /// What there is to know.
        says: Text [required],
        /// How sure that is.
        mark: Mark [required],
        /// Where it is from.
        source: Text [required],
    }
}

//! A function's `ramp`, and the `[freeze]`.

use jiff::tz::TimeZone;

use super::{Scope, patience};
use crate::config::{
    model::{Freeze, FreezeWindow, Hook, Hours, Name, Ramp, VersionId},
    raw, raw_ramp,
    report::Problem,
    source::At,
};

impl Scope<'_> {
    /// `None`: there is none, or the report says what is wrong with it.
    pub(super) fn ramp(
        &mut self,
        function: &Name,
        raw: &raw::Function,
        names: &[&str],
        baseline: Option<VersionId>,
    ) -> Option<Ramp> {
        let at = raw.ramp.as_ref()?;
        let raw = &at.value;
        let version = raw.version.as_ref().and_then(|at| self.known_version(&at.value.0, at.span, function, names));
        match baseline {
            None => {
                let problem = Problem::at(format!("function `{function}` has a ramp and no baseline"), at.span)
                    .label("from which version is its share taken?")
                    .help("give one of the weights as `\"rest\"`, or name the `baseline`");
                self.report.push(problem);
            }
            Some(baseline) if version == Some(baseline) => {
                let span = raw.version.as_ref().map_or(at.span, |at| at.span);
                let name = names.get(baseline.index()).copied().unwrap_or_default();
                let problem = Problem::at(format!("`{name}` is the baseline itself"), span)
                    .label("expected the version that takes over from it")
                    .help("where its ramp is over, take `ramp` out");
                self.report.push(problem);
            }
            Some(_) => {}
        }
        let steps = raw.steps.as_ref();
        let shares: Vec<_> =
            steps.map_or_else(|| Ramp::STEPS.to_vec(), |list| list.value.iter().map(|at| at.value.0).collect());
        if let Some(list) = steps {
            if shares.is_empty() && !raw.broken {
                self.report
                    .push(Problem::at("`steps` is empty", list.span).label("expected such as `[1, 5, 25, 50, 100]`"));
            }
            let fall = list.value.windows(2).find(|pair| pair[0].value.0 >= pair[1].value.0);
            if let Some([before, after]) = fall {
                let problem = Problem::at("`steps` must rise", after.span)
                    .label(format!("expected more than {}", before.value.0))
                    .also(before.span, "the step before");
                self.report.push(problem);
            }
        }
        let before_step = raw.before_step.as_ref().map(|at| self.hook(&at.value));
        let when = self.hours(at)?;
        Some(Ramp {
            version: version?,
            steps: shares.into(),
            hold: patience(raw.hold.as_ref(), Ramp::HOLD.as_secs()),
            when,
            before_step: match before_step {
                None => None,
                Some(hook) => Some(Box::new(hook?)),
            },
        })
    }

    /// `None`: the report says what is wrong with it.
    fn hook(&mut self, raw: &raw_ramp::Hook) -> Option<Hook> {
        let raw_ramp::Hook { url, ca, bearer, hmac, timeout, again, broken: _ } = raw;
        let [bearer, hmac] = [bearer, hmac].map(|at| at.as_ref().map(|at| self.followed(at)));
        let url = url.as_ref()?.value.clone();
        let ca = match ca {
            Some(at) if !url.tls => {
                let problem = Problem::at("`ca` says nothing without an https `url`", at.span);
                self.report.push(problem.label("not needed here"));
                return None;
            }
            Some(at) => {
                let path = self.path(at);
                self.pointers.anchors.push(At { value: path.clone(), span: at.span });
                Some(path)
            }
            None => None,
        };
        Some(Hook {
            url,
            ca,
            bearer,
            hmac,
            timeout: patience(timeout.as_ref(), Hook::TIMEOUT.as_secs()),
            again: patience(again.as_ref(), Hook::AGAIN.as_secs()),
        })
    }

    fn hours(&mut self, at: &At<Box<raw_ramp::Ramp>>) -> Option<Hours> {
        let raw = &at.value;
        let needs = raw.hours.as_ref().map(|at| at.span).or_else(|| raw.days.as_ref().map(|at| at.span));
        if let (Some(span), None, false) = (needs, &raw.timezone, raw.broken) {
            let problem = Problem::at("`hours` and `days` need a `timezone`", span)
                .label("by whose clock?")
                .help("add such as `timezone = \"Asia/Shanghai\"`");
            self.report.push(problem);
        }
        if let (None, Some(zone)) = (needs, &raw.timezone) {
            let problem = Problem::at("`timezone` does nothing without `hours` or `days`", zone.span)
                .label("nothing goes by the clock")
                .help("add `hours = \"09:00-18:00\"`, or leave it out");
            self.report.push(problem);
        }
        let mut days = [raw.days.is_none(); 7];
        if let Some(list) = &raw.days {
            if list.value.is_empty() {
                self.report.push(
                    Problem::at("`days` is empty: it would never move", list.span).label("expected at least one day"),
                );
            }
            for at in &list.value {
                for (day, also) in days.iter_mut().zip(at.value.0) {
                    *day |= also;
                }
            }
        }
        Some(Hours {
            hours: raw.hours.as_ref().map(|at| (at.value.0, at.value.1)),
            days,
            timezone: raw.timezone.as_ref().map_or(TimeZone::UTC, |at| at.value.0.clone()),
        })
    }

    pub(super) fn freeze(&mut self, raw: &raw_ramp::Freeze) -> Freeze {
        let zone = raw.timezone.as_ref().map_or(TimeZone::UTC, |at| at.value.0.clone());
        let mut windows = Vec::new();
        for at in raw.windows.iter().flat_map(|list| &list.value) {
            let (Some(from), Some(to)) = (&at.value.from, &at.value.to) else { continue };
            let (first, end) = (from.value.first(), to.value.end());
            if first >= end {
                let problem = Problem::at("the window ends before it begins", to.span)
                    .label("expected a later moment")
                    .also(from.span, "it begins here");
                self.report.push(problem);
            }
            let reason = at.value.reason.as_ref().map(|at| at.value.0.clone());
            windows.push(FreezeWindow { from: first, to: end, timezone: zone.clone(), reason });
        }
        Freeze { windows }
    }
}

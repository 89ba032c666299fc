//! Before a ramp's step somebody may be asked: the question goes out here, and its answer comes in.

use super::Service;
use crate::{
    config::model::Share,
    ingress::live,
    release::{
        Event,
        hook::{Answer, Ask},
    },
    serve::{
        generations::Author,
        hooks::{self, Answered, Question},
    },
};

impl Service {
    /// Puts the questions that ramps have.
    pub fn ask_hooks(&mut self, asks: Vec<Ask>) {
        let config = self.board.live.load().snapshot.config.clone();
        let now = live::now();
        for ask in asks {
            let function = config.functions.iter().find(|function| function.name == ask.function);
            let hook = function.and_then(|f| f.ramp.as_ref()).and_then(|ramp| ramp.before_step.as_deref());
            let Some(hook) = hook else { continue };
            let Some(number) = self.releases.hooks.put(&ask, hook, now) else { continue };
            let guards = self.guards.status(&config);
            let guard = guards.iter().find(|guard| guard.function == *ask.function && guard.version == *ask.version);
            let says = guard.map(|guard| (guard.says.as_str(), &guard.evidence));
            let body = ask.json(self.board.live.load().snapshot.generation, says).to_string();
            let question = Question::new(hook, body, &self.loaded.material);
            let (resolver, orders, function) = (self.resolver.clone(), self.board.orders(), ask.function.clone());
            tokio::spawn(hooks::ask(question, resolver, orders, function, number));
        }
    }

    /// Somebody has answered: the ramp may take its step at its next look, or it is told why not.
    pub fn hook_answered(&mut self, answered: Answered) {
        let Answered { function, number, answer } = answered;
        let (result, author) = match &answer {
            Answer::GoOn => ("go", "before_step"),
            Answer::Hold(_) => ("hold", "before_step"),
            Answer::Failed(_) => ("failed", "gatepost"),
        };
        let Some(news) = self.releases.hooks.answered(&function, number, &answer, live::now()) else {
            self.board.metrics.count_hook(&function, result);
            return self.show_holds();
        };
        self.board.metrics.count_hook(&function, result);
        match news {
            (ask, None) => {
                let (version, from, to) = (&ask.version, ask.from, ask.to);
                tracing::info!(%function, %version, "before_step: ramp from {from} % to {to} % may go on");
            }
            (ask, Some(why)) => {
                let (version, from, to) = (&ask.version, ask.from, ask.to);
                let text = format!(
                    "function {function}: ramp of {version} is held at {from} % before {to} % by before_step: {why}"
                );
                let alarming = matches!(answer, Answer::Failed(_));
                let event = Event { function, text, evidence: None, alarming };
                self.happened(vec![event], &Author { by: Some(author.to_owned()), reason: None });
            }
        }
        self.show_holds();
    }

    /// For status and metrics; and forgets what no ramp asks any more.
    pub fn show_holds(&mut self) {
        let config = self.board.live.load().snapshot.config.clone();
        let book = &self.releases.book;
        self.releases.hooks.keep(|function| {
            let progress = book.state().functions.get(&**function)?.ramp.as_ref()?;
            progress.runs().then(|| (progress.version.as_str().into(), Share(progress.share)))
        });
        let held = self.releases.hooks.held().map(|(function, version)| (function.clone(), version.clone())).collect();
        self.board.metrics.hold_ramps(held, &|function| config.functions.iter().any(|f| f.name == *function));
        self.board.changing().releases = self.releases.told(&config);
    }
}

//! `gatepost doctor`: does every version answer as the config expects, and only through the gate?
//!
//! It calls functions itself, from this machine, with the config's own certificates and credentials; it needs no running gatepost. What it
//! sends is safe (RFC 9110 §9.2.1) and told word for word. [`dial`](crate::upstream::probe::dial) connects, [`call`](crate::upstream::probe::call) asks, [`judge`] says what
//! it means: pure.

mod judge;
mod machine;
mod told;
mod visit;

use std::sync::Arc;

use anyhow::anyhow;
use clap::{Args, ValueEnum};
use http::Method;
use tokio::{runtime, sync::Semaphore, task::JoinSet};

use super::{
    ConfigFile, check,
    failure::{Failure, Outcome},
    term::Terminal,
};
use crate::{
    config::Loaded,
    serve::{client_tls::Connectors, echo},
    upstream::Resolver,
};
use told::Told;
use visit::{Trusts, Visit};

/// Versions that are visited at a time.
const AT_ONCE: usize = 8;

#[derive(Debug, Args)]
pub(super) struct Options {
    /// Only these functions. Default: all.
    #[arg(value_name = "FUNCTION")]
    functions: Vec<String>,
    #[command(flatten)]
    file: ConfigFile,
    /// What each version is asked for, behind the path of its URL.
    #[arg(long, value_name = "PATH", default_value = "/", value_parser = path)]
    path: String,
    /// How it is asked: twice where it has a credential, with the signature and without.
    #[arg(long, value_enum, ignore_case = true, default_value_t = Safe::Head)]
    method: Safe,
    /// Only look names up, connect and check certificates: no function is called.
    #[arg(long)]
    no_call: bool,
    /// End with 1 for warnings as well.
    #[arg(long)]
    strict: bool,
    /// Print it as JSON.
    #[arg(long)]
    json: bool,
}

/// Methods that ask for no change (RFC 9110 §9.2.1).
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Safe {
    Head,
    Get,
    Options,
}

impl From<Safe> for Method {
    fn from(safe: Safe) -> Self {
        match safe {
            Safe::Head => Self::HEAD,
            Safe::Get => Self::GET,
            Safe::Options => Self::OPTIONS,
        }
    }
}

fn path(text: &str) -> Result<String, String> {
    let is_good = text.starts_with('/') && text.bytes().all(|b| b.is_ascii_graphic() && b != b'#');
    is_good.then(|| text.to_owned()).ok_or_else(|| "write a path such as `/health`, percent-encoded".to_owned())
}

pub(super) fn run(options: &Options, term: &mut Terminal) -> Outcome {
    let loaded = check::loaded(&options.file, term)?;
    let known = &loaded.config.functions;
    if let Some(unknown) = options.functions.iter().find(|name| known.iter().all(|f| *f.name != ***name)) {
        return Err(Failure::Usage(format!("no function is called `{unknown}`")));
    }
    let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
    let told = runtime.block_on(examine(options, Arc::new(loaded)))?;
    if options.json {
        term.json(&serde_json::to_value(&told)?)?;
    } else {
        told.print(term)?;
    }
    if told.problems > 0 || (options.strict && told.warnings > 0) {
        return Err(Failure::Told(1));
    }
    Ok(())
}

async fn examine(options: &Options, loaded: Arc<Loaded>) -> Outcome<Told> {
    let resolver = Resolver::new(runtime::Handle::current(), &loaded.config.server.dns);
    let trusts = Arc::new(Trusts::of(&loaded).await);
    let places = Arc::new(Semaphore::new(AT_ONCE));
    let mut visits = JoinSet::new();
    let mut count = 0;
    for (f, function) in loaded.config.functions.iter().enumerate() {
        if !options.functions.is_empty() && options.functions.iter().all(|name| **name != *function.name) {
            continue;
        }
        for v in 0..function.versions.len() {
            let visit = Visit {
                loaded: loaded.clone(),
                function: f,
                version: v,
                trusts: trusts.clone(),
                resolver: resolver.clone(),
                ask: (!options.no_call).then(|| (options.method.into(), options.path.clone())),
            };
            let (places, number) = (places.clone(), count);
            count += 1;
            visits.spawn(async move {
                // Nobody closes it.
                let _place = places.acquire().await;
                (number, visit.make().await)
            });
        }
    }
    let mut versions = Vec::new();
    while let Some(visited) = visits.join_next().await {
        versions.push(visited?);
    }
    versions.sort_by_key(|(number, _)| *number);
    let mut echoes = Vec::new();
    if !options.no_call {
        let questions = echo::questions(&loaded, &mut Connectors::default());
        for question in questions.map_err(|why| Failure::Failed(anyhow!(why)))? {
            let seen = question.ask().await;
            echoes.push((question, seen));
        }
    }
    Ok(Told::new(&loaded, versions.into_iter().map(|(_, told)| told).collect(), &echoes))
}

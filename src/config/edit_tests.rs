use proptest::prelude::*;

use super::*;

const HEAD: &str = r#"# what it listens on
[listener.web]
address = "127.0.0.1:0"

[route.f]
function = "f"

[function.f]
versions = { v1 = "http://127.0.0.1:1", v2 = "http://127.0.0.1:2", "v3.0" = "http://127.0.0.1:3" }
"#;

fn sources(tail: &str) -> Sources {
    Sources::new([("gatepost.toml", format!("{HEAD}{tail}"))])
}

/// `v2=10 v1=rest`
fn wanted(text: &str) -> Vec<(String, Asked)> {
    let word = |word: &str| match word {
        "rest" => Asked::Rest,
        number => Asked::Percent(Share((number.parse::<f64>().unwrap() * 100.0).round() as u16)),
    };
    text.split(' ').map(|one| one.split_once('=').map(|(name, w)| (name.to_owned(), word(w))).unwrap()).collect()
}

/// What stands behind the head afterwards.
fn after(tail: &str, words: &str) -> String {
    let weights = match words {
        "baseline" => to_baseline(&sources(tail), "f"),
        words => shift(&sources(tail), "f", &wanted(words)),
    };
    match weights {
        Ok(Weights { edit: None, .. }) => tail.to_owned(),
        Ok(Weights { edit: Some(edit), .. }) => edit.text.strip_prefix(HEAD).unwrap().to_owned(),
        Err(error) => error.to_string(),
    }
}

#[test]
fn only_the_number_changes() {
    let tail = "  [ function . f . weights ]   # who gets what\r\n\tv1  =  'rest' # the old one\r\n  v2 = 5 # percent\r\n\r\n# the end";
    assert_eq!(after(tail, "v2=10"), tail.replace("= 5 #", "= 10 #"));
    assert_eq!(after(tail, "v2=0.25"), tail.replace("= 5 #", "= 0.25 #"));
    assert_eq!(after(tail, "v2=5"), tail, "it is that already");
    assert_eq!(after(tail, "baseline"), tail.replace("= 5 #", "= 0 #"));
}

#[test]
fn the_rest_gives_and_takes() {
    let tail = "weights = { v1 = \"rest\", v2 = 5, \"v3.0\" = 20.5 }";
    assert_eq!(after(tail, "v2=79.5"), tail.replace("5,", "79.5,"));
    assert_eq!(after(tail, "v2=80 v3.0=20"), "weights = { v1 = \"rest\", v2 = 80, \"v3.0\" = 20 }");
    // It has nothing left to give: the others do.
    assert_eq!(after(tail, "v2=90"), "weights = { v1 = \"rest\", v2 = 90, \"v3.0\" = 10 }");
    // What it is asked to have is what the others leave.
    assert_eq!(after(tail, "v1=49"), "weights = { v1 = \"rest\", v2 = 10, \"v3.0\" = 41 }");
    assert_eq!(after(tail, "v2=rest v1=0"), "weights = { v1 = 0, v2 = \"rest\", \"v3.0\" = 20.5 }");
    assert_eq!(after(tail, "v2=rest"), "`v1` has the rest now: give it a number as well");
    assert_eq!(after(tail, "baseline"), "weights = { v1 = \"rest\", v2 = 0, \"v3.0\" = 0 }");
}

#[test]
fn without_a_rest_the_others_are_scaled() {
    let tail = "baseline = \"v1\"\nweights.v1 = 70\nweights.v2 = 10\nweights.\"v3.0\" = 20\n";
    assert_eq!(
        after(tail, "v2=40"),
        tail.replace("= 70", "= 46.67").replace("= 10", "= 40").replace("= 20", "= 13.33")
    );
    assert_eq!(after(tail, "v2=10 v1=60"), tail.replace("= 70", "= 60").replace("= 20", "= 30"));
    assert_eq!(after(tail, "baseline"), tail.replace("= 10", "= 0").replace("= 70", "= 100").replace("= 20", "= 0"));
    let canary = "baseline = \"v1\"\nweights = { v1 = 0, v2 = 100 }";
    assert_eq!(after(canary, "v2=90"), "baseline = \"v1\"\nweights = { v1 = 10, v2 = 90 }");
    assert_eq!(
        after("weights = { v2 = 100 }", "v2=90"),
        "the weights would total 90 %: say which version gets the other 10 %"
    );
    assert!(after("weights = { v2 = 100 }", "baseline").contains("has no baseline"));
}

#[test]
fn a_version_that_had_no_weight_gets_a_line_like_the_others() {
    assert_eq!(
        after("weights = { v1 = \"rest\" }", "v2=1 v3.0=2"),
        "weights = { v1 = \"rest\", v2 = 1, \"v3.0\" = 2 }"
    );
    assert_eq!(
        after("[function.f.weights]\n  v1 = \"rest\" # old\n# next\n", "v2=1 v3.0=2"),
        "[function.f.weights]\n  v1 = \"rest\" # old\n  v2 = 1\n  \"v3.0\" = 2\n# next\n"
    );
    assert_eq!(after("weights.v1 = \"rest\"\r\n", "v2=1"), "weights.v1 = \"rest\"\r\nweights.v2 = 1\r\n");
    assert_eq!(after("weights.\"v1\" = \"rest\"", "v2=1"), "weights.\"v1\" = \"rest\"\nweights.v2 = 1");
}

#[test]
fn what_makes_no_sense_is_said() {
    let tail = "weights = { v1 = \"rest\", v2 = 5 }";
    assert_eq!(after(tail, "v2=60 v3.0=60"), "that is 120 % in all: more than there is");
    assert_eq!(after(tail, "v2=1 v2=2"), "`v2` is asked for twice");
    assert!(after(tail, "v4=1").starts_with("no version of function `f` is called `v4`: did you mean"));
    let error = shift(&sources(tail), "orders", &wanted("v1=1")).unwrap_err();
    assert_eq!(error.to_string(), "no function is called `orders`; there are: f");
    assert!(matches!(shift(&sources("weights = { v1 = 5 }"), "f", &wanted("v1=1")), Err(CannotEdit::Wrong(_))));
}

#[test]
fn weights_in_an_included_file_are_changed_there() {
    let sources =
        Sources::new([("gatepost.toml", HEAD), ("conf.d/w.toml", "[function.f.weights]\nv1 = \"rest\"\nv2 = 5\n")]);
    let weights = shift(&sources, "f", &wanted("v2=10")).unwrap();
    let edit = weights.edit.unwrap();
    assert_eq!((edit.file, edit.text.as_str()), (1, "[function.f.weights]\nv1 = \"rest\"\nv2 = 10\n"));
    let told: Vec<_> = weights.versions.iter().map(|(name, was, is)| format!("{name} {was} {is}")).collect();
    assert_eq!(told, ["v1 95 90", "v2 5 10", "v3.0 0 0"]);
}

proptest! {
    /// Whatever is asked for, it is what the file says afterwards, or the file stays as it is.
    #[test]
    fn what_was_asked_for_is_what_it_says(
        (a, b) in (0u16..=100, 0u16..=100),
        rest in any::<bool>(),
        wish in prop::collection::btree_map(prop::sample::select(vec!["v1", "v2", "v3.0"]), 0u16..=10_000, 1..4),
    ) {
        let (b, c) = (b.min(100 - a), 100 - a - b.min(100 - a));
        let third = if rest { "\"rest\"".to_owned() } else { c.to_string() };
        let tail = format!("weights = {{ v1 = {third}, v2 = {a}, \"v3.0\" = {b} }} # end\n");
        let wish: Vec<_> = wish.into_iter().map(|(name, share)| (name.to_owned(), Asked::Percent(Share(share)))).collect();
        if let Ok(weights) = shift(&sources(&tail), "f", &wish) {
            prop_assert_eq!(weights.versions.iter().map(|(_, _, is)| u32::from(is.0)).sum::<u32>(), 10_000);
            for (name, asked) in &wish {
                let is = weights.versions.iter().find(|(version, ..)| version == name).unwrap().2;
                prop_assert_eq!(Asked::Percent(is), *asked);
            }
            if let Some(edit) = weights.edit {
                let kept = edit.text.starts_with(HEAD) && edit.text.ends_with("} # end\n");
                prop_assert!(kept);
            }
        }
    }
}

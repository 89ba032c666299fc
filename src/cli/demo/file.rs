//! The config file of the demo: short, commented, made to be edited.

use std::{net::SocketAddr, path::Path};

use super::function::Version;

/// The file's text. `state` is where gatepost keeps its state; quoted, so that any path is right.
pub(super) fn text(listen: SocketAddr, versions: &[Version], state: &Path) -> String {
    let quoted = |text: &str| serde_json::Value::from(text).to_string();
    let state_dir = quoted(&state.to_string_lossy());
    let admin = quoted(&format!("unix:{}", state.join("admin.sock").display()));
    let access = quoted(&state.join("access.log").to_string_lossy());
    let urls: String =
        versions.iter().map(|version| format!("{} = \"http://{}\"\n", version.name, version.address)).collect();
    format!(
        r#"# Edit me: save, and watch the terminal where the demo runs.

[listener.demo]
address = "{listen}"

# One function, two versions of it, and how its calls are shared out.
[function.hello.versions]
{urls}
[function.hello.weights]
v1 = "rest"
v2 = 5                  # percent: try 50, or 0, or 500

# Keep each caller on its version: take the # off, and send -H 'x-user: alice'.
[function.hello]
# sticky = {{ by = ["header:x-user"] }}
override = [{{ header = "x-tester: yes", version = "v2" }}]

[route.hello]
path = "/*"
function = "hello"

# Two a second for each address, five at once; the sixth is answered with 429.
[route.limited]
path = "/limited/*"
function = "hello"
limits = [{{ rate = "2/s", burst = 5, per = "client_ip" }}]

[server]
workers = 1             # so that the split is exact however the calls come in
state_dir = {state_dir}

[admin]
address = {admin}

[log]
access = {access}
"#
    )
}

#[cfg(test)]
mod tests {
    use crate::{
        cli::demo::function::Functions,
        config::{self, Mode},
    };

    use super::*;

    #[test]
    fn the_file_is_right_as_it_is_and_with_its_example_taken_in() {
        let dir = tempfile::tempdir().unwrap();
        let functions = Functions::start(&["v1", "v2"]).unwrap();
        let text = text("127.0.0.1:8080".parse().unwrap(), &functions.versions, dir.path());
        let file = dir.path().join("gatepost.toml");
        for text in [text.clone(), text.replace("# sticky", "sticky")] {
            std::fs::write(&file, text).unwrap();
            let loaded = config::load(&file, Mode::Run).unwrap_or_else(|report| panic!("{report}"));
            assert_eq!(loaded.config.functions[0].weights[1].to_string(), "5");
        }
        std::fs::write(&file, text.replace("v2 = 5 ", "v2 = 500 ")).unwrap();
        assert!(config::load(&file, Mode::Run).is_err());
    }
}

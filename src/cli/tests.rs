use clap::CommandFactory;

use super::*;

fn parse(line: &str) -> Result<CommandLine, clap::Error> {
    CommandLine::try_parse_from(line.split(' '))
}

#[test]
fn the_command_line_is_consistent() {
    CommandLine::command().debug_assert();
}

#[test]
fn the_version_is_the_packages() {
    let shown = parse("gatepost --version").unwrap_err();
    assert_eq!(shown.to_string(), format!("gatepost {}\n", env!("CARGO_PKG_VERSION")));
    assert_eq!(shown.exit_code(), 0);
}

#[test]
fn a_wrong_command_line_is_exit_code_2() {
    for line in ["gatepost", "gatepost statsu", "gatepost status --nope", "gatepost completions tcl"] {
        assert_eq!(parse(line).unwrap_err().exit_code(), 2, "{line}");
    }
    assert!(parse("gatepost statsu").unwrap_err().to_string().contains("'status'"));
}

#[test]
fn every_command_and_option_says_what_it_is() {
    for command in CommandLine::command().get_subcommands() {
        assert!(command.get_about().is_some(), "{} has no text", command.get_name());
        for option in command.get_arguments().filter(|option| option.get_id() != "help") {
            assert!(option.get_help().is_some(), "{} {}", command.get_name(), option.get_id());
        }
    }
}

#[test]
fn completions_name_the_commands() {
    let (mut term, out, _) = Terminal::on_pads();
    dispatch(parse("gatepost completions bash").unwrap().command, &mut term).unwrap();
    assert!(out.text().contains("completions") && out.text().contains("status"));
}

#[test]
fn there_is_a_page_for_each_command() {
    let dir = tempfile::tempdir().unwrap();
    let (mut term, _, _) = Terminal::on_pads();
    dispatch(parse(&format!("gatepost man {}", dir.path().display())).unwrap().command, &mut term).unwrap();
    let page = |name: &str| std::fs::read_to_string(dir.path().join(name)).unwrap();
    let own = page("gatepost.1");
    for command in CommandLine::command().get_subcommands().filter(|command| !command.is_hide_set()) {
        let name = command.get_name();
        assert!(own.contains(&format!("gatepost\\-{}(1)", name.replace('-', "\\-"))), "{name} is not in {own}");
        assert!(page(&format!("gatepost-{name}.1")).contains(".SH SYNOPSIS"), "{name}");
    }
    for section in ["EXIT STATUS", "SIGNALS", "ENVIRONMENT", "FILES"] {
        assert!(own.contains(section), "{section}");
    }
    let nowhere = dispatch(parse("gatepost man /nonexistent/pages").unwrap().command, &mut term).unwrap_err();
    assert!(format!("{nowhere:?}").contains("cannot write man pages into /nonexistent/pages"), "{nowhere:?}");
}

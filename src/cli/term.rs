//! Where a command's words go: stdout and stderr, in colour only where a person looks.

use std::{
    borrow::Cow,
    env,
    fmt::{self, Display, Write as _},
    io::{self, IsTerminal, Write},
};

/// The two streams of the process, or two buffers in a test.
pub(super) struct Terminal {
    out: Box<dyn Write + Send>,
    err: Box<dyn Write + Send>,
    colour_out: bool,
    colour_err: bool,
}

/// How a word stands out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ink {
    Bold,
    Dim,
    Red,
    Green,
    Yellow,
    Cyan,
}

impl Ink {
    const ALL: [Self; 6] = [Self::Bold, Self::Dim, Self::Red, Self::Green, Self::Yellow, Self::Cyan];

    fn code(self) -> &'static str {
        match self {
            Self::Bold => "1",
            Self::Dim => "2",
            Self::Red => "1;31",
            Self::Green => "32",
            Self::Yellow => "33",
            Self::Cyan => "36",
        }
    }
}

impl Terminal {
    pub(super) fn of_process() -> Self {
        let wanted = wants_colour(env::var_os("NO_COLOR").as_deref(), env::var_os("TERM").as_deref());
        Self {
            out: Box::new(io::stdout()),
            err: Box::new(io::stderr()),
            colour_out: wanted && io::stdout().is_terminal(),
            colour_err: wanted && io::stderr().is_terminal(),
        }
    }

    /// Whether stderr takes colours.
    pub(super) fn colour_err(&self) -> bool {
        self.colour_err
    }

    /// One line on stdout. Of control characters only line ends, tabs and the colours of [`Ink`] come through.
    pub(super) fn line(&mut self, text: impl Display) -> io::Result<()> {
        let text = text.to_string();
        writeln!(self.out, "{}", printable(&text, self.colour_out))?;
        self.out.flush()
    }

    /// A JSON document on stdout, indented.
    pub(super) fn json(&mut self, value: &serde_json::Value) -> io::Result<()> {
        self.line(format_args!("{value:#}"))
    }

    /// `text` in `ink`, for stdout.
    pub(super) fn ink<T: Display>(&self, ink: Ink, text: T) -> Inked<T> {
        Inked { ink: self.colour_out.then_some(ink), text }
    }

    /// `warning: …` on stderr.
    pub(super) fn warn(&mut self, text: impl Display) {
        let word = Inked { ink: self.colour_err.then_some(Ink::Yellow), text: "warning" };
        let _ = writeln!(self.err, "{word}: {}", printable(&text.to_string(), false));
    }

    /// `error: …` on stderr.
    pub(super) fn complain(&mut self, text: &str) {
        let word = Inked { ink: self.colour_err.then_some(Ink::Red), text: "error" };
        let _ = writeln!(self.err, "{word}: {}", printable(text.trim_end(), false));
    }

    /// A report that brings its own words and colours, on stderr.
    pub(super) fn complain_plainly(&mut self, text: &str) {
        let _ = writeln!(self.err, "{}", text.trim_end());
    }
}

/// A text in one line, with no character that a terminal would obey: what logs, peers and callers said is not to move a cursor.
///
/// Control characters (C0, DEL, C1) become such as `\u001b`, an escape that JSON and TOML read as well.
pub(super) fn clean(text: &str) -> Cow<'_, str> {
    if !text.contains(char::is_control) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    text.chars().for_each(|c| push_clean(&mut out, c));
    Cow::Owned(out)
}

fn push_clean(out: &mut String, c: char) {
    if c.is_control() {
        let _ = write!(out, "\\u{:04x}", u32::from(c));
    } else {
        out.push(c);
    }
}

/// [`clean`], but for line ends, tabs and, where a terminal takes them, our own colours.
fn printable(text: &str, colours: bool) -> Cow<'_, str> {
    if !text.contains(|c: char| c.is_control() && !matches!(c, '\n' | '\t')) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let ours = if colours && c == '\x1b' { colour(rest) } else { None };
        let (piece, after) = rest.split_at(ours.unwrap_or_else(|| c.len_utf8()));
        match ours.is_some() || matches!(c, '\n' | '\t') {
            true => out.push_str(piece),
            false => push_clean(&mut out, c),
        }
        rest = after;
    }
    Cow::Owned(out)
}

/// The length of the colour that a text begins with.
fn colour(text: &str) -> Option<usize> {
    let digits = text.strip_prefix("\x1b[")?;
    let end = digits.find('m')?;
    let code = &digits[..end];
    (code == "0" || Ink::ALL.iter().any(|ink| ink.code() == code)).then_some("\x1b[".len() + end + 1)
}

/// <https://no-color.org>: set and not empty means no. A dumb terminal shows the codes.
fn wants_colour(no_color: Option<&std::ffi::OsStr>, term: Option<&std::ffi::OsStr>) -> bool {
    no_color.is_none_or(|value| value.is_empty()) && term.is_none_or(|term| term != "dumb")
}

/// A text in a colour; padding (`{:<8}`) is counted without the codes.
pub(super) struct Inked<T> {
    ink: Option<Ink>,
    text: T,
}

impl<T: Display> Display for Inked<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.ink {
            None => self.text.fmt(f),
            Some(ink) => {
                write!(f, "\x1b[{}m", ink.code())?;
                self.text.fmt(f)?;
                f.write_str("\x1b[0m")
            }
        }
    }
}

#[cfg(test)]
pub(super) mod testing {
    use std::sync::{Arc, Mutex};

    use super::*;

    /// A terminal that is read back.
    #[derive(Clone, Default)]
    pub(in crate::cli) struct Pad(Arc<Mutex<Vec<u8>>>);

    impl Pad {
        pub(in crate::cli) fn text(&self) -> String {
            String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
        }
    }

    impl Write for Pad {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Terminal {
        /// A terminal without colours, and what is written on its stdout and stderr.
        pub(in crate::cli) fn on_pads() -> (Self, Pad, Pad) {
            let (out, err) = (Pad::default(), Pad::default());
            let term =
                Self { out: Box::new(out.clone()), err: Box::new(err.clone()), colour_out: false, colour_err: false };
            (term, out, err)
        }
    }

    #[test]
    fn no_color_and_dumb_terminals_are_respected() {
        let set = |text: &'static str| Some(std::ffi::OsStr::new(text));
        assert!(wants_colour(None, set("xterm")));
        assert!(wants_colour(set(""), None));
        assert!(!wants_colour(set("1"), set("xterm")));
        assert!(!wants_colour(None, set("dumb")));
    }

    #[test]
    fn no_text_moves_the_cursor() {
        assert_eq!(clean("a\x1b[31m\n\t\u{7f}\u{9b}2J é"), "a\\u001b[31m\\u000a\\u0009\\u007f\\u009b2J é");
        let (mut term, out, err) = Terminal::on_pads();
        term.line("a\x1b[31mX\n\tb\r\u{9b}2J").unwrap();
        term.warn("a\x1b[0m");
        term.complain("b\x1b[0m");
        assert_eq!(out.text(), "a\\u001b[31mX\n\tb\\u000d\\u009b2J\n");
        assert_eq!(err.text(), "warning: a\\u001b[0m\nerror: b\\u001b[0m\n");
        assert_eq!(printable("\x1b[1;31mred\x1b[0m\x1b[2J\x1b[4", true), "\x1b[1;31mred\x1b[0m\\u001b[2J\\u001b[4");
    }

    #[test]
    fn padding_does_not_count_the_colour() {
        let word = Inked { ink: Some(Ink::Green), text: "ok" };
        assert_eq!(format!("{word:<4}|"), "\x1b[32mok  \x1b[0m|");
    }
}

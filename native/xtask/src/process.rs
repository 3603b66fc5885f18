//! Running other programs.

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Output, Stdio};

use crate::error::{Error, Result};

/// How many lines of a failed command's output are worth showing.
const TAIL: usize = 25;

/// Runs a command and returns its standard output, or `None` when it can't be run or fails.
pub fn output_of(program: &str, args: &[&str]) -> Option<String> {
    let output = Command::new(program)
        .args(args)
        .stdin(Stdio::null())
        .output()
        .ok()?;
    output
        .status
        .success()
        .then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Runs a command to its end with its output captured.
pub fn capture(command: &mut Command, what: &str) -> Result<Output> {
    command
        .stdin(Stdio::null())
        .output()
        .map_err(|source| start_failure(command, what, &source))
}

/// Runs a command that must succeed; its output is shown only when it fails.
pub fn run_quietly(command: &mut Command, what: &str, remedy: &str) -> Result<()> {
    let output = capture(command, what)?;
    if output.status.success() {
        return Ok(());
    }
    Err(Error::CommandFailed {
        what: what.to_owned(),
        status: output.status.to_string(),
        output: tail(&both_streams(&output)),
        remedy: remedy.to_owned(),
    })
}

/// Runs a command whose standard output is shown, and returns success and its standard error.
pub fn run_shown(command: &mut Command, what: &str) -> Result<(bool, String)> {
    let mut child = command
        .stdin(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|source| start_failure(command, what, &source))?;
    let mut collected = String::new();
    if let Some(stderr) = child.stderr.take() {
        for line in BufReader::new(stderr).lines().map_while(|line| line.ok()) {
            collected.push_str(&line);
            collected.push('\n');
        }
    }
    let status = child
        .wait()
        .map_err(|source| start_failure(command, what, &source))?;
    Ok((status.success(), collected))
}

pub fn both_streams(output: &Output) -> String {
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

pub fn tail(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    let start = lines.len().saturating_sub(TAIL);
    lines[start..].join("\n")
}

/// Prints one line of progress.
pub fn say(message: &str) {
    // A closed standard output must not end the preparation.
    let _ = writeln!(std::io::stdout(), "  {message}");
}

fn start_failure(command: &Command, what: &str, source: &std::io::Error) -> Error {
    Error::CommandFailed {
        what: what.to_owned(),
        status: source.to_string(),
        output: format!("could not start {}", command.get_program().display()),
        remedy: "Install it and make sure that it is on the PATH.".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tail_keeps_the_last_lines() {
        let text: String = (0..100).map(|line| format!("{line}\n")).collect();
        let kept = tail(&text);
        assert!(kept.ends_with("99"));
        assert_eq!(kept.lines().count(), TAIL);
    }

    #[test]
    fn a_missing_program_is_an_error_that_names_it() {
        let error = run_quietly(&mut Command::new("no-such-program"), "the test", "Do this.")
            .expect_err("nothing to run");
        assert!(error.to_string().contains("no-such-program"));
    }
}

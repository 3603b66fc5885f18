//! A C++ compiler that knows std::format, which mlx-c needs.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::error::{Error, Result};
use crate::platform::{Os, Platform};
use crate::process::{both_streams, capture, output_of, tail};

const CANDIDATES: [&str; 10] = [
    "g++",
    "g++-14",
    "g++-15",
    "g++-13",
    "g++-16",
    "clang++",
    "clang++-20",
    "clang++-19",
    "clang++-18",
    "clang++-17",
];

const PROBE: &str =
    "#include <format>\nint main() { return std::format(\"{}\", 1).size() != 1; }\n";

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compiler {
    /// As it would stand in `CXX`: a program, perhaps with arguments.
    pub command: String,
    pub version: String,
}

impl Compiler {
    /// `CXX` if it is set, else the first candidate that is new enough.
    pub fn find(platform: Platform) -> Result<Self> {
        if let Some(command) = env::var("CXX").ok().filter(|cxx| !cxx.trim().is_empty()) {
            return Self::named(&command, platform);
        }
        if platform.os == Os::MacOs {
            return Self::named("/usr/bin/c++", platform);
        }
        let mut tried = Vec::new();
        for candidate in CANDIDATES {
            match Self::inspect(candidate) {
                Some((compiler, true)) => return Ok(compiler),
                Some((compiler, false)) => {
                    tried.push(format!("{candidate} {}", compiler.version));
                }
                None => {}
            }
        }
        if tried.is_empty() {
            tried.push("g++ and clang++: none is installed".to_owned());
        }
        Err(Error::CompilerMissing {
            tried: tried.join(", "),
        })
    }

    fn named(command: &str, platform: Platform) -> Result<Self> {
        match Self::inspect(command) {
            Some((compiler, _)) => Ok(compiler),
            None => Err(Error::ToolMissing {
                tool: command.to_owned(),
                purpose: "compile mlx-c",
                remedy: match platform.os {
                    Os::MacOs => "Run xcode-select --install.".to_owned(),
                    Os::Linux => "Name an installed compiler in CXX, or unset it.".to_owned(),
                },
            }),
        }
    }

    /// The compiler and whether its version promises std::format.
    fn inspect(command: &str) -> Option<(Self, bool)> {
        let mut words = command.split_whitespace();
        let program = words.next()?;
        let mut args: Vec<&str> = words.collect();
        args.extend(["-E", "-dM", "-x", "c++", "/dev/null"]);
        let macros = output_of(program, &args)?;
        let number = |name: &str| -> Option<u32> {
            let line = macros.lines().find_map(|line| {
                line.strip_prefix("#define ")?
                    .strip_prefix(name)?
                    .strip_prefix(' ')
            })?;
            line.trim().parse().ok()
        };
        let clang = number("__clang_major__");
        let version = match clang {
            Some(major) => format!("clang {major}.{}", number("__clang_minor__")?),
            None => format!("gcc {}.{}", number("__GNUC__")?, number("__GNUC_MINOR__")?),
        };
        let new_enough = clang.map_or_else(
            || number("__GNUC__").is_some_and(|major| major >= 13),
            |major| major >= 17,
        );
        let compiler = Self {
            command: command.to_owned(),
            version,
        };
        Some((compiler, new_enough))
    }

    /// Compiles a line with std::format, because a new compiler may use an old library.
    pub fn check(&self, dir: &Path) -> Result<()> {
        let source = dir.join("probe.cpp");
        std::fs::write(&source, PROBE).map_err(Error::io("write", &source))?;
        let mut command = self.start();
        command.args(["-std=c++20", "-fsyntax-only"]).arg(&source);
        let output = capture(&mut command, "the C++ compiler")?;
        std::fs::remove_file(&source).map_err(Error::io("remove", &source))?;
        if output.status.success() {
            return Ok(());
        }
        Err(Error::CompilerTooOld {
            compiler: format!("{} ({})", self.command, self.version),
            output: tail(&both_streams(&output)),
        })
    }

    /// The C++ library that code from this compiler must be linked with (`None`: the system's).
    pub fn standard_library(&self, platform: Platform) -> Option<PathBuf> {
        if platform.os == Os::MacOs {
            return None;
        }
        let output = self
            .start()
            .arg("-print-file-name=libstdc++.so")
            .output()
            .ok()?;
        let path = PathBuf::from(String::from_utf8_lossy(&output.stdout).trim());
        path.is_absolute()
            .then(|| path.canonicalize().ok())
            .flatten()
    }

    fn start(&self) -> Command {
        let mut words = self.command.split_whitespace();
        let mut command = Command::new(words.next().unwrap_or_default());
        command.args(words);
        command
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::tests::TempDir;

    #[test]
    fn a_compiler_without_std_format_is_refused() {
        let dir = TempDir::new();
        let script = dir.0.join("old-c++");
        let text = "#!/bin/sh\necho 'fatal error: format: No such file or directory' >&2\nexit 1\n";
        std::fs::write(&script, text).expect("a script");
        let compiler = Compiler {
            command: format!("sh {}", script.display()),
            version: "gcc 12.2".to_owned(),
        };
        let error = compiler.check(&dir.0).expect_err("too old");
        assert!(matches!(error, Error::CompilerTooOld { .. }));
        assert!(error.to_string().contains("No such file"));
    }

    #[test]
    fn a_missing_compiler_is_named() {
        let platform = Platform::of("linux", "x86_64").expect("a platform");
        let error = Compiler::named("no-such-c++", platform).expect_err("missing");
        assert!(error.to_string().starts_with("no-such-c++ was not found"));
    }
}

//! What the crates depend on may be shipped, comes from crates.io and is there once.

use std::collections::BTreeMap;
use std::process::Command;

use serde_json::Value;

/// Each can be combined with the MIT licence of Mlx.
const ALLOWED: &[&str] = &[
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CC0-1.0",
    "ISC",
    "MIT",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
];

/// Crates of which two versions in one process would not know each other's values.
const ONCE: &[&str] = &[
    "mlx-rs",
    "mlx-sys",
    "rustler",
    "mimalloc",
    "libmimalloc-sys",
];

fn packages() -> Vec<Value> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version=1", "--offline", "--locked"])
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let mut metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    serde_json::from_value(metadata["packages"].take()).unwrap()
}

fn name(package: &Value) -> String {
    format!(
        "{} {}",
        package["name"].as_str().unwrap(),
        package["version"].as_str().unwrap()
    )
}

/// An expression such as `(MIT OR Apache-2.0) AND Unicode-3.0`; the oldest crates write `/`
/// for `OR`.
fn is_allowed(expression: &str) -> bool {
    let expression = expression.replace('/', " OR ");
    let mut words = Vec::new();
    for part in expression.split_whitespace() {
        let inner = part.trim_start_matches('(');
        words.extend(std::iter::repeat_n("(", part.len() - inner.len()));
        let word = inner.trim_end_matches(')');
        words.push(word);
        words.extend(std::iter::repeat_n(")", inner.len() - word.len()));
    }
    let mut words = words.into_iter().peekable();
    any(&mut words) && words.next().is_none()
}

type Words<'a> = std::iter::Peekable<std::vec::IntoIter<&'a str>>;

fn any(words: &mut Words) -> bool {
    let mut allowed = all(words);
    while words.next_if_eq(&"OR").is_some() {
        allowed |= all(words);
    }
    allowed
}

fn all(words: &mut Words) -> bool {
    let mut allowed = one(words);
    while words.next_if_eq(&"AND").is_some() {
        allowed &= one(words);
    }
    allowed
}

fn one(words: &mut Words) -> bool {
    if words.next_if_eq(&"(").is_some() {
        let allowed = any(words);
        return words.next() == Some(")") && allowed;
    }
    let mut licence = words.next().unwrap_or_default().to_owned();
    if words.next_if_eq(&"WITH").is_some() {
        licence = format!("{licence} WITH {}", words.next().unwrap_or_default());
    }
    ALLOWED.contains(&licence.as_str())
}

#[test]
fn licences_are_allowed() {
    let refused: Vec<String> = packages()
        .iter()
        .filter(|package| !package["license"].as_str().is_some_and(is_allowed))
        .map(|package| format!("{}: {}", name(package), package["license"]))
        .collect();
    assert!(refused.is_empty(), "{refused:#?}");
}

#[test]
fn sources_are_crates_io_or_the_workspace() {
    let registry = "registry+https://github.com/rust-lang/crates.io-index";
    let strange: Vec<String> = packages()
        .iter()
        .filter(|package| {
            package["source"]
                .as_str()
                .is_some_and(|source| source != registry)
        })
        .map(name)
        .collect();
    assert!(strange.is_empty(), "{strange:#?}");
}

#[test]
fn crates_that_share_values_are_there_once() {
    let mut versions: BTreeMap<String, usize> = BTreeMap::new();
    for package in packages() {
        *versions
            .entry(package["name"].as_str().unwrap().to_owned())
            .or_default() += 1;
    }
    for name in ONCE {
        assert_eq!(versions.get(*name), Some(&1), "{name}");
    }
}

#[test]
fn expressions_are_read() {
    assert!(is_allowed("MIT"));
    assert!(is_allowed("MIT OR GPL-3.0"));
    assert!(is_allowed("GPL-3.0/MIT"));
    assert!(is_allowed("(MIT OR Apache-2.0) AND Unicode-3.0"));
    assert!(is_allowed("Apache-2.0 WITH LLVM-exception OR GPL-2.0"));
    assert!(!is_allowed("GPL-3.0"));
    assert!(!is_allowed("MIT AND GPL-3.0"));
    assert!(!is_allowed("(MIT OR Apache-2.0) AND GPL-3.0"));
    assert!(!is_allowed(""));
}

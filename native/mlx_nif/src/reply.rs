use std::sync::Arc;

use mlx_core::Error;
use rustler::env::SavedTerm;
use rustler::{Encoder, Env, LocalPid, NifTaggedEnum, OwnedEnv, Term};

use crate::error::ErrorMap;

/// `{:ok, value}` or `{:error, fields}`.
#[derive(NifTaggedEnum)]
#[rustler(encode)]
pub enum Outcome<T> {
    Ok(T),
    Error(ErrorMap),
}

impl<T, E: Into<ErrorMap>> From<Result<T, E>> for Outcome<T> {
    fn from(result: Result<T, E>) -> Self {
        match result {
            Ok(value) => Outcome::Ok(value),
            Err(error) => Outcome::Error(error.into()),
        }
    }
}

/// An answer that a process waits for: it is sent `{tag, outcome}` from a worker.
pub struct Reply {
    letter: Option<Letter>,
}

/// A message to a process, not written yet.
pub struct Letter {
    env: OwnedEnv,
    tag: SavedTerm,
    to: LocalPid,
}

impl Letter {
    pub fn new(env: Env, tag: Term) -> Letter {
        let owned = OwnedEnv::new();
        let tag = owned.save(tag);
        Letter {
            env: owned,
            tag,
            to: env.pid(),
        }
    }

    pub fn send(mut self, write: impl for<'a> FnOnce(Env<'a>) -> Term<'a>) {
        let tag = self.tag;
        // Nobody waits for the answer of a process that has ended.
        let _ = self.env.send_and_clear(&self.to, |env| {
            let body = write(env);
            (tag.load(env), body).encode(env)
        });
    }
}

impl Reply {
    pub fn new(env: Env, tag: Term) -> Reply {
        Reply {
            letter: Some(Letter::new(env, tag)),
        }
    }

    pub fn send(mut self, write: impl for<'a> FnOnce(Env<'a>) -> Term<'a>) {
        if let Some(letter) = self.letter.take() {
            letter.send(write);
        }
    }
}

impl Drop for Reply {
    /// A worker that unwinds drops its answer; the process must not wait for ever.
    fn drop(&mut self) {
        if let Some(letter) = self.letter.take() {
            let message = "the answer was lost".to_owned();
            let error = Arc::new(Error::Panic { message });
            letter.send(|env| Outcome::<()>::Error(error.into()).encode(env));
        }
    }
}

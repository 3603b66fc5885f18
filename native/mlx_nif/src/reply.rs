use std::sync::Arc;

use mlx_core::{Answer, Error};
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
pub struct Reply<W = ()> {
    letter: Option<Letter>,
    write: Option<W>,
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

    /// Whether the process still runs; a later one is never taken for it.
    fn has_reader(&self) -> bool {
        self.env.run(|env| self.to.is_alive(env))
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
    /// An answer of what `write` makes of an outcome.
    pub fn new<T, W>(env: Env, tag: Term, write: W) -> Reply<W>
    where
        W: for<'a> FnOnce(Env<'a>, Result<T, Arc<Error>>) -> Term<'a>,
    {
        Reply {
            letter: Some(Letter::new(env, tag)),
            write: Some(write),
        }
    }
}

impl<T, W> Answer<T> for Reply<W>
where
    W: for<'a> FnOnce(Env<'a>, Result<T, Arc<Error>>) -> Term<'a> + Send + 'static,
{
    fn is_awaited(&self) -> bool {
        self.letter.as_ref().is_some_and(Letter::has_reader)
    }

    fn send(mut self, outcome: Result<T, Arc<Error>>) {
        if let (Some(letter), Some(write)) = (self.letter.take(), self.write.take()) {
            letter.send(|env| write(env, outcome));
        }
    }
}

/// The outcome, with what is made of its value, as `{:ok, value}` or `{:error, fields}`.
pub fn outcome<'a, T, U: Encoder>(
    env: Env<'a>,
    outcome: Result<T, Arc<Error>>,
    of: impl FnOnce(T) -> U,
) -> Term<'a> {
    Outcome::from(outcome.map(of)).encode(env)
}

impl<W> Drop for Reply<W> {
    /// A worker that unwinds drops its answer; the process must not wait for ever.
    fn drop(&mut self) {
        if let Some(letter) = self.letter.take() {
            let message = "the answer was lost".to_owned();
            let error = Arc::new(Error::Panic { message });
            letter.send(|env| Outcome::<()>::Error(error.into()).encode(env));
        }
    }
}

use mlx_core::Error;
use rustler::{Decoder, NifResult, Resource, Term, TermType};

/// A resource as an argument, for as long as the call takes. One that has been on another
/// node arrives as a reference to nothing.
pub struct Handle<'a, T: Resource>(Option<&'a T>);

/// What errors call a resource.
pub trait Named {
    const NAME: &'static str;
}

impl<'a, T: Resource + Named> Handle<'a, T> {
    pub fn get(&self) -> Result<&'a T, Error> {
        self.0.ok_or(Error::Elsewhere { what: T::NAME })
    }
}

impl<'a, T: Resource> Decoder<'a> for Handle<'a, T> {
    fn decode(term: Term<'a>) -> NifResult<Self> {
        match term.decode() {
            Ok(resource) => Ok(Handle(Some(resource))),
            Err(_) if term.get_type() == TermType::Ref => Ok(Handle(None)),
            Err(error) => Err(error),
        }
    }
}

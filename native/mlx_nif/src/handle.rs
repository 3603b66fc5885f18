use mlx_core::Error;
use rustler::{Decoder, NifResult, Resource, ResourceArc, Term, TermType};

/// A resource as an argument. One that has been on another node arrives as a reference
/// to nothing.
pub struct Handle<T: Resource>(Option<ResourceArc<T>>);

/// What errors call a resource.
pub trait Named {
    const NAME: &'static str;
}

impl<T: Resource + Named> Handle<T> {
    pub fn get(&self) -> Result<&ResourceArc<T>, Error> {
        self.0.as_ref().ok_or(Error::Elsewhere { what: T::NAME })
    }
}

impl<'a, T: Resource> Decoder<'a> for Handle<T> {
    fn decode(term: Term<'a>) -> NifResult<Self> {
        match term.decode() {
            Ok(resource) => Ok(Handle(Some(resource))),
            Err(_) if term.get_type() == TermType::Ref => Ok(Handle(None)),
            Err(error) => Err(error),
        }
    }
}

//! Terms to engine types and back. What to compute is decided on either side of here.

mod device;
mod error;
mod file;
mod garbage;
mod halt;
mod handle;
mod instruction;
mod memory;
mod openblas;
mod pointer;
mod profile;
mod program;
mod reply;
mod resident;
mod stream;
mod tensor;

/// Jobs are made on schedulers and freed on workers, which the system allocator serializes.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn load(env: rustler::Env, _info: rustler::Term) -> bool {
    resident::stay();
    mlx_core::init();
    halt::install(env);
    instruction::load(env).is_ok()
}

rustler::init!("Elixir.Mlx.Native", load = load);

//! Streams of MLX that their workers let go of, because nothing is computed on them.
//!
//! MLX has a thread for each of its streams on an NVIDIA GPU, and once the stream has
//! computed, that thread takes all of a processor until the stream is gone.

use std::time::Duration;

use once_cell::sync::OnceCell;

use crate::beside;
use crate::cuda;
use crate::device::Device;
use crate::fuse;

/// How long the stream of a worker that somebody holds may idle. What MLX has compiled for it
/// goes with it.
const HELD: Duration = Duration::from_secs(10);

static PATIENCE: OnceCell<Duration> = OnceCell::new();

/// Has the workers of every device let go of their streams after so long. The first call
/// counts.
#[doc(hidden)]
pub fn rest_after(patience: Duration) {
    let _ = PATIENCE.set(patience);
}

/// How long the stream of a worker that somebody holds may idle, if not for ever.
fn held(device: Device) -> Option<Duration> {
    let is_busy = device == Device::Gpu && cuda::is_loaded();
    PATIENCE.get().copied().or(is_busy.then_some(HELD))
}

/// How long the stream of the worker that this thread is may idle, if not for ever.
pub(crate) fn patience(device: Device, is_held: bool) -> Option<Duration> {
    // A stream of the CPU would go, too, and MLX's thread for it stay.
    if beside::exists() {
        return None;
    }
    held(device).map(|held| if is_held { held } else { Duration::ZERO })
}

/// Whether workers of the device may ever let go of their streams.
pub(crate) fn is_usual(device: Device) -> bool {
    held(device).is_some()
}

/// Lets go of the streams of this thread, on which all is computed.
pub(crate) fn let_go() {
    fuse::forget_compiled();
    // Safety: nothing on this thread refers to its streams any more, and all they have to do is
    // done.
    unsafe { mlx_core_clear_streams() };
}

extern "C" {
    fn mlx_core_clear_streams();
}

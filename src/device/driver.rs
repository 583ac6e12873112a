//! [`Driver`]: what a device with memory of its own must be able to do.

use crate::error::Result;

/// A queue of work. Work of one stream runs in order; work of two streams in any order, unless an event orders it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Stream(pub(crate) u64);

/// A point in a stream that other streams and the host can wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Event(pub(crate) u64);

/// A module that was loaded on a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Module(pub(crate) u64);

/// What to launch, and how large.
#[derive(Clone, Copy, Debug)]
pub struct Call<'a> {
    /// The module.
    pub module: Module,
    /// Entry of the module.
    pub entry: &'a str,
    /// Blocks along x, y and z.
    pub grid: [u32; 3],
    /// Threads of a block along x, y and z.
    pub block: [u32; 3],
    /// Bytes of dynamic shared memory.
    pub shared_bytes: u32,
    /// Parameters, laid out as the entry declares them.
    pub params: &'a [u8],
}

/// A device that runs PTX on memory of its own: the software CUDA device, or CUDA through `cust`.
///
/// Addresses are those of the device; the memories of all devices of one kind have distinct addresses. On the default
/// stream [`Driver::launch`] returns when the kernel has run (soft) or is queued (CUDA); [`Driver::synchronize`] waits for
/// all. Errors name the device or the kernel and its line.
pub trait Driver: Send + Sync {
    /// What the device calls itself.
    fn description(&self) -> String;
    /// Kind of driver: devices of one kind copy between each other without the host.
    fn kind(&self) -> &'static str;

    /// Address of `bytes` of memory, aligned to 256 bytes; what it holds is arbitrary.
    fn alloc(&self, bytes: u64) -> Result<u64>;
    /// Gives memory back, once all work that was queued before has run.
    fn free(&self, address: u64);
    /// Bytes that are allocated now.
    fn used(&self) -> u64;
    /// Copies from the host. The bytes are read before this returns.
    fn copy_in(&self, to: u64, from: &[u8], stream: Stream) -> Result<()>;
    /// Copies to the host, once all work that was queued in `stream` before has run.
    fn copy_out(&self, from: u64, to: &mut [u8], stream: Stream) -> Result<()>;
    /// Copies within a device or between two of one kind.
    fn copy(&self, from: u64, to: u64, bytes: u64, stream: Stream) -> Result<()>;
    /// Sets `n` elements of `size` bytes (1, 2 or 4) to `value`.
    fn fill(&self, at: u64, value: u32, size: u32, n: u64, stream: Stream) -> Result<()>;

    /// Loads PTX; `name` is how errors call it.
    fn load(&self, name: &str, ptx: &str) -> Result<Module>;
    /// Queues a kernel.
    fn launch(&self, call: &Call<'_>, stream: Stream) -> Result<()>;

    /// The stream in which work goes that names none.
    fn default_stream(&self) -> Stream;
    /// A new stream. It waits for the default stream and is waited for by it, as CUDA's blocking streams do.
    fn stream(&self) -> Result<Stream>;
    /// A new stream that neither waits for the default stream nor is waited for by it: only events order them.
    fn side_stream(&self) -> Result<Stream>;
    /// Ends a stream once its work has run.
    fn close_stream(&self, stream: Stream);
    /// A new event, which nothing waits for until it is recorded.
    fn event(&self) -> Result<Event>;
    /// Ends an event.
    fn close_event(&self, event: Event);
    /// Puts `event` behind the work that is queued in `stream` now.
    fn record(&self, event: Event, stream: Stream) -> Result<()>;
    /// Lets work that is queued in `stream` from now on wait for what `event` stands behind now, on this or on another
    /// device of the same kind.
    fn wait(&self, stream: Stream, event: Event) -> Result<()>;
    /// Seconds between two events that were recorded and have passed.
    fn seconds_between(&self, start: Event, end: Event) -> Result<f64>;
    /// Waits for `event`.
    fn synchronize_event(&self, event: Event) -> Result<()>;
    /// Waits for all work in `stream`.
    fn synchronize_stream(&self, stream: Stream) -> Result<()>;
    /// Waits for all work of the device.
    fn synchronize(&self) -> Result<()>;
}

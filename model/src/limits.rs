//! Every limit of the queue, each with its unit and its reason.

/// Largest output or payload of one subtask that travels inside a znode, in bytes; larger ones go to the block store.
pub const INLINE_SUBTASK_BYTES: usize = 4 * 1024;
/// Largest data of one entry znode, in bytes.
pub const ENTRY_BYTES: usize = 128 * 1024;
/// Largest multi-operation sent to ZooKeeper, in bytes: a packet over 1 MB (`jute.maxbuffer`) closes the connection.
pub const MULTI_BYTES: usize = 512 * 1024;
/// Most operations in one multi; more gain nothing and make a failed one dear.
pub const MULTI_OPS: usize = 500;
/// Most subtasks in one entry: eight full ones fill a recording transaction.
pub const BUNDLE_SUBTASKS: u32 = 250;
/// Most documents recorded in one MongoDB transaction: more gain nothing.
pub const RECORD_DOCUMENTS: usize = 2000;
/// Most bytes recorded in one MongoDB transaction (its log entry must stay below 16 MB).
pub const RECORD_BYTES: usize = 4 * 1024 * 1024;
/// Longest command line of a processor, in bytes: it travels in every entry of its job.
pub const COMMAND_BYTES: usize = 32 * 1024;
/// Most bytes of variables given to the commands of a job: they travel in every entry of it, too.
pub const VARIABLES_BYTES: usize = 8 * 1024;
/// Longest tail of standard error kept with a failure, in bytes.
pub const STDERR_TAIL_BYTES: usize = 2 * 1024;
/// Longest tail of standard error kept with a result, in bytes.
pub const STDERR_OK_BYTES: usize = 1024;
/// Deaths of a worker while a subtask ran alone on it that make the subtask a final failure.
pub const DEATHS_ALONE: usize = 3;

/// Times that a worker loses its session while it has a subtask, and comes back, after which the subtask has failed for good: it
/// may be what stalls them.
pub const STALLS: u32 = 10;
/// Most subtasks of one job: an index is 32 bits wide and the last one is the merge.
pub const JOB_SUBTASKS: u32 = u32::MAX - 1;
/// Longest name of a dataset, node or queue, in characters.
pub const NAME_CHARS: usize = 64;

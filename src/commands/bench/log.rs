//! `sawmill bench log`: a made-up access log on standard output.

use std::io::{self, BufWriter, Write as _};

use super::{
    access_log::{self, Site, Until},
    args::LogArgs,
};

/// Writes the log; a reader that has seen enough ends it.
pub(super) fn run(args: &LogArgs) -> anyhow::Result<()> {
    let until = args
        .bytes
        .map_or(Until::Lines(args.lines), |bytes| Until::Bytes(bytes.0));
    let site = if args.busy { Site::Busy } else { Site::Small };
    let mut to = BufWriter::with_capacity(1 << 16, io::stdout().lock());
    match access_log::write(&mut to, until, args.seed, site).and_then(|_| to.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => Ok(written?),
    }
}

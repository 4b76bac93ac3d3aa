//! `sawmill watcher`: a watcher, which records how subtasks ended.

use super::Context;
use crate::{exit::Exit, roles::Role};

/// Runs the role until SIGTERM or Ctrl-C.
///
/// # Errors
/// A wrong address, refused credentials, and what ended the role by itself.
pub async fn run(context: &Context) -> anyhow::Result<Exit> {
    super::serve(vec![Role::watcher(&context.settings)], context).await
}

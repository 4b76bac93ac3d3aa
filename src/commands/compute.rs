//! `sawmill compute`: a compute node, which claims and runs subtasks.

use super::Context;
use crate::{exit::Exit, roles::Role};

/// Runs the role until SIGTERM or Ctrl-C.
///
/// # Errors
/// A port that can't be listened on, a wrong address, refused credentials, and what ended the role by itself.
pub async fn run(context: &Context) -> anyhow::Result<Exit> {
    let role = Role::receiving_compute(&context.settings).await?;
    super::serve(vec![role], context).await
}

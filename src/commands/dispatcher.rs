//! `sawmill dispatcher`: a dispatcher, which leads or stands by, with its gateway.

use super::Context;
use crate::{exit::Exit, roles::Role};

/// Runs the roles until SIGTERM or Ctrl-C.
///
/// # Errors
/// A port that can't be listened on, a wrong address, refused credentials, and what ended a role by itself.
pub async fn run(context: &Context) -> anyhow::Result<Exit> {
    let (roles, address) = Role::serving_dispatcher(&context.settings, false).await?;
    tracing::info!(server = address, "gateway bound");
    super::serve(roles, context).await
}

//! One computing thread per engine instance: candle's thread limits, set before candle reads them.

use super::CliError;

/// Where nobody has set candle's thread limits, runs the program again (same process) with them at 1. candle reads
/// them once, from the environment, which a running program cannot change without `unsafe`. Set variables are the mark
/// that keeps this from happening twice.
#[cfg(unix)]
pub(super) fn with_one_thread_per_computation() -> Result<(), CliError> {
    use std::os::unix::process::CommandExt;
    use std::process::Command;

    let unset = crate::config::environment::unset_thread_limits();
    if unset.is_empty() {
        return Ok(());
    }
    let told = |error| {
        let variables = unset.join("=1 and ");
        CliError::Failed(format!(
            "the program cannot run itself again: {error}; set {variables}=1"
        ))
    };
    let program = std::env::current_exe().map_err(told)?;
    let mut arguments = std::env::args_os();
    let mut command = Command::new(&program);
    command.arg0(arguments.next().unwrap_or_else(|| program.into_os_string()));
    command.args(arguments).envs(unset.iter().map(|name| (name, "1")));
    // Returns only if it failed.
    Err(told(command.exec()))
}

/// Elsewhere a process cannot be replaced; the limits are the caller's to set.
#[cfg(not(unix))]
pub(super) fn with_one_thread_per_computation() -> Result<(), CliError> {
    Ok(())
}

//! Settings that candle and the C library read before `main`, set by starting again.

use super::CliError;
use crate::config::environment::Freed;

/// Where nobody has set candle's thread limits, runs the program again (same process) with them at 1, and with an
/// allocator that does with freed memory as told. Both are read once, from the environment, which a running program cannot
/// change without `unsafe`. Set variables are the mark that keeps this from happening twice.
#[cfg(unix)]
pub(super) fn to_compute(freed: Freed) -> Result<(), CliError> {
    use std::os::unix::process::CommandExt;
    use std::process::Command;

    let unset = crate::config::environment::unset_settings(freed);
    if unset.is_empty() {
        return Ok(());
    }
    let told = |error| {
        let variables: Vec<String> = unset
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        CliError::Failed(format!(
            "the program cannot run itself again: {error}; set {}",
            variables.join(" and ")
        ))
    };
    let program = std::env::current_exe().map_err(told)?;
    let mut arguments = std::env::args_os();
    let mut command = Command::new(&program);
    command.arg0(arguments.next().unwrap_or_else(|| program.into_os_string()));
    command.args(arguments).envs(unset.iter().copied());
    // Returns only if it failed.
    Err(told(command.exec()))
}

/// Elsewhere a process cannot be replaced; the limits are the caller's to set.
#[cfg(not(unix))]
pub(super) fn to_compute(_freed: Freed) -> Result<(), CliError> {
    Ok(())
}

//! `sconce serve`: the server, from a checked configuration to its exit code.

use crate::app::{self, AppError};
use crate::service::ServiceError;
use crate::telemetry::logging;

use super::{CliError, Common};

/// Flags of `sconce serve`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// IP address and port; port 0 picks a free one and prints it [default: 127.0.0.1:8080]
    #[arg(long, value_name = "ADDR")]
    listen: Option<String>,
    /// The same of the listener of those who manage [default: 127.0.0.1:8081]
    #[arg(long, value_name = "ADDR")]
    admin: Option<String>,
    /// auto, cpu or cuda:N [default: auto]
    #[arg(long, value_name = "DEVICE")]
    device: Option<String>,
    /// The model that answers where a request names none
    #[arg(long, value_name = "NAME")]
    default_model: Option<String>,
}

/// Runs it.
pub(crate) fn run(args: &Args, common: &Common) -> Result<(), CliError> {
    let config = super::resolve(common, &args.settings())?.config;
    logging::init(&config.log).map_err(|e| CliError::Usage(e.to_string()))?;
    app::serve(&config, common.started).map_err(|error| match &error {
        AppError::Service(ServiceError::Device(_) | ServiceError::Thread(_))
        | AppError::Io { .. }
        | AppError::Store(_)
        | AppError::Jobs(_)
        | AppError::Thread(_) => CliError::Failed(error.to_string()),
        AppError::Auth(_) | AppError::Tls(_) => CliError::Usage(error.to_string()),
        AppError::Folder(_) | AppError::Service(_) => CliError::Data(error.to_string()),
    })
}

impl Args {
    fn settings(&self) -> Vec<(&str, String)> {
        let flags = [
            ("http.listen", &self.listen),
            ("admin.address", &self.admin),
            ("engine.device", &self.device),
            ("default_model", &self.default_model),
        ];
        let given = |(key, value): (&'static str, &Option<String>)| Some((key, value.clone()?));
        flags.into_iter().filter_map(given).collect()
    }
}

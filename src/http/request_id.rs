//! The name of one request, in its answer and in the logs.

use std::sync::Arc;

/// A request's id; stands in the request's extensions.
#[derive(Clone, Debug)]
pub struct RequestId(pub Arc<str>);

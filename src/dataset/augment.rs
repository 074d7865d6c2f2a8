//! Random changes of a tensor that keep its label.
